"""TCP ports of 127.0.0.1: which are free, which are taken, which answer."""

from __future__ import annotations

import socket

from unstuck.dev.errors import DevError

HOST = "127.0.0.1"


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def claim_is_possible(port: int, *, option: str) -> None:
    """Raise a `DevError` that names `port` and `option` when it is taken."""
    with socket.socket() as probe:
        # As the servers themselves do: a port in TIME_WAIT is not taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            msg = (
                f"port {port} of {HOST} cannot be used ({error.strerror}); "
                f"end what holds it, or choose another with {option} PORT"
            )
            raise DevError(msg) from error


def answers(port: int) -> bool:
    """Whether somebody accepts connections on `port`."""
    try:
        socket.create_connection((HOST, port), timeout=0.5).close()
    except OSError:
        return False
    return True
