"""What /proc tells: of ourselves, of a child, of one that is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from tests.unit.pool.programs import running
from tests.waiting import eventually
from unstuck.pool import proc

MIB = 1024 * 1024

SLEEPS = "import time; print('ready', flush=True); time.sleep(600)"
BUSY = "print('ready', flush=True)\nwhile True: pass"


def test_memory_is_told_in_bytes() -> None:
    """Of us, whose interpreter alone has some MiB."""
    before = proc.rss_of(os.getpid())
    ballast = b"x" * (64 * MIB)

    after = proc.rss_of(os.getpid())

    assert before
    assert after
    assert after - before > 32 * MIB
    assert ballast


def test_the_time_on_a_cpu_is_told() -> None:
    """It grows while a program is busy."""
    with running(BUSY) as process:
        eventually(lambda: (proc.cpu_seconds_of(process.pid) or 0) > 0.2)


def test_the_age_counts_from_the_start_of_the_process() -> None:
    """On a clock that does not jump."""
    earliest = time.monotonic()
    with running(SLEEPS) as process:
        age = proc.age_of(process.pid)

        assert age is not None
        assert 0 <= age <= time.monotonic() - earliest + 0.1


def test_the_state_is_the_letter_of_the_kernel() -> None:
    """Asleep, stopped, busy."""
    with running(SLEEPS) as process:
        eventually(lambda: proc.state_of(process.pid) == "S")
        process.send_signal(signal.SIGSTOP)
        eventually(lambda: proc.state_of(process.pid) == "T")
    with running(BUSY) as process:
        eventually(lambda: proc.state_of(process.pid) == "R")


def test_a_zombie_has_a_state_and_no_memory() -> None:
    """It only waits to be collected."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    try:
        eventually(lambda: proc.state_of(process.pid) == "Z")
        assert proc.rss_of(process.pid) is None
        assert proc.command_of(process.pid).startswith("python")
    finally:
        process.wait()


def test_of_a_process_that_is_gone_nothing_is_told() -> None:
    """And nobody stumbles over it."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    gone = process.pid

    assert proc.rss_of(gone) is None
    assert proc.cpu_seconds_of(gone) is None
    assert proc.age_of(gone) is None
    assert proc.state_of(gone) == ""
    assert proc.command_of(gone) == ""
    assert proc.children_of(gone) == []


def test_a_command_line_is_cut_to_what_identifies_it() -> None:
    """A program given with ``-c`` would fill pages."""
    with running(SLEEPS + "\n" + "#" * 500) as process:
        command = proc.command_of(process.pid)

    assert command.startswith(f"{sys.executable} -c "[: proc.COMMAND_LENGTH - 1])
    assert command.endswith("…")
    assert len(command) == proc.COMMAND_LENGTH


def test_the_name_of_a_program_may_contain_anything() -> None:
    """Brackets and blanks in it do not shift the rest."""
    rename = "open('/proc/self/comm', 'w').write('a) R (b')\n"
    with running(rename + SLEEPS) as process:
        eventually(lambda: proc.state_of(process.pid) == "S")
        assert proc.age_of(process.pid) is not None


def test_the_children_of_a_process_are_told() -> None:
    """Those that it did not collect."""
    program = """
        import subprocess
        child = subprocess.Popen(["sleep", "600"])
        print("ready", flush=True)
        child.wait()
    """
    with running(program) as process:
        [child] = proc.children_of(process.pid)

        eventually(lambda: proc.command_of(child) == "sleep 600")
