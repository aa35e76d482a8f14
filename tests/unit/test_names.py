"""The public names, which are imported when they are asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import unstuck


@pytest.mark.parametrize("name", unstuck.__all__)
def test_a_name_is_there(name: str) -> None:
    """By attribute, and for completion."""
    value = getattr(unstuck, name)
    assert getattr(value, "__name__", name) == name
    assert name in dir(unstuck)


def test_what_is_not_there_is_told_as_ever() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match="'unstuck' has no attribute 'Cellery'"):
        _ = unstuck.Cellery  # type: ignore[attr-defined]


def test_nothing_is_imported_that_is_not_asked_for() -> None:
    """`unstuck probe` is run every few seconds."""
    code = (
        "import sys, unstuck; print('celery' in sys.modules, 'django' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
