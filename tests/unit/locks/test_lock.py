"""`lock()`: what it takes, and what it refuses before any server is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from unstuck import lock


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "at least one character"),
        ("two\nlines", "printable"),
        ("nul\0", "printable"),
        ("half a pair \ud800", "printable"),
        ("x" * 256, "has 256"),
        ("é" * 128, "has 256"),
    ],
)
def test_names_that_cannot_be(name: str, words: str) -> None:
    """What is wrong with them is said where the lock is made."""
    with pytest.raises(ValueError, match=words):
        lock(name)
    with pytest.raises(ValueError, match=words):
        lock.many(["good", name])


@pytest.mark.parametrize("name", [None, 42, b"bytes", ["a"]])
def test_a_name_is_a_string(name: Any) -> None:
    """Anything else would be another one than one thinks."""
    with pytest.raises(TypeError, match="must be a string"):
        lock(name)


@pytest.mark.parametrize("wait", [-1, None, "5", True, float("nan"), float("inf")])
def test_waits_that_cannot_be(wait: Any) -> None:
    """Nobody waits for ever."""
    with pytest.raises(ValueError, match=r"wait=.* must be a number of seconds from 0"):
        lock("name", wait=wait)


@pytest.mark.parametrize("lease", [0, 0.5, None, "30", True, 86_401, float("nan")])
def test_leases_that_cannot_be(lease: Any) -> None:
    """Nor does a lock outlive its holder for ever."""
    with pytest.raises(
        ValueError, match=r"lease=.* must be a number of seconds from 1"
    ):
        lock.many(["name"], lease=lease)


@pytest.mark.parametrize("names", ["report", 7, None])
def test_many_takes_a_list(names: Any) -> None:
    """A string is a list of letters, and nobody means that."""
    with pytest.raises(TypeError, match="takes a list of names"):
        lock.many(names)


def test_many_of_none() -> None:
    """A list that came out empty by mistake locks nothing."""
    with pytest.raises(ValueError, match="the list is empty"):
        lock.many(())


def test_what_runs_later_cannot_be_decorated() -> None:
    """The lock would be given back before it runs."""

    async def coroutine() -> None: ...

    async def stream() -> AsyncIterator[int]:
        yield 1

    def generator() -> Iterator[int]:
        yield 1

    for function in (coroutine, stream):
        with pytest.raises(TypeError, match="it is async"):
            lock("name")(function)
    with pytest.raises(TypeError, match="it is a generator"):
        lock("name")(generator)


def test_coroutines_cannot_take_locks() -> None:
    """Those of one thread would have it together."""

    async def view() -> None:
        with lock("name"):
            pytest.fail("it was taken")

    with pytest.raises(RuntimeError, match="sync_to_async"):
        asyncio.run(view())


def test_they_say_what_they_are() -> None:
    """In a debugger."""
    assert repr(lock("a", wait=5)) == "lock('a', wait=5, lease=30)"
    assert repr(lock.many(["b", "a"])) == "lock.many(['a', 'b'], wait=0, lease=30)"
