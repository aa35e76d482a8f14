"""Our own transport, with everything around it killed, stopped, frozen and restarted."""

from __future__ import annotations

import os
import random
import shutil
import signal
import statistics
import time
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import redis

from tests.crash.chaos import NEVER_POISON, QUICK_RETURN, SOAK, Record, sized
from tests.crash.streams import (
    JOBS,
    Account,
    Chaos,
    DurableValkey,
    Ledger,
    Sender,
    check_that_nobody_is_known,
    fleet,
    kill_trees,
    left_on,
    tell_waits,
    wait_until_empty,
)
from tests.node import Site
from tests.services import Valkey, started
from tests.sites import STREAMS, MakeSite
from tests.waiting import eventually

SEED = random.randrange(10**6)
LEASE_SECONDS = 5


@pytest.fixture
def durable_valkey() -> Iterator[Valkey]:
    """A server for one test, to kill: what it has answered is on disk."""
    with started(DurableValkey) as server:
        yield server


@pytest.fixture
def durable_site(
    durable_valkey: Valkey, tmp_path: Path, migrated_database: Path
) -> Site:
    """A site on that server, by our own transport."""
    shutil.copy(migrated_database, tmp_path / "db.sqlite3")
    return Site(directory=tmp_path, broker=STREAMS + durable_valkey.url(0))


# Conservation.


@pytest.mark.timeout(1800 if SOAK else 240)
def test_conservation(
    durable_site: Site, durable_valkey: Valkey, record_property: Record
) -> None:
    """Three nodes, everything breaks at random: every id ends, none is left or doubled."""
    count, seconds = sized(900, 20_000), sized(28, 300)
    dice, site = random.Random(SEED), durable_site
    site.settings = {"UNSTUCK": NEVER_POISON}
    ledger = Ledger(site.ledger_path)
    with (
        fleet(site, "a@test", "b@test", "c@test", options=("-c", "2")) as nodes,
        Sender(site) as sender,
        ThreadPoolExecutor(1) as beside,
    ):
        chaos = Chaos(
            nodes,
            durable_valkey,
            dice,
            stop_seconds=LEASE_SECONDS + 2,
            freeze_seconds=sized(6, 20),
            pause_seconds=sized(3, 5),
        )
        over = beside.submit(chaos.run, seconds)
        send_evenly(sender, random.Random(SEED), count, seconds)
        over.result(seconds)

        started_ids = {run.task_id for run in ledger.read().runs}
        ledger.wait_for(sender.sent | (sender.unsure & started_ids), 180)
        with durable_valkey.client() as client:
            wait_until_empty(client, 60)
            nodes.wait_until_ready()
            nodes.stop()
            check_that_nobody_is_known(client)

    buried = Counter(str(letter["task_id"]) for letter in site.letters())
    runs = ledger.read().runs
    account = Account(sender.sent, sender.unsure, runs, buried, chaos.losses)
    record_property("seed", SEED)
    account.tell(record_property)
    account.check()


def send_evenly(
    sender: Sender, dice: random.Random, count: int, seconds: float
) -> None:
    """Send so many of all kinds over so many seconds, more than half of what fits in."""
    longest = 4.0 if count < 10_000 else 1.5
    began = time.monotonic()
    while len(sender.sent) < count:
        ahead = len(sender.sent) / count * seconds - (time.monotonic() - began)
        if ahead > 0:
            time.sleep(ahead)
        sender.send_any(dice, longest)


@pytest.mark.timeout(1800 if SOAK else 240)
def test_restarts_of_the_server_under_load(
    durable_site: Site, durable_valkey: Valkey, record_property: Record
) -> None:
    """While short tasks are handed out in batches: none is forgotten, each runs once."""
    rounds, site = sized(5, 50), durable_site
    site.settings = {"CELERY_WORKER_PREFETCH_MULTIPLIER": 8}
    ledger = Ledger(site.ledger_path)
    with fleet(site, "a@test") as nodes, Sender(site) as sender:
        for _ in range(rounds):
            for _ in range(100):
                sender.send("job", 0.01)
            durable_valkey.kill()
            durable_valkey.start()
            ledger.wait_for(sender.sent, 20)
        with durable_valkey.client() as client:
            wait_until_empty(client)
            nodes.stop()
            check_that_nobody_is_known(client)

    record_property("restarts", rounds)
    record_property("tasks sent", len(sender.sent))
    record_property("runs", len(ledger.runs))
    assert max(runs_of_attempts(ledger).values()) == 1


# A node or a main that is killed.


@pytest.mark.timeout(1800 if SOAK else 240)
def test_a_killed_tree_costs_seconds(
    streams_site: MakeSite, record_property: Record
) -> None:
    """SIGKILL of a whole node: what it ran runs again elsewhere, after its lease."""
    site = streams_site(UNSTUCK=NEVER_POISON)
    ledger = Ledger(site.ledger_path)
    check = partial(check_two_runs, ledger)
    waits = kill_trees(site, ledger, sized(3, 30), check)

    tell_waits(record_property, "trees killed", waits)
    assert statistics.median(waits) <= sized(LEASE_SECONDS + 1, LEASE_SECONDS)
    assert max(waits) <= LEASE_SECONDS + 2


@pytest.mark.timeout(1800 if SOAK else 240)
def test_a_killed_main_costs_no_lease(
    streams_site: MakeSite, record_property: Record
) -> None:
    """SIGKILL of main alone: the next one names it, and nobody waits for its lease."""
    site, waits = streams_site(UNSTUCK=NEVER_POISON), []
    ledger = Ledger(site.ledger_path)
    for number in range(sized(3, 20)):
        # A new node each time: a main that was killed before starts with a backoff.
        with (
            fleet(site, "a@test", options=("-c", "1")) as nodes,
            Sender(site) as sender,
        ):
            marker, main = site.directory / f"go-{number}", nodes.nodes["a@test"].main
            task_id = sender.send("hold", str(marker))
            ledger.wait_for_start(task_id)
            killed = time.monotonic()
            os.kill(main, signal.SIGKILL)
            waits.append(ledger.wait_for_start(task_id, 2).start - killed)
            marker.touch()
            ledger.wait_for({task_id}, 20)
            check_two_runs(ledger, task_id, killed)

    tell_waits(record_property, "mains killed", waits)
    assert statistics.median(waits) <= sized(2, 1)
    assert max(waits) < LEASE_SECONDS


def check_two_runs(ledger: Ledger, task_id: str, killed: float) -> None:
    """The first one was over when the second one began."""
    first, second = ledger.of(task_id)
    assert first.end is None
    assert first.last_sign < second.start
    assert first.last_sign < killed + 1


# A task that is slow.


def test_a_task_of_ten_leases_runs_once(
    streams_site: MakeSite, record_property: Record
) -> None:
    """Whichever pool runs it: the lease is kept, and nobody takes it over."""
    lease, pools = 1, ("prefork", "solo", "threads")
    site = streams_site(UNSTUCK={"LEASE_SECONDS": lease})
    ledger = Ledger(site.ledger_path)
    with ExitStack() as stack, Sender(site) as sender:
        # Each looks after the leases of the others.
        for pool in pools:
            options = ("-n", f"{pool}@test", "-Q", pool, *JOBS)
            stack.enter_context(site.node(*options, pool=pool))
        ids = {
            sender.send("job", 10.0 * lease, queue=pool, routing_key=pool)
            for pool in pools
        }
        ledger.wait_for(ids, 40)
        with redis.Redis.from_url(site.broker.removeprefix(STREAMS)) as client:
            wait_until_empty(client)

    assert sorted(run.node for run in ledger.runs) == [f"{p}@test" for p in pools]
    assert {run.task_id for run in ledger.runs} == ids
    record_property("lease (s)", lease)
    record_property("a task of (s)", 10 * lease)
    record_property("pools", ", ".join(pools))
    record_property("runs", len(ledger.runs))


# Delayed tasks.


MOST_GROWN = 4096
"""KiB; a task that main holds itself takes several."""


@pytest.mark.timeout(1800 if SOAK else 240)
def test_delayed_tasks_wait_on_the_server(
    durable_site: Site, durable_valkey: Valkey, record_property: Record
) -> None:
    """They cost a worker no memory, are in time, and SIGKILL of everything loses none."""
    count, due = sized(5_000, 100_000), sized(40, 200)
    site, ledger = durable_site, Ledger(durable_site.ledger_path)
    with fleet(site, "a@test", options=("-c", "1")) as nodes, Sender(site) as sender:
        warm_up(sender, ledger)
        before = rss_of(nodes.nodes["a@test"].main)
        for _ in range(count):
            sender.send("timed", 0.0, countdown=3600)
        meanwhile = send_timed(sender, due, 1, 6)
        ledger.wait_for(meanwhile, 30)
        grown = rss_of(nodes.nodes["a@test"].main) - before

        later = send_timed(sender, due, 0, 15)
        nodes.nodes["a@test"].kill_tree()
        durable_valkey.kill()
        durable_valkey.start()
        nodes.start("a@test").wait_until_ready()
        ready = time.time()
        ledger.wait_for(later, 60)
        with durable_valkey.client() as client:
            eventually(lambda: left_on(client).messages == 0)
            delayed = left_on(client).delayed
        nodes.stop()

    record_property("delayed", count)
    record_property("main has grown by (KiB)", grown)
    record_property("still delayed at the end", delayed)
    late = tell_lateness(record_property, site, "due meanwhile", meanwhile)
    ids = {task_id for task_id, at in later.items() if at > ready}
    after = tell_lateness(record_property, site, "due after SIGKILL of all", ids)
    assert sender.unsure == set()
    assert delayed == count
    assert max(late + after) < sized(5, 1)
    assert min(late + after) >= 0
    assert grown < MOST_GROWN


def warm_up(sender: Sender, ledger: Ledger) -> None:
    """Have the node do all that it does later on, so that it has grown by that."""
    ids = {sender.send("timed", time.time()) for _ in range(100)}
    ledger.wait_for(ids | set(send_timed(sender, 100, 0.5, 1)), 30)


def send_timed(
    sender: Sender, count: int, first: float, last: float
) -> dict[str, float]:
    """Send tasks that are due from then to then, in seconds; their ids and times."""
    sent, began = {}, time.time()
    for number in range(count):
        at = began + first + (last - first) * number / count
        eta = datetime.fromtimestamp(at, UTC)
        sent[sender.send("timed", at, eta=eta)] = at
    return sent


def lateness(site: Site, ids: Collection[str]) -> list[float]:
    """How late the first run of each of these was."""
    late: dict[str, float] = {}
    for line in site.events("start"):
        if line["id"] in ids:
            late.setdefault(line["id"], line["late"])
    assert set(late) == set(ids)
    return list(late.values())


def tell_lateness(
    record: Record, site: Site, what: str, ids: Collection[str]
) -> list[float]:
    """How late these were."""
    late = lateness(site, ids)
    record(what, len(late))
    record(f"{what}: late at most (s)", round(max(late), 2))
    return late


def rss_of(pid: int) -> int:
    """KiB of memory that are a process's own."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise AssertionError("The kernel does not say")


# From stock Redis to ours.


@pytest.fixture
def both_sites(redis_site: MakeSite) -> tuple[Site, Site]:
    """One project on stock `redis://` and by our own transport, on one server."""
    old = redis_site(UNSTUCK=NEVER_POISON, CELERY_BROKER_TRANSPORT_OPTIONS=QUICK_RETURN)
    return old, replace(old, broker=STREAMS + old.broker)


def test_rolling_producers_first(
    both_sites: tuple[Site, Site], valkey: Valkey, record_property: Record
) -> None:
    """Old workers end what they know, new ones what waits; all run once."""
    (old, new), count = both_sites, sized(60, 1000)
    ledger, dice = Ledger(old.ledger_path), random.Random(count)
    with (
        fleet(old, "old@test") as old_nodes,
        Sender(old) as old_sender,
        Sender(new) as new_sender,
        valkey.client() as client,
    ):
        send_some(old_sender, dice, count)
        send_some(new_sender, dice, count)
        # By old workers' clocks: what they cannot see waits.
        ledger.wait_for(old_sender.sent, 60)
        assert not new_sender.sent & ledger.ended
        with fleet(new, "new@test") as new_nodes:
            send_some(old_sender, dice, count)
            send_some(new_sender, dice, count)
            old_nodes.stop()
            send_some(old_sender, dice, count)
            everything = old_sender.sent | new_sender.sent
            ledger.wait_for(everything, 60)
            wait_until_empty(client)
            new_nodes.stop()
        check_that_nobody_is_known(client)

    tell_roll(record_property, ledger, old_sender, new_sender)
    assert max(runs_of_attempts(ledger).values()) == 1


def test_rolling_workers_first(
    both_sites: tuple[Site, Site], valkey: Valkey, record_property: Record
) -> None:
    """New workers take from old producers, and what old ones had that were killed."""
    (old, new), count = both_sites, sized(60, 1000)
    ledger, dice = Ledger(old.ledger_path), random.Random(count)
    marker = old.directory / "go"
    with (
        fleet(old, "old@test", options=("-c", "2")) as old_nodes,
        Sender(old) as old_sender,
        Sender(new) as new_sender,
        valkey.client() as client,
    ):
        reserved = {old_sender.send("job", countdown=8.0) for _ in range(10)}
        eventually(lambda: client.hlen("unacked") == len(reserved), 20)
        held = {old_sender.send("hold", str(marker)) for _ in range(2)}
        eventually(lambda: {run.task_id for run in ledger.read().runs} == held, 20)
        with fleet(new, "new@test", options=("-c", "2")) as new_nodes:
            send_some(old_sender, dice, count)
            old_nodes.nodes["old@test"].kill_tree()
            killed = time.monotonic()
            marker.touch()
            send_some(old_sender, dice, count)
            send_some(new_sender, dice, count)
            ledger.wait_for(old_sender.sent | new_sender.sent, 60)
            back = time.monotonic() - killed
            wait_until_empty(client)
            new_nodes.stop()
        check_that_nobody_is_known(client)

    tell_roll(record_property, ledger, old_sender, new_sender)
    record_property("reserved by an old worker that was killed", len(held | reserved))
    record_property("visibility_timeout (s)", QUICK_RETURN["visibility_timeout"])
    record_property("all of that has ended after (s)", round(back, 1))
    hit = {run.task_id for run in ledger.runs if run.node == "old@test"}
    again = {task_id for (task_id, _), n in runs_of_attempts(ledger).items() if n > 1}
    assert held <= again <= hit


def send_some(sender: Sender, dice: random.Random, count: int) -> None:
    """Send so many: at once, with a countdown, with a retry."""
    for _ in range(count):
        match dice.randrange(6):
            case 0:
                sender.send("job", countdown=dice.random() * 3)
            case 1:
                sender.send("job", 0.0, 1)
            case _:
                sender.send("job", dice.choice([0.0, 0.0, 0.05]))


def runs_of_attempts(ledger: Ledger) -> Counter[tuple[str, int]]:
    """How often each attempt of each id has run."""
    return Counter((run.task_id, run.attempt) for run in ledger.runs)


def tell_roll(record: Record, ledger: Ledger, old: Sender, new: Sender) -> None:
    """What was sent by whom, and who ran it."""
    record("sent by stock producers", len(old.sent))
    record("sent by new producers", len(new.sent))
    ran = Counter(run.node.partition("@")[0] for run in ledger.runs)
    record("runs by old workers", ran["old"])
    record("runs by new workers", ran["new"])
    record("lost", len((old.sent | new.sent) - ledger.ended))


# The end in order.


@pytest.mark.timeout(1800 if SOAK else 240)
def test_sigterm_under_load(
    streams_site: MakeSite, valkey: Valkey, record_property: Record
) -> None:
    """Again and again: nothing lost, nothing run again, nothing left of the node."""
    rounds, grace = sized(3, 20), 3
    site = streams_site(
        CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT=grace, UNSTUCK={"MAX_STRIKES": 1}
    )
    ledger, dice, seconds = Ledger(site.ledger_path), random.Random(rounds), []
    with Sender(site) as sender, valkey.client() as client:
        late = {sender.send("job", countdown=3600) for _ in range(10)}
        for _ in range(rounds):
            with fleet(site, "a@test", options=("-c", "2")) as nodes:
                count = len(ledger.read().runs)
                for _ in range(40):
                    sender.send("job", dice.choice([0.0, 0.0, 0.0, 0.0, 0.3, 1.0]))
                eventually(lambda: len(ledger.read().runs) > count, 20)  # noqa: B023
                time.sleep(dice.random())
                before = time.monotonic()
                nodes.stop(grace + 15)
                seconds.append(time.monotonic() - before)
            check_that_nobody_is_known(client)
            started = {run.task_id for run in ledger.read().runs}
            assert started == ledger.ended
            left = left_on(client)
            assert (left.reserved, left.delayed) == (0, len(late))
            assert left.messages == len(sender.sent) - len(started) - len(late)
        with fleet(site, "a@test", options=("-c", "2")) as nodes:
            ledger.wait_for(sender.sent - late, 120)
            nodes.stop(grace + 15)
        check_that_nobody_is_known(client)

    record_property("SIGTERMs", rounds + 1)
    record_property("soft shutdown time (s)", grace)
    record_property("longest end (s)", round(max(seconds), 1))
    record_property("tasks sent", len(sender.sent - late))
    record_property("runs", len(ledger.runs))
    record_property("delayed, and still so", len(late))
    assert max(runs_of_attempts(ledger).values()) == 1
    assert site.letters() == []
