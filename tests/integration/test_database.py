"""Django's connections in a process that is interrupted or killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.node import ROOT, Site
from tests.services import Database, PostgreSQL
from tests.waiting import eventually

MakeSite = Callable[..., Site]

CONNECT = """
import signal, threading, time
from celery.exceptions import SoftTimeLimitExceeded
from django.db import DatabaseError, connection, connections, transaction
from unstuck.worker import database

class Task:
    ends_at = None

    def run(self, seconds):
        self.ends_at = None if seconds is None else time.monotonic() + seconds

    def seconds_left(self):
        return None if self.ends_at is None else self.ends_at - time.monotonic()

task = Task()

def query(sql, alias="default"):
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None

def raised_by(work, error=SoftTimeLimitExceeded, after=0.3):
    def interrupt(*_):
        raise error()

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, after)
    began = time.monotonic()
    try:
        work()
    except BaseException as raised:
        assert time.monotonic() - began < 3
        return type(raised).__name__
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)

def timeout(alias="default"):
    name = "name = 'statement_timeout'"
    return round(int(query(f"SELECT setting FROM pg_settings WHERE {name}", alias)) / 1000)
"""
INSTALL = "database.install(task.seconds_left)\n"
PRELUDE = CONNECT + INSTALL

TABLES = """
CREATE TABLE item (name text PRIMARY KEY);
INSERT INTO item VALUES ('first');
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(30); RETURN new; END $$;
CREATE TABLE slow_to_commit (name text);
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON slow_to_commit
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow();
"""


@pytest.fixture
def base(postgres: PostgreSQL) -> Iterator[Database]:
    """A database with our tables; nobody is left in it afterwards."""
    base = postgres.database()
    with psycopg.connect(base.url, autocommit=True) as connection:
        connection.execute(TABLES)
    yield base
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [base.name],
        )


@pytest.fixture
def site(base: Database, tmp_path: Path) -> MakeSite:
    """Makes a project on that database, with these keys of `UNSTUCK`."""

    def make(*, options: dict[str, Any] | None = None, **unstuck: Any) -> Site:
        default = {**base.settings, **(options or {})}
        databases = {"default": default, "other": base.settings}
        return Site(
            directory=tmp_path,
            broker="memory://",
            database=base.url,
            settings={"UNSTUCK": unstuck, "DATABASES": databases},
        )

    return make


@contextmanager
def running(site: Site, code: str) -> Iterator[subprocess.Popen[str]]:
    """A process of the project that runs this code; killed at the end of the block."""
    setup = "import django; django.setup()\n"
    with subprocess.Popen(
        [sys.executable, "-c", setup + code],
        env=site.environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def sleepers(base: Database) -> int:
    """How many sessions of the database are in a `pg_sleep`."""
    with psycopg.connect(base.url) as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event = 'PgSleep'"
        ).fetchone() or (0,)
    return int(count)


def locks_within(base: Database, seconds: float) -> bool:
    """Whether a connection obtains the lock of the row within so many seconds."""
    with psycopg.connect(base.url) as connection:
        connection.execute(f"SET lock_timeout = '{seconds}s'")  # type: ignore[arg-type]
        try:
            connection.execute("SELECT 1 FROM item FOR UPDATE")
        except psycopg.errors.LockNotAvailable:
            return False
    return True


HOLD_A_LOCK = """
with transaction.atomic():
    query("SELECT name FROM item FOR UPDATE")
    print("locked", flush=True)
    query("SELECT pg_sleep(60)")
"""


class TestKilled:
    @pytest.mark.parametrize(
        ("code", "seconds", "obtained"),
        [(PRELUDE, 5, True), (CONNECT, 2, False)],
        ids=["ours", "stock"],
    )
    def test_the_locks_of_a_killed_process_are_free_at_once(
        self, base: Database, site: MakeSite, code: str, seconds: float, obtained: bool
    ) -> None:
        """Without us the query of a dead process goes on, and holds them."""
        with running(site(), code + HOLD_A_LOCK) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            eventually(lambda: sleepers(base) == 1)

            process.send_signal(signal.SIGKILL)
            process.wait()

            assert locks_within(base, seconds) is obtained

    def test_every_connection_is_checked(self, site: MakeSite) -> None:
        """Of each alias and thread, and again after it was closed."""
        answer = site().python(PRELUDE + HOW_IT_IS_CHECKED)

        assert answer == ["1s"] * 4

    def test_autocommit_or_not_no_transaction_is_opened(self, site: MakeSite) -> None:
        """A rollback would undo it, and a transaction would be in the way."""
        answer = site(options={"AUTOCOMMIT": False}).python(
            PRELUDE
            + """
connection.ensure_connection()
answer = [connection.connection.info.transaction_status, connection.get_autocommit()]
connection.rollback()
answer.append(query("SHOW client_connection_check_interval"))
"""
        )

        assert answer == [0, False, "1s"]

    @pytest.mark.parametrize("autocommit", [True, False])
    def test_a_server_that_refuses_is_used_all_the_same(
        self, site: MakeSite, autocommit: bool
    ) -> None:
        """As a proxy between us and it may."""
        answer = site(options={"AUTOCOMMIT": autocommit}).python(
            PRELUDE
            + """
database.CHECK_CLIENT = "SET no_such_parameter = 1"
connection.ensure_connection()
answer = [connection.connection.info.transaction_status, query("SELECT 7")]
"""
        )

        assert answer == [0, 7]


HOW_IT_IS_CHECKED = """
interval = "SHOW client_connection_check_interval"
answer = [query(interval), query(interval, "other")]

def in_thread():
    answer.append(query(interval))
    connection.close()

thread = threading.Thread(target=in_thread)
thread.start()
thread.join()
connection.close()
answer.append(query(interval))
"""

SLOW = {
    "query": """
def work():
    query("SELECT pg_sleep(30)")
""",
    "block": """
def work():
    with transaction.atomic():
        query("INSERT INTO item VALUES ('lost')")
        query("SELECT pg_sleep(30)")
""",
    "inner block": """
def work():
    with transaction.atomic():
        query("INSERT INTO item VALUES ('lost')")
        with transaction.atomic():
            query("SELECT pg_sleep(30)")
""",
    "commit": """
def work():
    with transaction.atomic():
        query("INSERT INTO slow_to_commit VALUES ('lost')")
""",
    "fetch": """
def work():
    with transaction.atomic():
        with connection.chunked_cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.2) FROM generate_series(1, 100)")
            while cursor.fetchmany(2):
                pass
""",
    "many": """
def work():
    with connection.cursor() as cursor:
        cursor.executemany("SELECT pg_sleep(%s)", [[3]] * 10)
""",
    "timeout": """
def work():
    original = database.OWN_TIMEOUT
    database.OWN_TIMEOUT = "SELECT pg_sleep(30)"
    try:
        query("SELECT 1")
    finally:
        database.OWN_TIMEOUT = original
""",
    "connecting": """
def work():
    original = database.CHECK_CLIENT
    database.CHECK_CLIENT = "SELECT pg_sleep(30)"
    try:
        query("SELECT 1")
    finally:
        database.CHECK_CLIENT = original
""",
}

AND_THEN = """
answer = [raised_by(work, ERROR)]
query("INSERT INTO item VALUES ('after')")
with transaction.atomic():
    query("INSERT INTO item VALUES ('in a block')")
"""


class TestInterrupted:
    @pytest.mark.parametrize("slow", SLOW)
    def test_a_connection_is_as_good_as_new(
        self, base: Database, site: MakeSite, slow: str
    ) -> None:
        """Whatever was interrupted, what follows is stored; what was begun is not."""
        code = PRELUDE + SLOW[slow] + AND_THEN.replace("ERROR", "SoftTimeLimitExceeded")

        answer = site(STATEMENT_TIMEOUT=True).python(code)

        assert answer == ["SoftTimeLimitExceeded"]
        with psycopg.connect(base.url) as connection:
            items = connection.execute("SELECT name FROM item").fetchall()
        assert sorted(items) == [("after",), ("first",), ("in a block",)]

    def test_the_server_gives_up_what_nobody_waits_for(
        self, base: Database, site: MakeSite
    ) -> None:
        """An interrupted query does not run on and hold its locks."""
        site().python(PRELUDE + SLOW["query"] + "answer = raised_by(work)")

        eventually(lambda: sleepers(base) == 0, 5)

    @pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit"])
    def test_any_interruption_will_do(self, site: MakeSite, error: str) -> None:
        """Not only Celery's soft limit."""
        code = PRELUDE + SLOW["block"] + AND_THEN.replace("ERROR", error)

        assert site().python(code) == [error]

    def test_a_block_that_catches_it_is_rolled_back(
        self, base: Database, site: MakeSite
    ) -> None:
        """Further queries in it are refused, and leaving it is no error."""
        answer = site().python(PRELUDE + CATCH_IN_BLOCK)

        assert answer == ["SoftTimeLimitExceeded", "OperationalError", 1]

    def test_what_is_no_interruption_closes_nothing(self, site: MakeSite) -> None:
        """An error of the database, also while a task deals with its soft limit."""
        answer = site().python(PRELUDE + NOT_INTERRUPTED)

        assert answer == ["ProgrammingError", True, "ProgrammingError", True, True]


CATCH_IN_BLOCK = """
with transaction.atomic():
    query("INSERT INTO item VALUES ('lost')")
    answer = [raised_by(lambda: query("SELECT pg_sleep(30)"))]
    try:
        query("SELECT 1")
    except DatabaseError as error:
        answer.append(type(error).__name__)
answer.append(query("SELECT count(*) FROM item"))
"""

NOT_INTERRUPTED = """
def error_of(sql):
    try:
        query(sql)
    except DatabaseError as error:
        return type(error).__name__

query("SELECT 1")
session = connection.connection
answer = [error_of("SELECT nonsense"), connection.connection is session]
try:
    raise SoftTimeLimitExceeded()
except SoftTimeLimitExceeded:
    answer += [error_of("SELECT nonsense"), connection.connection is session]

with connection.cursor() as cursor:
    cursor.execute("SELECT generate_series(1, 100)")
    rows = iter(cursor)
    next(rows)
    rows.close()
answer.append(connection.connection is session)
"""


class TestStatementTimeout:
    @pytest.mark.parametrize(
        "block", ["contextlib.nullcontext()", "transaction.atomic()"]
    )
    def test_a_query_ends_with_the_time_of_its_task(
        self, site: MakeSite, block: str
    ) -> None:
        """In a transaction or not; it is an error like any other of the database."""
        answer = site(STATEMENT_TIMEOUT=True).python(
            PRELUDE
            + f"""
import contextlib
query("SELECT 1")
task.run(1)
began = time.monotonic()
try:
    with {block}:
        query("SELECT pg_sleep(30)")
except DatabaseError as error:
    answer = [type(error).__name__, time.monotonic() - began]
task.run(None)
answer.append(query("SELECT 7"))
"""
        )

        error, seconds, seven = answer
        assert error == "OperationalError"
        assert 0.8 < seconds < 5
        assert seven == 7

    def test_it_is_set_anew_for_each_task_only(self, site: MakeSite) -> None:
        """And only between transactions, so that no rollback undoes it."""
        answer = site(STATEMENT_TIMEOUT=True).python(PRELUDE + TASK_AFTER_TASK)

        assert answer == {
            "before": 0,
            "first": 100,
            "same": 100,
            "second, in a block": 200,
            "after the rollback": 200,
            "set by the task": 7,
            "in a failed block": "OperationalError",
            "unlimited": 0,
            "no time left": "OperationalError",
            "endless": 2147484,
            "other": 300,
            "wrappers": 1,
        }

    def test_a_shorter_timeout_of_the_project_stays(self, site: MakeSite) -> None:
        """It comes back after a task that had less."""
        options = {"OPTIONS": {"options": "-c statement_timeout=5000"}}
        answer = site(options=options, STATEMENT_TIMEOUT=True).python(
            PRELUDE
            + """
answer = []
for seconds in (None, 300, 3, None):
    task.run(seconds)
    answer.append(timeout())
"""
        )

        assert answer == [5, 5, 3, 5]

    def test_without_the_setting_nothing_is_set(self, site: MakeSite) -> None:
        """A proxy may hand the session to somebody else."""
        answer = site().python(PRELUDE + "task.run(300)\nanswer = timeout()")

        assert answer == 0


TASK_AFTER_TASK = """
answer = {"before": timeout()}
task.run(100)
query("SELECT 1")
statements = []
execute = database._execute
database._execute = lambda *given: statements.append(given[1]) or execute(*given)
answer["first"] = timeout()
time.sleep(0.3)
answer["same"] = timeout()
assert statements == []

task.run(200)
try:
    with transaction.atomic():
        answer["second, in a block"] = timeout()
        raise LookupError
except LookupError:
    answer["after the rollback"] = timeout()
query("SET statement_timeout = '7s'")
answer["set by the task"] = timeout()
assert len(statements) == 1

task.run(300)
try:
    with transaction.atomic():
        query("SET LOCAL statement_timeout = 10")
        query("SELECT pg_sleep(1)")
except DatabaseError as error:
    answer["in a failed block"] = type(error).__name__

task.run(None)
answer["unlimited"] = timeout()
task.run(-1)
try:
    query("SELECT pg_sleep(1)")
except DatabaseError as error:
    answer["no time left"] = type(error).__name__
task.run(1e9)
answer["endless"] = timeout()
task.run(300)
answer["other"] = timeout("other")
connection.close()
query("SELECT 1")
answer["wrappers"] = len(connection.execute_wrappers)
"""


def test_sqlite_stays_as_it_is(tmp_path: Path) -> None:
    """Nothing of all this concerns it."""
    site = Site(
        directory=tmp_path,
        broker="memory://",
        settings={"UNSTUCK": {"STATEMENT_TIMEOUT": True}},
    )

    answer = site.python(
        PRELUDE
        + """
task.run(300)
with transaction.atomic():
    query("CREATE TABLE item (name text)")
    try:
        with connection.wrap_database_errors:
            raise SoftTimeLimitExceeded()
    except SoftTimeLimitExceeded:
        query("INSERT INTO item VALUES ('kept')")
answer = [query("SELECT name FROM item"), connection.execute_wrappers]
"""
    )

    assert answer == ["kept", []]
