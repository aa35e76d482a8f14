"""The command line of `manage.py unstuck dev`, before anything starts."""

from __future__ import annotations

import argparse
import io
import socket
from pathlib import Path

import pytest

from unstuck.dev.errors import ProcessEnded
from unstuck.dev.lock import only_instance
from unstuck.management.verbs import dev


def _run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    dev.add_arguments(parser)
    return dev.run(vars(parser.parse_args(words)), io.StringIO())


@pytest.mark.parametrize(
    "extra", ["traffic", "=sleep 1", "traffic=", "traffic='x", "a b=sleep 1"]
)
def test_an_extra_without_name_or_command_is_refused(
    extra: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--with` takes NAME=COMMAND and says so."""
    assert _run("--with", extra) == 2

    assert "--with wants NAME=COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--with", "web=x"], ["--with", "a=x", "--with", "a=y"]]
)
def test_two_processes_of_one_name_are_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A name in the log means one process."""
    assert _run(*words) == 2

    assert "already" in capsys.readouterr().err


def test_an_unknown_application_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no Celery application, the line names the option."""
    assert _run("--app", "no_such_package") == 2

    error = capsys.readouterr().err
    assert "'no_such_package'" in error
    assert "--app" in error


def test_a_taken_port_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A port that somebody holds ends the start with one line and exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        words = ["--app", "tests.project.app", "--directory", str(tmp_path)]

        assert _run(*words, "--port", port) == 2

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert f"port {port} " in lines[0]


def test_a_second_instance_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory in use ends the start with one line and exit code 2."""
    with only_instance(tmp_path):
        assert _run("--app", "tests.project.app", "--directory", str(tmp_path)) == 2

    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("status", "words"),
    [(1, "ended with exit status 1"), (137, "was killed by signal 9")],
)
def test_the_end_of_a_process_says_how(status: int, words: str) -> None:
    """The line names the process, and its exit status or signal."""
    assert str(ProcessEnded("worker", status)) == f"worker {words}"
