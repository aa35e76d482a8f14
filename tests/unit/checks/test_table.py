"""The table of rules as a whole: what it promises, and whole projects."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import ERROR
from kombu.transport import redis

from tests.unit.checks import samples
from tests.unit.checks.rules import Site, all_found, found_by
from tests.unit.checks.test_rules import FIRING, SILENT
from unstuck.checks import known
from unstuck.checks.rule import BROKEN, Rule, rule, run
from unstuck.checks.table import TABLE
from unstuck.checks.view import Project

DOCS = Path(__file__).parents[3] / "docs" / "checks.md"

TIPS = {
    "TASK_TIME_LIMIT": 300,
    "TASK_SOFT_TIME_LIMIT": 270,
    "TASK_DEFAULT_RETRY_DELAY": 60,
    "TASK_MAX_RETRIES": 3,
    "WORKER_PREFETCH_MULTIPLIER": 1,
    "ACKS_LATE": True,
    "TASK_REJECT_ON_WORKER_LOST": True,
}
"""What the document that started this project recommends."""


def test_there_are_many_and_each_says_what_it_is() -> None:
    """An id begins with its level; no title is there twice."""
    assert len(TABLE) >= 60
    assert len({each.title for each in TABLE.values()} - {"the same of one task"}) > 60
    assert all(re.fullmatch(r"[EW]\d{3}", number) for number in TABLE)


def test_each_is_tested_on_a_project_where_it_fires_and_on_one_where_not() -> None:
    """In these modules; those of before them have tests of their own."""
    tests = Path(__file__).parent.glob("test_*.py")
    text = "\n".join(path.read_text() for path in tests)
    firing, silent = {case[0] for case in FIRING}, {case[0] for case in SILENT}

    for number in TABLE:
        asserted = f"unstuck.{number}" in text or number in ("E001", "E002")
        assert asserted or {number} <= firing & silent, number


def test_every_id_is_documented_once_in_order() -> None:
    """An id without words is no help, and none may mean two things."""
    anchors = re.findall(r'<a id="([ew]\d{3})"></a>', DOCS.read_text())

    assert sorted(anchors) == sorted(n.lower() for n in {*TABLE, BROKEN[-4:]})
    assert anchors == sorted(anchors)


def test_a_number_that_is_taken_cannot_be_given_again() -> None:
    """Two rules under one id could not be silenced apart."""
    with pytest.raises(ValueError, match="E020 is there already"):
        rule("E020", title="another")(lambda _: ())


def test_the_settings_of_the_tips_pass() -> None:
    """As they are written there, with tasks as they are written there."""
    tasks: list[Any] = [
        (samples.plain, {"time_limit": 300}),
        (samples.sends, {"soft_time_limit": 270}),
        (
            samples.retries_soon,
            {"bind": True, "max_retries": 3, "default_retry_delay": 60},
        ),
    ]

    assert all_found(Site(TIPS, tasks)) == []


@pytest.mark.parametrize(
    ("wrong", "number"),
    [
        ({"TASK_TIME_LIMT": 300}, "E020"),
        ({"ACK_LATE": True}, "E020"),
        ({"TASK_SOFT_TIME_LIMIT": "270"}, "E005"),
        ({"TASK_SOFT_TIME_LIMIT": 300}, "E003"),
    ],
)
def test_each_typical_slip_in_them_does_not(wrong: dict[str, Any], number: str) -> None:
    """It is an error, by which `manage.py check` fails and a worker does not start."""
    errors = {
        each.id for each in all_found(Site({**TIPS, **wrong})) if each.level >= ERROR
    }

    assert errors == {f"unstuck.{number}"}


def test_three_slips_at_once_are_three_errors() -> None:
    """None hides another."""
    wrong = {"TASK_TIME_LIMT": 300, "ACK_LATE": True, "TASK_SOFT_TIME_LIMIT": "270"}
    errors = [each.id for each in all_found(Site(wrong)) if each.level >= ERROR]

    assert sorted(map(str, errors)) == ["unstuck.E005", "unstuck.E020", "unstuck.E020"]


def test_a_rule_that_raises_hides_no_other() -> None:
    """It is a finding of its own: which rule, and what it raised."""

    def stumble(_: Project) -> Any:
        raise LookupError("over a stone")

    bad = Rule(number="E999", title="a bad one", says="", remedy="", find=stumble)
    view = Project.of(Site({"TASK_ALWAYS_EAGER": True}).app())

    other, message = run([bad, TABLE["W048"]], view)

    assert other.id == "unstuck.W048"
    assert message.id == BROKEN
    assert "E999 (a bad one)" in message.msg
    assert "LookupError: over a stone" in message.msg


def test_settings_that_cannot_be_read_are_an_error() -> None:
    """E037; all that needs them is left out."""
    app = Site().app()
    app.config_from_object("no.such.module")

    view = Project.of(app)
    messages = list(run([each for each in TABLE.values() if each.anywhere], view))

    assert [message.id for message in messages] == ["unstuck.E037"]
    assert "no.such.module" in str(messages[0].msg) or "No module" in messages[0].msg
    assert found_by("E037", Site()) == []


@pytest.mark.parametrize(
    ("number", "celery"),
    [
        ("E020", {"BROKER_PASWORD": "hunter2"}),
        ("W021", {"SHOP_URL": "https://me:hunter2@shop.example"}),
        ("W021", {"SHOP_URL": ["https://me:hunter2@shop.example:x"]}),
        ("E024", {"BROKER_URL": "reddis://:hunter2@cache"}),
        ("E024", {"BROKER_URL": "redis//:hunter2@cache"}),
        ("E024", {"BROKER_URL": "redis://:hunter2@cache:port"}),
        ("W038", {"RESULT_BACKEND": "redis://:hunter2@cache", "RESULT_EXPIRES": 0}),
        ("W021", {"SHOP_URL": "redis://:hunter2@a/0;redis://:hunter2@b/0"}),
        ("W021", {"SHOP_URL": "redis://cache/0?password=hunter2"}),
        ("W021", {"SHOP_URL": {"urls": ["redis://:hunter2@a/0"]}}),
        ("W021", {"SHOP_URL": [{"url": ("amqp://me:hunter2@a//",)}]}),
        ("W021", {"SHOP_URL": {"redis://:hunter2@a/0"}}),
    ],
)
def test_no_message_has_a_password(number: str, celery: dict[str, Any]) -> None:
    """They are printed, and stay in the logs of whatever deploys."""
    (message,) = found_by(number, Site(celery))

    assert "hunter2" not in f"{message.msg}{message.hint}"


def test_the_options_of_a_transport_are_those_that_kombu_reads() -> None:
    """A new one would be taken for a slip."""
    theirs = {
        *redis.Channel.from_transport_options,
        *redis.SentinelChannel.from_transport_options,
    }

    assert theirs <= known.REDIS_OPTIONS
