"""Which process of which node this is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Process:
    """This process, as lines of the log name it; of no node, unless it says so."""

    node: str = ""
    role: str = ""
    """``supervisor``, ``main``, ``child``, ``recorder``, ``probes`` or ``beat``."""

    name: str = ""
    """The role, and where there are many of it, which one."""


here = Process()


def become(role: str, *, node: str = "", number: int | None = None) -> None:
    """Say what this process is from now on; of the same node, if it does not say."""
    here.node = node or here.node
    here.role = role
    here.name = role if number is None else f"{role}-{number}"
