"""Telling: a real server that takes, refuses or hangs, a mail, a function."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import django
import pytest
from django.core.mail import EmailMessage

from tests.unit.recorder.seen import NOON
from tests.unit.recorder.test_alerts import late_queue, letter
from tests.waiting import eventually
from tests.webhook import SECRET, Webhook, listening
from unstuck import Celery
from unstuck.core.alerts import Target, targets
from unstuck.core.clock import system_clock
from unstuck.models import Alert
from unstuck.recorder.alerts import rows, sending, teller
from unstuck.recorder.alerts.message import trial
from unstuck.recorder.alerts.teller import Call, Teller
from unstuck.recorder.leader import leader_of

pytestmark = pytest.mark.django_db

HEARD: list[Any] = []
LET_GO = threading.Event()


def hear(message: dict[str, Any]) -> None:
    """A function that is told."""
    HEARD.append(message)


def hang(message: dict[str, Any]) -> None:
    """One that takes no message until it may."""
    LET_GO.wait(60)
    hear(message)


def fail(message: dict[str, Any]) -> None:
    """One that fails, whatever it is told."""
    raise SystemExit(f"no: {message['title'][:4]}")


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with listening() as hook:
        yield hook


@pytest.fixture(autouse=True)
def _nothing_heard() -> Iterator[None]:
    HEARD.clear()
    LET_GO.clear()
    yield
    LET_GO.set()


class Telling:
    """A teller whose clock stands still until it is set."""

    def __init__(self, *to: str) -> None:
        self.now, self.mono = NOON, 1000.0
        self.targets: list[Target] = targets([{"to": one} for one in to])
        self.teller = self.another()

    def another(self) -> Teller:
        """That of the next leader."""
        return Teller(self.targets, lambda: self.now, lambda: self.mono)

    def look(self) -> None:
        """Look for what is to be told."""
        rows.look(self.targets, self.now, "unstuck.dead")

    def until(self, done: Callable[[], bool]) -> None:
        """Let it work until that is so."""

        def turn() -> bool:
            self.teller.work()
            return done()

        eventually(turn, 20)


def all_told() -> bool:
    """Whether every row has arrived."""
    return not Alert.objects.filter(told_at=None).exists()


def failures() -> int:
    """How often the rows could not be told, the worst of them."""
    return max(Alert.objects.values_list("attempts", flat=True))


def test_each_kind_of_target_gets_the_same(
    hook: Webhook, mailoutbox: list[EmailMessage]
) -> None:
    """A POST, a mail, a call."""
    telling = Telling(hook.url, "mailto:a@x.example,b@x.example", f"{__name__}.hear")
    letter()
    late_queue(NOON)
    telling.look()

    telling.until(all_told)

    (heard,) = hook.heard
    (called,) = HEARD
    (mail,) = mailoutbox
    assert heard["text"] == called["text"] == mail.body
    assert heard["title"] == called["title"]
    assert mail.subject == f"[unstuck] {heard['title']}"
    assert mail.to == ["a@x.example", "b@x.example"]
    assert [alert["state"] for alert in heard["alerts"]] == ["new", "firing"]


@pytest.mark.parametrize("answer", [500, 404, 302])
def test_what_is_refused_is_tried_again_until_it_is_taken(
    hook: Webhook, answer: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so once, and no secret."""
    hook.answer = answer
    telling = Telling(hook.url)
    letter()
    telling.look()
    with caplog.at_level(logging.WARNING, teller.__name__):
        for attempt in (1, 2, 3):
            telling.until(lambda attempt=attempt: failures() == attempt)
            telling.now += timedelta(hours=1)
        assert str(answer) in Alert.objects.get().last_error
        hook.answer = 200
        telling.until(all_told)

    assert len(hook.heard) == 4
    said = [record.getMessage() for record in caplog.records]
    assert [words.split(": target=http")[0] for words in said] == [
        "Alerts do not reach a target",
        "Alerts reach a target again",
    ]
    assert SECRET not in "".join(said)
    assert (Alert.objects.get().attempts, Alert.objects.get().last_error) == (0, "")


def test_a_target_that_is_not_there_fails_without_a_secret() -> None:
    """What came of it is kept with the row."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/{SECRET}"
        telling = Telling(url)
        letter()
        telling.look()
        telling.until(lambda: failures() == 1)

    row = Alert.objects.get()
    assert "Connection refused" in row.last_error
    stored = repr(list(Alert.objects.values_list()))
    assert SECRET not in stored


def test_nobody_waits_for_a_target_that_hangs(
    hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the other chores nor the other targets; until it fails it gets no second
    message."""
    monkeypatch.setattr(sending, "ANSWER_SECONDS", 60.0)
    hook.answer = None
    telling = Telling(hook.url, f"{__name__}.hear")
    letter()
    telling.look()
    telling.until(lambda: bool(HEARD and hook.heard))
    for _ in range(3):
        telling.teller.work()
    assert len(hook.heard) == 1
    telling.mono += teller.GIVE_UP_SECONDS
    telling.until(lambda: failures() == 1)

    failed = Alert.objects.exclude(last_error="").get()
    assert failed.last_error == "it did not take the message within 20 s"


def test_a_target_that_hangs_is_tried_again_until_too_many_messages_are_left_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is told of what waits when it lets go."""
    eventually(lambda: not hanging())
    telling = Telling(f"{__name__}.hang")
    letter()
    telling.look()

    for attempt in range(1, teller.MOST_HANGING + 1):
        telling.teller.work()
        telling.mono += teller.GIVE_UP_SECONDS
        telling.until(lambda attempt=attempt: failures() == attempt)
        telling.now += timedelta(hours=1)
    assert len(hanging()) == teller.MOST_HANGING
    telling.teller.work()
    telling.teller.work()

    assert len(hanging()) == teller.MOST_HANGING
    said = [record.getMessage() for record in caplog.records]
    assert [words.split(": ")[0] for words in said] == [
        "Alerts do not reach a target",
        "A target lets no message go, and gets no more until it does or another "
        "recorder leads",
    ]
    LET_GO.set()
    telling.until(all_told)
    assert failures() == 0
    eventually(lambda: not hanging())
    telling.teller.work()
    assert len(HEARD) == teller.MOST_HANGING


def hanging() -> list[threading.Thread]:
    """Threads that are with a target."""
    return [one for one in threading.enumerate() if one.name == "unstuck alert"]


def test_a_server_of_mail_that_says_nothing_is_tried_again(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Django would wait for it for ever."""
    monkeypatch.setattr(sending, "MAIL_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        send_mail_to(settings, *server.getsockname())
        telling = Telling("mailto:ops@x.example")
        letter()
        telling.look()
        for attempt in (1, 2):
            telling.until(lambda attempt=attempt: failures() == attempt)
            server.accept()[0].close()
            telling.now += timedelta(hours=1)

    assert Alert.objects.get().last_error.endswith(": timed out")


def send_mail_to(settings: Any, host: str, port: int) -> None:
    """Have mail sent there, as each Django wants to be told."""
    if django.VERSION >= (6, 1):
        settings.MAILERS = {"default": {"OPTIONS": {"host": host, "port": port}}}
        return
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = host, port
    assert settings.EMAIL_TIMEOUT is None


def test_a_function_may_do_whatever_it_likes() -> None:
    """It ends its thread and nothing else."""
    telling = Telling(f"{__name__}.fail", f"{__name__}.missing")
    letter()
    telling.look()
    telling.until(lambda: set(Alert.objects.values_list("attempts")) == {(1,)})

    errors = sorted(Alert.objects.values_list("last_error", flat=True))
    assert errors[0].startswith("ImportError: ")
    assert errors[1] == "SystemExit: no: NEW"


def test_who_dies_between_telling_and_noting_it_is_followed_by_who_tells_again() -> (
    None
):
    """At least once."""
    telling = Telling(f"{__name__}.hear")
    letter()
    telling.look()
    telling.teller.work()
    eventually(lambda: HEARD)
    assert not all_told()

    telling.teller = telling.another()
    telling.until(all_told)

    assert [message["text"] for message in HEARD] == [HEARD[0]["text"]] * 2


def test_the_next_leader_does_not_tell_what_was_told() -> None:
    """But that it is over."""
    telling = Telling(f"{__name__}.hear")
    late_queue(NOON)
    telling.look()
    telling.until(all_told)
    telling.teller = telling.another()
    telling.now += timedelta(minutes=5)
    late_queue(telling.now)
    telling.look()
    telling.teller.work()
    assert len(HEARD) == 1
    telling.now += timedelta(minutes=5)
    late_queue(telling.now, 1.0)
    telling.look()
    telling.until(lambda: len(HEARD) == 2)

    assert HEARD[1]["alerts"][0]["state"] == "resolved"


def test_a_trial_says_what_came_of_it(hook: Webhook) -> None:
    """Bounded, whatever the target does."""
    good, bad = targets([{"to": hook.url}, {"to": f"{__name__}.fail"}])

    assert Call(good, trial()).wait() == ""
    assert Call(bad, trial()).wait() == "SystemExit: no: TEST"
    assert hook.texts[0].startswith("TEST ")
    hook.answer = None
    jump = iter([0.0, teller.GIVE_UP_SECONDS])
    assert "did not take" in Call(good, trial(), (), lambda: next(jump)).wait()


def test_the_leader_does_it(app: Celery, settings: Any) -> None:
    """As two of its chores; where nobody is to be told, there are none."""
    settings.UNSTUCK = {"ALERTS": [{"to": f"{__name__}.hear"}]}
    leader = leader_of(app, "one@host")
    letter(system_clock())

    def turn() -> bool:
        leader.work()
        return bool(HEARD)

    eventually(turn, 20)
    assert "NEW New trouble: shop.send was buried" in HEARD[0]["text"]
    assert leader.failed == 0
