"""The outbox with real processes: a worker's tasks, its recorder, other databases."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from tests.integration.conftest import MakeSite
from tests.integration.sending import send
from tests.node import Site
from tests.waiting import eventually

ON_COMMIT = {"CELERY_TASK_PUBLISH": "on_commit"}
PRELUDE = (
    "import os, signal\n"
    "from django.db import transaction\n"
    "from tests.project.tasks import add\n"
)


def test_a_workers_tasks_publish_with_their_transactions(
    streams_site: MakeSite,
) -> None:
    """And what ends in an exception that rolls back is not lost: retry and replace."""
    site = streams_site(**ON_COMMIT)
    with site.node("-c", "2"):
        kept = send(site, "add_in_transaction", False)
        taken_back = send(site, "add_in_transaction", True)
        retried = send(site, "retry_in_transaction")
        replaced = send(site, "replace_in_transaction")
        children = {
            task_id: eventually(lambda i=task_id: site.events(id=i), 60)[0]["child"]
            for task_id in (kept, taken_back)
        }
        eventually(lambda: site.runs(children[kept]) == 1, 60)
        eventually(lambda: site.runs(retried) == 2, 60)
        # Its replacement has its id.
        eventually(lambda: site.runs(replaced) == 2, 60)
        eventually(lambda: len(site.events(task="tests.project.tasks.add")) == 3, 60)
        # A row goes a moment after its message, which may have run by then.
        eventually(lambda: site.rows("OutboxMessage") == [], 30)

    assert site.runs(children[taken_back]) == 0
    assert site.letters() == []


def test_the_recorder_sends_what_a_dead_process_has_left(
    streams_site: MakeSite,
) -> None:
    """Killed between commit and send: the row is there, and the task runs."""
    site = streams_site(**ON_COMMIT)
    commits_and_dies = (
        "if not (pid := os.fork()):\n"
        "    with transaction.atomic():\n"
        "        transaction.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))\n"
        "        add.delay(1, 2)\n"
        "    os._exit(0)\n"
        "answer = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"
    )
    assert site.python(PRELUDE + commits_and_dies) == -9
    status, text = site.unstuck("outbox", "list", "--json")
    (row,) = json.loads(text)["messages"]

    with site.node("-c", "1"):
        eventually(lambda: site.runs(row["task_id"]) == 1, 60)
        eventually(lambda: site.rows("OutboxMessage") == [], 30)

    assert status == 0
    assert row["task_name"] == "tests.project.tasks.add"


def test_outside_of_a_transaction_a_dead_broker_is_no_error(
    own_redis_site: Site, own_valkey: Any
) -> None:
    """`.delay()` returns, the message waits, and `outbox send` sends it."""
    site = own_redis_site
    site.settings = ON_COMMIT
    own_valkey.stop()
    task_id = site.python(PRELUDE + "answer = add.delay(1, 2).id")
    away, said = site.unstuck("outbox", "send")
    own_valkey.start()
    status, text = site.unstuck("outbox", "send", "--json")

    assert away == 1
    assert "failed: " in said
    assert status == 0
    assert json.loads(text) == {"sent": 1, "left": 0}
    assert site.queue_lengths("celery") == {"celery": 1}
    assert task_id


@pytest.mark.parametrize("broker", ["streams", "amqp"])
def test_a_broker_that_hangs_costs_ten_seconds_once(
    request: pytest.FixtureRequest, broker: str
) -> None:
    """At once, `delay()` raises in time; on commit it waits once and goes on."""
    site = request.getfixturevalue(f"{broker}_site")()
    server = request.getfixturevalue({"streams": "valkey", "amqp": "rabbitmq"}[broker])
    site.results = ""
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        answer = site.python(
            PRELUDE + "import time\n"
            "from kombu.exceptions import OperationalError\n"
            "from unstuck.models import OutboxMessage\n"
            "started = time.monotonic()\n"
            "try: add.delay(1, 2)\n"
            "except OperationalError: raised = time.monotonic()\n"
            "with transaction.atomic():\n"
            "    add.apply_async((1, 2), publish='on_commit')\n"
            "    add.apply_async((1, 2), publish='on_commit')\n"
            "first = time.monotonic()\n"
            "for n in range(5):\n"
            "    with transaction.atomic():\n"
            "        add.apply_async((1, 2), publish='on_commit')\n"
            "    add.apply_async((1, 2), publish='on_commit')\n"
            "second = time.monotonic()\n"
            "waits = raised - started, first - raised, second - first\n"
            "answer = waits, OutboxMessage.objects.count()"
        )
    finally:
        os.kill(pid, signal.SIGCONT)

    (raised, first, second), waiting = answer
    assert raised < 12
    assert first < 12
    assert second < 5
    assert waiting == 12


def test_a_connection_that_the_database_has_closed_is_made_anew(
    own_redis_site: Site, own_valkey: Any, postgres: Any
) -> None:
    """A script that has slept, with no request to look after its connections."""
    site = own_redis_site
    site.settings = ON_COMMIT
    site.database = postgres.database().url
    site.manage("migrate", "-v", "0")
    own_valkey.stop()

    answer = site.python(
        PRELUDE + "import psycopg\n"
        "from django.db import connection\n"
        "from unstuck.models import OutboxMessage\n"
        "OutboxMessage.objects.count()\n"
        f"with psycopg.connect({postgres.dsn!r}, autocommit=True) as other:\n"
        "    other.execute('SELECT pg_terminate_backend(%s)',\n"
        "                  [connection.connection.info.backend_pid])\n"
        "add.delay(1, 2)\n"
        "answer = OutboxMessage.objects.count()"
    )

    assert answer == 1


def test_without_broker_and_database_delay_says_so(
    own_redis_site: Site, own_valkey: Any, own_postgres: Any
) -> None:
    """`unstuck.OutboxError`, which names the task, the database and both errors."""
    site = own_redis_site
    site.settings = ON_COMMIT
    site.database = own_postgres.database().url
    site.manage("migrate", "-v", "0")
    own_valkey.stop()
    own_postgres.stop()

    answer = site.python(
        PRELUDE + "from unstuck import OutboxError\n"
        "try: add.delay(1, 2); answer = 'sent'\n"
        "except OutboxError as error: answer = [str(error), *error.__notes__]"
    )
    own_valkey.start()
    sent = site.python(PRELUDE + "answer = add.delay(1, 2).id")

    assert "tests.project.tasks.add was not sent" in answer[0]
    assert "the database 'default'" in answer[0]
    assert "broker did not take it" in answer[1]
    assert sent


def test_a_transaction_of_another_database_is_waited_for(
    streams_site: MakeSite,
) -> None:
    """Not sent when it is rolled back, sent after its commit, without a row."""
    site = streams_site(**ON_COMMIT)
    entry = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(site.directory / "o")}
    default = {**entry, "NAME": str(site.directory / "db.sqlite3")}
    site.settings = {**ON_COMMIT, "DATABASES": {"default": default, "other": entry}}

    answer = site.python(
        PRELUDE + "from unstuck.models import OutboxMessage\n"
        "def sent():\n"
        "    with app.connection_for_read() as c:\n"
        "        return c.default_channel.queue_declare('celery').message_count\n"
        "try:\n"
        "    with transaction.atomic('other'):\n"
        "        add.delay(1, 2); raise ValueError\n"
        "except ValueError: pass\n"
        "with transaction.atomic('other'):\n"
        "    add.delay(1, 2)\n"
        "    before = sent(), OutboxMessage.objects.count()\n"
        "first = sent()\n"
        "with transaction.atomic(), transaction.atomic('other'):\n"
        "    add.delay(1, 2)\n"
        "    within = sent(), OutboxMessage.objects.count()\n"
        "answer = [before, first, within, sent()]"
    )

    assert answer == [[0, 0], 1, [1, 1], 2]
