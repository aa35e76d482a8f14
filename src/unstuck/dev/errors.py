"""How `unstuck dev` ends before its time."""

from __future__ import annotations


class DevError(Exception):
    """The user can put it right; the message is one line that says how."""


class Asked(Exception):
    """Somebody asked for the end: Ctrl-C, a signal, or the parent is gone."""


class ProcessEnded(Exception):
    """A process that was to stay has ended; the message says which, and how."""

    def __init__(self, name: str, status: int) -> None:
        super().__init__(f"{name} {describe(status)}")


def describe(status: int) -> str:
    """The exit status of a tether in words."""
    if status > 128:
        return f"was killed by signal {status - 128}"
    return f"ended with exit status {status}"
