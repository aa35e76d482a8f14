"""The options by which a task is run with a lock held, and what can be wrong with them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from unstuck.core.errors import LockError, SettingsError
from unstuck.core.policy import OnBusy
from unstuck.core.template import Template, nearest
from unstuck.locks import terms

WAIT_SECONDS = 3600
"""How long a task with ``on_busy="wait"`` waits, unless it says so; others do not."""

LEASE_SECONDS = 30

TASK = "task"
"""A field that is the name of the task, unless it has such an argument."""


class LockFrom(StrEnum):
    """Since when a task keeps others out."""

    RUN = "run"
    PUBLISH = "publish"


OPTIONS = ("lock", "lock_wait", "lock_lease", "on_busy", "lock_from")
OF_BLOCKS = ("wait", "lease", "busy")
"""What some are called in ``with lock(…)``; of a task they are called otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockOptions:
    """What a task says of its lock, checked."""

    task_name: str
    template: Template
    signature: inspect.Signature
    wait: timedelta
    lease: float
    on_busy: OnBusy
    lock_from: LockFrom

    @property
    def is_unique(self) -> bool:
        """Whether a second call is refused while the first has not ended."""
        return self.lock_from is LockFrom.PUBLISH

    def name_for(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """The name of the lock for a call with these arguments.

        Raises ``TypeError`` for arguments that do not fit the task, and ``LockError``
        for those that no name can be made of.
        """
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = {TASK: self.task_name, **bound.arguments}
        for parameter in self.signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                values.update(values.pop(parameter.name))
        try:
            return terms.checked_name(self.template.render(values))
        except Exception as error:
            raise LockError(
                f"lock={self.template.text!r} of the task {self.task_name} cannot be "
                f"made of the arguments of this call: {type(error).__name__}: {error}",
                name=self.template.text,
            ) from error


def said_by(task: Any, option: str) -> Any:
    """What the task says; a base class of a project may have a method of that name."""
    value, own = getattr(task, option, None), vars(_class_of(task))
    is_in_decorator = "_decorated" in own and option in own
    return value if is_in_decorator or not callable(value) else None


def options_of(task: Any) -> LockOptions | None:
    """The options of a task, ``None`` if it takes no lock.

    Raises ``SettingsError`` that names all that is wrong with them.
    """
    if said_by(task, "lock") is None:
        return None
    if problems := list(problems_with(task)):
        raise SettingsError(problems)
    on_busy = OnBusy(said_by(task, "on_busy") or OnBusy.WAIT)
    wait = said_by(task, "lock_wait")
    if wait is None:
        wait = WAIT_SECONDS if on_busy is OnBusy.WAIT else 0
    return LockOptions(
        task_name=task.name,
        template=Template.parse(task.lock),
        signature=_signature(task) or inspect.Signature(),
        wait=timedelta(seconds=wait),
        lease=said_by(task, "lock_lease") or LEASE_SECONDS,
        on_busy=on_busy,
        lock_from=LockFrom(said_by(task, "lock_from") or LockFrom.RUN),
    )


def problems_with(task: Any) -> Iterator[str]:
    """What is wrong with the options of a task: which, its value, and what to do."""
    for option, (is_good, wanted) in RULES.items():
        value = said_by(task, option)
        if value is not None and not is_good(value):
            yield f"{_said(task, option, value)} must be {wanted(value)}"
    text = said_by(task, "lock")
    if isinstance(text, str) and text:
        yield from _problems_in_template(task, text)
        yield from _options_that_are_none(task)
    elif text is None:
        yield from _options_without_lock(task)


def _problems_in_template(task: Any, text: str) -> Iterator[str]:
    said = _said(task, "lock", text)
    try:
        asked = Template.parse(text).arguments
    except ValueError as error:
        yield f"{said} cannot be read: {error}"
        return
    signature = _signature(task)
    if signature is None:
        return
    parameters = signature.parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [*signature.parameters, TASK]
    for name in asked:
        if name not in known:
            yield (
                f"{said} asks for {name!r}, which is no argument of the task."
                f"{nearest(name, known)} It has {', '.join(known[:-1]) or 'none'}; "
                f"{{{TASK}}} is its name."
            )


def _options_without_lock(task: Any) -> Iterator[str]:
    for option in OPTIONS[1:]:
        value = said_by(task, option)
        if value is not None:
            yield (
                f"{_said(task, option, value)} does nothing without lock=. Give the task "
                f'a lock, such as lock="{{{TASK}}}", or leave it out.'
            )


def _options_that_are_none(task: Any) -> Iterator[str]:
    """Celery makes an attribute of whatever a decorator is given."""
    for option, value in vars(_class_of(task)).items():
        meant = option in OF_BLOCKS or option.startswith("lock_")
        if meant and option not in OPTIONS and not callable(value):
            yield (
                f"{_said(task, option, value)} is no option of a task."
                f"{nearest(option, OPTIONS)} Those of a lock are {', '.join(OPTIONS)}."
            )


def _class_of(task: Any) -> type:
    return task if isinstance(task, type) else type(task)


def _said(task: Any, option: str, value: Any) -> str:
    return f"The task {task.name}: {option}={value!r}"


def _signature(task: Any) -> inspect.Signature | None:
    """The arguments of a task, bound to nobody yet; ``None`` if nobody can know."""
    run = inspect.getattr_static(_class_of(task), "run")
    try:
        if isinstance(run, staticmethod):
            return inspect.signature(run.__func__)
        signature = inspect.signature(run)
    except (TypeError, ValueError):
        return None
    _, *parameters = signature.parameters.values()
    return signature.replace(parameters=parameters)


def _one_of(choices: type[StrEnum]) -> tuple[Callable[[Any], bool], Any]:
    values = [choice.value for choice in choices]

    def wanted(value: Any) -> str:
        listed = f"{', '.join(map(repr, values[:-1]))} or {values[-1]!r}"
        return f"{listed}.{nearest(str(value), values)}"

    return lambda value: isinstance(value, str) and value in values, wanted


RULES: Mapping[str, tuple[Callable[[Any], bool], Callable[[Any], str]]] = {
    "lock": (
        lambda value: isinstance(value, str) and bool(value),
        lambda _: (
            'the name of a lock as text, such as "report:{user_id}", whose fields are '
            "arguments of the task."
        ),
    ),
    "lock_wait": (
        terms.is_wait,
        lambda _: f"a number of seconds from 0 to {terms.LONGEST_WAIT:.0f}.",
    ),
    "lock_lease": (
        terms.is_lease,
        lambda _: (
            f"a number of seconds from {terms.SHORTEST_LEASE:.0f} to "
            f"{terms.LONGEST_LEASE:.0f}."
        ),
    ),
    "on_busy": _one_of(OnBusy),
    "lock_from": _one_of(LockFrom),
}
