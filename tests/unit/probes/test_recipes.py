"""The recipes of docs/probes.md, as far as they can be tried without their programs."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.node import ROOT
from unstuck.probes.command import PROBES
from unstuck.probes.judge import State

TEXT = (ROOT / "docs" / "probes.md").read_text()


def blocks(language: str) -> list[str]:
    """The code in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def test_every_command_is_one() -> None:
    """In shells and as the lists of containers."""
    lists = [
        json.loads(found) for found in re.findall(r'\["unstuck", "probe".*?\]', TEXT)
    ]
    lines = re.findall(r"unstuck probe (\w+)", "\n".join(blocks("console")))

    assert len(lists) >= 4
    assert {command[2] for command in lists} | set(lines) <= set(PROBES)


def test_every_state_is_in_the_table() -> None:
    """By its name, with the words that it says."""
    table = {line.split("`")[1] for line in TEXT.splitlines() if line.startswith("| `")}
    assert set(State) <= table


@pytest.mark.parametrize("recipe", blocks("ini"))
def test_ini_files_can_be_read(recipe: str) -> None:
    """No line of them is odd."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(recipe)
    assert parser.sections()


def test_the_listener_of_supervisord(tmp_path: Path) -> None:
    """Three ticks without an answer: it has its program restarted, and goes on."""
    [program] = blocks("python")
    (tmp_path / "listener.py").write_text(program)
    for name, script in {
        "unstuck": 'exit "$(cat status)"',
        "supervisorctl": 'echo "$@" >>restarts',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    tick = "ver:3.0 server:s serial:1 eventname:TICK_60 len:8\nwhen:201"

    for status, restarts in (("0", 0), ("1", 1)):
        (tmp_path / "status").write_text(status)
        done = subprocess.run(
            [sys.executable, "listener.py", "worker"],
            input=tick * 4,
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.count("RESULT 2\nOK") == 4, done.stderr
        asked = tmp_path / "restarts"
        lines = asked.read_text().splitlines() if asked.exists() else []
        assert lines == ["restart worker"] * restarts
