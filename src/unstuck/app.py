"""The drop-in Celery: the one place that wires the parts together."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from types import MappingProxyType
from typing import Any

import celery
from celery.fixups.django import DjangoFixup
from celery.utils import uuid
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES
from kombu.utils.imports import symbol_by_name

from unstuck import conf, configuration, profile, tracing
from unstuck.beat.step import BeatStep
from unstuck.core import publish
from unstuck.core.errors import OutboxError
from unstuck.letters.queue import NAME as DEAD
from unstuck.outbox.publication import Capture, Publication
from unstuck.probes.step import ProbesStep
from unstuck.profile import PUBLISH_SECONDS
from unstuck.recorder.step import RecorderStep
from unstuck.worker.steps import STEPS
from unstuck.worker.task import with_our_task
from unstuck.worker.watch import Watch

CONSUMER = "unstuck.worker.consumer:Consumer"

SEND_TASK = inspect.signature(celery.Celery.send_task)

for _name in ("unstuck", "unstuck+redis", "unstuck+rediss", "unstuck+sentinel"):
    # kombu finds a transport by the scheme of a URL, or by what goes before its plus.
    TRANSPORT_ALIASES.setdefault(_name, "unstuck.transport:Transport")


def _add_profile(*, source: Any, **_: Any) -> None:
    configuration.add_profile(source, {"worker_consumer": CONSUMER})
    tracing.install()


class Celery(celery.Celery):
    """Celery whose tasks always end and whose messages are accounted for.

    Takes the arguments of ``celery.Celery`` and behaves like it, with the safe defaults
    of ``unstuck.profile`` under the project's own settings.
    """

    amqp_cls = "unstuck.worker.amqp:AMQP"
    log_cls = "unstuck.logs.setup:Logging"

    consumer_in_charge: Any = None
    """The consumer of the worker that this process is, if it is one."""

    dead_letters = DEAD
    """The queue that its dead letters wait in."""

    delays_on_broker = True
    """Whether messages wait for their time on RabbitMQ, which takes queues of its own."""

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
        self.steps["worker"].update((*STEPS, RecorderStep, ProbesStep, BeatStep))
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

    @cached_property
    def Beat(self) -> Any:
        """The beat program."""
        return self.subclass_with_self("unstuck.beat.program:Beat")

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

        ``publish="on_commit"`` has it wait for the transaction of the caller; without the
        option the task says so, or ``CELERY_TASK_PUBLISH``.

        Raises ``kombu.exceptions.OperationalError`` when the broker does not take it
        within 10 seconds, or the result store does not answer.
        """
        options.setdefault("confirm_timeout", PUBLISH_SECONDS)
        task = options.get("task_type") or self._tasks.get(name)
        if self.waits_for_commit(task, options.pop("publish", None)):
            given = dict(SEND_TASK.bind(self, name, *args).arguments)
            # What names a connection may mean another broker than ours.
            if given.get("connection", options.get("connection")) is None:
                del given["self"], given["name"]
                return self._send_on_commit(name, {**given, **options})
        with self.naming_result_store(name):
            return super().send_task(name, *args, **options)

    def waits_for_commit(self, task: Any, said: Any = None) -> bool:
        """Whether a call of this task that says ``publish=said`` waits for a commit.

        Raises ``ValueError`` when whoever says something says none of the choices.
        """
        own = getattr(task, "publish", None)
        # A base class of the project's own may have a method of that name.
        own = None if callable(own) else own
        return publish.waits_for_commit(said, own, self.conf.task_publish)

    def _send_on_commit(self, name: str, options: dict[str, Any]) -> Any:
        task_id = options.pop("task_id", None) or uuid()
        producer = options.pop("producer", None) or options.pop("publisher", None)
        ignored = options.pop("ignore_result", None)
        capture = Capture()
        result = super().send_task(
            name, task_id=task_id, producer=capture, ignore_result=True, **options
        )
        result.ignored = ignored
        publication = capture.publication(task_id, name, ignored)
        if self._gathered is None:
            self._dispatch([publication], producer)
        else:
            self._gathered.append(publication)
        return result

    def send_many_on_commit(
        self, calls: Callable[[], list[Any]], producer: Any = None
    ) -> list[Any]:
        """What ``calls`` publishes waits for a commit together; nothing if it raises."""
        if self._gathered is not None:
            return calls()
        gathered: list[Publication] = []
        self._gathered = gathered
        try:
            results = calls()
        finally:
            self._gathered = None
        if gathered:
            self._dispatch(gathered, producer)
        return results

    @property
    def _gathered(self) -> list[Publication] | None:
        return getattr(self._local, "unstuck_gathered", None)

    @_gathered.setter
    def _gathered(self, publications: list[Publication] | None) -> None:
        self._local.unstuck_gathered = publications

    def _dispatch(self, publications: Sequence[Publication], producer: Any) -> None:
        if not conf.has_our_tables():
            raise OutboxError(
                f"{publications[0].task_name} was not sent: publish='on_commit' needs "
                f'the outbox. Add "unstuck" to INSTALLED_APPS and run '
                f"`manage.py migrate unstuck`."
            )
        # Its models cannot be imported before Django has loaded the apps.
        from unstuck.outbox.dispatch import dispatch

        dispatch(self, publications, producer)

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
