"""Checks of the tasks of a project."""

from __future__ import annotations

from typing import Any

import pytest

from unstuck import Celery
from unstuck.checks.tasks import (
    could_not_be_loaded,
    outbox_beside_the_transactions,
    own_soft_not_below_own_hard,
    published_in_no_known_way,
    retries_for_ever,
    soft_that_is_cut,
)
from unstuck.checks.view import Project


def report() -> None:
    """A task."""


def app_with(settings: dict[str, Any] | None = None, **options: Any) -> Celery:
    """An app with one task that has these options."""
    app = Celery("shop", set_as_current=False)
    app.conf.update(settings or {})
    app.task(name="shop.report", shared=False, **options)(report)
    return app


def test_a_task_whose_limits_are_in_the_wrong_order_is_an_error() -> None:
    """E004 names the task and both values."""
    app = app_with(time_limit=60, soft_time_limit=90)

    (message,) = own_soft_not_below_own_hard(app)

    assert message.id == "unstuck.E004"
    assert message.obj == "shop.report"
    assert "soft_time_limit=90" in message.msg
    assert "time_limit=60" in message.msg


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"time_limit": 60},
        {"soft_time_limit": 90},
        {"time_limit": 60, "soft_time_limit": 50},
    ],
)
def test_a_task_whose_limits_are_in_order_is_no_error(options: dict[str, Any]) -> None:
    """E004 looks only at what the task itself says."""
    assert list(own_soft_not_below_own_hard(app_with(**options))) == []


def test_a_task_that_retries_for_ever_is_a_warning() -> None:
    """W001 names it."""
    (message,) = retries_for_ever(app_with(max_retries=None))

    assert message.id == "unstuck.W001"
    assert message.obj == "shop.report"


def test_a_setting_that_lets_all_tasks_retry_for_ever_is_one_warning() -> None:
    """W001 names the setting and not every task."""
    (message,) = retries_for_ever(app_with({"task_max_retries": None}))

    assert message.id == "unstuck.W001"
    assert message.obj == "task_max_retries"


@pytest.mark.parametrize("options", [{}, {"max_retries": 0}, {"max_retries": 9}])
def test_bounded_retries_are_no_warning(options: dict[str, Any]) -> None:
    """W001 is silent, also about Celery's own tasks, which retry for ever."""
    assert list(retries_for_ever(app_with(**options))) == []


def test_a_soft_limit_above_the_hard_one_in_force_is_a_warning() -> None:
    """W006: what the task says is not what it gets."""
    (message,) = soft_that_is_cut(app_with(soft_time_limit=600))

    assert message.id == "unstuck.W006"
    assert "soft_time_limit=600" in message.msg
    assert "cut to 270" in message.msg


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, {}),
        ({}, {"soft_time_limit": 270}),
        ({}, {"soft_time_limit": 600, "time_limit": 900}),
        ({"task_time_limit": 900}, {"soft_time_limit": 600}),
        ({"task_time_limit": None}, {"soft_time_limit": 600}),
    ],
)
def test_a_soft_limit_that_holds_is_no_warning(
    settings: dict[str, Any], options: dict[str, Any]
) -> None:
    """W006 is silent where a hard limit leaves room, or there is none."""
    assert list(soft_that_is_cut(app_with(settings, **options))) == []


def test_a_module_that_cannot_be_imported_is_a_warning() -> None:
    """W004 says why; nothing else can be said of its tasks."""
    app = app_with({"imports": ["no.such.module"]})

    view = Project.of(app)

    (message,) = could_not_be_loaded(app, view.load_error)

    assert message.id == "unstuck.W004"
    assert "ModuleNotFoundError" in message.msg


def test_modules_that_can_be_imported_are_no_warning() -> None:
    """W004 is silent."""
    app = app_with({"imports": ["json"]})

    assert list(could_not_be_loaded(app, Project.of(app).load_error)) == []


def test_a_task_that_is_published_in_no_known_way_is_an_error() -> None:
    """E007 names it, and what was meant."""
    (message,) = published_in_no_known_way(app_with(publish="on commit"))

    assert message.id == "unstuck.E007"
    assert message.obj == "shop.report"
    assert "publish='on commit'" in message.msg
    assert "Did you mean 'on_commit'?" in message.msg


@pytest.mark.parametrize("options", [{}, {"publish": "on_commit"}, {"publish": print}])
def test_a_task_that_is_published_in_a_known_way_is_no_error(
    options: dict[str, Any],
) -> None:
    """Nor is one whose base class has a method of that name."""
    assert list(published_in_no_known_way(app_with(**options))) == []


@pytest.mark.parametrize(
    ("project", "own"),
    [
        ({"task_publish": "on_commit"}, {}),
        ({}, {"publish": "on_commit"}),
    ],
)
def test_an_outbox_beside_the_transactions_is_a_warning(
    settings: Any, project: dict[str, Any], own: dict[str, Any]
) -> None:
    """W008, as soon as anything is published on commit."""
    settings.UNSTUCK = {"DATABASE": "other"}

    (message,) = outbox_beside_the_transactions(app_with(project, **own))

    assert message.id == "unstuck.W008"
    assert "UNSTUCK['DATABASE'] = 'other'" in message.msg
    assert list(outbox_beside_the_transactions(app_with())) == []


@pytest.mark.parametrize("given", [{}, {"DATABASE": "default"}, {"DATABASE": None}, 7])
def test_an_outbox_where_the_transactions_are_is_no_warning(
    settings: Any, given: Any
) -> None:
    """Nor are settings that others find fault with."""
    settings.UNSTUCK = given
    app = app_with({"task_publish": "on_commit"})

    assert list(outbox_beside_the_transactions(app)) == []
