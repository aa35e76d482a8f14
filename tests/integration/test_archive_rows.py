"""Rows of the archive on both databases: whatever comes, each once, and none in the way."""

from __future__ import annotations

import pytest

from tests.node import Site
from tests.settings import database
from tests.sites import MakeSite

PRELUDE = """
import json, logging, os, random, uuid
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from django.db import DatabaseError, connection, transaction
from tests.unit.dead import buried
from tests.unit.recorder.seen import NOON, incident, minute, run
from unstuck import models
from unstuck.recorder import archive, database, facts

logging.disable()

def ids(model):
    return sorted(model.objects.values_list("task_id", flat=True))
"""

NASTY = r"""
text = "a\x00b\udc80"
early = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
late = datetime(9999, 12, 31, 23, 59, tzinfo=timezone(-timedelta(hours=12)))
deep = {}
for _ in range(2000):
    deep = {"deeper": deep}
wide = "".join(chr(random.randrange(0x10000, 0x1ffff)) for _ in range(255))
nasty = {
    "text": {"exception_message": text, "cause": text, "stack": text * 10_000},
    "long": {"exception_type": "x" * 5_000, "node": "n" * 5_000},
    "huge": {"pid": 2**70},
    "large": {"pid": 2**33},
    "negative": {"deliveries": -1},
    "early": {AT: early},
    "late": {AT: late},
    "naive": {AT: datetime(2026, 3, 1)},
    "nan": {"runtime_seconds": float("nan"), "cpu_seconds": float("inf")},
    "none": {"cause": None},
    "no number": {"pid": "p", "runtime_seconds": "long"},
    "no id": {"id": "\udc80 is no uuid"},
    "no text": {"node": ["a list"], "stack": 7},
}
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest) -> Site:
    """A site with our tables in each database in turn."""
    made: Site = request.getfixturevalue(f"{request.param}_archive")()
    return made


def test_no_letter_is_lost_however_odd(site: Site) -> None:
    """Each has its row with its message, and can be read again; the sound one is whole."""
    answer = site.python(PRELUDE + NASTY.replace("AT", '"buried_at"') + ODD_LETTERS)

    assert answer["refused"] == []
    assert answer["there"] == answer["sent"]
    assert answer["sound"] == ["ValueError", "no"]
    assert answer["bodies"]
    assert answer["years"] == [True]


ODD_LETTERS = """
nasty["arguments"] = {"kwargs": {"number": 10**4000, "nan": float("nan")}}
nasty["deep"] = {"body": b"[[], " + b'{"a":' * 400 + b"1" + b"}" * 400 + b", {}]"}
nasty["binary"] = {"body": bytes(range(256)) * 1000}
letters = [buried(app, task_id="sound")]
letters += [buried(app, task_id=name, **facts) for name, facts in nasty.items()]
letters += [buried(app, task_id="last")]
letters[-1].message.headers["deep"] = deep
random.shuffle(letters)

refused = archive.store(app, letters)
archive.store(app, letters)

rows = list(models.DeadLetter.objects.all())
bodies = {letter.task_id: letter.message.body for letter in letters}
sound = models.DeadLetter.objects.get(task_id="sound")
answer = {
    "refused": [letter.task_id for letter in refused],
    "sent": sorted(bodies),
    "there": ids(models.DeadLetter),
    "sound": [sound.exception_type, sound.exception_message],
    "bodies": all(bytes(row.message) == bodies[row.task_id] for row in rows),
    "years": list({1970 <= row.buried_at.year < 2200 for row in rows}),
}
"""


def test_no_fact_is_in_the_way_of_another(site: Site) -> None:
    """What no row can be made of is left out and counted; the others are there, once."""
    answer = site.python(PRELUDE + NASTY.replace("AT", '"ended_at"') + ODD_FACTS)

    assert answer["minutes"] == [7]
    assert answer["incidents"] == 3
    assert {"first", "last", "text", "long", "early", "late", "naive", "nan"} <= set(
        answer["runs"]
    )
    assert {"huge", "negative", "none", "no number"}.isdisjoint(answer["runs"])
    assert answer["left out"] == answer["sent"] - answer["stored"]
    assert answer["again"] == answer["stored"]


ODD_FACTS = """
odd = [run(name, **{"id": str(uuid.uuid4()), **known}) for name, known in nasty.items()]
odd += [
    minute(counts={"failed": 2**80}),
    minute(counts={"failed": "many"}),
    minute(task_name=wide, queue=wide[::-1], node=wide[1:] + "x", counts={"failed": 1}),
    minute(runtime_seconds=float("nan"), runtime_max=float("inf"), rss_growth_bytes=0),
    incident(details={"nan": float("nan"), "huge": 10**5000, "\\x00": b"\\xff"}),
    incident(at=late),
]
good = [run("first"), minute(counts={"succeeded": 6}), incident(), run("last")]
sent = odd + good
random.shuffle(sent)

def stored():
    rows = models.TaskRun.objects.count() + models.Incident.objects.count()
    # Two of the minutes share a row.
    return rows + models.TaskMinute.objects.count() + 1

batch = facts.Batch("celery@host", uuid.uuid4())
models.Node.objects.create(name=batch.node, started_at=NOON, seen_at=NOON)
left_out = facts.store(sent, batch)
answer = {"sent": len(sent), "left out": left_out, "stored": stored()}
facts.store(sent, batch)
usual = models.TaskMinute.objects.filter(task_name="shop.send")
answer |= {
    "again": stored(),
    "runs": ids(models.TaskRun),
    "minutes": [row.succeeded for row in usual],
    "incidents": models.Incident.objects.count(),
}
assert all(row.ended_at.year < 2200 for row in models.TaskRun.objects.all())
assert all(row.runtime_seconds == 0.0 for row in usual), list(usual.values())
"""


def test_what_was_committed_unheard_is_not_added_again(site: Site) -> None:
    """The answer to a COMMIT may be lost: the batch says that it was there."""
    answer = site.python(PRELUDE + TWICE)

    assert answer == [3, 1, 1]


TWICE = """
batch = facts.Batch("celery@host", uuid.uuid4())
models.Node.objects.create(name=batch.node, started_at=NOON, seen_at=NOON)
seen = [minute(counts={"succeeded": 3}), run("1"), incident()]
for _ in range(3):
    facts.store(seen, batch)
answer = [
    models.TaskMinute.objects.get().succeeded,
    models.TaskRun.objects.count(),
    models.Incident.objects.count(),
]
"""


def test_a_row_that_exists_stays_as_it_is(site: Site) -> None:
    """A letter that comes again after it was replayed is still replayed."""
    answer = site.python(PRELUDE + AGAIN)

    assert answer == ["new", 1]


AGAIN = """
letter = buried(app)
archive.store(app, [letter, letter])
models.DeadLetter.objects.update(replayed_as="new")
archive.store(app, [letter])
answer = [models.DeadLetter.objects.get().replayed_as, models.DeadLetter.objects.count()]
"""


@pytest.fixture
def postgresql(postgresql_archive: MakeSite) -> Site:
    """A site on PostgreSQL."""
    return postgresql_archive()


def test_a_server_that_is_read_only_takes_nothing(postgresql: Site) -> None:
    """Nothing is left out for it: all is stored when it may be."""
    answer = postgresql.python(PRELUDE + READ_ONLY)

    assert answer == ["InternalError"] * 3 + [1, 1]


READ_ONLY = """
database.prepare()

def error_of(work, *arguments):
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET default_transaction_read_only = on")
        work(*arguments)
    except DatabaseError as error:
        assert connection.connection is None
        return type(error).__name__

letter, fact = buried(app), run("1")
answer = [
    error_of(archive.store, app, [letter]),
    error_of(archive.take_letters),
    error_of(facts.store, [fact]),
]
archive.store(app, [letter])
facts.store([fact])
answer += [models.DeadLetter.objects.count(), models.TaskRun.objects.count()]
"""


def test_bounds_hold_for_our_transactions_only(postgresql: Site) -> None:
    """Behind a proxy the session is somebody else's next; and a shorter own one stays."""
    answer = postgresql.python(PRELUDE + BOUNDS)

    assert answer == [["10s", "5s", "15s"], ["0", "0", "0"], ["3s", "5s", "15s"]]


BOUNDS = """
NAMES = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")

def shown():
    with connection.cursor() as cursor:
        answer = []
        for name in NAMES:
            cursor.execute(f"SHOW {name}")
            answer += cursor.fetchone()
    return answer

def within():
    with database.writing():
        return shown()

database.prepare()
answer = [within(), shown()]
with connection.cursor() as cursor:
    cursor.execute("SET statement_timeout = 3000")
answer.append(within())
"""


def test_a_recorders_connection_is_its_own(postgresql: Site) -> None:
    """Checked before use, committed, without a pool, never waiting for a dead host."""
    postgresql.settings = {
        "DATABASES": {
            "default": {
                **database(postgresql.database),
                "AUTOCOMMIT": False,
                "OPTIONS": {"pool": {"min_size": 1}, "connect_timeout": 2},
            }
        }
    }
    answer = postgresql.python(PRELUDE + OWN)

    assert answer == {
        "connect_timeout": "2",
        "tcp_user_timeout": "10000",
        "autocommit": True,
        "there": 2,
    }


OWN = """
database.prepare()
facts.store([run("1")])
parameters = connection.connection.info.get_parameters()
with connection.cursor() as cursor:
    cursor.execute("SELECT pg_backend_pid()")
    (pid,) = cursor.fetchone()
import psycopg
with psycopg.connect(os.environ["UNSTUCK_TEST_DATABASE_URL"], autocommit=True) as other:
    other.execute("SELECT pg_terminate_backend(%s)", [pid])
facts.store([run("2")])
with psycopg.connect(os.environ["UNSTUCK_TEST_DATABASE_URL"]) as other:
    (there,) = other.execute("SELECT count(*) FROM unstuck_taskrun").fetchone()
answer = {
    "connect_timeout": parameters["connect_timeout"],
    "tcp_user_timeout": parameters["tcp_user_timeout"],
    "autocommit": connection.get_autocommit(),
    "there": there,
}
"""


def test_a_server_that_freezes_is_given_up(postgresql: Site) -> None:
    """The process gets its turn again, and the next connection works."""
    postgresql.settings = {"UNSTUCK": {"STALL_SECONDS": 4}}
    answer = postgresql.python(PRELUDE + FROZEN)

    error, seconds, there = answer
    assert error == "OperationalError: The server gave no answer within 2 s"
    assert 1.5 < seconds < 20
    assert there == ["1"]


FROZEN = """
import signal, time
database.prepare()
with connection.cursor() as cursor:
    cursor.execute("SELECT pg_backend_pid()")
    (pid,) = cursor.fetchone()
os.kill(pid, signal.SIGSTOP)
began = time.monotonic()
try:
    facts.store([run("1")])
except DatabaseError as error:
    answer = [f"{type(error).__name__}: {error}", time.monotonic() - began]
finally:
    os.kill(pid, signal.SIGCONT)
facts.store([run("1")])
answer.append(ids(models.TaskRun))
"""


def test_it_is_given_up_at_any_step(postgresql: Site) -> None:
    """Wherever the alarm strikes: the next try works, and all is there once."""
    answer = postgresql.python(PRELUDE + STRUCK)

    assert all(gave_up > 5 for gave_up in answer["given up"])
    assert answer["runs"] == answer["minutes"] == answer["steps"]


STRUCK = """
import contextlib, inspect, itertools, signal, sys
database.prepare()
models.Node.objects.create(name="celery@host", started_at=NOON, seen_at=NOON)
SURROUNDING = {database.__file__, contextlib.__file__}

class Strike:
    # The alarm, at one step of what surrounds the statements.
    def __init__(self, step, files):
        self.left, self.files = step, files

    def __call__(self, frame, event, argument):
        if frame.f_code.co_filename not in self.files:
            return None
        # An exception that is thrown into a generator gives no signal its turn.
        is_thrown = event == "call" and frame.f_code.co_flags & inspect.CO_GENERATOR
        if event in ("call", "line") and not is_thrown:
            self.left -= 1
            if self.left == 0:
                database._alarm(signal.SIGALRM, frame)
        return self

def stores(seen, batch, strike=None):
    sys.settrace(strike)
    try:
        facts.store(seen, batch)
    except DatabaseError:
        return False
    finally:
        sys.settrace(None)
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
        assert not database._alarm.armed
    return True

def store_at_steps(make, files, stride=1):
    # How often it was stored, and how often given up first.
    gave_up = 0
    for stored in itertools.count(1):
        strike = Strike(1 + (stored - 1) * stride, files)
        batch = facts.Batch("celery@host", uuid.uuid4())
        if not stores(make(), batch, strike):
            gave_up += 1
            assert stores(make(), batch)
        if strike.left > 0:
            return stored, gave_up

def good():
    return [run(str(uuid.uuid4())), minute(counts={"succeeded": 1})]

def odd():
    return [run("odd", pid=2**70)]

steps, gave_up = store_at_steps(good, SURROUNDING)
more_steps, more = store_at_steps(good, {transaction.__file__}, stride=7)
_, with_an_error_on_its_way = store_at_steps(odd, SURROUNDING)
answer = {
    "given up": [gave_up, more, with_an_error_on_its_way],
    "steps": steps + more_steps,
    "runs": models.TaskRun.objects.count(),
    "minutes": models.TaskMinute.objects.get().succeeded,
}
"""


def test_a_locked_file_is_waited_for_within_bounds(
    sqlite_archive: MakeSite,
) -> None:
    """Whatever the project's own patience; and reading first is no deadlock."""
    site = sqlite_archive(UNSTUCK={"STALL_SECONDS": 6})
    site.settings = {
        **site.settings,
        "DATABASES": {
            "default": {**database(site.database), "OPTIONS": {"timeout": 60}}
        },
    }
    answer = site.python(PRELUDE + LOCKED)

    error, seconds, there = answer
    assert "database is locked" in error
    assert seconds < 20
    assert there == ["1"]


LOCKED = """
import sqlite3, time
database.prepare()
other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
other.execute("BEGIN EXCLUSIVE")
began = time.monotonic()
try:
    facts.store([run("1")])
except DatabaseError as error:
    answer = [str(error), time.monotonic() - began]
other.execute("COMMIT")
facts.store([run("1")])
answer.append(ids(models.TaskRun))
other.close()
"""
