"""Numbers as people and rules read them."""

from __future__ import annotations

import re

MIB = 2**20


def mib(count: int) -> str:
    """Bytes, in words."""
    return f"{count / MIB:.1f} MiB" if count < 10 * MIB else f"{count / MIB:.0f} MiB"


def version_of(text: str) -> tuple[int, int]:
    """The first two numbers of a version."""
    numbers = [int(number) for number in re.findall(r"\d+", text)[:2]]
    return (*numbers, 0, 0)[:2]  # type: ignore[return-value]
