"""The task class: what a task says of itself, and the side of it that runs.

Celery seams used here (each covered by tests/integration/test_seams.py):
``Task.bind`` gets the settings onto the class, ``Task.retry`` publishes a retry,
``Task.__call__`` is what the tracer calls when a class has its own.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import MappingProxyType
from typing import Any, cast

import celery
from celery.exceptions import Reject, SoftTimeLimitExceeded, TaskPredicate
from kombu.exceptions import EncodeError

from unstuck import conf
from unstuck.core.clock import system_clock
from unstuck.core.decide import decide
from unstuck.core.delivery import Delivery
from unstuck.core.errors import DeadlockDetected, SettingsError
from unstuck.core.limits import Limits
from unstuck.core.outcome import Ending, Outcome
from unstuck.core.publish import at_once
from unstuck.core.verdict import Retry
from unstuck.locks.owner import owned_by
from unstuck.logs import task as logs
from unstuck.worker import lock_options, locked, many, quick, unique
from unstuck.worker.deadlocks import is_database_deadlock
from unstuck.worker.lock_options import LockOptions
from unstuck.worker.policy import limits_of, policy_of, retry_delay_of, seconds_or_none

BUILT_IN = "celery."


def own_tasks(app: Any) -> Iterator[Any]:
    """The tasks of an app that are not Celery's, by name."""
    for name, task in sorted(app.tasks.items()):
        if not name.startswith(BUILT_IN):
            yield task


class NotSaid:
    """Stands for a task option that the task does not give.

    ``None`` cannot: ``max_retries=None`` means for ever.
    """

    def __repr__(self) -> str:
        return "not said"


NOT_SAID: Any = NotSaid()

FROM_SETTINGS = (
    ("max_retries", "task_max_retries"),
    ("default_retry_delay", "task_default_retry_delay"),
)
"""Task options that stock Celery has no setting for."""

OPTIONS = (
    "time_limit",
    "soft_time_limit",
    "max_retries",
    "default_retry_delay",
    "acks_late",
    "reject_on_worker_lost",
    "retry_backoff",
    "retry_backoff_max",
    "retry_jitter",
    "max_strikes",
    "retry_on_limit",
    "retry_on_deadlock",
    *lock_options.OPTIONS,
)
"""The options that decide about a task's limits, retries, losses and lock."""

LIMITS = ("time_limit", "soft_time_limit")
FROM_CELERY = (*LIMITS, "acks_late", "reject_on_worker_lost")
"""Task options that Celery fills from its settings when they are ``None``."""

PERMANENT = (EncodeError, TypeError, ValueError)
"""Why a retry cannot be published however often one tries."""


class Task(celery.Task):
    """A task that ends.

    Options beside Celery's: ``max_strikes`` (losses of a process before a message of
    this task is poison), ``retry_on_limit`` (a time limit is retried like a failure),
    ``retry_on_deadlock`` (so is a transaction that the database ended for another),
    ``publish`` (``"on_commit"``: a call waits for the transaction that it is made in) and
    ``lock`` (a name, made of its arguments: no two that have the same run at once), with
    ``lock_wait``, ``lock_lease``, ``on_busy`` and ``lock_from``; see docs/locks.md.
    """

    abstract = True
    Request = "unstuck.worker.request:Request"
    Strategy = "unstuck.worker.strategy:default"

    max_retries = NOT_SAID
    default_retry_delay = NOT_SAID
    max_strikes: int | None = None
    retry_on_limit: bool | None = None
    retry_on_deadlock: bool | None = None
    publish: str | None = None
    lock: Any = None
    lock_wait: float | None = None
    lock_lease: float | None = None
    on_busy: str | None = None
    lock_from: str | None = None
    said: Mapping[str, Any] = MappingProxyType({})
    """Those of ``OPTIONS`` that the task itself gives, once it is bound."""

    @classmethod
    def bind(cls, app: Any) -> Any:
        """Resolve what the task does not say from the settings of its app."""
        first = "said" not in vars(cls)
        if first:
            cls.said = _said_by(cls)
            cls._resolve_unsaid(app)
        bound = super().bind(app)
        if first:
            cls._take_annotated_limits(app)
        cls.settle_limits(app)
        if not conf.in_django() and (wrong := [*lock_options.problems_with(cls)]):
            # In Django a check says so, and the worker does not start.
            raise SettingsError(wrong)
        return bound

    @classmethod
    def _resolve_unsaid(cls, app: Any) -> None:
        # A base class that is bound already would pass on what is in force for it.
        for option in FROM_CELERY:
            if option not in cls.said:
                setattr(cls, option, None)
        for option, setting in FROM_SETTINGS:
            if option not in cls.said:
                setattr(cls, option, app.conf[setting])

    @classmethod
    def own_limits(cls) -> Limits:
        """The limits that the task itself gives."""
        hard, soft = (
            seconds_or_none(cls.said.get(option), f"{option} of the task {cls.name}")
            for option in LIMITS
        )
        return Limits(hard=hard, soft=soft)

    @classmethod
    def _take_annotated_limits(cls, app: Any) -> None:
        # Celery annotates a task (CELERY_TASK_ANNOTATIONS) while it binds it.
        for option in LIMITS:
            value = getattr(cls, option)
            known = (None, app.conf[f"task_{option}"], cls.said.get(option))
            if value not in known:
                cls.said = {**cls.said, option: value}

    @classmethod
    def settle_limits(cls, app: Any) -> None:
        """Put the limits in force onto the class, where Celery looks for them."""
        # Celery compares these two in every apply_async(), so that a global soft
        # limit would make a smaller hard limit of the task's own raise in the caller.
        limits = limits_of(cls, app)
        cls.time_limit, cls.soft_time_limit = limits.hard, limits.soft

    def _get_exec_options(self) -> dict[str, Any]:
        # Celery writes the limits of the class into each message, where they would
        # look like the call's own and decide for a worker that knows better.
        options = super()._get_exec_options()
        return {
            name: value
            for name, value in options.items()
            if name not in LIMITS or name in self.said
        }

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Publish one call, as Celery does.

        With ``lock_from="publish"`` raises ``LockBusy`` while one like it has not ended.
        """
        lock = self.lock_options
        if lock is not None and lock.is_unique and unique.is_lone(options):
            return unique.publish(self, lock, args, kwargs, options)
        if not options:
            result = quick.publish(self, args, kwargs)
            if result is not None:
                return result
        return self.apply_async_as_celery(args, kwargs, **options)

    def apply_async_as_celery(self, args: Any, kwargs: Any, **options: Any) -> Any:
        """Publish one call the way that Celery goes."""
        return super().apply_async(args, kwargs, **options)

    def apply_async_many(
        self,
        calls: Iterable[tuple[Sequence[Any], Mapping[str, Any] | None]],
        **options: Any,
    ) -> list[Any]:
        """``apply_async`` for many pairs of positional and keyword arguments.

        Each call gets its own id; ``options`` are those of ``apply_async`` and hold for
        all. With ``unstuck+redis://`` thousands take one round trip; with other brokers
        they are sent one by one over one connection. Returns their results in order.

        Nothing is sent when a call does not fit the task (``TypeError``) or cannot be
        encoded (kombu's ``EncodeError``). Raises ``kombu.exceptions.OperationalError``
        when the broker is away, and ``unstuck.NotAllSent``, which names those that the
        broker did not take.
        """
        if self.lock_options is not None and self.lock_options.is_unique:
            return unique.publish_many(self, many.checked(self, calls), options)
        if not self.app.waits_for_commit(self, options.get("publish")):
            return many.publish(self, calls, options)

        def each() -> list[Any]:
            return many.publish_each(self, calls, options)

        sent: list[Any] = self.app.send_many_on_commit(each, options.get("producer"))
        return sent

    def delay_many(self, calls: Iterable[Sequence[Any]]) -> list[Any]:
        """``delay`` for many tuples of positional arguments; see ``apply_async_many``."""
        return self.apply_async_many((args, None) for args in calls)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task: in a worker under its policy, elsewhere as a plain function."""
        request = self.request
        if request.called_directly or getattr(request, "has_begun", False):
            return super().__call__(*args, **kwargs)
        request.has_begun = True  # A call of itself in its body is a plain one.
        token = logs.running.set((self.name, request))
        try:
            return self._run_once(args, kwargs)
        finally:
            logs.running.reset(token)

    def _run_once(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        lock = self.lock_options
        if lock is not None and lock.is_unique:
            body = partial(self._run_with, lock, args, kwargs)
            return unique.run(self, lock, args, kwargs, body)
        return self._run_with(lock, args, kwargs)

    def _run_with(
        self, lock: LockOptions | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        owned = owned_by(partial(locked.owner_of, self), until=self._until_when())
        try:
            # No limit interrupts who gives locks back at the end.
            with owned, self._watched():
                if lock is not None:
                    return locked.run(self, lock, args, kwargs)
                return self.run(*args, **kwargs)
        except SoftTimeLimitExceeded as error:
            self._retry_if_the_policy_says_so(error)
            raise
        except DeadlockDetected as error:
            self._retry_after_deadlock(error)
            raise
        except TaskPredicate:
            raise
        except Exception as error:
            self._retry_if_it_was_a_database_deadlock(error)
            raise

    def _until_when(self) -> Callable[[], float | None]:
        """From when on the locks of this run are not renewed any more."""
        began = time.monotonic()

        def until() -> float | None:
            # Of a child of ours main knows when it kills it; an eager run has no limits.
            if self.request.is_eager or locked.is_kept_by_main():
                return None
            hard = self._limits_in_force().hard
            return began + hard if hard else None

        return until

    @functools.cached_property
    def lock_options(self) -> LockOptions | None:
        """What the task says of its lock. Raises ``SettingsError`` for what is wrong."""
        return lock_options.options_of(self)

    @property
    def lock_options_if_good(self) -> LockOptions | None:
        """The same for those who cannot do anything about what is wrong."""
        try:
            return self.lock_options
        except SettingsError:
            return None

    def _retry_after_deadlock(self, error: DeadlockDetected) -> None:
        # What is rather lost than run twice has begun.
        if self.acks_late and not self.request.is_eager:
            dice = random.random()  # noqa: S311 - jitter is no secret
            wait = locked.after_deadlock(self.request.retries, dice)
            raise self.retry(exc=error, countdown=wait)

    def _watched(self) -> AbstractContextManager[None]:
        watch = self.app.watch
        if watch is None or self.request.is_eager:
            return nullcontext()
        over = watch.over(self.request.id, self._limits_in_force)
        return cast("AbstractContextManager[None]", over)

    def _limits_in_force(self) -> Limits:
        hard, soft = self.request.timelimit or (None, None)
        return limits_of(self, self.app, Limits(hard=hard, soft=soft))

    def _retry_if_the_policy_says_so(self, error: SoftTimeLimitExceeded) -> None:
        now = system_clock()
        outcome = Outcome(ending=Ending.SOFT_LIMIT)
        verdict = decide(outcome, self._delivery(), policy_of(self), now)
        if isinstance(verdict, Retry):
            wait = (verdict.at - now).total_seconds()
            raise self.retry(exc=error, countdown=wait)

    def _retry_if_it_was_a_database_deadlock(self, error: Exception) -> None:
        if self.retry_on_deadlock and is_database_deadlock(error):
            raise self.retry(exc=error)

    def _delivery(self) -> Delivery:
        request = self.request
        return Delivery(
            task_id=request.id,
            task_name=self.name,
            queue="",
            attempt=request.retries,
            dice=random.random(),  # noqa: S311 - jitter is no secret
        )

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: Any = None,
        throw: bool = True,
        eta: Any = None,
        countdown: Any = None,
        **options: Any,
    ) -> Any:
        """Retry as ``celery.Task.retry`` does, with the project's delay and backoff.

        A retry that the broker does not take is not lost: the message is queued again
        as the same attempt (Celery throws it away).
        """
        if eta is None and countdown is None:
            countdown = self._retry_countdown()
        try:
            with self._never_on_commit():
                return super().retry(
                    args, kwargs, exc, throw, eta=eta, countdown=countdown, **options
                )
        except Reject as reject:
            if reject is exc:
                raise
            raise self._after_failed_publish(reject) from reject.reason

    def on_replace(self, sig: Any) -> Any:
        """Publish what replaces this task, as ``celery.Task.on_replace`` does."""
        with self._never_on_commit():
            return super().on_replace(sig)

    def _never_on_commit(self) -> AbstractContextManager[None]:
        # These end with an exception, which would take the message back with the
        # transaction, while the one that it comes from is acknowledged.
        return nullcontext() if self.request.is_eager else at_once()

    def _retry_countdown(self) -> float:
        delay = retry_delay_of(self)
        dice = random.random()  # noqa: S311 - jitter is no secret
        return delay.after(self.request.retries, dice).total_seconds()

    def _after_failed_publish(self, reject: Reject) -> Exception:
        reason = reject.reason
        if not isinstance(reason, Exception):
            raise reject
        # Queueing again helps only against a broker that is away, and never a task
        # that would rather be lost than run twice.
        if isinstance(reason, PERMANENT) or not self.acks_late:
            return reason
        again: Exception = Reject(reason, requeue=True)
        return again


def _said_by(cls: type) -> dict[str, Any]:
    """The options that a class gives, not bound yet, its bases included."""
    return {
        option: value
        for option in OPTIONS
        if (value := _value_said(cls, option)) is not NOT_SAID
    }


def _value_said(cls: type, option: str) -> Any:
    for base in cls.__mro__:
        own = vars(base)
        if base in (Task, celery.Task):
            break
        if "said" in own:
            # A bound class: its attributes hold the settings as well.
            return own["said"].get(option, NOT_SAID)
        if option in own:
            # A base class may have a method of the name of one of our options.
            unsaid = own[option] is None and option != "max_retries"
            unsaid = unsaid or callable(own[option])
            return NOT_SAID if unsaid else own[option]
    return NOT_SAID


@functools.cache
def with_our_task(base: Any) -> Any:
    """``base``, made to be a ``Task`` of ours as well; its own methods come first."""
    if issubclass(base, Task):
        return base
    if base is celery.Task:
        return Task
    return type(
        base.__name__,
        (base, Task),
        {"__module__": base.__module__, "__doc__": base.__doc__, "abstract": True},
    )
