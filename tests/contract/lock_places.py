"""Where locks can be kept, how another process gets there, and who takes them."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from tests.node import ROOT
from tests.waiting import eventually
from unstuck import lock
from unstuck.locks import backends
from unstuck.locks.backend import Backend, Owner
from unstuck.locks.owner import new_owner, owned_by

T = TypeVar("T")

SOON = 20
"""Seconds; nobody waits for so long unless something is wrong."""

PATIENCE = 60
"""The same where many wait in a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A server that keeps locks."""

    url: str
    """As in ``UNSTUCK["LOCK_URL"]``."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """What another process needs to use it with `tests.settings`."""

    def backend(self) -> Backend:
        """A new one."""
        return backends.at(self.url)

    @contextlib.contextmanager
    def holder(self, name: str, lease: float) -> Iterator[Holder]:
        """Another process, holding a lock; it ends with us, whatever becomes of us."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.lock_holder", name, str(lease)],
            cwd=ROOT,
            env={**os.environ, **self.environment, "LOCK_URL": self.url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield Holder(process)
        finally:
            process.kill()
            process.communicate()


class Holder:
    """Another process that holds a lock until it is told to leave its block."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """To be stopped or killed."""
        return self._process.pid

    def leave(self) -> str:
        """What became of it: `left`, or the name of the error."""
        out, _ = self._process.communicate("leave\n", timeout=30)
        return out.strip()


def an_owner(name: str = "", *, born: float = 0.0) -> Owner:
    """A run of a task, as a worker makes it; with `born`, for order among owners."""
    owner = new_owner(node="celery@w1", task_id=name, task_name=name and "shop.run")
    if not born:
        return owner
    return Owner(
        token=owner.token,
        born=born,
        pid=owner.pid,
        node=owner.node,
        task_id=name,
        task_name="shop.run",
    )


def apart(function: Callable[[], T], owner: Owner | None = None) -> Future[T]:
    """Call it in a thread of its own, for an owner of its own."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            with owned_by(owner) if owner else contextlib.nullcontext():
                future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def taken(name: str, wait: float = 0) -> int:
    """Take it and give it back; its fence."""
    with lock(name, wait=wait) as held:
        return held.fence


def taken_apart(name: str, wait: float = 0) -> int:
    """The same in another thread."""
    return apart(lambda: taken(name, wait)).result(SOON)


def waiting_for(backend: Backend, name: str, count: int) -> None:
    """Wait until so many stand in line for a lock."""

    def enough() -> bool:
        rows = [held for held in backend.all_held() if held.name == name]
        return bool(rows) and len(rows[0].waiting) == count

    eventually(enough)


def random_nests(backend: Backend, *, owners: int, locks: int) -> None:
    """So many locks are taken by so many owners at the same time, one within another.

    All take them in one order, so each gets all that it wants.
    """
    each = locks // owners
    done = [
        apart(partial(_take_at_random, seed, each), an_owner(str(seed)))
        for seed in range(owners)
    ]
    assert all(one.result() >= each for one in done)
    assert backend.all_held() == []


def _take_at_random(seed: int, count: int) -> int:
    dice, taken = random.Random(seed), 0
    while taken < count:
        names = [f"n{number:02}" for number in range(12)]
        wanted = sorted(dice.sample(names, dice.randint(1, 4)))
        _nest(wanted, dice)
        taken += len(wanted)
    return taken


def _nest(names: list[str], dice: random.Random) -> None:
    if not names:
        return
    first, *rest = names
    if rest and dice.random() < 0.3:
        with lock.many(names, wait=PATIENCE):
            return
    with lock(first, wait=PATIENCE):
        if dice.random() < 0.2:
            with lock(first, wait=PATIENCE):
                _nest(rest, dice)
        else:
            _nest(rest, dice)
