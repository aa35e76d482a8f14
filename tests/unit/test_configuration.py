"""Where the value of a setting comes from."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import celery
import pytest

from tests.unit.worker.projects import project
from unstuck import Celery
from unstuck.configuration import MISSING, InForce, given, in_force
from unstuck.profile import PROFILE, REDIS_OPTIONS


@pytest.fixture(autouse=True)
def _no_broker_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)


def row(app: Celery, name: str) -> InForce:
    """What is told of one setting."""
    return next(each for each in in_force(app.conf) if each.name == name)


def test_every_default_is_told_with_its_value_and_source() -> None:
    """One row for each; a project that says nothing has them all from us."""
    app = project()

    assert list(in_force(app.conf)) == [
        InForce(default.name, default.value, "unstuck") for default in PROFILE
    ]


@pytest.mark.parametrize(
    ("namespace", "source"),
    [("CELERY", "project: CELERY_TASK_TIME_LIMIT"), (None, "project: task_time_limit")],
)
def test_a_setting_of_the_project_is_told_by_its_name(
    namespace: str | None, source: str
) -> None:
    """As it is written in the settings."""
    app = project(namespace=namespace, task_time_limit=60)

    assert row(app, "task_time_limit") == InForce("task_time_limit", 60, source)


def test_a_namespace_of_the_project_s_own_is_told() -> None:
    """CELERY is only the usual one."""
    app = project(namespace="QUEUE", broker_url="memory://", task_time_limit=60)

    assert row(app, "task_time_limit").source == "project: QUEUE_TASK_TIME_LIMIT"


@pytest.mark.skipif(
    celery.VERSION < (5, 7), reason="in Celery 5.6 a key with the namespace wins"
)
def test_what_was_set_on_the_app_is_told() -> None:
    """`app.conf.x = …` wins over the project's settings, before and after first use."""
    before, after = project(task_time_limit=60), project(task_time_limit=60)

    before.conf.task_time_limit = 10
    after.conf.task_acks_late  # noqa: B018 - loads the settings
    after.conf.task_time_limit = 10

    for app in (before, after):
        expected = InForce("task_time_limit", 10, "app.conf")
        assert row(app, "task_time_limit") == expected


def test_a_value_like_the_default_is_the_project_s_all_the_same() -> None:
    """Who said it matters, not what."""
    app = project(task_time_limit=300)

    assert row(app, "task_time_limit").source == "project: CELERY_TASK_TIME_LIMIT"


@pytest.mark.parametrize(
    ("settings", "value", "source"),
    [
        ({}, True, "unstuck"),
        pytest.param(
            {"acks_late": False},
            False,
            "project: CELERY_ACKS_LATE",
        ),
        ({"task_acks_late": False}, False, "project: CELERY_TASK_ACKS_LATE"),
        (
            {"task_acks_late": True, "acks_late": False},
            True,
            "project: CELERY_TASK_ACKS_LATE",
        ),
        (
            {"task_acks_late": False, "acks_late": True},
            False,
            "project: CELERY_TASK_ACKS_LATE",
        ),
    ],
)
def test_acks_late_goes_by_two_names(
    settings: dict[str, Any], value: bool, source: str
) -> None:
    """CELERY_ACKS_LATE counts, too; the name that Celery documents wins over it."""
    app = project(**settings)

    assert row(app, "task_acks_late") == InForce("task_acks_late", value, source)


def test_settings_by_their_names_before_celery_4_win_over_ours() -> None:
    """Celery still reads them."""
    app = Celery("old", set_as_current=False, broker="memory://")
    app.config_from_object(
        SimpleNamespace(CELERYD_TASK_TIME_LIMIT=60, CELERY_ACKS_LATE=False)
    )

    assert app.conf.task_time_limit == 60
    assert app.conf.task_acks_late is False
    assert app.conf.worker_prefetch_multiplier == 1


def test_transport_options_are_told_one_by_one() -> None:
    """Each with who said it."""
    app = project("redis://h", broker_transport_options={"socket_timeout": 9})

    rows = {
        each.name: (each.value, each.source)
        for each in in_force(app.conf)
        if each.name.startswith("broker_transport_options")
    }

    assert rows == {
        f"broker_transport_options[{key}]": (
            (9, "project") if key == "socket_timeout" else (value, "unstuck")
        )
        for key, value in REDIS_OPTIONS.items()
    }


@pytest.mark.parametrize("options", [None, "socket_timeout=9", 7])
def test_transport_options_that_are_no_dict_are_left_to_celery(options: Any) -> None:
    """They are wrong, and not ours to repair; telling what is in force still works."""
    app = project("redis://h", broker_transport_options=options)

    assert app.conf.broker_transport_options == options
    assert row(app, "broker_transport_options[socket_timeout]").source == "unstuck"


@pytest.mark.parametrize("namespace", ["CELERY", None])
def test_what_the_project_gives_is_its_own_alone(namespace: str | None) -> None:
    """Neither our defaults nor Celery's are the project's; None is a value."""
    app = project(namespace=namespace, task_time_limit=None)
    app.conf.finalize()

    assert given(app.conf, "task_time_limit") is None
    assert given(app.conf, "task_soft_time_limit") is MISSING
    assert given(app.conf, "task_serializer") is MISSING


def test_what_the_project_gives_is_known_before_anything_was_read() -> None:
    """Whoever asks first has the same answer."""
    assert given(project(task_time_limit=60).conf, "task_time_limit") == 60


def test_a_default_that_was_added_to_the_app_is_the_project_s() -> None:
    """`app.add_defaults()` before and after the settings are loaded."""
    app = project()
    app.add_defaults({"task_time_limit": 60})
    assert app.conf.task_time_limit == 60

    app.add_defaults({"task_max_retries": 9})

    assert app.conf.task_max_retries == 9
    assert app.conf.task_default_retry_delay == 60


def test_an_app_that_is_configured_again_has_our_defaults_again() -> None:
    """The last settings count, over one layer of ours."""
    app = project(task_time_limit=60)
    assert app.conf.task_time_limit == 60

    app.config_from_object(
        SimpleNamespace(CELERY_TASK_MAX_RETRIES=1), namespace="CELERY", force=True
    )

    assert (app.conf.task_time_limit, app.conf.task_max_retries) == (300, 1)


def test_an_app_without_any_settings_has_our_defaults() -> None:
    """Not even a broker."""
    app = Celery("bare", set_as_current=False)

    assert app.conf.task_time_limit == 300
    assert app.conf.task_acks_late is True


def test_an_app_can_be_pickled() -> None:
    """As Celery's can, with what was set on it."""
    app = Celery("shop", set_as_current=False, broker="memory://")
    app.conf.task_time_limit = 60

    copy = pickle.loads(pickle.dumps(app))

    assert isinstance(copy, Celery)
    assert (copy.conf.task_time_limit, copy.conf.task_max_retries) == (60, 3)


def test_our_consumer_is_a_default_and_not_a_must() -> None:
    """Who brings a consumer of their own has it."""
    own = project(worker_consumer="celery.worker.consumer:Consumer")

    assert project().conf.worker_consumer == "unstuck.worker.consumer:Consumer"
    assert own.conf.worker_consumer == "celery.worker.consumer:Consumer"
