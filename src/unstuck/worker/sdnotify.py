"""Tell systemd how this service fares: sd_notify(3) and sd_watchdog_enabled(3)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, MutableMapping

SOCKET = "NOTIFY_SOCKET"
WATCHDOG_USEC = "WATCHDOG_USEC"
WATCHDOG_PID = "WATCHDOG_PID"


class Notifier:
    """Sends systemd what it asked for in ``environ``, and nothing if it did not ask.

    Nothing here blocks or raises. Each message is answered with whether systemd has
    it: the queue of its socket may be full for a moment.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = _address(environ.get(SOCKET, ""))
        self._interval = _watchdog_interval(environ) if self._address else None
        self._clock = clock
        self._taken: dict[str, str] = {}
        self._watchdog_at: float | None = None

    @classmethod
    def take_from(cls, environ: MutableMapping[str, str]) -> Notifier:
        """A notifier that leaves none of its variables to processes started later.

        They would notify in our name.
        """
        notifier = cls(environ)
        for name in (SOCKET, WATCHDOG_USEC, WATCHDOG_PID):
            if name in environ:
                notifier._taken[name] = environ.pop(name)
        return notifier

    def give_back_to(self, environ: MutableMapping[str, str]) -> None:
        """Leave its variables to the program that takes this process over."""
        environ.update(self._taken)

    @property
    def watchdog_interval(self) -> float | None:
        """Seconds between two signs of life: half of those that systemd waits.

        ``None`` when it waits for none, or for those of another process.
        """
        return self._interval

    def ready(self) -> bool:
        """The service is up."""
        return self._send("READY=1")

    def stopping(self) -> bool:
        """The service is on its way down."""
        return self._send("STOPPING=1")

    def reloading(self) -> bool:
        """The service loads everything anew, and will say that it is up."""
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def status(self, text: str) -> bool:
        """What it does, in one line for people."""
        return self._send(f"STATUS={' '.join(text.split())}")

    def watchdog(self) -> bool:
        """Give a sign of life, if it is time for one.

        Cheap, so that a loop may call it in every turn. A loop that turns more slowly
        than twice in an interval might miss systemd's deadline.
        """
        now = self._clock()
        if self._interval is None or (
            self._watchdog_at is not None and now - self._watchdog_at < self._interval
        ):
            return False
        sent = self._send("WATCHDOG=1")
        if sent:
            self._watchdog_at = now
        return sent

    def _send(self, message: str) -> bool:
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(errors="replace"), self._address)
        except OSError:
            return False
        return True


def _address(path: str) -> bytes:
    """A path, or an abstract name behind ``@``; systemd's other kinds are for VMs."""
    if path.startswith("@"):
        return b"\0" + os.fsencode(path[1:])
    return os.fsencode(path) if path.startswith("/") else b""


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    try:
        microseconds = int(environ.get(WATCHDOG_USEC, "0"))
        pid = int(environ.get(WATCHDOG_PID) or os.getpid())
    except ValueError:
        return None
    if microseconds <= 0 or pid != os.getpid():
        return None
    return microseconds / 2 / 1_000_000
