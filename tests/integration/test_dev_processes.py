"""`unstuck dev` starts all of its processes and leaves none of them behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import alive
from tests.waiting import eventually
from unstuck.dev import tether
from unstuck.dev.errors import Asked, ProcessEnded
from unstuck.dev.log import Log
from unstuck.dev.processes import Processes

STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.1; done"
"""A shell that does not end on SIGTERM."""
FAMILY = "sleep 600 & setsid sleep 600 & echo $! up; wait"
"""A shell with a child in its own session and one in another."""


@pytest.fixture
def log() -> io.StringIO:
    """What the processes have said so far."""
    return io.StringIO()


@pytest.fixture
def processes(log: io.StringIO, tmp_path: Path) -> Processes:
    """Processes with a short grace, not yet entered."""
    return Processes(
        Log(log, colour=False), env=os.environ, cwd=tmp_path, grace_seconds=0.5
    )


@pytest.fixture
def left() -> Callable[[], set[int]]:
    """The processes below us that were not there before the test.

    Servers of other tests are not of it: PostgreSQL forks workers when it likes.
    """
    others = set(tether.descendants(os.getpid()))

    def now() -> set[int]:
        found = set(tether.descendants(os.getpid()))
        return found.difference(others, *map(tether.descendants, others))

    return now


def _shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


class TestTether:
    def test_status_is_that_of_the_command(self) -> None:
        """A tether exits as its command does."""
        assert tether.spawn(_shell("exit 7")).wait(10) == 7

    def test_a_signal_is_told_as_shells_do(self) -> None:
        """A command that signal N killed gives 128 + N."""
        assert tether.spawn(_shell("kill -KILL $$")).wait(10) == 128 + 9

    def test_a_command_that_does_not_exist_is_named(self) -> None:
        """A missing program gives 127 and its name."""
        child = tether.spawn(["/no/such/program"], stderr=subprocess.PIPE)
        with child:
            assert child.stderr is not None
            assert b"/no/such/program" in child.stderr.read()

        assert child.returncode == 127

    def test_what_the_command_leaves_behind_is_killed(self) -> None:
        """The command's children end with it, in whatever session they are."""
        child = tether.spawn(
            _shell("setsid sleep 600 & echo $!"), stdout=subprocess.PIPE
        )
        with child:
            assert child.stdout is not None
            left = int(child.stdout.readline())

        assert not alive([left])

    def test_sigterm_goes_to_the_command_alone(self) -> None:
        """The command ends its own children in its own order."""
        script = (
            "trap 'echo asked; kill $!; wait; exit 3' TERM;"
            " { echo; exec sleep 600; } & wait"
        )
        child = tether.spawn(_shell(script), stdout=subprocess.PIPE)
        with child:
            assert child.stdout is not None
            child.stdout.readline()

            child.terminate()

            assert child.stdout.read() == b"asked\n"
        assert child.returncode == 3

    def test_end_now_does_not_wait(self) -> None:
        """`END_NOW` kills even what ignores SIGTERM."""
        child = tether.spawn(_shell(STUBBORN), stdout=subprocess.PIPE)
        with child:
            assert child.stdout is not None
            child.stdout.readline()

            child.send_signal(tether.END_NOW)

            assert child.wait(5) == 128 + 9

    @pytest.mark.parametrize("script", [FAMILY, STUBBORN])
    def test_sigkill_of_the_parent_ends_everything(self, script: str) -> None:
        """Nothing is left two seconds after the parent was killed."""
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, script], stdout=subprocess.PIPE
        )
        with parent:
            assert parent.stdout is not None
            assert parent.stdout.readline().endswith(b"up\n")
            below = tether.descendants(parent.pid)
            assert len(below) >= 2

            parent.kill()

            eventually(lambda: not alive(below), seconds=2)

    def test_sigkill_of_the_tether_ends_the_command(self) -> None:
        """Even a killed tether takes its command along."""
        child = tether.spawn(["/bin/sleep", "600"])
        below = eventually(lambda: tether.descendants(child.pid))

        child.kill()
        child.wait()

        eventually(lambda: not alive(below), seconds=2)


PARENT = """
import signal, sys
from unstuck.dev import tether

tether.spawn(["/bin/sh", "-c", sys.argv[1]])
signal.pause()
"""


class TestProcesses:
    def test_output_is_merged_by_line(
        self, processes: Processes, log: io.StringIO
    ) -> None:
        """Both streams are in the log, the last line also when it has no end."""
        with processes:
            processes.run("talker", _shell("echo one; echo two >&2; printf three"))

        assert log.getvalue() == "".join(
            f"talker   | {word}\n" for word in ("one", "two", "three")
        )

    def test_a_failed_run_says_which(self, processes: Processes) -> None:
        """`run` wants success."""
        with (
            pytest.raises(ProcessEnded, match="migrate ended with exit status 4"),
            processes,
        ):
            processes.run("migrate", _shell("exit 4"))

    def test_one_that_ends_ends_them_all(
        self,
        processes: Processes,
        log: io.StringIO,
        left: Callable[[], set[int]],
    ) -> None:
        """A process that was to stay and did not takes the others along."""
        with processes:
            processes.start("web", _shell(FAMILY))
            processes.wait_until(lambda: "up" in log.getvalue())
            processes.start("worker", _shell("kill -KILL $$"))

            with pytest.raises(ProcessEnded, match="worker was killed by signal 9"):
                processes.wait_until(lambda: False)

        assert not left()

    def test_all_get_sigterm_and_the_stubborn_get_sigkill(
        self,
        processes: Processes,
        log: io.StringIO,
        left: Callable[[], set[int]],
    ) -> None:
        """Leaving gives a chance to end well, but not for ever."""
        with processes:
            processes.start(
                "polite",
                _shell("trap 'echo bye; exit' TERM; echo up; sleep 600 & wait"),
            )
            processes.start("stubborn", _shell(STUBBORN))
            processes.wait_until(lambda: log.getvalue().count("up") == 2)

        assert "polite   | bye" in log.getvalue()
        assert not left()

    def test_support_ends_last(self, processes: Processes, log: io.StringIO) -> None:
        """A broker outlives those that hand their messages back to it."""
        script = "trap 'echo bye; exit' TERM; echo up; sleep 600 & wait"
        with processes:
            processes.start("broker", _shell(script), support=True)
            processes.start("worker", _shell(script))
            processes.wait_until(lambda: log.getvalue().count("up") == 2)

        assert log.getvalue().splitlines()[2:] == [
            "worker   | bye",
            "broker   | bye",
        ]

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_ends_them_without_a_traceback(
        self,
        processes: Processes,
        left: Callable[[], set[int]],
        number: signal.Signals,
    ) -> None:
        """Ctrl-C, `kill` and a closed terminal are ways to ask."""
        with processes:
            processes.start("web", ["/bin/sleep", "600"])
            os.kill(os.getpid(), number)

            with pytest.raises(Asked):
                processes.wait_until(lambda: False)

        assert not left()

    def test_a_second_signal_does_not_wait(
        self, log: io.StringIO, left: Callable[[], set[int]], tmp_path: Path
    ) -> None:
        """Ctrl-C while they end kills what is left."""
        patient = Processes(
            Log(log, colour=False), env=os.environ, cwd=tmp_path, grace_seconds=60
        )

        with patient:
            patient.start("stubborn", _shell(STUBBORN))
            patient.wait_until(lambda: "up" in log.getvalue())
            second = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
            second.start()

        second.join()
        assert not left()

    def test_handlers_are_given_back(self, processes: Processes) -> None:
        """Afterwards signals do what they did before."""
        before = signal.getsignal(signal.SIGINT)

        with processes:
            assert signal.getsignal(signal.SIGINT) is not before

        assert signal.getsignal(signal.SIGINT) is before
