"""``manage.py unstuck dead …``."""

from __future__ import annotations

import io
import json
import sys
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.command import unstuck
from tests.unit.dead import BURIED_AT, archived, buried, published
from unstuck import BrokerUnreachable, Celery
from unstuck.core.clock import system_clock
from unstuck.core.verdict import Reason
from unstuck.letters import queue
from unstuck.management.verbs import _asking
from unstuck.models import AuditEntry, DeadLetter

pytestmark = pytest.mark.django_db


def _json(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> Any:
    assert unstuck(*words, "--json") == status
    return json.loads(capsys.readouterr().out)


def _rows(capsys: pytest.CaptureFixture[str], *words: str) -> list[int]:
    listed = _json(capsys, "dead", "list", *words)
    return [letter["id"] for letter in listed["letters"]]


class Terminal(io.StringIO):
    """A standard input with somebody behind it."""

    def isatty(self) -> bool:
        return True


def test_list_shows_a_line_for_each_letter(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """Id, task, reason and how it ended; the newest first."""
    archived(app, exception_message="card refused")
    archived(app, reason=Reason.POISON, cause="out of memory")

    assert unstuck("dead", "list") == 0

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "poison" in lines[1]
    assert "out of memory" in lines[1]
    assert "shop.charge" in lines[2]
    assert "ValueError: card refused" in lines[2]


def test_what_a_task_raised_cannot_write_on_the_terminal(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escape sequences and line breaks come out as text."""
    letter = archived(app, exception_message="a\x1b[2Jb\nc", traceback="d\x1b[2Je\nf")

    unstuck("dead", "list")
    unstuck("dead", "show", str(letter.pk))

    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"a\x1b[2Jb c" in out
    assert "d\\x1b[2Je\nf" in out


def test_list_filters(app: Celery, capsys: pytest.CaptureFixture[str]) -> None:
    """Each filter leaves the letters that fit."""
    one = archived(
        app, task_id="aaaa-1", reason=Reason.HARD_LIMIT, kwargs={"city": "Köln"}
    )
    two = archived(
        app,
        task_id="bbbb-2",
        task="shop.mail",
        exception_message="mailbox full",
        buried_at=system_clock() - timedelta(hours=1),
    )

    assert _rows(capsys, "--task", "shop.mail") == [two.pk]
    assert _rows(capsys, "--reason", "hard_limit") == [one.pk]
    assert _rows(capsys, "--since", "2h") == [two.pk]
    assert _rows(capsys, "--until", "2026-06-01") == [one.pk]
    assert _rows(capsys, "--until", BURIED_AT.isoformat()) == []
    assert _rows(capsys, "--id", "aaaa") == [one.pk]
    assert _rows(capsys, "--search", "MAILBOX") == [two.pk]
    assert _rows(capsys, "--search", "Köln") == [one.pk]
    assert _rows(capsys, "--limit", "1") == [two.pk]


def test_list_groups_letters_of_the_same_trouble(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """By fingerprint, the largest group first."""
    archived(app, reason=Reason.REJECTED)
    for _ in range(2):
        archived(app)

    groups = _json(capsys, "dead", "list", "--grouped")["groups"]

    assert [(group["reason"], group["count"]) for group in groups] == [
        ("failed", 2),
        ("rejected", 1),
    ]
    assert "charge" in groups[0]["fingerprint"]


def test_list_counts_what_still_waits_on_the_broker(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """A letter that nobody has archived yet is not forgotten."""
    queue.bury(app, buried(app))

    listed = _json(capsys, "dead", "list")
    unstuck("dead", "list")

    assert listed["waiting_on_broker"] == 1
    assert "1 more wait on the broker" in capsys.readouterr().err


def test_list_does_not_need_the_broker(
    app: Celery, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is away the list says so, and is there."""

    def refuse(_: Any) -> int:
        raise BrokerUnreachable("The broker did not answer")

    archived(app)
    monkeypatch.setattr(queue, "waiting", refuse)

    assert unstuck("dead", "list") == 0

    printed = capsys.readouterr()
    assert "shop.charge" in printed.out
    assert "could not ask (The broker did not answer)" in printed.err


def test_an_unknown_reason_is_a_usage_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is named, with the one that was meant and all there are."""
    assert unstuck("dead", "list", "--reason", "fialed") == 2

    error = capsys.readouterr().err
    assert "Did you mean 'failed'?" in error
    assert "hard_limit" in error


@pytest.mark.parametrize(
    "words",
    [
        ["list", "--since", "yesterday-ish"],
        ["list", "--since", "999999w"],
        ["list", "--until", "0001-01-01T00:00+09:00"],
        ["list", "--limit", "0"],
        ["replay"],
        ["replay", "--all", "--task", "x"],
        ["replay", "1", "--all"],
        ["replay", "1", "--rate", "0"],
        ["replay", "1", "2", "--args", "[]"],
        ["replay", "--all", "--kwargs", "{}"],
        ["replay", "1", "--args", "{}"],
        ["replay", "1", "--kwargs", "no json"],
        ["purge", "1"],
        ["purge", "--why", "x"],
        [],
    ],
)
def test_a_command_line_that_makes_no_sense_is_a_usage_error(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, and something on stderr."""
    assert unstuck("dead", *words) == 2

    assert capsys.readouterr().err


def test_show_prints_everything_known(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """Traceback and redacted arguments, but not the message."""
    letter = archived(app, args=[42, "s3cret"], kwargs={"password": "hunter2", "x": 1})

    assert unstuck("dead", "show", str(letter.pk)) == 0

    out = capsys.readouterr().out
    assert 'File "/srv/shop/billing.py", line 7, in charge' in out
    assert "[42, '[redacted]']" in out
    assert "'x': 1" in out
    assert "s3cret" not in out
    assert "hunter2" not in out


def test_show_prints_the_message_when_asked(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--payload`` is for operators: the body as it was on the broker."""
    letter = archived(app, kwargs={"password": "hunter2"})

    shown = _json(capsys, "dead", "show", str(letter.pk), "--payload")
    unstuck("dead", "show", str(letter.pk), "--payload")

    assert "hunter2" in shown["message"]["body"]
    assert "hunter2" in capsys.readouterr().out


def test_a_body_that_is_no_text_is_shown_as_base64(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of an undecodable message is hidden."""
    letter = archived(app, body=b"\xff\x00")

    shown = _json(capsys, "dead", "show", str(letter.pk), "--payload")

    assert shown["message"]["body_base64"] == "/wA="
    assert shown["args"] is None


def test_a_letter_is_found_by_any_of_its_ids(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """Row id, task id, letter id, and the beginning of the latter two."""
    letter = archived(app, task_id="abcd1234-5678")
    archived(app, task_id="ffff9999-0000")

    letter_id = str(letter.letter_id)
    for text in (
        str(letter.pk), "abcd1234-5678", "abcd", letter_id, letter_id[:13]
    ):  # fmt: skip
        assert _json(capsys, "dead", "show", text)["id"] == letter.pk


@pytest.mark.parametrize("text", ["999999", "9" * 30, "nope-nope", "abc", "²"])
def test_an_unknown_id_is_one_clear_line(
    app: Celery, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """Exit status 1, no traceback; a prefix of three is not enough."""
    archived(app, task_id="abcd1234-5678")

    assert unstuck("dead", "show", text) == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"Error: There is no dead letter {text!r}.")


def test_digits_are_never_a_prefix(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who replays the purged row 12345 does not replay a task that begins so."""
    row = archived(app, task_id="1234567-89").pk

    assert unstuck("dead", "show", "12345") == 1

    told = capsys.readouterr().err
    assert (
        f"there is no such row. Ids of the rows {row} begin so: use the row id" in told
    )


def test_a_row_whose_digits_begin_an_id_is_told(
    app: Celery, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the row, and says so; at a terminal somebody is asked before it is replayed."""
    row = archived(app, task_id="first")
    DeadLetter.objects.filter(pk=row.pk).update(id=4102)
    other = archived(app, task_id="4102-abcd").pk
    third = archived(app, task_id="x")
    letter_id = "4102ffff-ffff-ffff-ffff-ffffffffffff"
    DeadLetter.objects.filter(pk=third.pk).update(letter_id=letter_id)
    words = f"4102 is taken for the row. The ids of the rows {other}, {third.pk} begin so, too"

    assert _json(capsys, "dead", "show", "4102")["task_id"] == "first"
    assert unstuck("dead", "show", "4102") == 0
    assert words in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert unstuck("dead", "replay", "4102") == 2

    assert words in capsys.readouterr().err
    assert not DeadLetter.objects.filter(replayed_at__isnull=False).exists()


def test_an_ambiguous_id_names_the_rows(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that says between which to choose."""
    rows = [archived(app, task_id=f"abcd-{number}").pk for number in range(2)]

    assert unstuck("dead", "show", "abcd") == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert all(str(row) in line for row in rows)


def test_replay_puts_one_letter_back(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """No question asked; the audit entry says who."""
    letter = archived(app)

    words = ("dead", "replay", str(letter.pk), "--why", "fixed")
    report = _json(capsys, *words)

    (message,) = published(app)
    assert report["replayed"] == {str(letter.pk): message.headers["id"]}
    entry = AuditEntry.objects.get()
    assert "@" in entry.who
    assert entry.why == "fixed"


def test_replay_takes_edited_arguments(app: Celery) -> None:
    """``--args`` replaces the positional ones."""
    letter = archived(app, args=[42])

    assert unstuck("dead", "replay", str(letter.pk), "--args", "[7]") == 0

    (message,) = published(app)
    assert json.loads(message.body)[0] == [7]


def test_a_second_replay_is_refused(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with the remedy, exit status 1; ``--again`` does it."""
    letter = archived(app)
    unstuck("dead", "replay", str(letter.pk))
    capsys.readouterr()

    assert unstuck("dead", "replay", str(letter.pk)) == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert "--again" in line
    assert unstuck("dead", "replay", str(letter.pk), "--again") == 0
    assert len(published(app)) == 2


def test_one_unknown_id_among_several_replays_none(app: Celery) -> None:
    """A typing error does not leave half of the work done."""
    letter = archived(app)

    assert unstuck("dead", "replay", str(letter.pk), "999999") == 1

    assert published(app) == []


def test_a_replay_of_many_needs_yes_where_nobody_can_be_asked(
    app: Celery, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says how many it would be, and is a usage error."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    archived(app)
    archived(app)

    assert unstuck("dead", "replay", "--all") == 2

    assert "2 dead letters" in capsys.readouterr().err
    assert published(app) == []


@pytest.mark.parametrize("words", [("replay",), ("purge", "--why", "known")])
def test_where_none_fits_nobody_is_asked(
    app: Celery, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Nor need be: a script that looks after letters is well when there are none."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    archived(app)

    assert unstuck("dead", *words, "--task", "shop.tasks.gone") == 0
    assert DeadLetter.objects.count() == 1


@pytest.mark.parametrize(("answer", "status", "sent"), [("y\n", 0, 2), ("\n", 1, 0)])
def test_a_replay_of_many_asks_at_a_terminal(
    app: Celery, monkeypatch: pytest.MonkeyPatch, answer: str, status: int, sent: int
) -> None:
    """Only a yes is a yes."""
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    archived(app)
    archived(app)

    assert unstuck("dead", "replay", "--all") == status

    assert len(published(app)) == sent


def test_a_replay_by_filter_takes_what_fits_and_was_not_replayed(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other tasks, and what somebody has replayed, are left alone."""
    fitting, done, other = archived(app), archived(app), archived(app, task="shop.mail")
    unstuck("dead", "replay", str(done.pk))
    capsys.readouterr()

    words = ("--task", "shop.charge", "--reason", "failed", "--yes")
    report = _json(capsys, "dead", "replay", *words)

    assert list(report["replayed"]) == [str(fitting.pk)]
    assert DeadLetter.objects.get(pk=other.pk).replayed_as == ""


def test_purge_says_why(app: Celery) -> None:
    """The reason goes into the audit entry."""
    letter, kept = archived(app), archived(app)

    assert unstuck("dead", "purge", str(letter.pk), "--why", "noise", "--yes") == 0

    assert DeadLetter.objects.get() == kept
    assert AuditEntry.objects.get().why == "noise"


def test_purge_of_all_needs_yes_where_nobody_can_be_asked(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is deleted by accident."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    archived(app)

    assert unstuck("dead", "purge", "--all", "--why", "noise") == 2

    assert DeadLetter.objects.exists()


@pytest.mark.parametrize("words", [("replay",), ("purge", "--why", "noise")])
def test_what_is_buried_after_the_question_is_left_alone(
    app: Celery, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Whoever says yes to one letter does not mean two."""
    archived(app)
    late: list[DeadLetter] = []

    def confirm(question: str, *, yes: bool) -> bool:
        assert "1 dead letter" in question
        late.append(archived(app))
        return True

    monkeypatch.setattr(_asking, "confirm", confirm)

    assert unstuck("dead", *words, "--all") == 0

    assert list(DeadLetter.objects.filter(replayed_at=None)) == late


def test_archive_stores_what_waits_on_the_broker(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a worker; a second time there is nothing left to do."""
    queue.bury(app, buried(app, task_id="abcd"))

    assert _json(capsys, "dead", "archive") == {"archived": 1}
    assert _json(capsys, "dead", "archive") == {"archived": 0}

    assert DeadLetter.objects.get().task_id == "abcd"


def test_archive_redacts_by_the_signature_of_the_task(app: Celery) -> None:
    """The second parameter of this task is a token."""
    queue.bury(app, buried(app, args=[42, "s3cret"]))

    unstuck("dead", "archive")

    assert DeadLetter.objects.get().args == [42, "[redacted]"]
