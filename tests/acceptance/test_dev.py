"""`manage.py unstuck dev` and `make demo`, as a person runs them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.processes import alive
from tests.waiting import eventually
from unstuck.dev import tether
from unstuck.dev.ports import HOST, free_port

ROOT = Path(__file__).resolve().parents[2]
MANAGE = [sys.executable, "manage.py", "unstuck", "dev"]
URL = re.compile(r"http://127\.0\.0\.1:\d+/")


class Dev:
    """One running `unstuck dev`, with all it has said in a file."""

    def __init__(self, command: Sequence[str], cwd: Path, directory: Path) -> None:
        self.port = free_port()
        self._log = directory / "output.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [word.format(port=self.port) for word in command],
                cwd=cwd,
                env={**_environment(), "SHOP_DATA_DIR": str(directory)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def url(self) -> str:
        """Where the shop answers."""
        return f"http://{HOST}:{self.port}/"

    @property
    def output(self) -> str:
        """Everything said so far."""
        return self._log.read_text(errors="replace")

    def wait_until_ready(self) -> None:
        """Return once the URL is printed and the worker takes tasks."""
        eventually(self._is_ready, 60)

    def below(self) -> list[int]:
        """All processes that exist because of this one."""
        return tether.descendants(self.process.pid)

    def _is_ready(self) -> bool:
        assert self.process.poll() is None or pytest.fail(self.output)
        return self.url in self.output and " ready." in self.output


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    """`unstuck dev` of the example in a directory of its own, ready."""
    command = [*MANAGE, "--port", "{port}", "--directory", str(tmp_path / "dev")]
    yield from _started(Dev(command, ROOT / "example", tmp_path))


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Dev]:
    """`make demo` in a directory of its own, ready."""
    options = f"OPTIONS=--directory {tmp_path / 'dev'}"
    command = ["make", "demo", "PORT={port}", options]
    yield from _started(Dev(command, ROOT, tmp_path))


def _started(running: Dev) -> Iterator[Dev]:
    below: list[int] = []
    try:
        running.wait_until_ready()
        below = running.below()
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        eventually(lambda: not alive(below), 5)


def test_its_urls_are_printed_and_ctrl_c_ends_everything(dev: Dev) -> None:
    """The web server answers there; Ctrl-C is an orderly end: exit code 0."""
    below = dev.below()

    assert f"{dev.url} and {dev.url}unstuck/ (" in dev.output
    assert set(URL.findall(dev.output)) == {dev.url}
    with urlopen(dev.url, timeout=20) as answer:
        assert answer.status == 200

    dev.process.send_signal(signal.SIGINT)

    assert dev.process.wait(40) == 0, dev.output
    assert not alive(below)
    assert "Traceback" not in dev.output


def test_sigkill_leaves_nothing_behind(dev: Dev) -> None:
    """Two seconds after the death of `unstuck dev` no process of it is left."""
    below = dev.below()
    assert len(below) > 8, "a tether and a process each"

    dev.process.kill()
    dev.process.wait()

    eventually(lambda: not alive(below), 2.5)


def test_the_death_of_one_process_ends_all(dev: Dev) -> None:
    """When the worker dies one line says so, and the exit code is 1."""
    below = dev.below()
    worker = min(pid for pid in below if "worker" in _words(pid)[2:])

    os.kill(worker, signal.SIGKILL)

    assert dev.process.wait(40) == 1
    assert dev.output.splitlines()[-1] == "unstuck dev: worker was killed by signal 9"
    assert not alive(below)


def test_a_second_instance_and_a_taken_port_get_one_line(
    dev: Dev, tmp_path: Path
) -> None:
    """Whoever comes second is told what is in the way, in one line, exit code 2."""
    same_directory = ["--port", str(free_port()), "--directory", str(tmp_path / "dev")]
    same_port = ["--port", str(dev.port), "--directory", str(tmp_path / "other")]

    assert str(dev.process.pid) in _refusal(same_directory)
    assert str(dev.port) in _refusal(same_port)


def test_a_taken_valkey_port_gets_one_line(tmp_path: Path) -> None:
    """The line names the port and the option for another one."""
    with socket.create_server((HOST, 0)) as server:
        port = str(server.getsockname()[1])

        line = _refusal(["--valkey-port", port, "--directory", str(tmp_path)])

    assert port in line
    assert "--valkey-port" in line


def test_the_demo_is_busy_and_ends_with_make(demo: Dev) -> None:
    """`make demo` has traffic that tasks work off; no process outlives make."""
    eventually(lambda: " succeeded in " in demo.output, 30)
    below = demo.below()

    demo.process.kill()
    demo.process.wait()

    eventually(lambda: not alive(below), 40)


def _environment() -> dict[str, str]:
    """A person's: without what pytest-django and `make test` have put into ours."""
    ours = ("DJANGO_", "CELERY_", "MAKE", "PYTEST_")
    return {name: v for name, v in os.environ.items() if not name.startswith(ours)}


def _refusal(options: list[str]) -> str:
    done = subprocess.run(
        [*MANAGE, *options],
        cwd=ROOT / "example",
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = (done.stdout + done.stderr).splitlines()
    return line


def _words(pid: int) -> list[str]:
    """The command line of a process, without the tether's part in front of it."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return [] if str(tether.__file__) in words else words
