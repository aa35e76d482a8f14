"""`unstuck probe`: what it prints, its exit status, and what it costs."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.unit.command import unstuck
from tests.unit.probes.strangers import keep_out_of
from unstuck.pool.board import MAIN, SUPERVISOR, Board, Column
from unstuck.probes import asking, runtime
from unstuck.probes.command import main
from unstuck.probes.process import routes
from unstuck.probes.server import Server
from unstuck.probes.snapshot import About

GONE = 2**22 + 1


def board_of_one_that_is_fine() -> Board:
    """As main and the supervisor of an idle node write it."""
    board = Board()
    board.row(SUPERVISOR).clear(os.getpid())
    main_row = board.row(MAIN)
    main_row.clear(os.getpid())
    for column in (Column.READY, Column.CONNECTED, Column.WAITING):
        main_row[column] = 1
    for column in (Column.SLOTS, Column.FREE, Column.SERVING):
        main_row[column] = 2
    return board


@contextmanager
def worker(
    directory: Path, node: str = "celery@w1", pid: int = 0, **columns: int
) -> Iterator[int]:
    """A probes' server as a worker has it; the port of its address."""
    board = board_of_one_that_is_fine()
    for name, value in columns.items():
        board.row(MAIN)[Column[name]] = value
    about = About(node=node, supervised=True, stall_seconds=30)
    server, over = Server(routes(board, about)), threading.Event()
    server.serve(runtime.listen(runtime.place(directory, node, pid or os.getpid())))
    listener = socket.create_server(("127.0.0.1", 0))
    server.serve(listener)

    def serve() -> None:
        while not over.is_set():
            server.turn(0.05)
            board.row(MAIN).beat()
            board.row(SUPERVISOR).beat()
        server.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        over.set()
        thread.join()


def said(
    capsys: pytest.CaptureFixture[str], *arguments: str, directory: Path | None = None
) -> tuple[int, str]:
    """Exit status and output."""
    where = ["--runtime-dir", str(directory)] if directory else []
    status = main(["probe", *arguments, *where])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_one_worker_that_is_fine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0, and a line that says so."""
    with worker(tmp_path):
        for probe in ("live", "ready", "working"):
            status, text = said(capsys, probe, directory=tmp_path)
            assert (status, text.count("\n")) == (0, 1)
            assert text.startswith("celery@w1: fine: 2 of 2 slots free")


def test_one_that_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1, what is wrong, and what to do; for `live` it is well."""
    with worker(tmp_path, READY=0):
        assert said(capsys, "live", directory=tmp_path)[0] == 0
        status, text = said(capsys, "ready", directory=tmp_path)
    assert status == 1
    assert text == "celery@w1: starting: it has not consumed yet. Nothing: it passes.\n"


def test_all_of_a_host_must_be_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each; with --node that one alone."""
    with worker(tmp_path, "a@w1"), worker(tmp_path, "b@w1", STOPPING=1):
        status, text = said(capsys, "ready", directory=tmp_path)
        assert status == 1
        assert "a@w1: fine" in text
        assert "b@w1: stopping" in text
        assert said(capsys, "ready", "--node", "a@w1", directory=tmp_path)[0] == 0
        assert said(capsys, "ready", "--node", "b@w1", directory=tmp_path)[0] == 1
        status, text = said(capsys, "ready", "--node", "a@w", directory=tmp_path)
        assert status == 1
        assert "no worker named a@w has its socket in" in text


def test_no_worker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1, with words."""
    status, text = said(capsys, "live", directory=tmp_path)
    assert status == 1
    assert f"no worker has its socket in {tmp_path}. Is it running" in text


def test_a_worker_that_died_is_not_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It did not take its socket away; until one of its name is there again."""
    runtime.listen(runtime.place(tmp_path, "gone@w1", GONE)).close()
    status, text = said(capsys, "live", directory=tmp_path)
    assert status == 1
    assert f"gone@w1: it died (pid {GONE}) and left its socket {tmp_path}" in text

    with worker(tmp_path):
        status, text = said(capsys, "live", directory=tmp_path)
        assert status == 1
        assert "2 workers on this host, 1 not well." in text
        assert said(capsys, "live", "--node", "celery@w1", directory=tmp_path)[0] == 0
    with worker(tmp_path, "gone@w1"):
        runtime.listen(runtime.place(tmp_path, "gone@w1", GONE)).close()
        assert said(capsys, "live", "--node", "gone@w1", directory=tmp_path)[0] == 0


def test_a_probes_process_that_is_gone_while_its_worker_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is about to be started again."""
    runtime.listen(runtime.place(tmp_path, "celery@w1", os.getpid())).close()
    status, text = said(capsys, "live", directory=tmp_path)
    assert status == 1
    assert "celery@w1: it does not answer" in text


def test_by_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As from another container."""
    with worker(tmp_path) as port:
        status, text = said(capsys, "working", "--address", f"127.0.0.1:{port}")
    assert (status, text[:15]) == (0, "celery@w1: fine")
    status, text = said(capsys, "working", "--address", f"127.0.0.1:{port}")
    assert status == 1
    assert "nobody listens there" in text


def test_somebody_else_listens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something that is no worker of ours, or that says nothing."""
    monkeypatch.setattr(asking, "SECONDS", 0.5)

    def answer(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client:
            client.recv(1000)
            client.sendall(b"220 mail.example.org ESMTP\r\n\r\n{}")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        status, text = said(capsys, "live", "--address", address)
        thread.join()
        assert (status, "is not a worker of unstuck" in text) == (1, True)

        status, text = said(capsys, "live", "--address", address)
        assert (status, "does not answer" in text) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["probe"],
        ["probe", "lively"],
        ["probe", "live", "--address", "8001"],
        ["probe", "live", "--address", "h:eight"],
        ["probe", "live", "--address", "h:70000"],
        ["probe", "live", "--node", "a", "--address", "h:1"],
        ["dead", "list"],
    ],
)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """2, and what was meant."""
    try:
        status: Any = main(arguments)
    except SystemExit as exit_:
        status = exit_.code
    assert status == 2
    assert capsys.readouterr().err


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Where workers and probes look that were told nothing, the first place first."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "session"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    session, temporary = runtime.directories()
    runtime.prepare(session)
    runtime.prepare(temporary)
    return session, temporary


def test_the_session_of_somebody_else(
    places: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`su shop` leaves the environment as it was: the worker is in the second place."""
    keep_out_of(places[0].parent, monkeypatch)
    status, text = said(capsys, "live")
    assert status == 1
    assert "no worker has its socket in" in text

    with worker(places[1]):
        status, text = said(capsys, "live")
    assert (status, text[:15]) == (0, "celery@w1: fine")


def test_a_place_where_somebody_else_could_answer(
    places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is asked there, and whoever is elsewhere is."""
    session, temporary = places
    session.rename(temporary.with_name("elsewhere"))
    session.symlink_to(temporary.with_name("elsewhere"))
    status, text = said(capsys, "live")
    assert status == 1
    assert f"{session} is not a directory" in text

    with worker(temporary):
        status, text = said(capsys, "live")
    assert (status, text[:15]) == (0, "celery@w1: fine")


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A list with all that is known, for each worker."""
    with worker(tmp_path):
        found = json.loads(said(capsys, "working", "--json", directory=tmp_path)[1])
    assert [(one["node"], one["ok"], one["state"]) for one in found] == [
        ("celery@w1", True, "fine")
    ]
    assert found[0]["facts"]["slots"] == 2


def test_what_the_project_s_own_command_says(
    tmp_path: Path, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """`manage.py unstuck probe` knows where the project has its sockets."""
    settings.UNSTUCK = {"RUNTIME_DIR": str(tmp_path)}
    with worker(tmp_path, STOPPING=1):
        assert unstuck("probe", "live") == 0
        assert unstuck("probe", "ready") == 1
    assert capsys.readouterr().out.count("stopping") == 2


def test_what_it_costs(tmp_path: Path) -> None:
    """Neither Celery nor Django is imported, so it takes next to no CPU."""
    code = (
        "import sys\n"
        "from unstuck.probes.command import main\n"
        f"status = main(['probe', 'live', '--runtime-dir', {str(tmp_path)!r}])\n"
        "print(sorted(sys.modules))\n"
        "sys.exit(status)"
    )
    with worker(tmp_path):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    for heavy in ("celery", "django", "kombu", "http.client", "logging"):
        assert f"'{heavy}'" not in done.stdout
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # benchmarks/probes.py has the figure; here other work goes on as well.
    assert seconds < 1
