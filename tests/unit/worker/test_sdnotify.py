"""What systemd would hear of us, on a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from unstuck.worker.sdnotify import Notifier


class Systemd:
    """The other end of `NOTIFY_SOCKET`."""

    def __init__(self, address: str) -> None:
        self.environ = {"NOTIFY_SOCKET": address}
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1))
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        """All messages that have arrived."""
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    """systemd on both kinds of socket."""
    abstract = f"@unstuck-{os.getpid()}-{os.urandom(4).hex()}"
    address = abstract if request.param == "abstract" else str(tmp_path / "notify")
    systemd = Systemd(address)
    with closing(systemd.socket):
        yield systemd


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_systemd_hears_each_state(systemd: Systemd) -> None:
    """In the words of sd_notify(3)."""
    notifier = Notifier(systemd.environ)

    sent = [notifier.ready(), notifier.status("3 of 4 busy"), notifier.stopping()]

    assert sent == [True, True, True]
    assert systemd.heard() == ["READY=1", "STATUS=3 of 4 busy", "STOPPING=1"]


def test_a_status_is_one_line(systemd: Systemd) -> None:
    """A second line would be a message of its own."""
    Notifier(systemd.environ).status("busy\nSTOPPING=1")

    assert systemd.heard() == ["STATUS=busy STOPPING=1"]


def test_a_sign_of_life_is_sent_every_half_of_the_time(systemd: Systemd) -> None:
    """However often the loop turns."""
    clock = Clock()
    environ = {**systemd.environ, "WATCHDOG_USEC": "3000000"}
    notifier = Notifier(environ, clock=clock)

    sent = []
    for _ in range(7):
        sent.append(notifier.watchdog())
        clock.now += 0.5

    assert notifier.watchdog_interval == 1.5
    assert sent == [True, False, False, True, False, False, True]
    assert systemd.heard() == ["WATCHDOG=1"] * 3


@pytest.mark.parametrize("variable", [{}, {"WATCHDOG_PID": str(os.getpid())}])
def test_the_watchdog_is_for_us(systemd: Systemd, variable: dict[str, str]) -> None:
    """By our pid, or for whoever is there."""
    environ = {**systemd.environ, "WATCHDOG_USEC": "1000000", **variable}

    assert Notifier(environ).watchdog_interval == 0.5


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "me"},
    ],
)
def test_without_a_watchdog_of_ours_there_are_no_signs_of_life(
    systemd: Systemd, variables: dict[str, str]
) -> None:
    """None was asked for, or of another process."""
    notifier = Notifier({**systemd.environ, **variables})

    assert notifier.watchdog_interval is None
    assert not notifier.watchdog()
    assert systemd.heard() == []


def every_message(notifier: Notifier) -> list[Callable[[], bool]]:
    """All that it can send."""
    return [
        notifier.ready,
        notifier.watchdog,
        notifier.stopping,
        lambda: notifier.status("fine"),
    ]


@pytest.mark.parametrize(
    "address",
    [
        None,
        "",
        "vsock:2:1234",
        "relative",
        "/nowhere/notify",
        "/" + 200 * "x",
        "@nobody-listens-here",
    ],
)
def test_a_socket_that_is_not_there_is_no_error(address: str | None) -> None:
    """Not even a broken address stops a worker."""
    environ = {"WATCHDOG_USEC": "1000000"}
    if address is not None:
        environ["NOTIFY_SOCKET"] = address

    sent = [send() for send in every_message(Notifier(environ))]

    assert sent == [False] * 4


def test_without_a_socket_there_is_no_watchdog() -> None:
    """`WatchdogSec=` alone is of no use."""
    assert Notifier({"WATCHDOG_USEC": "1000000"}).watchdog_interval is None


def test_a_systemd_that_does_not_read_stops_nobody(systemd: Systemd) -> None:
    """The queue of the socket fills; a sign of life is then tried again at once."""
    clock = Clock()
    environ = {**systemd.environ, "WATCHDOG_USEC": "1000000"}
    notifier = Notifier(environ, clock=clock)

    while notifier.ready():
        pass
    refused = notifier.watchdog()
    systemd.heard()

    assert not refused
    assert notifier.watchdog()


def test_taking_leaves_nothing_to_later_processes(systemd: Systemd) -> None:
    """They would notify in our name."""
    environ = {**systemd.environ, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "A": "b"}

    notifier = Notifier.take_from(environ)

    assert environ == {"A": "b"}
    assert notifier.ready()
    assert systemd.heard() == ["READY=1"]
