"""What main tells of runs: each ending counted, some told one by one, and what runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.metrics.scraped import Scraped
from unstuck.core.clock import system_clock
from unstuck.core.delivery import Delivery
from unstuck.core.facts import Fact, Minute, Run, Running
from unstuck.core.histogram import Histogram
from unstuck.core.outcome import Ending, Outcome
from unstuck.core.verdict import Ack, Bury, Reason, Requeue
from unstuck.metrics import tasks
from unstuck.metrics.tally import Tally
from unstuck.metrics.text import to_text
from unstuck.worker import reporter
from unstuck.worker.channel import FactChannel
from unstuck.worker.reporter import Reporter
from unstuck.worker.settle import RunFacts

DELIVERY = Delivery(task_id="id", task_name="shop.send", queue="work")
SUCCEEDED = Outcome(ending=Ending.SUCCEEDED)


@pytest.fixture
def channel() -> Iterator[FactChannel]:
    """A channel that both ends of are in this process."""
    channel = FactChannel()
    yield channel
    channel.close()


def told(channel: FactChannel, each: bool, **facts: Any) -> list[Fact]:
    """What is told of a success."""
    own = Reporter("one@host", channel, each=each)
    own.ended(DELIVERY, SUCCEEDED, Ack(), RunFacts(**facts))
    own.flush()
    return channel.receive()


def test_a_success_is_counted_with_its_wait(channel: FactChannel) -> None:
    """And not told."""
    [minute] = told(channel, False, runtime_seconds=2.0, waited_seconds=0.5)

    assert isinstance(minute, Minute)
    assert (minute.counts, minute.wait_seconds) == ({"succeeded": 1}, 0.5)
    assert Histogram.of([minute.waits]).total == 1


def test_each_success_is_told_when_the_project_wants_it(channel: FactChannel) -> None:
    """Besides being counted."""
    run, _ = told(channel, True, runtime_seconds=2.0, waited_seconds=0.5)

    assert isinstance(run, Run)
    assert (run.ending, run.waited_seconds, run.traceback) == ("succeeded", 0.5, "")


def request(name: str, since: float | None, **known: Any) -> Any:
    """What main knows of something that it has handed out."""
    facts = {
        "time_start": None if since is None else time.time() - since,
        "time_limits": None,
        "task": SimpleNamespace(time_limit=300, soft_time_limit=270),
        "queue": "work",
        "worker_pid": 7,
        **known,
    }
    return SimpleNamespace(id=name, name="shop.send", **facts)


def test_what_runs_for_a_while_is_told_the_oldest_first(
    channel: FactChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what has just begun, and no more than fits."""
    monkeypatch.setattr(reporter, "MOST_RUNNING", 2)
    own = Reporter("one@host", channel)
    requests = [
        request("young", 0.1),
        request("waits", None),
        request("old", 60, time_limits=(10, None)),
        request("older", 90),
        request("too many", 50),
    ]

    own.running(requests)

    [running] = channel.receive()
    assert isinstance(running, Running)
    assert [run["task_id"] for run in running.runs] == ["older", "old"]
    limits = [(run["soft"], run["hard"]) for run in running.runs]
    assert limits == [(270, 300), (None, 10)]


def test_nothing_is_told_as_long_as_nothing_runs(channel: FactChannel) -> None:
    """And that it is over is told once."""
    own = Reporter("one@host", channel)
    seen = []
    for requests in ([], [request("old", 60)], [], []):
        own.running(requests)
        seen.append([len(fact.runs) for fact in channel.receive()])  # type: ignore[union-attr]

    assert seen == [[], [1], [0], []]


def counted(tally: Tally) -> Scraped:
    """What Prometheus is told of that."""
    return Scraped(to_text(tasks.readings(tally, "task")))


@pytest.mark.parametrize("has_recorder", [True, False])
def test_what_ended_is_counted_for_metrics(
    channel: FactChannel, has_recorder: bool
) -> None:
    """With or without a recorder, from the next flush on."""
    tally = Tally()
    own = Reporter("one@host", channel if has_recorder else None, tally)
    own.ended(DELIVERY, SUCCEEDED, Ack(), RunFacts(runtime_seconds=2.0))
    assert counted(tally).samples == []

    own.flush()
    own.flush()

    seen = counted(tally)
    labels = {"task": "shop.send", "queue": "work"}
    ended = seen.total("unstuck_tasks_ended_total", ending="succeeded", **labels)
    assert ended == seen.total("unstuck_tasks_ended_total") == 1
    assert seen.total("unstuck_task_run_seconds_sum", **labels) == 2
    assert seen.total("unstuck_messages_settled_total") == 0


def test_what_becomes_of_a_lost_message_is_counted(channel: FactChannel) -> None:
    """The strike, and the letter with its reason."""
    tally = Tally()
    own = Reporter("one@host", channel, tally)
    lost = Outcome(ending=Ending.CHILD_LOST)
    own.ended(DELIVERY, lost, Requeue(system_clock()), RunFacts())
    own.ended(DELIVERY, lost, Bury(Reason.POISON), RunFacts())

    seen = counted(tally)

    assert tally.total("strikes") == {"": 2}
    assert seen.total("unstuck_messages_settled_total", verdict="requeue") == 1
    assert seen.total("unstuck_messages_settled_total", verdict="bury") == 1
    assert seen.total("unstuck_letters_buried_total", reason="poison") == 1


def test_what_is_put_off_is_no_run(channel: FactChannel) -> None:
    """It is counted for itself."""
    tally = Tally()
    own = Reporter("one@host", channel, tally)
    busy = Outcome(ending=Ending.LOCK_BUSY)
    own.ended(DELIVERY, busy, Requeue(system_clock()), RunFacts())
    own.flush()

    assert tally.total("put_off") == {"": 1}
    assert counted(tally).samples == []


def test_without_a_recorder_nothing_is_told() -> None:
    """There is nobody to tell."""
    own = Reporter("one@host", None)

    own.running([request("old", 60)])
    own.flush()
