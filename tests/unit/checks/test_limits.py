"""Checks of the Celery settings that unstuck gives a default."""

from __future__ import annotations

from typing import Any

import pytest

from unstuck import Celery, project
from unstuck.checks.limits import (
    RULES,
    soft_not_below_hard,
    soft_that_is_cut,
    wrong_types,
)
from unstuck.profile import PROFILE


def conf_of(**settings: Any) -> Any:
    """The configuration of an app whose project says this."""
    app = Celery("shop", set_as_current=False)
    app.config_from_object(
        {f"CELERY_{key}": settings[key] for key in settings}, namespace="CELERY"
    )
    return project.loaded_conf(app)


def test_every_setting_of_the_profile_has_a_rule() -> None:
    """A new row without one would make the checks stumble."""
    assert set(RULES) == {row.name for row in PROFILE}


def test_the_defaults_break_no_rule() -> None:
    """E003, E005 and W005 are silent for a project that says nothing."""
    for row in PROFILE:
        fits, _ = RULES[row.name]
        assert fits(row.value), row.name
    conf = conf_of()
    assert [
        *wrong_types(conf),
        *soft_not_below_hard(conf),
        *soft_that_is_cut(conf),
    ] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("TASK_TIME_LIMIT", "300"),
        ("TASK_TIME_LIMIT", 0),
        ("TASK_TIME_LIMIT", True),
        ("TASK_SOFT_TIME_LIMIT", -1),
        ("TASK_MAX_RETRIES", 1.5),
        ("TASK_MAX_RETRIES", -1),
        ("TASK_DEFAULT_RETRY_DELAY", None),
        ("TASK_RETRY_BACKOFF", "yes"),
        ("TASK_ACKS_LATE", "false"),
        ("ACKS_LATE", 1),
        ("WORKER_PREFETCH_MULTIPLIER", 0.5),
        ("WORKER_MAX_TASKS_PER_CHILD", "100"),
        ("TASK_PUBLISH_RETRY_POLICY", 3),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error(key: str, value: Any) -> None:
    """E005 names the setting as the project wrote it, and the value."""
    (message,) = wrong_types(conf_of(**{key: value}))

    assert message.id == "unstuck.E005"
    assert f"CELERY_{key} = {value!r} must be" in message.msg


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("TASK_TIME_LIMIT", None),
        ("TASK_TIME_LIMIT", 0.5),
        ("TASK_MAX_RETRIES", None),
        ("TASK_RETRY_BACKOFF", 2),
        ("ACKS_LATE", False),
        ("WORKER_PREFETCH_MULTIPLIER", 0),
    ],
)
def test_a_value_that_can_be_used_is_no_error(key: str, value: Any) -> None:
    """E005 takes what Celery takes."""
    assert list(wrong_types(conf_of(**{key: value}))) == []


@pytest.mark.parametrize("soft", [60, 61.5])
def test_a_soft_limit_that_is_not_below_the_hard_one_is_an_error(soft: float) -> None:
    """E003 names both settings and both values."""
    (message,) = soft_not_below_hard(
        conf_of(TASK_TIME_LIMIT=60, TASK_SOFT_TIME_LIMIT=soft)
    )

    assert message.id == "unstuck.E003"
    assert f"CELERY_TASK_SOFT_TIME_LIMIT = {soft}" in message.msg
    assert "CELERY_TASK_TIME_LIMIT = 60" in message.msg


@pytest.mark.parametrize(
    "settings",
    [
        {"TASK_TIME_LIMIT": 60, "TASK_SOFT_TIME_LIMIT": 59},
        {"TASK_TIME_LIMIT": None, "TASK_SOFT_TIME_LIMIT": 600},
        {"TASK_TIME_LIMIT": 60},
        {"TASK_SOFT_TIME_LIMIT": 600},
    ],
)
def test_limits_of_the_project_in_order_are_no_error(settings: dict[str, Any]) -> None:
    """E003 speaks only when the project itself gives both."""
    assert list(soft_not_below_hard(conf_of(**settings))) == []


def test_a_soft_limit_above_our_hard_one_is_a_warning() -> None:
    """W005: the project's value is not what will be in force."""
    (message,) = soft_that_is_cut(conf_of(TASK_SOFT_TIME_LIMIT=600))

    assert message.id == "unstuck.W005"
    assert "is cut to 270" in message.msg


@pytest.mark.parametrize(
    "settings",
    [
        {"TASK_SOFT_TIME_LIMIT": 270},
        {"TASK_TIME_LIMIT": 900, "TASK_SOFT_TIME_LIMIT": 600},
        {"TASK_TIME_LIMIT": None, "TASK_SOFT_TIME_LIMIT": 600},
    ],
)
def test_a_soft_limit_that_holds_is_no_warning(settings: dict[str, Any]) -> None:
    """W005 is silent where the project says a hard limit, or none at all."""
    assert list(soft_that_is_cut(conf_of(**settings))) == []


def test_a_way_to_publish_that_is_near_to_one_is_named() -> None:
    """E005 asks back."""
    (message,) = wrong_types(conf_of(TASK_PUBLISH="commit"))

    assert message.id == "unstuck.E005"
    assert "CELERY_TASK_PUBLISH = 'commit' must be 'at_once' or" in message.msg
    assert "Did you mean 'on_commit'?" in message.hint
