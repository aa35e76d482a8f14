"""A worker node of `tests.project` as a real process tree, and what can be seen of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import celery
import kombu.pools

from tests import stored
from tests.project import ledger
from tests.waiting import eventually
from unstuck.core.broker import lasting
from unstuck.dev import tether
from unstuck.probes.process import NAME

ROOT = Path(__file__).parent.parent
READY = " ready."
PIDFD = "anon_inode:[pidfd]"


@dataclass(kw_only=True)
class Site:
    """Where a test's project lives: a broker, results, a database, a ledger."""

    directory: Path
    broker: str
    results: str = ""
    database: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    client_declares: bool = True
    """Whether what sends to it declares the queue, as stock Celery does."""

    def __post_init__(self) -> None:
        self.database = self.database or f"sqlite:///{self.directory}/db.sqlite3"
        self.ledger_path = self.directory / "ledger"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make a process part of this site."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "tests.project.settings",
            "CELERY_BROKER_URL": self.broker,
            "UNSTUCK_TEST_DATABASE_URL": self.database,
            "PROJECT_SETTINGS": json.dumps(self.settings),
            ledger.VARIABLE: str(self.ledger_path),
            "PYTHONWARNINGS": "ignore",
            "XDG_RUNTIME_DIR": str(self.directory / "run"),
        }
        environment.pop("CELERY_RESULT_BACKEND", None)
        if self.results:
            environment["CELERY_RESULT_BACKEND"] = self.results
        return environment

    def manage(self, *arguments: str, check: bool = True) -> str:
        """What `django-admin ARGUMENTS` prints in this project."""
        done = subprocess.run(
            [sys.executable, "-m", "django", *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def python(self, code: str) -> Any:
        """Run code in a process of this project; it leaves its answer in `answer`."""
        prelude = "import django; django.setup()\nfrom tests.project.app import app\n"
        epilogue = "\nimport json; print('\\n' + json.dumps(answer, default=str))"
        done = subprocess.run(
            [sys.executable, "-c", prelude + code + epilogue],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def events(self, event: str = "run", **facts: Any) -> list[dict[str, Any]]:
        """The lines of the ledger with this event and these facts."""
        if not self.ledger_path.exists():
            return []
        # Of a line that is just being written, a reader may see a part.
        whole, _, _ = self.ledger_path.read_text().rpartition("\n")
        return [
            line
            for line in map(json.loads, whole.splitlines())
            if line["event"] == event
            and all(line.get(name) == value for name, value in facts.items())
        ]

    def runs(self, task_id: str) -> int:
        """How often the task with this id began to run."""
        return len(self.events("run", id=task_id))

    def rows(self, model: str, **filters: Any) -> list[dict[str, Any]]:
        """What the recorder has stored of one of our models, as dicts."""
        return stored.rows(self.database, model, **filters)

    def letters(self, **filters: Any) -> list[dict[str, Any]]:
        """The rows of the archive, as dicts."""
        return self.rows("DeadLetter", **filters)

    def letter(self, task_id: str, seconds: float = 30) -> dict[str, Any]:
        """The one letter of this task, once it is archived."""
        letters = eventually(lambda: self.letters(task_id=task_id), seconds)
        assert len(letters) == 1, letters
        return letters[0]

    def unstuck(self, *arguments: str) -> tuple[int, str]:
        """The exit status of `manage.py unstuck …` and what it printed."""
        status, text = self.python(
            "import io\n"
            "from django.core.management import call_command\n"
            "out = io.StringIO()\n"
            "status = 0\n"
            "try:\n"
            f"    call_command('unstuck', *{arguments!r}, stdout=out, stderr=out)\n"
            "except SystemExit as exit_:\n"
            "    status = exit_.code\n"
            "answer = [status, out.getvalue()]"
        )
        return status, text

    def queue_lengths(self, *queues: str) -> dict[str, int]:
        """How many messages wait in these queues, also for their time."""
        with celery.Celery(broker=self.broker).connection_for_read() as connection:
            lengths = dict.fromkeys(queues, 0)
            for queue in queues:
                # Not declared: that may be done in one way only. One that is not there
                # costs RabbitMQ's channel.
                channel = connection.channel()
                with contextlib.suppress(*connection.channel_errors):
                    declared = channel.queue_declare(queue, passive=True)
                    lengths[queue] = declared.message_count
                if ours := lasting(channel):
                    lengths[queue] += ours.census(queue).delayed
            return lengths

    @contextmanager
    def client(self) -> Iterator[celery.Celery]:
        """A stock Celery app that sends to this site; it leaves no socket open."""
        app = celery.Celery(
            broker=self.broker, backend=self.results or None, set_as_current=False
        )
        if self.broker.startswith("amqp"):
            # What is sent is on the broker, whatever becomes of that right after.
            app.conf.broker_transport_options = {"confirm_publish": True}
        if not self.client_declares:
            app.conf.task_queues = [kombu.Queue("celery", no_declare=True)]
        if self.results:
            # Results are polled: a subscription would outlive the test that made it.
            app.backend.on_task_call = lambda *_: None
            app.backend.remove_pending_result = lambda *_: None
        try:
            yield app
        finally:
            if self.results:
                app.backend.client.connection_pool.disconnect()
            app.close()
            # kombu keeps connections by address for the whole process: the next test
            # could be given one that a test of outages has cut.
            kombu.pools.reset()

    def result(self, app: celery.Celery, task_id: str, seconds: float = 30) -> Any:
        """What a task returned, once it has succeeded."""
        eventually(lambda: app.backend.get_state(task_id) == "SUCCESS", seconds)
        return app.backend.get_result(task_id)

    @contextmanager
    def node(
        self,
        *options: str,
        pool: str = "prefork",
        ready: bool = True,
        prefix: Sequence[str] = (),
    ) -> Iterator[Node]:
        """A running worker, gone afterwards with all its processes.

        ``prefix`` is a command that runs another one.
        """
        node = Node(self, ["-P", pool, *options], prefix)
        node.start()
        try:
            if ready:
                node.wait_until_ready()
            yield node
        except BaseException:
            print(node.log()[-20_000:])  # pytest shows it beside the failure
            raise
        finally:
            node.kill_tree()


class Node:
    """One `celery worker` and all processes below it."""

    def __init__(
        self, site: Site, options: list[str], prefix: Sequence[str] = ()
    ) -> None:
        self.site = site
        self.log_path = site.directory / f"worker-{os.urandom(3).hex()}.log"
        self._options = options
        self._prefix = prefix
        self._tether: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the worker."""
        options = self._options
        says = any(option.startswith(("-c", "--concurrency")) for option in options)
        if not says and "solo" not in options:
            options = [*options, "-c", "2"]
        command = [
            *self._prefix,
            *(sys.executable, "-m", "celery", "-A", "tests.project.app", "worker"),
            *("-l", "info", "--without-mingle", "--without-gossip", *options),
        ]
        with self.log_path.open("ab") as log:
            self._tether = tether.spawn(
                command,
                env=self.site.environment,
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self) -> None:
        """Wait until it consumes."""

        def is_ready() -> bool:
            assert self._tether is not None
            if self._tether.poll() is not None:
                raise RuntimeError(f"The worker ended at its start:\n{self.log()}")
            return READY in self.log()

        eventually(is_ready, 40)

    def log(self) -> str:
        """All that it wrote."""
        return self.log_path.read_text(errors="replace")

    @property
    def main_pid(self) -> int:
        """The first process: with our pool the supervisor, with others Celery's main."""
        assert self._tether is not None
        return next(pid for pid in children_of(self._tether.pid))

    supervisor_pid = main_pid

    @property
    def main(self) -> int:
        """With our pool: the process that consumes, once it has a child.

        It alone holds descriptors of processes, those of its children.
        """
        return eventually(self._find_main, 20)

    @property
    def children_pids(self) -> list[int]:
        """With our pool: the processes that run tasks, each a group of its own."""
        return [pid for pid in children_of(self.supervisor_pid) if _leads_group(pid)]

    @property
    def companions_pids(self) -> list[int]:
        """With our pool: what the supervisor keeps beside main: recorder, beat."""
        supervisor, main = self.supervisor_pid, self.main
        kept = [pid for pid in children_of(supervisor) if not _leads_group(pid)]
        return [pid for pid in kept if pid != main and not _serves_probes(pid)]

    @property
    def probes_pid(self) -> int:
        """With our pool: the process that answers probes."""
        kept = children_of(self.supervisor_pid)
        return next(filter(_serves_probes, kept))

    def _find_main(self) -> int | None:
        for pid in children_of(self.supervisor_pid):
            if not _leads_group(pid) and PIDFD in descriptors(pid):
                return pid
        return None

    def send(self, number: signal.Signals) -> None:
        """Send the first process a signal."""
        os.kill(self.main_pid, number)

    def wait(self, seconds: float = 40) -> int:
        """The exit status of the first process, once it has ended."""
        assert self._tether is not None
        return self._tether.wait(seconds)

    def kill_tree(self) -> None:
        """SIGKILL all its processes at once."""
        assert self._tether is not None
        if self._tether.poll() is None:
            self._tether.send_signal(tether.END_NOW)
            self._tether.wait()


def descriptors(pid: int) -> list[str]:
    """What the descriptors of a process lead to; of one that is gone, nothing."""
    found = []
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(os.readlink(descriptor))
    return found


def children_of(pid: int) -> list[int]:
    """The processes that its main thread started and that it did not collect yet."""
    with contextlib.suppress(OSError):
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in listed]
    return []


def _serves_probes(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip() == NAME
    return False


def _leads_group(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid) == pid
    return False
