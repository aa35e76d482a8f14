"""`manage.py unstuck prove`, for real: on each broker, disturbed, and stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection

from tests.node import ROOT, Site
from tests.processes import alive
from tests.services import RabbitMQ, Valkey
from tests.sites import MakeSite
from tests.waiting import eventually
from unstuck.dev import tether
from unstuck.dev.ports import free_port

MANAGE = (
    "import signal, sys, django; django.setup()\n"
    # Shells have what they start in the background ignore it.
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from tests.project.app import app\n"
    "from django.core.management import execute_from_command_line as execute\n"
    "execute(['manage.py', *sys.argv[1:]])\n"
)

SHORT = ("--seconds", "10", "--kills", "5", "--tasks", "60")
SHORTER = ("--seconds", "6", "--kills", "4", "--tasks", "60")


class Proving:
    """The command while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @property
    def pids(self) -> list[int]:
        """All processes that it has started."""
        return tether.descendants(self.process.pid)

    def finish(self, seconds: float = 90) -> tuple[int, str, str]:
        """Its exit status and what it wrote, to stdout and stderr."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err

    def wait_for(self, text: str, seconds: float = 40) -> str:
        """The first line that has the text in it."""
        give_up_at = time.monotonic() + seconds
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if text in line:
                return line
            assert time.monotonic() < give_up_at, line
        raise AssertionError(f"never said: {text}\n{self.finish()}")


@contextlib.contextmanager
def proving(site: Site, temporary: Path, *options: str) -> Iterator[Proving]:
    """The command, started; nothing of it is left after the block."""
    temporary.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", MANAGE, "unstuck", "prove", *options],
        env={**site.environment, "TMPDIR": str(temporary)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Proving(process)
        finally:
            process.kill()


def keys_of(valkey: Valkey) -> set[str]:
    """The keys of both databases but the one that says that time goes on."""
    found = set()
    for db in (0, 1):
        with valkey.client(db) as client:
            found |= {key.decode() for key in client.keys("*")}
    return found - {"unstuck:tick"}


def check_proved(status: int, out: str, err: str) -> dict[str, Any]:
    """All is well, and the numbers add up."""
    assert status == 0, out + err
    found: dict[str, Any] = json.loads(out)
    assert found["proved"], found
    assert found["missing"] == []
    assert found["runs_again_without_a_loss"] == []
    ended = found["succeeded"] + sum(found["buried"].values())
    assert found["sent"] == 60 - found["sending_failed"]
    assert found["sent"] == ended + len(found["in_flight"])
    assert 1 <= found["kills"] <= 5
    assert found["letters_archived"] == sum(found["buried"].values())
    assert found["kept"] == ""
    return found


def check_nothing_left(site: Site, temporary: Path) -> None:
    """Neither rows nor files."""
    rows = site.python(
        "from unstuck import models\n"
        "names = ['DeadLetter', 'TaskRun', 'TaskMinute', 'Incident']\n"
        "answer = [getattr(models, name).objects.count() for name in names]"
    )
    assert rows == [0, 0, 0, 0]
    assert list(temporary.iterdir()) == []


# On each broker.


def test_on_redis_streams(
    streams_site: MakeSite, valkey: Valkey, tmp_path: Path
) -> None:
    """With results: all is accounted for, and neither keys nor rows are left."""
    site = streams_site(CELERY_TASK_ROUTES={"*": {"queue": "elsewhere"}})
    with proving(site, tmp_path / "t", *SHORT, "--json") as command:
        found = check_proved(*command.finish())
    assert found["losses"].get("node frozen") == 1
    assert found["recovery"]["kills"] > 0
    assert 0 <= found["recovery"]["p50"] <= found["recovery"]["max"] < 30
    assert keys_of(valkey) == set()
    check_nothing_left(site, tmp_path / "t")


def test_on_rabbitmq(amqp_site: MakeSite, rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    """Without results, and for people to read; neither queue nor exchange is left."""
    site = amqp_site()
    site.results = ""
    with proving(site, tmp_path / "t", *SHORT) as command:
        status, out, err = command.finish()
    assert status == 0, out + err
    assert "\n= succeeded " in out
    assert "\n+ MISSING          0\n" in out
    assert "PROVED: each of the 60 tasks is accounted for" in out.splitlines()[-1]
    vhost = site.broker.rpartition("/")[2]
    assert "prove" not in rabbitmq.ctl("list_queues", "-p", vhost, "name")
    assert "prove" not in rabbitmq.ctl("list_exchanges", "-p", vhost, "name")
    check_nothing_left(site, tmp_path / "t")


def test_on_stock_redis(redis_site: MakeSite, valkey: Valkey, tmp_path: Path) -> None:
    """It says how slow recovery is; what the project's own workers have stays theirs."""
    site = redis_site()
    with valkey.client() as client:
        # Long in the hands of a worker of the project, which alone may give it back.
        client.zadd("unacked_index", {"theirs": time.time() - 60})
        client.hset("unacked", "theirs", json.dumps([{}, "", "celery"]))
        with proving(site, tmp_path / "t", *SHORTER, "--json") as command:
            status, out, err = command.finish()
        found = json.loads(out)
        # A message that is popped in the instant of a death is lost: the proof says so.
        assert status == (1 if found["missing"] else 0), out + err
        assert found["runs_again_without_a_loss"] == []
        ended = found["succeeded"] + sum(found["buried"].values())
        assert ended + len(found["in_flight"]) + len(found["missing"]) == 60
        assert any("up to 3700 s" in remark for remark in found["remarks"])
        assert client.zcard("unacked_index") == client.hlen("unacked") == 1
    assert keys_of(valkey) == {"unacked", "unacked_index"}


# Disturbed.


def test_what_somebody_deletes_is_missing(
    streams_site: MakeSite, valkey: Valkey, tmp_path: Path
) -> None:
    """A queue that is purged behind its back: named, exit 1, and the logs are kept."""
    site = streams_site()
    options = ("--seconds", "4", "--kills", "2", "--tasks", "160", "--json")
    with proving(site, tmp_path / "t", *options) as command:
        purged = eventually(lambda: purge(site, valkey), 40)
        status, out, err = command.finish()
    found = json.loads(out)
    assert status == 1, out + err
    assert not found["proved"]
    assert 1 <= len(found["missing"]) <= purged
    ended = found["succeeded"] + sum(found["buried"].values())
    assert found["sent"] == ended + len(found["in_flight"]) + len(found["missing"])
    assert found["conclusion"].startswith(
        f"NOT PROVED: of 160 tasks {len(found['missing'])} are missing"
    )
    assert (Path(found["kept"]) / "ledger").exists()
    assert keys_of(valkey) == set()


def purge(site: Site, valkey: Valkey) -> int:
    """Purge the queue of the proof, if there is one and something waits in it."""
    with valkey.client() as client:
        known = [name.decode() for name in client.smembers("unstuck:queues")]
    ours = [n for n in known if n.startswith("unstuck.prove.") and "dead" not in n]
    if not ours:
        return 0
    with Connection(site.broker) as connection:
        return int(connection.default_channel.queue_purge(ours[0]))


def test_a_broker_that_is_away(redis_site: MakeSite, tmp_path: Path) -> None:
    """One line, at once, exit 1."""
    site = redis_site()
    site.broker = f"unstuck+redis://127.0.0.1:{free_port()}/0"
    with proving(site, tmp_path / "t") as command:
        status, out, err = command.finish(40)
    assert status == 1
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("Error: The broker at unstuck+redis://127.0.0.1")
    assert list((tmp_path / "t").iterdir()) == []


def test_a_broker_that_is_not_shared(redis_site: MakeSite, tmp_path: Path) -> None:
    """It says which ones are."""
    site = redis_site()
    site.broker = "memory://"
    with proving(site, tmp_path / "t") as command:
        status, _, err = command.finish(40)
    assert status == 1
    assert err.startswith("Error: The broker is memory://")
    assert "unstuck+redis://, redis:// or amqp://" in err


def test_settings_no_worker_starts_with(
    streams_site: MakeSite, valkey: Valkey, tmp_path: Path
) -> None:
    """It says what the worker said."""
    site = streams_site(CELERY_TASK_TIME_LIMIT=10, CELERY_TASK_SOFT_TIME_LIMIT=20)
    with proving(site, tmp_path / "t", *SHORT) as command:
        status, _, err = command.finish()
    assert status == 1
    assert "did not start with these settings" in err
    assert "unstuck.E003" in err
    assert keys_of(valkey) == set()


# Stopped.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_when_it_is_stopped_no_process_is_left(
    streams_site: MakeSite, valkey: Valkey, tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C also leaves nothing on the broker; SIGKILL cannot clean up there."""
    site = streams_site()
    with proving(site, tmp_path / "t", "--seconds", "60") as command:
        command.wait_for("killing")
        time.sleep(1.5)
        pids = command.pids
        assert len(pids) > 6
        os.kill(command.process.pid, number)
        status, _, err = command.finish(60)
        eventually(lambda: not alive(pids), 10)
    if number is signal.SIGKILL:
        return
    assert status == 1
    assert f"Stopped by {number.name}" in err
    assert keys_of(valkey) == set()
    check_nothing_left(site, tmp_path / "t")


# The command line.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seconds", "0"], "must be a number above 0"),
        (["--seconds", "-3"], "must be a number above 0"),
        (["--seconds", "0.1"], "--seconds 0.1: must be 0.5 to 3600"),
        (["--seconds", "4000"], "--seconds 4000: must be 0.5 to 3600"),
        (["--kills", "0"], "'0' must be a whole number above 0"),
        (["--seconds", "10", "--kills", "50"], "at most 20 fit into 10 s"),
        (["--seconds", "10", "--tasks", "9999"], "at most 500 fit into 10 s"),
    ],
)
def test_what_does_not_fit_is_refused(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the number, and what would fit."""
    from django.core.management import ManagementUtility

    with pytest.raises(SystemExit) as ended:
        ManagementUtility(["manage.py", "unstuck", "prove", *options]).execute()

    assert ended.value.code == 2
    assert said in capsys.readouterr().err
