"""The row of a node: who it is, how it is, and when it was seen last."""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import celery

from unstuck import conf
from unstuck.core.clock import system_clock
from unstuck.models import Node
from unstuck.pool.board import MAIN, Board, Column
from unstuck.recorder.database import upsert, writing
from unstuck.recorder.sound import short

KEPT = ("id", "name", "last_batch")
WRITTEN = [field.name for field in Node._meta.concrete_fields if field.name not in KEPT]
VERSION_LENGTH = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What stays as it is while a node lives."""

    name: str
    pid: int
    started_at: datetime
    pool: str
    concurrency: int
    queues: tuple[str, ...]
    broker: str

    @classmethod
    def of(cls, worker: Any) -> About:
        """What a worker says of itself, in its first process; connects to nothing."""
        return cls(
            name=worker.hostname,
            pid=os.getpid(),
            started_at=system_clock(),
            pool=worker.pool_name,
            concurrency=worker.max_concurrency or worker.concurrency or 1,
            queues=tuple(sorted(worker.app.amqp.queues.consume_from)),
            broker=broker_kind(worker.app),
        )


def broker_kind(app: Any) -> str:
    """The scheme of the first URL of the broker, and so nothing that is secret."""
    # Not of a connection: kombu would open descriptors, and this is before the forks.
    urls = app.conf.broker_read_url or app.conf.broker_url or ""
    first = urls if isinstance(urls, str) else next(iter(urls), "")
    scheme, separator, _ = first.partition("://")
    return scheme if separator else "amqp"


class Presence:
    """Writes the row of this node every ten seconds, and when its state changes."""

    def __init__(
        self,
        about: About,
        board: Board,
        told: Callable[[], Mapping[str, Any]] = dict,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``told`` gives the columns that change while a node lives."""
        self._about = about
        self._row = board.row(MAIN)
        self._changing = told
        self._monotonic = monotonic
        self._due_at = monotonic()
        self._told = ""

    def tell(self) -> bool:
        """Write the row if it is time; there is never more to do."""
        state = self._state
        if state != self._told or self._monotonic() >= self._due_at:
            self._write(state)
        return False

    def leave(self) -> bool:
        """Say goodbye, if it is the node that ends and not its recorder alone."""
        if self._row[Column.STOPPING]:
            self._write("gone")
        return False

    @property
    def _state(self) -> str:
        if self._row[Column.STOPPING]:
            return "stopping"
        return "ready" if self._row[Column.READY] else "starting"

    def _write(self, state: str) -> None:
        node = self._node(state)
        if state == "gone":
            node.running = []
        with writing() as alias:
            upsert(alias, ["name"], [node], WRITTEN)
        self._told = state
        self._due_at = self._monotonic() + Node.SEEN_EVERY.total_seconds()

    def _node(self, state: str) -> Node:
        about = self._about
        return Node(
            name=short(about.name),
            host=short(socket.gethostname()),
            pid=about.pid,
            state=state,
            started_at=about.started_at,
            seen_at=system_clock(),
            pool=short(about.pool),
            concurrency=about.concurrency,
            queues=[short(queue) for queue in about.queues],
            broker=short(about.broker),
            unstuck_version=_unstuck_version(),
            celery_version=celery.__version__[:VERSION_LENGTH],
            python_version=platform.python_version()[:VERSION_LENGTH],
            release=short(conf.current().release or ""),
            **self._changing(),
        )


def _unstuck_version() -> str:
    try:
        return version("unstuck")[:VERSION_LENGTH]
    except PackageNotFoundError:  # a checkout on the path, never installed
        return ""
