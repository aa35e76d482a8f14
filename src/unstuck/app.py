"""The drop-in Celery: the one place that wires the parts together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from types import MappingProxyType
from typing import Any

import celery
from celery.fixups.django import DjangoFixup
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES
from kombu.utils.imports import symbol_by_name

from unstuck import conf, configuration, profile
from unstuck.letters.queue import NAME as DEAD
from unstuck.profile import PUBLISH_SECONDS
from unstuck.recorder.step import RecorderStep
from unstuck.worker.steps import STEPS
from unstuck.worker.task import with_our_task
from unstuck.worker.watch import Watch

CONSUMER = "unstuck.worker.consumer:Consumer"

for _name in ("unstuck", "unstuck+redis", "unstuck+rediss", "unstuck+sentinel"):
    # kombu finds a transport by the scheme of a URL, or by what goes before its plus.
    TRANSPORT_ALIASES.setdefault(_name, "unstuck.transport:Transport")


def _add_profile(*, source: Any, **_: Any) -> None:
    configuration.add_profile(source, {"worker_consumer": CONSUMER})


class Celery(celery.Celery):
    """Celery whose tasks always end and whose messages are accounted for.

    Takes the arguments of ``celery.Celery`` and behaves like it, with the safe defaults
    of ``unstuck.profile`` under the project's own settings.
    """

    consumer_in_charge: Any = None
    """The consumer of the worker that this process is, if it is one."""

    dead_letters = DEAD
    """The queue that its dead letters wait in."""

    lease_options: Mapping[str, Any] = MappingProxyType({})
    """What a broker that keeps leases is told of this process."""

    watch: Watch | None = None
    """What keeps the time limits of a pool that keeps none itself."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        in_django = any(isinstance(fixup, DjangoFixup) for fixup in self._fixups)
        base: Any = self.task_cls  # type: ignore[has-type] # set by Celery
        if in_django and base == celery.Celery.task_cls:
            # Celery 5.6 takes every subclass for one with a task class of its own.
            self.task_cls = "celery.contrib.django.task:DjangoTask"
        self.steps["worker"].update((*STEPS, RecorderStep))
        # The first receiver: those of the project may use tasks, and so bind them.
        self.on_after_configure.connect(_add_profile, weak=False)

    def _connection(
        self, url: Any, *args: Any, transport_options: Any = None, **kwargs: Any
    ) -> Any:
        # A dict is one value to Celery: one own key would take our timeouts away.
        own = self.conf.broker_transport_options
        options = {
            **profile.transport_options(url),
            **(own if isinstance(own, Mapping) else {}),
            **(transport_options or {}),
        }
        if profile.keeps_leases(url):
            ours = {"lease_seconds": conf.current().lease_seconds, **self.lease_options}
            options = {**ours, **options}
        return super()._connection(url, *args, transport_options=options, **kwargs)

    @cached_property
    def Worker(self) -> Any:
        """The worker program."""
        return self.subclass_with_self("unstuck.worker.main:Worker")

    def create_task_cls(self) -> Any:
        """The base class of this app's tasks."""
        return self.subclass_with_self(
            with_our_task(symbol_by_name(self.task_cls)),
            name="Task",
            attribute="_app",
            keep_reduce=True,
            abstract=True,
        )

    def _task_from_fun(
        self,
        fun: Callable[..., Any],
        name: Any = None,
        base: Any = None,
        **options: Any,
    ) -> Any:
        # A base class of the project's own keeps its ways and gets ours beneath them.
        base = with_our_task(base) if base else None
        return super()._task_from_fun(fun, name=name, base=base, **options)

    def register_task(self, task: Any, **options: Any) -> Any:
        """Register a class-based task, as Celery does."""
        if not isinstance(task, type):
            cls: Any = type(task)
            task.__class__ = with_our_task(cls)
        else:
            task = with_our_task(task)
        return super().register_task(task, **options)

    def send_task(self, name: str, *args: Any, **options: Any) -> Any:
        """Publish a task by name, as Celery does, but never wait without end.

        Raises ``kombu.exceptions.OperationalError`` when the broker does not take it
        within 10 seconds, or the result store does not answer.
        """
        options.setdefault("confirm_timeout", PUBLISH_SECONDS)
        with self.naming_result_store(name):
            return super().send_task(name, *args, **options)

    @contextmanager
    def naming_result_store(self, name: str) -> Iterator[None]:
        """Say of an error that the result store, which is told of each call, is its cause."""
        try:
            yield
        except RuntimeError as error:
            if "result store" not in str(error):
                raise
            raise OperationalError(
                f"{name} was not sent: the result store at {self.backend.as_uri()} "
                f"did not answer. Is it there? Try again."
            ) from error
