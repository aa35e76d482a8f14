"""Processes that hold locks, or wait for them, are killed at random."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.crash.chaos import sized
from tests.node import ROOT
from tests.waiting import eventually

NAMES = ("a", "b", "c")


@contextmanager
def user(url: str, ledger: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that takes locks at random."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.lock_user", str(ledger), *NAMES],
        cwd=ROOT,
        env={**os.environ, "LOCK_URL": url},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def entries(ledger: Path) -> list[tuple[str, str, int, int]]:
    """What happened, to which lock, with which fence, by which process."""
    lines = [line.split() for line in ledger.read_text().splitlines()]
    return [(what, name, int(fence), int(pid)) for what, name, fence, pid in lines]


def test_never_two_whoever_is_killed(valkey: Any, tmp_path: Path) -> None:
    """SIGKILL again and again: no lock has two holders, and none is lost for ever."""
    valkey.flush()
    ledger, dice = tmp_path / "ledger", random.Random()
    ledger.touch()
    with ExitStack() as stack:
        users = [stack.enter_context(user(valkey.url(0), ledger)) for _ in range(4)]
        eventually(lambda: len({pid for *_, pid in entries(ledger)}) == 4, 60)
        for _ in range(sized(4, 100)):
            time.sleep(dice.uniform(0.2, 1))
            victim = users.pop(dice.randrange(len(users)))
            with ledger.open("a") as file:
                file.write(f"kill - 0 {victim.pid}\n")
            victim.kill()
            victim.wait()
            users.append(stack.enter_context(user(valkey.url(0), ledger)))
        seen = len(entries(ledger))
        eventually(
            lambda: {name for _, name, *_ in entries(ledger)[seen:]} >= set(NAMES), 60
        )

    judge(entries(ledger))


def judge(happened: list[tuple[str, str, int, int]]) -> None:
    """No lock was taken while another had it, and each fence is higher."""
    holder: dict[str, int] = {}
    last: dict[str, int] = {}
    dead = set()
    for what, name, fence, pid in happened:
        match what:
            case "kill":
                dead.add(pid)
            case "in":
                assert holder.get(name) in (None, *dead), (name, fence, pid)
                assert fence > last.get(name, 0)
                holder[name], last[name] = pid, fence
            case "out":
                assert (holder[name], last[name]) == (pid, fence)
                del holder[name]
            case _:
                raise AssertionError(f"{pid} was told {what} of {name!r}")
