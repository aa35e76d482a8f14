"""Arguments stay with those who may see them."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests.unit.dashboard.conftest import LOOKS, Login
from tests.unit.dashboard.test_access import NEEDS, WITH_ROW
from tests.unit.dead import archived
from tests.unit.recorder.seen import run
from unstuck import Celery
from unstuck.dashboard.frames import HIDDEN, place_of, without_messages
from unstuck.models import AuditEntry, DeadLetter
from unstuck.operations import replay_letter
from unstuck.recorder import facts

pytestmark = pytest.mark.django_db

ARGUMENT = "mina4711"
SECRET = "tok4242"
TRACEBACK = f"""Traceback (most recent call last):
  File "/srv/shop/pay.py", line 7, in charge
    raise KeyError(customer)
KeyError: '{ARGUMENT}'
{ARGUMENT}

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/srv/shop/tasks.py", line 9, in pay
    charge(customer)
    ^^^^^^^^^^^^^^^^
shop.PayError: no such customer
  {ARGUMENT}
"""


@pytest.fixture
def letter(app: Celery) -> DeadLetter:
    """One whose task repeats an argument wherever it can."""
    found = archived(
        app,
        task_id="t-1",
        args=[ARGUMENT],
        kwargs={"customer": ARGUMENT, "card_token": SECRET},
        exception_type="shop.PayError",
        exception_message=f"no such customer {ARGUMENT}",
        traceback=TRACEBACK,
    )
    facts.store([run("t-1", exception_message=ARGUMENT, traceback=TRACEBACK)])
    return found


def _pages(letter: DeadLetter) -> list[str]:
    urls = [
        reverse(f"unstuck:{name}", args=[letter.pk] if name in WITH_ROW else [])
        for name in NEEDS
        if name != "incidents_one"
    ]
    more = [
        reverse("unstuck:letters_replay") + f"?row={letter.pk}",
        reverse("unstuck:letters_replay") + "?all=1",
        reverse("unstuck:letters_purge") + "?all=1",
        reverse("unstuck:search") + "?q=t-1",
        reverse("unstuck:search") + "?q=shop.charge",
        reverse("unstuck:task") + "?id=t-1",
    ]
    return urls + more


@pytest.mark.parametrize("more", [(), ("operate",)])
def test_no_page_shows_an_argument_without_the_permission(
    login: Login, letter: DeadLetter, app: Celery, more: tuple[str, ...]
) -> None:
    """Not in titles, tracebacks, messages of exceptions, headers, audits or forms."""
    client = login(*LOOKS, *more)
    replay_letter(app, letter, who="olga", args=[ARGUMENT], kwargs={})
    assert AuditEntry.objects.get().details["args"] == [ARGUMENT]

    for url in _pages(letter):
        text = client.get(url, follow=True).content.decode()
        assert ARGUMENT not in text, url
        assert SECRET not in text, url


def test_a_secret_argument_is_shown_to_nobody(
    operator: Client, letter: DeadLetter
) -> None:
    """Redaction is for everybody; the message itself stays where it is."""
    for url in _pages(letter):
        text = operator.get(url, follow=True).content.decode()
        assert SECRET not in text, url
    one = reverse("unstuck:letters_one", args=[letter.pk])
    assert ARGUMENT in operator.get(one).content.decode()


@pytest.mark.parametrize(
    "query", [{"argument": ARGUMENT}, {"exception": ARGUMENT}, {"argument": "x"}]
)
def test_a_search_does_not_tell_arguments(
    viewer: Client, letter: DeadLetter, query: dict[str, str]
) -> None:
    """That something was found would be an answer as well."""
    one = reverse("unstuck:letters_one", args=[letter.pk])

    for name in ("letters", "letters_groups"):
        text = viewer.get(reverse(f"unstuck:{name}"), query).content.decode()
        assert one not in text
        assert "of 1" not in text


def test_a_search_for_an_argument_says_what_it_needs(viewer: Client) -> None:
    """Instead of finding everything or nothing in silence."""
    page = viewer.get(reverse("unstuck:letters"), {"argument": "x"})

    assert "needs the permission unstuck.view_payload" in page.content.decode()


def test_the_search_box_finds_no_arguments(viewer: Client, letter: DeadLetter) -> None:
    """It is for ids, tasks and workers."""
    page = viewer.get(reverse("unstuck:search"), {"q": ARGUMENT}).content.decode()

    assert reverse("unstuck:letters_one", args=[letter.pk]) not in page


def test_a_traceback_without_messages_keeps_where_it_was() -> None:
    """Frames, code and types stay; all that an exception says goes."""
    shown = without_messages(TRACEBACK)

    assert shown.splitlines() == [
        "Traceback (most recent call last):",
        '  File "/srv/shop/pay.py", line 7, in charge',
        "    raise KeyError(customer)",
        f"KeyError: {HIDDEN}",
        "The above exception was the direct cause of the following exception:",
        "Traceback (most recent call last):",
        '  File "/srv/shop/tasks.py", line 9, in pay',
        "    charge(customer)",
        "    ^^^^^^^^^^^^^^^^",
        f"shop.PayError: {HIDDEN}",
    ]


def _compiled() -> Callable[[BaseException], None]:
    """A function of which there are frames, and no source: as of Cython."""
    names: dict[str, Any] = {}
    source = "def pay(error):\n    raise error\n"
    exec(compile(source, "/srv/shop/pay.pyx", "exec"), names)
    pay: Callable[[BaseException], None] = names["pay"]
    return pay


def _raised(error: Exception) -> Exception:
    """The same, once it was raised where there is no source."""
    try:
        _compiled()(error)
    except type(error):
        return error
    raise AssertionError("It was not raised")


def test_what_is_raised_where_there_is_no_source_is_no_code() -> None:
    """Alone and in a group, whatever its message and its name look like."""

    class Refused(Exception):
        pass

    said = f"{ARGUMENT}\n      {ARGUMENT}\n{ARGUMENT}: x"
    errors = [_raised(KeyError(said)), _raised(Refused(said))]
    group = _raised(ExceptionGroup(ARGUMENT, errors))
    for error in (*errors, group):
        text = "".join(traceback.format_exception(error))
        assert ARGUMENT in text

        shown = without_messages(text)

        assert ARGUMENT not in shown
        assert f"{type(error).__name__}: {HIDDEN}" in shown
        assert 'File "/srv/shop/pay.pyx", line 2, in pay' in shown
        place = place_of(text)
        assert place is not None
        assert (place.function, place.code) == ("pay", "")


def test_frames_go_on_behind_what_is_left_out() -> None:
    """The further lines of a statement, and frames that come again and again."""
    shown = without_messages(
        """Traceback (most recent call last):
  File "/srv/shop/pay.py", line 7, in charge
    charge(
    ~~~~~~^
        customer,
        ^^^^^^^^^
    )
  [Previous line repeated 3 more times]
  File "/srv/shop/pay.py", line 9, in book
    eval(text)
  File "<string>", line 1
    mina@
        ^
SyntaxError: invalid syntax
"""
    )

    assert shown.splitlines() == [
        "Traceback (most recent call last):",
        '  File "/srv/shop/pay.py", line 7, in charge',
        "    charge(",
        "    ~~~~~~^",
        "        ^^^^^^^^^",
        '  File "/srv/shop/pay.py", line 9, in book',
        "    eval(text)",
        "        ^",
        f"SyntaxError: {HIDDEN}",
    ]


@pytest.mark.parametrize("text", ["", "mina", "mina: x\n  mina", "| mina\n+ mina: 1"])
def test_what_is_no_traceback_is_hidden_whole(text: Any) -> None:
    """Nobody knows what it quotes."""
    assert without_messages(text) == ""
