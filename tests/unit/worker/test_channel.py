"""The channel of facts: it never blocks, never raises, and counts what it drops."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from unstuck.core.facts import Fact, Incident, Minute, Run
from unstuck.worker.channel import CUT, DATAGRAM_BYTES, FactChannel

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def channel() -> Iterator[FactChannel]:
    """A channel that both ends of are in this process."""
    channel = FactChannel()
    yield channel
    channel.close()


def run(task_id: str = "id", **known: Any) -> Run:
    """A run of which only the named facts matter."""
    essence = {
        "task_name": "shop.send",
        "queue": "work",
        "ending": "hard_limit",
        "verdict": "bury",
        "ended_at": NOW,
    }
    return Run(task_id=task_id, **{**essence, **known})


def incident(**known: Any) -> Incident:
    """An incident of which only the named facts matter."""
    return Incident(
        kind="stall", at=NOW, process="main", what="It was silent.", **known
    )


def fill(channel: FactChannel) -> int:
    """Send until it is full; says how many fitted."""
    fitted = 0
    while channel.send(run(stack="x" * 50_000)):
        fitted += 1
    return fitted


def in_a_child(work: Callable[[], object]) -> None:
    """Do `work` in a forked process, and wait for its end."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def readable(channel: FactChannel) -> bool:
    """Whether whoever waits for the channel is woken."""
    return bool(select.select([channel], [], [], 0)[0])


def test_facts_arrive_as_they_were_sent(channel: FactChannel) -> None:
    """Each kind, in order."""
    sent: list[Fact] = [
        run(pid=7, started_at=NOW, runtime_seconds=1.5),
        Minute(minute=NOW, task_name="t", queue="q", counts={"succeeded": 3}),
        incident(details={"silent": 31}),
    ]

    assert all(channel.send(fact) for fact in sent)

    assert channel.receive() == sent
    assert channel.receive() == []


def test_a_limited_number_is_received_at_a_time(channel: FactChannel) -> None:
    """What is left stays for the next time."""
    for number in range(5):
        channel.send(run(str(number)))

    assert [fact.task_id for fact in channel.receive(limit=3)] == ["0", "1", "2"]
    assert [fact.task_id for fact in channel.receive(limit=3)] == ["3", "4"]


def test_one_can_wait_for_facts(channel: FactChannel) -> None:
    """The file descriptor is that of the receiving end."""
    assert not readable(channel)
    channel.send(run())
    assert readable(channel)
    channel.receive()
    assert not readable(channel)


def test_what_does_not_fit_is_dropped_at_once(channel: FactChannel) -> None:
    """And counted; what fitted is not lost by it."""
    fitted = fill(channel)
    began = time.monotonic()

    assert not any(channel.send(run(stack="x" * 50_000)) for _ in range(9))

    assert time.monotonic() - began < 10
    assert channel.dropped == 10
    assert len(channel.receive(limit=fitted + 10)) == fitted


def test_the_receiver_learns_what_was_dropped(channel: FactChannel) -> None:
    """With the next fact that fits, and once."""
    fill(channel)
    channel.send(run(stack="x" * 50_000))
    channel.receive(limit=10_000)
    assert channel.take_dropped() == 0

    channel.send(run())
    channel.send(run())
    channel.receive()

    assert channel.take_dropped() == 2
    assert channel.take_dropped() == 0
    assert channel.dropped == 2


def test_hundreds_of_facts_wait_for_a_slow_receiver(channel: FactChannel) -> None:
    """With the buffer that a stock kernel lets anybody have."""
    assert all(channel.send(run()) for _ in range(200))


def test_facts_wait_while_there_is_no_receiver(channel: FactChannel) -> None:
    """A recorder that dies takes along only what it has in hand; its heir gets on."""
    channel.send(run("before"))
    in_a_child(lambda: channel.receive(limit=1))
    channel.send(run("between"))
    received, told = os.pipe()

    def heir() -> None:
        names = [fact.task_id for fact in channel.receive() if isinstance(fact, Run)]
        os.write(told, ",".join(names).encode())

    in_a_child(heir)

    assert os.read(received, 100) == b"between"
    os.close(received)
    os.close(told)


def test_all_processes_send_through_the_same_channel(channel: FactChannel) -> None:
    """Made before forking, it needs no address."""
    in_a_child(lambda: channel.send(run("child")))
    channel.send(run("parent"))

    assert [fact.task_id for fact in channel.receive()] == ["child", "parent"]


def test_a_forked_process_counts_only_what_it_drops_itself(
    channel: FactChannel,
) -> None:
    """Or else the receiver would count twice what was dropped before the fork."""
    fitted = fill(channel)
    channel.receive(limit=fitted)

    in_a_child(lambda: channel.send(run()))
    channel.receive()
    assert channel.take_dropped() == 0
    channel.send(run())
    channel.receive()

    assert channel.take_dropped() == 1


def test_sending_to_nobody_is_no_error() -> None:
    """When the last receiving end is gone, or the channel is closed."""
    channel = FactChannel()
    channel._receiving.close()
    assert not channel.send(run())
    channel.close()
    assert not channel.send(run())
    assert channel.receive() == []
    assert channel.dropped == 2


@pytest.mark.parametrize("letter", ["x", "é", "🦑", "\x00", "\udc80"])
def test_long_texts_are_cut_in_their_middle(channel: FactChannel, letter: str) -> None:
    """Whatever they are made of; both ends of a stack may be the news."""
    text = f"top {letter * 5_000_000} bottom"

    assert channel.send(run(stack=text, traceback=text, cause=letter))

    (fact,) = channel.receive()
    assert isinstance(fact, Run)
    assert fact.stack == fact.traceback
    assert fact.stack.startswith("top ")
    assert CUT in fact.stack
    assert fact.stack.endswith(" bottom")
    assert len(fact.stack) > 1_000
    assert fact.cause == letter


def test_a_text_that_fits_is_whole(channel: FactChannel) -> None:
    """Nothing is cut without need."""
    fact = run(stack="x" * (DATAGRAM_BYTES - 11_000))

    channel.send(fact)

    assert channel.receive() == [fact]


def test_details_may_be_odd(channel: FactChannel) -> None:
    """What JSON does not know arrives by the name of its type; long texts are cut."""
    odd = {"task": object(), "lines": ["x" * 200_000], "pair": (1, 2), 3: None}

    assert channel.send(incident(details=odd))

    (fact,) = channel.receive()
    assert isinstance(fact, Incident)
    assert fact.details["task"] == "<object>"
    assert fact.details["pair"] == [1, 2]
    assert len(fact.details["lines"][0]) < 100_000


def test_what_cannot_be_sent_at_all_is_dropped(
    channel: FactChannel, caplog: pytest.LogCaptureFixture
) -> None:
    """It must not fail the task that it tells of."""
    endless: dict[str, Any] = {}
    endless["self"] = endless
    many = {f"key {number}": "value" for number in range(20_000)}

    assert not channel.send(incident(details=endless))
    assert not channel.send(incident(details=many))
    assert not channel.send("no fact")  # type: ignore[arg-type]

    assert channel.dropped == 3
    assert len(caplog.records) == 3


def test_what_is_no_fact_is_left_out(
    channel: FactChannel, caplog: pytest.LogCaptureFixture
) -> None:
    """One odd datagram does not keep the next from being received."""
    channel._sending.send(b"{")
    channel._sending.send(b'{"dropped": 0, "fact": {"kind": "rumour"}}')
    channel.send(run())

    assert len(channel.receive()) == 1
    assert channel.take_dropped() == 2
    assert len(caplog.records) == 2


def test_where_the_kernel_refuses_large_buffers_smaller_ones_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Linux takes what it can; other systems refuse what is too much."""
    set_size = socket.socket.setsockopt
    sizes = []

    def refuses(self: socket.socket, level: int, option: int, size: int) -> None:
        sizes.append(size)
        if size > 2**20:
            raise OSError("No buffer space available")
        set_size(self, level, option, size)

    monkeypatch.setattr(socket.socket, "setsockopt", refuses)
    channel = FactChannel()

    assert sizes == [2**22, 2**21, 2**20] * 2
    assert channel.send(run())
    channel.close()
