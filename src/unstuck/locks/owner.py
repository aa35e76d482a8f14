"""Whose the locks are that are taken here: of one run of a task, else of one thread."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from uuid import uuid4

from unstuck.core.errors import LockError
from unstuck.fields import Fields
from unstuck.locks import holding, keeper
from unstuck.locks.backend import Owner

logger = logging.getLogger(__name__)


class owned_by:
    """Whatever is taken within, by this thread, is that owner's, and ends with it.

    ``until``: the instant of ``time.monotonic()`` from which no lease is renewed.

    What is given as a function is asked for when the first lock is taken: most runs of
    tasks take none.
    """

    __slots__ = ("_before", "_made", "_owner", "_until", "pid")

    def __init__(
        self,
        owner: Owner | Callable[[], Owner],
        *,
        until: float | Callable[[], float | None] | None = None,
    ) -> None:
        self._owner = owner
        self._until = until
        self._made: Owner | None = None
        self.pid = os.getpid()
        """Of this process: one that is forked within has nothing of its parent's."""

    @property
    def owner(self) -> Owner:
        """Who it is."""
        if self._made is None:
            self._made = self._owner() if callable(self._owner) else self._owner
        return self._made

    @property
    def until(self) -> float | None:
        """When it is over at the latest, as far as can be known."""
        if callable(self._until):
            self._until = self._until()
        return self._until

    def __enter__(self) -> None:
        self._before, _thread.owned = _thread.owned, self

    def __exit__(self, *_: object) -> None:
        _thread.owned = self._before
        if self._made is not None and not self._is_within_itself():
            _give_back_what_is_left(self._made)

    def _is_within_itself(self) -> bool:
        outer = _thread.owned
        made = outer._made if outer is not None else None
        return made is not None and made.token == self.owner.token


class _Thread(threading.local):
    # Not a context variable: threads that a task starts inherit those, and two threads
    # that are one owner would exclude each other from nothing.
    owned: owned_by | None = None
    owner: Owner | None = None


_thread = _Thread()


def current() -> Owner:
    """Who takes locks here: who ``owned_by`` names, else this thread of this process."""
    owned, pid = _thread.owned, os.getpid()
    if owned is not None and owned.pid == pid:
        return owned.owner
    owner = _thread.owner
    if owner is None or owner.pid != pid:
        owner = _thread.owner = new_owner()
    return owner


def deadline() -> float | None:
    """The instant of ``time.monotonic()`` from which no lease is renewed, if any."""
    owned = _thread.owned
    return owned.until if owned is not None and owned.pid == os.getpid() else None


def _give_back_what_is_left(owner: Owner) -> None:
    """Of a block that a soft limit hit in the instant in which it began, say."""
    for held in holding.all_of(owner):
        logger.warning(
            "A lock is given back, as its owner has ended: %(fields)s",
            Fields(lock=held.claim.name),
        )
        with contextlib.suppress(LockError):
            held.backend.release(held.claim)
        keeper.current().end(held.claim)
        holding.drop(held.claim)


def new_owner(*, node: str = "", task_id: str = "", task_name: str = "") -> Owner:
    """An owner that is born now, in this process."""
    return Owner(
        token=uuid4().hex,
        born=time.time(),
        pid=os.getpid(),
        node=node or socket.gethostname(),
        task_id=task_id,
        task_name=task_name,
    )
