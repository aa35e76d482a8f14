"""The runtime directory: where the workers of a host can be found. No import of ours.

Each serves probes on a unix socket there, ``NODE.PID.sock``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

SUFFIX = ".sock"
LONGEST_NAME = 60
"""The kernel takes little more than 100 bytes, of which a directory needs some."""

PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@._-")
ANSWER_SECONDS = 1.0


class RuntimeDirError(Exception):
    """A directory that cannot be used; says why, and what to do."""


class Place(NamedTuple):
    """The socket of one worker."""

    path: Path

    @property
    def node(self) -> str:
        """The node's name, as far as it fits."""
        return _read(self.path.name.removesuffix(SUFFIX).rpartition(".")[0])

    @property
    def pid(self) -> int:
        """The first process of the worker; 0 if the name does not say."""
        number = self.path.name.removesuffix(SUFFIX).rpartition(".")[2]
        return int(number) if number.isdecimal() else 0

    @property
    def is_alive(self) -> bool:
        """Whether there is a process of that number."""
        try:
            os.kill(self.pid, 0)
        except PermissionError:
            return True
        except OSError:
            return False
        return self.pid > 0

    def connect(self, seconds: float) -> socket.socket:
        """A connection to it. Raises ``OSError``."""
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            client.settimeout(seconds)
            with _short(self.path) as address:
                client.connect(address)
        except BaseException:
            client.close()
            raise
        return client


def directories() -> list[Path]:
    """Where workers that were told nothing else are found, the best place first.

    A worker that a system service started and a person on the same host may not have
    the same environment.
    """
    # Importing tempfile would cost as much as the whole probe.
    named = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    own = Path(next(filter(None, named), "/tmp")) / f"unstuck-{os.geteuid()}"  # noqa: S108 - made for us alone
    session = os.environ.get("XDG_RUNTIME_DIR")
    return [Path(session) / "unstuck", own] if session else [own]


def first_usable() -> Path:
    """The directory for a worker that was told nothing else, made for this user alone.

    If there is none, the best place: using it says why not.
    """
    found = directories()
    for directory in found:
        with contextlib.suppress(RuntimeDirError):
            prepare(directory)
            return directory
    return found[0]


def prepare(directory: Path) -> None:
    """Make it, for this user alone.

    Raises ``RuntimeDirError`` if it is somebody else's, or cannot be.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        check(directory)
        directory.chmod(0o700)
    except OSError as error:
        raise RuntimeDirError(
            f"The runtime directory {directory} cannot be used: {error.strerror}. "
            f"Set UNSTUCK['RUNTIME_DIR'] to a directory that this user may write to."
        ) from error


def check(directory: Path) -> None:
    """Raise ``RuntimeDirError`` if somebody else could answer from here."""
    # Not followed: whoever owns a link decides where it leads.
    facts = directory.lstat()
    if not stat.S_ISDIR(facts.st_mode):
        what = "is not a directory"
    elif facts.st_uid != os.geteuid():
        what = f"belongs to another user (uid {facts.st_uid})"
    else:
        return
    raise RuntimeDirError(
        f"The runtime directory {directory} {what}. Remove it, or set "
        f"UNSTUCK['RUNTIME_DIR'] to a directory of this user's own."
    )


def place(directory: Path, node: str, pid: int) -> Place:
    """The socket of this worker."""
    return Place(directory / f"{file_name(node)}.{pid}{SUFFIX}")


def places(directory: Path) -> list[Place]:
    """The sockets that are there, also of workers that are not there any more."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    return [Place(directory / name) for name in names if name.endswith(SUFFIX)]


def has_successor(place: Place) -> bool:
    """Whether another worker of the same name has its socket beside this one."""
    others = [other for other in places(place.path.parent) if other.pid != place.pid]
    return any(other.node == place.node and other.is_alive for other in others)


def file_name(node: str) -> str:
    """A node's name as part of a file's: readable, and never a path."""
    name = "".join(char if char in PLAIN else f"%{ord(char):x}%" for char in node)
    if len(name) <= LONGEST_NAME:
        return name
    import hashlib

    digest = hashlib.sha256(node.encode(errors="replace")).hexdigest()[:10]
    return f"{name[: LONGEST_NAME - 11]}~{digest}"


def _read(name: str) -> str:
    plain = name.split("%")
    with contextlib.suppress(ValueError, OverflowError):
        plain[1::2] = [chr(int(code, 16)) for code in plain[1::2]]
    return "".join(plain)


def listen(place: Place) -> socket.socket:
    """Listen there, in the place of whoever left a socket of this name."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    aside = place.path.with_suffix(".new")
    try:
        _remove(aside)
        with _short(aside) as address:
            server.bind(address)
        server.listen(socket.SOMAXCONN)
        # Who finds it under its name can connect to it.
        aside.rename(place.path)
    except BaseException:
        server.close()
        raise
    return server


def forget(place: Place) -> None:
    """Take the socket away."""
    _remove(place.path)


def sweep(directory: Path) -> None:
    """Take away the sockets of workers that ended without doing so."""
    for place in places(directory):
        try:
            place.connect(ANSWER_SECONDS).close()
        except ConnectionRefusedError:
            forget(place)
        except OSError:  # It is there and has no time, or has just gone.
            continue


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """An address of this socket that is short enough for the kernel."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
