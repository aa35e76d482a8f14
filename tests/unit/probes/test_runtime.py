"""The runtime directory: one's own, and tidy."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.probes.strangers import keep_out_of
from unstuck.probes import runtime
from unstuck.probes.runtime import Place, RuntimeDirError


def test_it_is_made_for_this_user_alone(tmp_path: Path) -> None:
    """With those above it, and also where it was open before."""
    directory = tmp_path / "run" / "unstuck"
    runtime.prepare(directory)
    assert directory.stat().st_mode & 0o777 == 0o700

    directory.chmod(0o777)
    runtime.prepare(directory)
    assert directory.stat().st_mode & 0o777 == 0o700


def test_that_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owns it could answer in our name."""
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(RuntimeDirError, match=r"another user .*RUNTIME_DIR"):
        runtime.prepare(tmp_path)


def test_a_link_is_refused(tmp_path: Path) -> None:
    """Its owner decides where it leads."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(RuntimeDirError, match="is not a directory"):
        runtime.prepare(tmp_path / "link")


def test_what_cannot_be_made_is_told(tmp_path: Path) -> None:
    """With the remedy."""
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeDirError, match=r"cannot be used.*RUNTIME_DIR"):
        runtime.prepare(tmp_path / "file" / "unstuck")


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The session's first, then the temporary one; for both sides the same."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    session, temporary = runtime.directories()
    assert session == tmp_path / "unstuck"
    assert temporary.name == f"unstuck-{os.geteuid()}"

    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert runtime.directories() == [temporary]


def test_where_a_worker_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """To the first that it can use; to the first of all, to be told so, if to none."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "session"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    session, temporary = runtime.directories()
    assert runtime.first_usable() == session

    keep_out_of(session.parent, monkeypatch)
    assert runtime.first_usable() == temporary
    assert temporary.is_dir()

    keep_out_of(temporary, monkeypatch)
    assert runtime.first_usable() == session


@given(st.text(min_size=1, max_size=300))
def test_any_name_is_a_file(node: str) -> None:
    """Short, in this directory, and its node can be read from it if it is not too long."""
    directory = Path("/run/unstuck")
    place = runtime.place(directory, node, 4711)

    assert place.path.parent == directory
    assert len(os.fsencode(place.path.name)) < 80
    assert place.pid == 4711
    if len(runtime.file_name(node)) < runtime.LONGEST_NAME:
        assert place.node == node


def test_the_name_of_a_node_is_readable() -> None:
    """As most are."""
    place = runtime.place(Path("/run"), "celery@w-1.example.org", 7)
    assert place.path.name == "celery@w-1.example.org.7.sock"
    assert place.node == "celery@w-1.example.org"


@pytest.mark.parametrize("deep", [0, 120])
def test_it_can_be_connected_to(tmp_path: Path, deep: int) -> None:
    """Also where the path is longer than the kernel takes."""
    directory = tmp_path / ("d" * deep or "short")
    runtime.prepare(directory)
    place = runtime.place(directory, "celery@w1", os.getpid())

    with runtime.listen(place) as server, place.connect(5) as client:
        client.sendall(b"hello")
        connection, _ = server.accept()
        with connection:
            assert connection.recv(5) == b"hello"
    assert runtime.places(directory) == [place]
    assert place.is_alive


def test_stale_sockets_are_swept_away(tmp_path: Path) -> None:
    """Those that nobody listens on, and no other."""
    left = runtime.place(tmp_path, "left", 2**22 + 1)
    runtime.listen(left).close()
    here = runtime.place(tmp_path, "here", os.getpid())
    with runtime.listen(here):
        assert not left.is_alive

        runtime.sweep(tmp_path)

        assert runtime.places(tmp_path) == [here]


def test_the_socket_of_the_one_before_is_replaced(tmp_path: Path) -> None:
    """A probes process that was killed left it."""
    place = runtime.place(tmp_path, "celery@w1", os.getpid())
    runtime.listen(place).close()
    with runtime.listen(place), place.connect(5):
        pass
    runtime.forget(place)
    runtime.forget(place)
    assert list(tmp_path.iterdir()) == []


def test_nobody_is_there(tmp_path: Path) -> None:
    """No directory, no place, no socket."""
    assert runtime.places(tmp_path / "none") == []
    with pytest.raises(OSError, match="No such file"):
        Place(tmp_path / "a.1.sock").connect(1)
    assert not Place(tmp_path / "odd.sock").is_alive


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """Only sockets of ours are looked at."""
    (tmp_path / "notes.txt").touch()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(tmp_path / "stranger"))
        runtime.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "stranger"}
