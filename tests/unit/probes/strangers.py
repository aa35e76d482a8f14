"""A directory of somebody else, for tests that may run as root."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

CALLS = ("stat", "lstat", "mkdir", "listdir")


def keep_out_of(directory: Path, patch: pytest.MonkeyPatch) -> None:
    """As if it belonged to somebody else, with mode 0700."""
    for name in CALLS:
        patch.setattr(os, name, _refused_within(directory, getattr(os, name)))


def _refused_within(directory: Path, call: Any) -> Any:
    def refused(path: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(path, (str, Path)) and Path(path).is_relative_to(directory):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return call(path, *args, **kwargs)

    return refused
