"""Rules for what is around the tasks: Django's databases and apps, and how workers start."""

from __future__ import annotations

from collections.abc import Iterator

from django.apps import apps

from unstuck.checks.rule import Found, found, rule
from unstuck.checks.view import Project, shown
from unstuck.core.publish import AT_ONCE

REUSE = "CELERY_DB_REUSE_MAX"
"""Read by Celery's glue for Django, under this name only."""


@rule(
    "E013",
    title="times without a zone, in which nothing of ours can be kept",
    says="USE_TZ = False, and unstuck keeps all its times with their zone: a database refuses "
    "them (SQLite, MySQL) or gives them back without it (PostgreSQL).",
    remedy="Set USE_TZ = True, Django's default. TIME_ZONE stays: forms, templates and the admin "
    "show local times as before, and Django converts.",
    anywhere=True,
)
def times_without_zones(project: Project) -> Iterator[Found]:
    """E013: nothing would be archived, and the dashboard would fail."""
    if apps.is_installed("unstuck") and not project.django.USE_TZ:
        yield found("USE_TZ")


@rule(
    "W061",
    title='"unstuck" is not in INSTALLED_APPS',
    says='INSTALLED_APPS has no "unstuck": dead letters stay on the broker, no worker records '
    "anything, and there is no admin.",
    remedy='Add "unstuck" to INSTALLED_APPS and run `manage.py migrate unstuck`.',
)
def unstuck_is_not_installed(project: Project) -> Iterator[Found]:
    """W061: the app of the project is ours, and Django does not know us."""
    if not apps.is_installed("unstuck"):
        yield found("INSTALLED_APPS")


@rule(
    "W047",
    title="a worker that was to give up at once, and does not",
    says="{shown} counts for connections that were lost; at its start a worker waits for its "
    "broker all the same.",
    remedy="Set {key} = False as well, or remove it.",
)
def startup_that_is_retried(project: Project) -> Iterator[Found]:
    """W047: two settings since Celery 5.3, and the second is on."""
    startup = "broker_connection_retry_on_startup"
    off = project.conf.broker_connection_retry is False
    if off and project.conf[startup] and not project.says(startup):
        name = "broker_connection_retry"
        shown_here = project.shown(name)
        key = project.spelled(startup)
        yield found(project.spelled(name), shown=shown_here, key=key)


@rule(
    "W048",
    title="tasks that run in their caller",
    says="{shown}: no task is sent; each runs in the process that calls it, without limits and "
    "without a dead letter.",
    remedy="Set it in the settings of tests only.",
)
def always_eager(project: Project) -> Iterator[Found]:
    """W048: a switch for tests."""
    if project.conf.task_always_eager:
        key = project.spelled("task_always_eager")
        yield found(key, shown=project.shown("task_always_eager"))


@rule(
    "W055",
    title="database connections that are kept and not looked at",
    says="{key} = {most}: a database connection is kept for so many tasks, and nobody looks "
    "whether it is still there: after a restart of the database tasks fail.",
    remedy="Remove it: a connection for each task, the default, costs little. For more, use "
    'the pool of psycopg, OPTIONS["pool"].',
)
def connections_that_are_kept(project: Project) -> Iterator[Found]:
    """W055: the one way by which a worker keeps them; it knows no CONN_HEALTH_CHECKS."""
    most = project.conf.get(REUSE)
    if most:
        yield found(REUSE, key=REUSE, most=shown(most))


@rule(
    "E038",
    title="a pool of connections, and connections that are kept beside it",
    says='DATABASES[{alias!r}] has OPTIONS["pool"] and CONN_MAX_AGE = {age}: Django raises '
    "ImproperlyConfigured at the first query.",
    remedy="Remove CONN_MAX_AGE; the pool keeps connections.",
)
def pools_beside_kept_connections(project: Project) -> Iterator[Found]:
    """E038: Django does either the one or the other."""
    for alias, database in project.databases.items():
        age = database.get("CONN_MAX_AGE", 0)
        if age != 0 and (database.get("OPTIONS") or {}).get("pool"):
            yield found(f"DATABASES[{alias!r}]", alias=alias, age=shown(age))


@rule(
    "W056",
    title="every view is a transaction, and tasks are sent before its end",
    says="DATABASES[{alias!r}] has ATOMIC_REQUESTS = True, and {shown}: what a view sends may start "
    "before the view's rows are there, and is sent as well when they are rolled back.",
    remedy='Set {key} = "on_commit".',
)
def requests_that_are_transactions(project: Project) -> Iterator[Found]:
    """W056: the race of each ``.delay()`` in a view."""
    if project.conf.task_publish != AT_ONCE or not project.tasks:
        return
    key = project.spelled("task_publish")
    for alias, database in project.databases.items():
        if database.get("ATOMIC_REQUESTS"):
            obj = f"DATABASES[{alias!r}]"
            yield found(obj, alias=alias, shown=project.shown("task_publish"), key=key)
