"""Arguments that somebody edits: what is left alone stays as the message has it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from kombu.utils import json as kombu_json

from tests.unit.dead import archived
from unstuck import Celery
from unstuck.dashboard.edit import Arguments, EditError, completed, shown
from unstuck.models import DeadLetter

pytestmark = pytest.mark.django_db

TYPED = {
    "args": [date(2026, 5, 31), UUID(int=7), True],
    "kwargs": {
        "at": datetime(2026, 5, 31, 12, tzinfo=UTC),
        "sums": [Decimal("1.10"), Decimal("2.20")],
        "cards": [{"pin": "1", "no": 1}, {"pin": "2", "no": 2}],
        "note": "x",
    },
}


@pytest.fixture
def typed(app: Celery, settings: Any) -> DeadLetter:
    """A letter with what JSON has no types for, and with secrets."""
    settings.UNSTUCK = {"REDACT": ["pin"]}
    embed: dict[str, Any] = {"chain": None}
    body = kombu_json.dumps([TYPED["args"], TYPED["kwargs"], embed])
    return archived(app, body=body.encode())


def _body_of(letter: DeadLetter) -> Arguments:
    args, kwargs, _embed = json.loads(bytes(letter.message))
    return Arguments(args, kwargs)


def test_what_nobody_edits_is_sent_as_it_was(typed: DeadLetter) -> None:
    """With the types that the form cannot show."""
    before = shown(typed)
    assert before is not None
    assert before.kwargs["sums"] == ["1.10", "2.20"]

    assert completed(typed, before) == _body_of(typed)


def _changed(typed: DeadLetter, change: Callable[[Arguments], object]) -> Arguments:
    """What is sent when the form is changed so."""
    edited = copy.deepcopy(shown(typed))
    assert edited is not None
    change(edited)
    return completed(typed, edited)


def test_an_edit_keeps_the_types_of_all_else(typed: DeadLetter) -> None:
    """What was edited is sent as it was typed, also where Python finds it equal."""
    was = _body_of(typed)

    sent = _changed(typed, lambda edited: edited.kwargs.update(note="y"))
    assert sent == Arguments(was.args, {**was.kwargs, "note": "y"})

    sent = _changed(typed, lambda edited: edited.args.__setitem__(2, 1))
    assert sent.args[:2] == was.args[:2]
    assert sent.args[2] is not True

    sent = _changed(typed, lambda edited: edited.kwargs["sums"].__setitem__(1, "3"))
    assert sent.kwargs["sums"] == [was.kwargs["sums"][0], "3"]


def test_items_keep_their_types_and_secrets_where_they_move(typed: DeadLetter) -> None:
    """Within their list: nothing takes what belongs to its neighbour."""
    was = _body_of(typed).kwargs

    for name in ("sums", "cards"):
        sent = _changed(typed, lambda edited, name=name: edited.kwargs[name].pop(0))
        assert sent.kwargs[name] == was[name][1:]
        sent = _changed(typed, lambda edited, name=name: edited.kwargs[name].reverse())
        assert sent.kwargs[name] == was[name][::-1]


def test_a_redacted_value_is_put_back_in_its_own_place_only(typed: DeadLetter) -> None:
    """Elsewhere nobody knows which one is meant."""

    def changed(edited: Arguments) -> None:
        edited.kwargs["cards"][:] = [{"pin": "[redacted]", "no": 3}]

    with pytest.raises(EditError, match=r"At kwargs\.cards\[0\]\.pin there is no"):
        _changed(typed, changed)
    with pytest.raises(EditError, match=r"At args\[0\] there is no"):
        _changed(typed, lambda edited: edited.args.__setitem__(0, "[redacted]"))
