"""Rules for the options of tasks: Celery takes any name and any value for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from celery.app.task import Task as CelerysTask
from celery.utils.time import rate

from unstuck.checks import known
from unstuck.checks.kinds import is_count, is_flag, is_number, is_seconds
from unstuck.checks.rule import Found, found, rule
from unstuck.checks.view import Project, TaskView, shown

Fits = Callable[[Any], bool]


def _count_from_one(value: Any) -> bool:
    return is_count(value) and value > 0


def _factor(value: Any) -> bool:
    return is_flag(value) or is_seconds(value)


def _exceptions(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(
        isinstance(each, type) and issubclass(each, BaseException) for each in value
    )


def _rate(value: Any) -> bool:
    try:
        rate(value)
    except (KeyError, ValueError, TypeError, AttributeError):
        return False
    return not is_flag(value)


TYPES: dict[str, tuple[Fits, str]] = {
    "time_limit": (is_seconds, "a number of seconds"),
    "soft_time_limit": (is_seconds, "a number of seconds"),
    "max_retries": (is_count, "a whole number, 0 or above, or None"),
    "default_retry_delay": (is_seconds, "a number of seconds"),
    "retry_backoff": (_factor, "True, False or a number of seconds"),
    "retry_backoff_max": (is_seconds, "a number of seconds"),
    "retry_jitter": (is_flag, "True or False"),
    "acks_late": (is_flag, "True or False"),
    "reject_on_worker_lost": (is_flag, "True or False"),
    "ignore_result": (is_flag, "True or False"),
    "track_started": (is_flag, "True or False"),
    "retry_on_limit": (is_flag, "True or False"),
    "max_strikes": (_count_from_one, "a whole number above 0"),
    "autoretry_for": (_exceptions, "a tuple of exception classes"),
    "dont_autoretry_for": (_exceptions, "a tuple of exception classes"),
    "rate_limit": (_rate, "a number a second, or a text like '10/s', '10/m', '10/h'"),
    "queue": (lambda value: not is_number(value), "the name of a queue"),
}
"""What an option must be; ``None`` is always "not said"."""

FROM_SETTINGS = dict(CelerysTask.from_config)
"""Options that Celery fills from a setting, whose value is the setting's business."""


@rule(
    "E026",
    title="a task option with a value of the wrong type",
    says="The task {task} has {option}={value}, which must be {wanted}.",
    remedy="Correct it, or leave it out for what the settings say.",
)
def options_of_the_wrong_type(project: Project) -> Iterator[Found]:
    """E026: it would fail, or mean something else, when the task runs."""
    for view in project.tasks:
        for option, value in view.options.items():
            fits, wanted = TYPES.get(option, (lambda _: True, ""))
            if value is None or callable(value) or isinstance(value, property):
                continue
            if fits(value) or _is_of_a_setting(project, option, value):
                continue
            text = shown(value)
            yield found(
                view.name, task=view.name, option=option, value=text, wanted=wanted
            )


@rule(
    "E027",
    title="a task option with a name that is nearly one of Celery's",
    says="The task {task} has {option}={value}: no option has this name, and nothing reads it.",
    remedy="Did you mean {meant}?",
)
def misspelt_options(project: Project) -> Iterator[Found]:
    """E027: Celery makes an attribute of it and goes on with its default.

    Other names are let be: base classes and packages read options of their own.
    """
    for view in project.tasks:
        for option, value in view.options.items():
            if option in known.TASK_OPTIONS or _is_of_a_base(view, option):
                continue
            meant = known.meant(option, known.TASK_OPTIONS, known.TASK_OPTIONS_MEANT)
            if meant and not callable(value):
                text = shown(value, option)
                yield found(
                    view.name, task=view.name, option=option, value=text, meant=meant
                )


@rule(
    "W023",
    title="a time limit of 0, which is not what it looks like",
    says="The task {task} has {option}=0, which does not take the limit away: "
    "{in_force} s is in force.",
    remedy="Leave it out, or give it the limit that it needs.",
)
def limits_of_zero(project: Project) -> Iterator[Found]:
    """W023: Celery reads 0 as no limit in one place and as none said in another."""
    for view in project.tasks:
        for option in ("time_limit", "soft_time_limit"):
            value = view.options.get(option)
            limit = getattr(view.task, option)
            if value == 0 and is_number(value) and limit:
                yield found(
                    view.name, task=view.name, option=option, in_force=f"{limit:g}"
                )


@rule(
    "E029",
    title="a task that cannot be called: bind and its first parameter do not agree",
    says="The task {task} {problem}: every call of it fails.",
    remedy="{remedy}",
)
def tasks_that_cannot_be_called(project: Project) -> Iterator[Found]:
    """E029: ``self`` without ``bind=True``, or ``bind=True`` without a parameter for it."""
    for view in project.tasks:
        source = view.source
        run = getattr(view.task, "_orig_run", view.task.run)
        # What a decorator passes on to a function cannot be seen.
        if source is None or hasattr(run, "__wrapped__") or not _is_decorated(view):
            continue
        arguments = source.node.args
        names = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
        bound = inspect.ismethod(run)
        if not bound and names[:1] == ["self"]:
            yield found(
                view.name,
                task=view.name,
                problem="has a first parameter self and is not bound",
                remedy="Add bind=True to its decorator, or remove the parameter.",
            )
        elif bound and not names and not arguments.vararg:
            yield found(
                view.name,
                task=view.name,
                problem="has bind=True and no parameter for the task itself",
                remedy="Add self as its first parameter, or remove bind=True.",
            )


@rule(
    "W024",
    title="one function under two names",
    says="The task {task} is also known as {other}: its file was imported under two names, "
    "and its messages depend on which one the caller has seen.",
    remedy="Import the module by one name everywhere, or give the task name=….",
)
def tasks_under_two_names(project: Project) -> Iterator[Found]:
    """W024: the name of a task comes from how its module was imported."""
    seen: dict[tuple[str, int], TaskView] = {}
    for view in project.tasks:
        source = view.source
        if source is None or not _is_decorated(view):
            continue
        derived = f"{view.task.__module__}.{source.node.name}"
        if view.name != derived or "<locals>" in view.task.run.__qualname__:
            continue
        place = (source.path, source.node.lineno)
        first = seen.setdefault(place, view)
        if first is not view:
            yield found(view.name, task=view.name, other=first.name)


def _is_decorated(view: TaskView) -> bool:
    """Whether it is a function with a decorator, and no class of the project's."""
    return bool(getattr(view.task, "_decorated", False))


def _is_of_a_setting(project: Project, option: str, value: Any) -> bool:
    setting = FROM_SETTINGS.get(option)
    return setting is not None and project.conf.get(setting) == value


def _is_of_a_base(view: TaskView, option: str) -> bool:
    """Whether a base class of the project's own knows the option."""
    return any(option in vars(base) for base in type(view.task).__mro__[1:])
