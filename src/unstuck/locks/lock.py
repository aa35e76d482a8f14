"""``lock()``: something that at most one does at a time, in all processes of a project."""

from __future__ import annotations

import asyncio
import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from threading import get_ident
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

from unstuck.locks import taking, terms
from unstuck.locks.holding import Holding

P = ParamSpec("P")
R = TypeVar("R")
What = TypeVar("What")


class HeldLock:
    """A lock, within the block that holds it."""

    __slots__ = ("_holding",)

    def __init__(self, held: Holding) -> None:
        self._holding = held

    @property
    def name(self) -> str:
        """What it is called."""
        return self._holding.claim.name

    @property
    def fence(self) -> int:
        """A number that is higher than that of whoever had the lock before."""
        return self._holding.fence

    def check(self) -> None:
        """Ask whether it is still held, in one round trip. Raises ``LockLost`` if not."""
        held = self._holding
        held.lost = held.lost or not held.backend.is_held(held.claim)
        if held.lost:
            raise taking.loss_of(held)

    def __repr__(self) -> str:
        return f"<lock {self.name!r}, fence {self.fence}>"


class _Block(ABC, Generic[What]):
    """What ``with`` and ``@`` do with locks; safe to be used by threads, and by itself."""

    def __init__(self, *, wait: Any, lease: Any) -> None:
        self._wait = terms.checked_wait(wait)
        self._lease = terms.checked_lease(lease)
        self._entered: dict[int, list[What]] = {}

    @abstractmethod
    def _take(self) -> What: ...

    @abstractmethod
    def _give_back(self, what: What, error: BaseException | None) -> None: ...

    def __enter__(self) -> What:
        _refuse_event_loop()
        what = self._take()
        self._entered.setdefault(get_ident(), []).append(what)
        return what

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        thread = get_ident()
        entered = self._entered[thread]
        what = entered.pop()
        if not entered:
            del self._entered[thread]
        self._give_back(what, exc)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, taking it for each call."""
        _refuse_what_runs_later(function)

        @functools.wraps(function)
        def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return locked


class Lock(_Block[HeldLock]):
    """One lock, for a ``with`` block or as a decorator."""

    def __init__(self, name: Any, *, wait: Any, lease: Any) -> None:
        super().__init__(wait=wait, lease=lease)
        self._name = terms.checked_name(name)

    def _take(self) -> HeldLock:
        return HeldLock(taking.take(self._name, wait=self._wait, lease=self._lease))

    def _give_back(self, what: HeldLock, error: BaseException | None) -> None:
        taking.give_back([what._holding], error)

    def __repr__(self) -> str:
        return f"lock({self._name!r}, wait={self._wait:g}, lease={self._lease:g})"


class ManyLocks(_Block[Mapping[str, HeldLock]]):
    """Several locks, all or none, for a ``with`` block or as a decorator."""

    def __init__(self, names: Any, *, wait: Any, lease: Any) -> None:
        super().__init__(wait=wait, lease=lease)
        self._names = terms.checked_names(names)

    def _take(self) -> Mapping[str, HeldLock]:
        taken = taking.take_all(self._names, wait=self._wait, lease=self._lease)
        return {held.claim.name: HeldLock(held) for held in taken}

    def _give_back(
        self, what: Mapping[str, HeldLock], error: BaseException | None
    ) -> None:
        taking.give_back([held._holding for held in what.values()], error)

    def __repr__(self) -> str:
        names = list(self._names)
        return f"lock.many({names!r}, wait={self._wait:g}, lease={self._lease:g})"


class _Locks:
    """See ``docs/locks.md``."""

    def __call__(self, name: str, *, wait: float = 0, lease: float = 30) -> Lock:
        """A lock that only one owner has at a time, wherever it runs.

        ``wait``: for so many seconds, if it is busy; then ``LockBusy`` is raised.
        ``lease``: so many seconds after its holder has died, another may have it.
        """
        return Lock(name, wait=wait, lease=lease)

    def many(
        self, names: Iterable[str], *, wait: float = 0, lease: float = 30
    ) -> ManyLocks:
        """Several locks, taken in an order that is the same for everybody.

        ``wait`` is for all of them together. The block gets a dict of them by name.
        """
        return ManyLocks(names, wait=wait, lease=lease)


lock = _Locks()


def _refuse_event_loop() -> None:
    # Coroutines of one thread would all be one owner, and exclude each other from nothing.
    if asyncio._get_running_loop() is not None:
        raise RuntimeError(
            "lock() cannot be used in async code: it blocks, and all coroutines of a "
            "thread would have it together. Put what is locked into a function and "
            "call it with asgiref.sync.sync_to_async(function)."
        )


def _refuse_what_runs_later(function: Any) -> None:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"@lock(...) cannot be put on {function.__qualname__}(): it is async. Take "
            "the lock in a function that is called with sync_to_async()."
        )
    if inspect.isgeneratorfunction(function):
        raise TypeError(
            f"@lock(...) cannot be put on {function.__qualname__}(): it is a generator "
            "and would run after the lock was given back. Write `with lock(...)` into it."
        )
