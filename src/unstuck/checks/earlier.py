"""The rows of the rules that make their messages themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage

from unstuck import conf
from unstuck.app import Celery
from unstuck.checks import application, broker, limits, tasks, unstuck_settings
from unstuck.checks.rule import Found, found, rule
from unstuck.checks.view import Project

Messages = Iterable[CheckMessage]


def of_app(number: str, find: Callable[[Any], Messages], title: str) -> None:
    """A row whose function looks at the app."""
    rule(number, title=title)(lambda project: find(project.app))


def of_conf(number: str, find: Callable[[Any], Messages], title: str) -> None:
    """A row whose function looks at the settings of the app."""
    rule(number, title=title)(lambda project: find(project.conf))


def of_unstuck(number: str, find: Callable[[Any], Messages], title: str) -> None:
    """A row whose function looks at the ``UNSTUCK`` setting, when it is a dict."""

    @rule(number, title=title, anywhere=True)
    def look(_: Project) -> Messages:
        given = conf.given()
        return find(given) if isinstance(given, Mapping) else ()


of_unstuck("E001", unstuck_settings.unknown_keys, "a key that UNSTUCK does not have")


@rule("E002", title="a value that UNSTUCK cannot have", anywhere=True)
def wrong_values(_: Project) -> Messages:
    """E002, also where ``UNSTUCK`` is no dict."""
    return unstuck_settings.wrong_values(conf.given())


of_unstuck(
    "E006",
    lambda given: unstuck_settings.unknown_database(given, settings.DATABASES),
    "a database that there is not",
)


@rule("W003", title="a Celery app that is not ours", anywhere=True)
def app_of_celery(project: Project) -> Messages:
    """W003, and nothing more can be said of such a project."""
    return () if isinstance(project.app, Celery) else application.messages(project.app)


@rule(
    "E037",
    title="settings of Celery that cannot be read",
    says="The settings of the Celery app cannot be read: {error}",
    remedy="Correct what the message names; a worker would not start either.",
    anywhere=True,
)
def settings_that_cannot_be_read(project: Project) -> Iterable[Found]:
    """E037: what was raised when Celery read them."""
    if (error := project.read_error) is not None:
        yield found(project.app.main, error=f"{type(error).__name__}: {error}")


@rule("W004", title="modules with tasks that cannot be imported")
def tasks_that_cannot_be_loaded(project: Project) -> Messages:
    """W004: what the import raised when the project was gathered."""
    return tasks.could_not_be_loaded(project.app, project.load_error)


of_conf("E003", limits.soft_not_below_hard, "a soft limit not below the hard one")
of_app("E004", tasks.own_soft_not_below_own_hard, "the same of one task")
of_conf("E005", limits.wrong_types, "a safe default given a value of the wrong type")
of_app("E007", tasks.published_in_no_known_way, "a publish that is none of the choices")
of_app("E008", tasks.locks_that_cannot_be_taken, "a wrong option of a task's lock")
of_unstuck("E009", unstuck_settings.unusable_policy, "a policy that cannot be called")
of_unstuck("E010", unstuck_settings.unusable_target, "an alert that cannot be called")
of_unstuck("E011", unstuck_settings.unusable_tracing, "tracing that cannot be done")
of_unstuck("E012", unstuck_settings.unusable_export, "an export that cannot be done")
of_app("W001", tasks.retries_for_ever, "retries without end")
of_conf("W005", limits.soft_that_is_cut, "a soft limit above our hard one")
of_app("W006", tasks.soft_that_is_cut, "the same of one task")
of_app("W007", broker.messages, "a limit above RabbitMQ's consumer_timeout")
of_app(
    "W008", tasks.outbox_beside_the_transactions, "an outbox beside the transactions"
)
of_app("W009", tasks.locks_that_are_not_ours, "a lock that does not end with its task")
