"""Rules for what beat sends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import pairwise
from typing import Any

from celery.schedules import BaseSchedule, crontab
from celery.schedules import schedule as every

from unstuck.checks import known
from unstuck.checks.rule import Found, found, rule
from unstuck.checks.view import Project, own_limits, shown
from unstuck.queues import routed_to

HOUR, DAY = 3600, 86400

PARTS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "args": ((list, tuple), "a list or a tuple"),
    "kwargs": ((Mapping,), "a dict"),
    "options": ((Mapping,), "a dict"),
    "schedule": (
        (int, float, timedelta, BaseSchedule),
        "a number of seconds, a timedelta or a crontab",
    ),
}


@rule(
    "E032",
    title="a beat entry of a task that there is not",
    says="The beat entry {entry!r} names the task {task!r}, which no worker here knows: "
    "each of its messages ends as a dead letter.",
    remedy="{remedy}",
)
def entries_of_unknown_tasks(project: Project) -> Iterator[Found]:
    """E032: silent for an entry that goes elsewhere, by an option or by a route."""
    if project.load_error:
        return
    names = [view.name for view in project.tasks]
    for name, entry in _entries(project):
        task, options = entry.get("task"), entry.get("options") or {}
        if not task or task in project.app.tasks or "queue" in options:
            continue
        if routed_to(project.conf.task_routes, str(task)) != "":
            continue
        near = known.meant(str(task), names)
        remedy = (
            f"Did you mean {near!r}?" if near else "Correct it, or import the task."
        )
        yield found(f"beat: {name}", entry=name, task=task, remedy=remedy)


@rule(
    "E033",
    title="a beat entry that cannot be sent",
    says="The beat entry {entry!r} has {part} = {value}, which must be {wanted}.",
    remedy="Correct it{trap}.",
)
def entries_that_cannot_be(project: Project) -> Iterator[Found]:
    """E033: beat stops at it, or sends letters for arguments."""
    for name, entry in project.beat.items():
        if not isinstance(entry, Mapping):
            if not hasattr(entry, "schedule"):
                yield _malformed(name, "itself", entry, "a dict")
            continue
        for part in ("task", "schedule"):
            if not entry.get(part):
                yield _malformed(name, part, entry.get(part), "there")
        for part, (types, wanted) in PARTS.items():
            value = entry.get(part)
            if value is not None and not isinstance(value, types):
                yield _malformed(name, part, value, wanted)


@rule(
    "W044",
    title="a beat entry that comes faster than its task must end",
    says="The beat entry {entry!r} comes every {period:g} s, and its task {task} has "
    "time_limit={limit:g}: two of them may run at once.",
    remedy="Give the task a lock, a limit below the period, or the entry "
    "options={{'expires': {period:g}}}.",
)
def entries_that_overlap(project: Project) -> Iterator[Found]:
    """W044: where the task itself says how long it may run, and nothing says what then."""
    for name, entry in _entries(project):
        task = project.app.tasks.get(entry.get("task"))
        period = _period(entry.get("schedule"))
        limit = own_limits(task).hard
        if limit and period and period <= limit and not _is_guarded(entry, task):
            yield found(
                f"beat: {name}", entry=name, period=period, task=task.name, limit=limit
            )


@rule(
    "W045",
    title="beat entries that pile up",
    says="{entries} without expires: while no worker runs, beat goes on sending, and all of "
    "them run when one comes back.",
    remedy="Give each options={{'expires': SECONDS}}, as long as its period.",
)
def entries_without_expiry(project: Project) -> Iterator[Found]:
    """W045: one finding for all entries that come at least every hour."""
    names = [
        name
        for name, entry in _entries(project)
        if 0 < (_period(entry.get("schedule")) or 0) <= HOUR
        and _comes_all_day(entry.get("schedule"))
        and not _is_guarded(entry, project.app.tasks.get(entry.get("task")))
    ]
    if names:
        more = f" and {len(names) - 1} more" if names[1:] else ""
        subject = f"The beat entry {names[0]!r}{more}"
        key = project.spelled("beat_schedule")
        yield found(key, entries=f"{subject} {'come' if more else 'comes'} often and")


@rule(
    "W046",
    title="crontabs in a time zone that nobody chose",
    says="The beat entry {entry!r} is a crontab with an hour, and {problem}.",
    remedy="{remedy}",
)
def crontabs_in_another_zone(project: Project) -> Iterator[Found]:
    """W046: Celery's zone is another than Django's, or both are a default."""
    problem, remedy = _problem_with_zone(project)
    for name, entry in _entries(project) if problem else ():
        schedule = entry.get("schedule")
        if isinstance(schedule, crontab) and len(schedule.hour) < 24:
            yield found(f"beat: {name}", entry=name, problem=problem, remedy=remedy)
            return


def _entries(project: Project) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, entry in project.beat.items():
        if isinstance(entry, Mapping):
            yield name, entry


def _is_guarded(entry: Mapping[str, Any], task: Any) -> bool:
    """Whether somebody has thought of a message that comes too late, or too early."""
    options = entry.get("options")
    expires = isinstance(options, Mapping) and options.get("expires")
    return bool(
        expires or getattr(task, "expires", None) or getattr(task, "lock", None)
    )


def _period(schedule: Any) -> float | None:
    """The shortest time between two runs in seconds, if there is one to tell."""
    match schedule:
        case bool():
            return None
        case int() | float():
            return float(schedule)
        case timedelta():
            return schedule.total_seconds()
        case crontab():
            return _period_of_crontab(schedule)
        case every():
            return float(schedule.run_every.total_seconds())
        case _:
            return None


def _period_of_crontab(schedule: crontab) -> float:
    """The least time from one run to the next, on days that have any."""
    minutes = sorted(
        60 * hour + minute for hour in schedule.hour for minute in schedule.minute
    )
    next_day = minutes[0] + DAY // 60
    gap = min(later - one for one, later in pairwise([*minutes, next_day]))
    return float(60 * gap)


def _comes_all_day(schedule: Any) -> bool:
    """Twice within the one hour of a crontab is not often."""
    return not isinstance(schedule, crontab) or len(schedule.hour) > 1


def _malformed(entry: str, part: str, value: Any, wanted: str) -> Found:
    is_comma = part == "args" and isinstance(value, (str, int))
    trap = f": a tuple of one is ({shown(value)},), with a comma" if is_comma else ""
    return found(
        f"beat: {entry}",
        entry=entry,
        part=part,
        value=shown(value),
        wanted=wanted,
        trap=trap,
    )


def _problem_with_zone(project: Project) -> tuple[str, str]:
    ours, django = project.conf.timezone, project.django.TIME_ZONE
    key = project.spelled("timezone")
    if not ours:
        return f"{key} is not set, so it is meant in UTC", f"Set {key}."
    if not project.says("timezone") and not project.django.is_overridden("TIME_ZONE"):
        problem = f"neither {key} nor TIME_ZONE is set: it is meant in {django}"
        return problem, "Set TIME_ZONE; Celery takes it, too."
    if str(ours) != str(django):
        problem = f"{key} = {str(ours)!r} while TIME_ZONE = {django!r}"
        return (
            problem,
            f"Remove {key}: Celery takes TIME_ZONE. Silence this if it is meant.",
        )
    return "", ""
