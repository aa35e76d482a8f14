"""One `unstuck dev` per directory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unstuck.dev.errors import DevError


@contextmanager
def only_instance(directory: Path) -> Iterator[None]:
    """Hold `directory` against others; a `DevError` names who has it.

    The kernel drops the lock with its holder, so a file left behind means nothing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "dev.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            msg = (
                f"already running here as process {_holder(path)} ({path}); "
                "end it, or use another --directory"
            )
            raise DevError(msg) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _holder(path: Path) -> str:
    # Empty for the instant between the lock and the write.
    return path.read_text().strip() or "?"
