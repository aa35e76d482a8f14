"""Each live rule on facts where it has something to say; none on those of a sound one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.doctor import seen as s
from unstuck.core.limits import Limits
from unstuck.doctor.facts import (
    Descriptors,
    Letters,
    Memory,
    Part,
    Process1,
    Room,
    Seen,
)
from unstuck.doctor.rule import Finding, run
from unstuck.doctor.table import TABLE

OLD = s.NOW - timedelta(minutes=5)
MEMORY = Memory(used=95, most=100, of="its maxmemory")
RABBITS = Memory(used=95, most=100, of="the limit of rabbit@a")
SHELL = Process1(command="sh", is_first=False, is_above=True, hears_sigterm=False)
TTL = {"message-ttl": 60_000}
IN_A_MINUTE = {"consumer-timeout": 60_000}
POLICY = {"policy": "ttl"}


def unasked(part: Part, reason: str = "Connection refused") -> Seen:
    """An installation of which that could not be asked."""
    return replace(s.WELL, unasked={part: reason})


FIRING: list[tuple[str, Seen, str, str]] = [
    # The rule, what was seen, what it says of it, and a word of what mends it.
    ("D001", unasked(Part.BROKER), "Connection refused", "celery -A shop inspect"),
    ("D002", unasked(Part.MANAGEMENT), "Connection refused", "rabbitmq_management"),
    ("D003", unasked(Part.DATABASE), "'default'", "dbshell --database default"),
    ("D004", unasked(Part.ARCHIVE, "no such table"), "no such table", "migrate"),
    ("D005", unasked(Part.NODES, "none answered"), "none answered", "celery -A shop"),
    ("D006", replace(s.WELL, nodes=()), "celery@a", "--node celery@a"),
    (
        "D007",
        replace(s.WELL, foreign={"celery@x": "{'error': 'no'}"}),
        "celery@x",
        "unstuck",
    ),
    (
        "D008",
        replace(s.redis(append_only=False, save=None), unasked={Part.SAVING: "NOPERM"}),
        "NOPERM",
        "config|get",
    ),
    ("D027", unasked(Part.MEMORY, "INFO lacks x"), "INFO lacks x", "INFO memory"),
    ("D010", s.redis(skew=-30.0), "The clock of the broker is 30 s behind", "ntp"),
    ("D010", s.node(skew=5.0), "The clock of celery@a is 5 s ahead of", "ntp"),
    ("D011", s.redis(version="6.0.16"), "Valkey 6.0.16", "Upgrade"),
    ("D012", s.redis(policy="allkeys-lru"), "allkeys-lru", "noeviction"),
    ("D012", s.redis(policy="volatile-ttl"), "volatile-ttl", "redis://cache:6379/0"),
    ("D013", s.redis(evicted=17), "17 keys", "noeviction"),
    ("D014", s.redis(append_only=False), "neither", "appendonly yes"),
    ("D015", s.redis(append_only=False, save="3600 1"), "3600 1", "appendonly yes"),
    ("D016", s.redis(failing=("the last snapshot",)), "the last snapshot", "INFO"),
    ("D017", s.redis(memory=MEMORY), "95 %", "maxmemory"),
    ("D018", s.redis(role="slave"), "replica", "INFO replication"),
    ("D019", s.redis(clients=95, most_clients=100), "95 of 100", "maxclients 200"),
    ("D020", s.rabbit(version="3.8.9"), "3.8.9", "Upgrade"),
    ("D021", s.on_queue(kind="classic"), "a classic queue", "delete_queue -p / celery"),
    (
        "D022",
        s.on_queue(definition=TTL, policies=POLICY),
        "after 60 s (policy 'ttl')",
        "rabbitmqctl clear_policy -p / ttl",
    ),
    (
        "D022",
        s.on_queue(
            definition=TTL, policies=POLICY, arguments=frozenset({"message-ttl"})
        ),
        "an argument of the queue",
        "delete_queue -p / celery --if-empty",
    ),
    ("D023", s.on_queue(definition={"max-length": 9}), "9 messages", "delete_queue"),
    (
        "D023",
        s.on_queue(definition={"max-length-bytes": 9, "overflow": "drop-head"}),
        "9 bytes",
        "delete_queue",
    ),
    ("D024", s.on_queue(definition={"expires": 5000}), "after 5 s", "delete_queue"),
    ("D025", s.rabbit(alarms=("memory on rabbit@a",)), "memory on rabbit@a", "status"),
    ("D026", s.rabbit(memory=(RABBITS,)), "the limit of rabbit@a", "watermark"),
    (
        "D030",
        replace(s.on_queue(s.WELL, waiting=9, consumers=0), nodes=()),
        "in which messages wait: 9",
        "celery -A shop worker -Q celery",
    ),
    (
        "D031",
        replace(s.on_queue(s.WELL, consumers=0), nodes=()),
        "No worker reads celery",
        "celery -A shop worker -Q celery",
    ),
    (
        "D031",
        replace(s.on_queue(s.WELL, consumers=None), nodes=s.node(queues=set()).nodes),
        "No worker reads celery",
        "-Q celery",
    ),
    (
        "D032",
        s.node(queues=frozenset({"celery", "medai"})),
        "celery@a reads medai",
        "known are: celery, media",
    ),
    ("D040", s.database(unapplied=("0007_alerts",)), "0007_alerts", "migrate unstuck"),
    ("D041", s.database(missing=("unstuck_lock",)), "unstuck_lock", "sqlmigrate"),
    ("D042", s.database(ahead=("0099_later",)), "0099_later", "upgrade"),
    (
        "D050",
        s.archive(letters=Letters(last_hour=40, day_before=48, first=OLD)),
        "40 dead letters within the last hour; in the day before it were 2.0",
        "dead list --grouped --since 1h",
    ),
    ("D051", s.archive(letters_wait_since=OLD), "unstuck.dead", "dead archive"),
    (
        "D051",
        replace(
            s.row(is_lost=True),
            queues=(s.queue("unstuck.dead", waiting=2, consumers=0),),
        ),
        "unstuck.dead",
        "dead archive",
    ),
    ("D052", s.row(lag_seconds=90.0), "for 90 s", "dbshell"),
    ("D053", s.row(missing_facts=3), "3 runs", "dbshell"),
    (
        "D054",
        replace(s.row(is_lost=True, seen_at=OLD), nodes=()),
        "300 s ago",
        "celery -A shop worker -Q celery,media",
    ),
    ("D055", s.archive(nodes=()), "celery@a runs", "doctor"),
    ("D060", s.longest(250.0), "250.0 s; its soft limit is 270 s", "time_limit=600"),
    (
        "D060",
        s.here(s.longest(290.0), limits={"shop.send": Limits(soft=None, hard=300)}),
        "its hard limit is 300 s",
        "time_limit=600",
    ),
    (
        "D061",
        s.here(s.longest(100.0), given_away_after=60.0),
        "after 60 s",
        "'visibility_timeout': 200",
    ),
    (
        "D062",
        s.longest(2000.0, s.ON_RABBIT),
        "waits for 1800 s, unless",
        "consumer_timeout = 4000000",
    ),
    (
        "D063",
        s.on_queue(definition={**IN_A_MINUTE, **TTL}),
        "shop.send may run for 300 s; in celery RabbitMQ waits for 60 s",
        "600000",
    ),
    (
        "D062",
        s.longest(100.0, s.on_queue(definition=IN_A_MINUTE)),
        "waits for 60 s in celery",
        "consumer_timeout = 200000",
    ),
    (
        "D062",
        s.longest(100.0, s.on_queue(definition=IN_A_MINUTE), queue=""),
        "waits for 60 s in celery",
        "consumer_timeout = 200000",
    ),
    (
        "D063",
        s.here(
            s.on_queue(definition=IN_A_MINUTE),
            limits={"shop.send": Limits(), "shop.import": Limits(hard=300)},
            goes_to={"shop.send": "celery", "shop.import": "celery"},
        ),
        "shop.send may run for ever; in celery RabbitMQ waits for 60 s",
        "twice the time_limit there that you give the task",
    ),
    ("D064", s.longest(40.0), "40.0 s; a worker that stops waits for 25 s", "= 80"),
    (
        "D070",
        s.two_nodes(code=replace(s.CODE, versions={"unstuck": "0.9", "release": "7"})),
        "0.9 in celery@b; 1.0 in this process, celery@a",
        "celery@b",
    ),
    (
        "D071",
        s.two_nodes(code=replace(s.CODE, settings={})),
        "300 in this process, celery@a; not set in celery@b",
        "celery@b",
    ),
    (
        "D072",
        s.two_nodes(code=replace(s.CODE, tasks=frozenset({"shop.send"}))),
        "celery@b reads celery, media with others and does not know shop.import",
        "deploy",
    ),
    ("D080", s.node(process1=SHELL), "process 1 (sh)", "exec celery -A shop worker"),
    ("D081", s.node(collects_strangers=False), "celery@a", "--init"),
    (
        "D082",
        s.node(descriptors=Descriptors(pid=7, used=90, most=100)),
        "90 of 100",
        "ulimit -n 65536",
    ),
    (
        "D083",
        s.node(
            room=Room(
                limit=s.GIB, slots=4, base=s.GIB // 8, child=s.GIB // 2, is_set=True
            )
        ),
        "4 children with 512 MiB each (--max-memory-per-child) need 1664 MiB",
        "--concurrency=2`, or `--max-memory-per-child=360448`",
    ),
    ("D084", s.node(threads=("early-bird (shop)",)), "early-bird", "process_init"),
]

SILENT: list[tuple[str, Seen]] = [
    # Near to it, and well.
    ("D006", replace(s.row(is_lost=True), nodes=())),
    ("D008", replace(s.WELL, unasked={Part.SAVING: "NOPERM"})),
    ("D010", s.redis(skew=1.9)),
    ("D017", s.redis(memory=replace(MEMORY, used=90))),
    ("D017", s.redis(memory=replace(MEMORY, most=0))),
    ("D022", s.on_queue(definition={**TTL, "dead-letter-exchange": ""})),
    ("D023", s.on_queue(definition={"max-length": 9, "overflow": "reject-publish"})),
    ("D030", s.on_queue(s.WELL, waiting=9, consumers=0)),
    (
        # Who might read it has not said so.
        "D031",
        replace(
            s.on_queue(s.WELL, consumers=None), nodes=(), unasked={Part.NODES: "none"}
        ),
    ),
    ("D041", s.database(missing=("unstuck_lock",), unapplied=("0005_locks",))),
    ("D050", s.archive(letters=Letters(last_hour=12, day_before=240, first=OLD))),
    ("D054", s.row(is_lost=True, seen_at=OLD)),
    (
        "D054",
        replace(s.row(is_lost=True, seen_at=s.NOW - timedelta(days=2)), nodes=()),
    ),
    ("D055", replace(s.node(started_at=s.NOW), archive=replace(s.ARCHIVE, nodes=()))),
    ("D060", s.longest(240.0)),
    ("D062", s.longest(2000.0)),
    ("D062", s.longest(100.0, s.on_queue(definition=IN_A_MINUTE), queue="media")),
    (
        "D062",
        s.here(s.longest(2000.0, s.ON_RABBIT, queue=""), goes_to={}),
    ),
    (
        "D063",
        s.here(s.on_queue(definition=IN_A_MINUTE), goes_to={"shop.send": "media"}),
    ),
    ("D063", s.here(s.on_queue(definition=IN_A_MINUTE), goes_to={})),
    (
        "D072",
        s.two_nodes(
            code=replace(s.CODE, tasks=frozenset()), queues=frozenset({"other"})
        ),
    ),
    ("D080", s.node(process1=replace(SHELL, is_above=False))),
    ("D080", s.node(process1=replace(SHELL, hears_sigterm=True))),
]


def found_by(number: str, seen: Seen) -> list[Finding]:
    """What one rule, alone, finds."""
    return list(run([TABLE[number]], seen))


@pytest.mark.parametrize(("number", "seen", "words", "mend"), FIRING)
def test_it_finds(number: str, seen: Seen, words: str, mend: str) -> None:
    """With the value that was seen, and what mends it."""
    (finding,) = found_by(number, seen)

    assert finding.id == f"unstuck.{number}"
    assert words in finding.what
    assert mend in finding.remedy
    assert f"`{finding.command}`" in finding.remedy or not finding.command
    assert finding.why


@pytest.mark.parametrize(("number", "seen"), SILENT)
def test_it_does_not_find(number: str, seen: Seen) -> None:
    """What is near to it, and well."""
    assert found_by(number, seen) == []


def test_each_queue_of_a_task_has_a_timeout_of_its_own() -> None:
    """D062 looks at the longest run from each; the others at the longest of all."""
    runs = tuple(
        replace(s.ARCHIVE.longest[0], queue=queue, seconds=seconds)
        for queue, seconds in (("celery", 100.0), ("media", 250.0))
    )
    seen = s.on_queue(definition=IN_A_MINUTE)
    seen = replace(seen, archive=replace(s.ARCHIVE, longest=runs))

    (early,) = found_by("D062", seen)
    (near,) = found_by("D060", seen)

    assert "has run for 100.0 s; RabbitMQ waits for 60 s in celery" in early.what
    assert "has run for 250.0 s" in near.what


@pytest.mark.parametrize("seen", [s.WELL, s.ON_RABBIT])
def test_where_all_is_well_nothing_is_found(seen: Seen) -> None:
    """Or nobody would read it twice."""
    assert list(run(TABLE.values(), seen)) == []


def test_where_nothing_could_be_asked_that_is_all_that_is_found() -> None:
    """No rule takes silence for a fault, nor for good news."""
    parts = (Part.BROKER, Part.DATABASE, Part.NODES)
    seen = Seen(now=s.NOW, here=s.HERE, unasked=dict.fromkeys(parts, "away"))

    found = list(run(TABLE.values(), seen))

    assert [each.id[-4:] for each in found] == ["D001", "D003", "D005"]
    assert {each.level for each in found} == {"not asked"}
