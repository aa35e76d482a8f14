"""One `unstuck dev` per directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unstuck.dev.errors import DevError
from unstuck.dev.lock import only_instance


def test_a_second_instance_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    """The refusal is one line with the holder's pid and the way out."""
    with (
        only_instance(tmp_path),
        pytest.raises(DevError) as refusal,
        only_instance(tmp_path),
    ):
        pass

    assert f"process {os.getpid()} " in str(refusal.value)
    assert "--directory" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_next_one_may_start_where_the_last_one_ended(tmp_path: Path) -> None:
    """A lock file that nobody holds is no obstacle, whatever it says."""
    (tmp_path / "dev.lock").write_text("1\n")

    with only_instance(tmp_path):
        assert (tmp_path / "dev.lock").read_text() == f"{os.getpid()}\n"


def test_directories_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Two directories are two instances; a missing one is made."""
    with only_instance(tmp_path / "one"), only_instance(tmp_path / "two"):
        assert (tmp_path / "two" / "dev.lock").exists()
