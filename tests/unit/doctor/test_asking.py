"""How it asks: within a bound, each part for itself."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tests.unit.command import unstuck
from tests.unit.doctor import seen as s
from unstuck.doctor.ask import together
from unstuck.doctor.ask.management import Management, parsed
from unstuck.doctor.ask.skews import skew
from unstuck.doctor.examine import Report
from unstuck.doctor.facts import Part, Seen
from unstuck.doctor.rule import Level, run
from unstuck.doctor.table import TABLE


class Connection:
    """What is asked of a broker's connection."""

    ssl = False
    hostname, userid, password = "rabbit", "shop", "pw"


def test_one_that_hangs_or_fails_keeps_nobody_else_from_answering() -> None:
    """It is left behind, and said to have been."""
    over = threading.Event()

    def fail() -> Any:
        raise OSError("Connection\n refused.")

    began = time.monotonic()
    answers = together(
        {
            Part.BROKER: lambda: over.wait(60),
            Part.DATABASE: fail,
            Part.NODES: lambda: "two",
        },
        seconds=0.5,
    )
    over.set()

    assert time.monotonic() - began < 30
    assert answers[Part.BROKER].problem == "no answer within 0.5 s"
    assert answers[Part.DATABASE].problem == "Connection refused"
    assert answers[Part.NODES].value == "two"


@pytest.mark.parametrize(
    ("said", "ahead"), [(105.0, 0.0), (100.0, 0.0), (90.0, -10.0), (130.0, 20.0)]
)
def test_a_clock_is_ahead_by_what_the_way_cannot_explain(
    said: float, ahead: float
) -> None:
    """Asked at 100, heard at 110."""
    assert skew(said, 100.0, 110.0) == ahead


@pytest.mark.parametrize(
    ("url", "host", "port", "user"),
    [
        (None, "rabbit", 15672, "shop"),
        ("http://other/api", "other", 15672, "shop"),
        ("https://ops:secret@other", "other", 15671, "ops"),
        ("http://other:8080", "other", 8080, "shop"),
    ],
)
def test_where_the_management_api_is(
    url: str | None, host: str, port: int, user: str
) -> None:
    """Beside the broker, unless somebody says where; the password is never shown."""
    api = Management.of(Connection(), url)

    assert (api.host, api.port, api.user) == (host, port, user)
    assert "pw" not in repr(api)
    assert "secret" not in repr(api)


@pytest.mark.parametrize(
    "url", ["rabbit:15672", "ftp://rabbit", "http://", "http://a:b"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    """With what to write instead."""
    with pytest.raises(ValueError, match="no address of RabbitMQ's management API"):
        parsed(url)


@pytest.mark.parametrize(
    "words", [("--fail-level", "fatal"), ("--timeout", "0"), ("--rabbitmq-api", "here")]
)
def test_bad_usage(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, before anybody is asked."""
    assert unstuck("doctor", *words) == 2
    assert words[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seen", "levels"),
    [
        (s.WELL, ("error", "warning", "info")),
        (s.longest(40.0), ("error", "warning")),
        (s.redis(skew=9.0), ("error",)),
        (s.redis(evicted=1), ()),
        (Seen(now=s.NOW, here=s.HERE, unasked={Part.BROKER: "away"}), ()),
        (Seen(now=s.NOW, here=s.HERE, unasked={Part.DATABASE: "away"}), ()),
        (Seen(now=s.NOW, here=s.HERE, unasked={Part.NODES: "none"}), ()),
    ],
)
def test_what_is_well_by_which_level(seen: Seen, levels: tuple[str, ...]) -> None:
    """What was not asked never is."""
    findings = tuple(run(TABLE.values(), seen))
    report = Report(findings=findings, silenced=0, seen=seen)

    allowed = [
        each for each in ("error", "warning", "info") if report.is_well(Level(each))
    ]

    assert tuple(allowed) == levels
