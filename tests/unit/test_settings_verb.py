"""``manage.py unstuck settings``, and the command that all verbs share."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import override_settings

from tests.unit import dead
from tests.unit.command import unstuck
from unstuck import Celery
from unstuck.core.settings import SETTINGS
from unstuck.management.commands.unstuck import Command
from unstuck.profile import PROFILE


def report() -> None:
    """A task."""


def _task(app: Celery, **options: Any) -> None:
    app.task(name="shop.report", shared=False, **options)(report)


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert unstuck("settings", *words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def _by_name(rows: list[dict[str, Any]]) -> dict[str, tuple[Any, str]]:
    return {row["name"]: (row["value"], row["source"]) for row in rows}


def test_every_setting_is_shown_with_its_source(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """Our defaults are ours."""
    shown = _json(capsys)

    celery = _by_name(shown["celery"])
    assert {row.name for row in PROFILE} <= set(celery)
    assert celery["task_time_limit"] == (300, "unstuck")
    ours = _by_name(shown["unstuck"])
    assert set(ours) == {setting.key for setting in SETTINGS}
    assert ours["MAX_STRIKES"] == (3, "unstuck")


def test_a_value_of_the_project_is_said_to_be_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """For Celery's settings and for ours."""
    with (
        dead.celery_app(task_time_limit=60) as app,
        override_settings(UNSTUCK={"MAX_STRIKES": 5}),
    ):
        app.set_current()
        shown = _json(capsys)

    assert _by_name(shown["celery"])["task_time_limit"] == (60, "app.conf")
    assert _by_name(shown["unstuck"])["MAX_STRIKES"] == (5, "project: UNSTUCK")


def test_tasks_that_say_something_are_listed(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """What they say, and the limits that hold; silent tasks and Celery's are not."""
    _task(app, time_limit=60, max_strikes=1)

    tasks = _json(capsys)["tasks"]

    assert tasks["shop.report"] == {
        "says": {"time_limit": 60, "max_strikes": 1},
        "limits_in_force": {"time_limit": 60, "soft_time_limit": 54},
    }
    assert "shop.charge" not in tasks
    assert not [name for name in tasks if name.startswith("celery.")]


def test_one_task_is_shown_with_all_that_holds_for_it(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each value with who said it."""
    _task(app, time_limit=60, max_retries=None, retry_backoff=2, retry_on_limit=True)

    shown = _by_name(_json(capsys, "--task", "shop.report")["in_force"])

    assert shown["time_limit"] == (60, "task option")
    assert shown["soft_time_limit"] == (54, "90 % of time_limit")
    assert shown["max_retries"] == (None, "task option")
    assert shown["retry_backoff"] == (2, "task option")
    assert shown["retry_on_hard_limit"] == (True, "task option")
    assert shown["default_retry_delay"] == (60, "unstuck")
    assert shown["max_strikes"] == (3, "unstuck")


def test_an_unknown_task_is_one_line(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the one that was meant."""
    assert unstuck("settings", "--task", "shop.chargw") == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert "Did you mean 'shop.charge'?" in line


def test_the_table_is_aligned(app: Celery, capsys: pytest.CaptureFixture[str]) -> None:
    """The source of each Celery setting stands in the same column."""
    assert unstuck("settings") == 0

    lines = capsys.readouterr().out.splitlines()
    celery = lines[1 : lines.index("")]
    assert len({line.rindex(" ") for line in celery}) == 1


def test_passwords_are_not_shown(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither in a URL nor in a nested option."""
    options = {"sentinel_kwargs": {"password": "hunter2"}}
    app.conf.broker_transport_options = options
    secrets = {"LOCK_URL": "redis://:hunter2@host/0", "METRICS_TOKEN": 4 * "hunter2"}
    with override_settings(UNSTUCK=secrets):
        unstuck("settings")

    out = capsys.readouterr().out
    assert "redis://:**@host/0" in out
    assert "hunter2" not in out


def test_settings_that_cannot_be_used_are_shown_and_named(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever repairs them wants to see them: exit status 1."""
    with override_settings(UNSTUCK={"MAX_STRIKE": 5}):
        assert unstuck("settings") == 1

    printed = capsys.readouterr()
    assert "MAX_STRIKES" in printed.out
    assert printed.err.startswith("Error: UNSTUCK['MAX_STRIKE'] = 5 is not a setting")


@pytest.mark.parametrize(
    ("found", "words"),
    [(None, "No Celery app is loaded"), ("stock", "`from unstuck import Celery`")],
)
def test_without_an_app_of_ours_there_is_one_line(
    found: str | None,
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says what to do."""
    import celery

    other = found and celery.Celery("stock", set_as_current=False)
    monkeypatch.setattr("unstuck.project.current_app", lambda: other)

    assert unstuck("settings") == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: ")
    assert words in line


def test_without_a_verb_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    """It lists the verbs; exit status 2."""
    assert unstuck() == 2

    out = capsys.readouterr().out
    assert all(verb in out for verb in ("dev", "dead", "settings", "recorder"))


def test_an_unknown_verb_is_a_usage_error() -> None:
    """Exit status 2."""
    assert unstuck("nosuch") == 2


@pytest.mark.parametrize("verb", ["dev", "recorder"])
def test_what_runs_until_it_is_stopped_has_no_json(verb: str) -> None:
    """There is no end at which to print it."""
    assert unstuck(verb, "--json") == 2


def test_django_s_own_options_may_stand_at_the_end() -> None:
    """``manage.py unstuck settings --settings proj.settings`` is what people write."""
    parser = Command().create_parser("manage.py", "unstuck")

    options = parser.parse_args(["dead", "list", "--settings", "proj.settings"])

    assert options.settings == "proj.settings"
