"""Asking a worker of a site how it is, as Kubernetes and people do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.node import Site
from unstuck.probes import asking, runtime

PROGRAM = Path(sys.executable).parent / "unstuck"
PROBES = ("live", "ready", "working")


def directory_of(site: Site) -> Path:
    """Where the workers of a site have their sockets."""
    return site.directory / "run" / "unstuck"


def probe(site: Site, *arguments: str) -> tuple[int, str]:
    """The exit status of `unstuck probe …`, and what it printed."""
    done = subprocess.run(
        [PROGRAM, "probe", *arguments, "--runtime-dir", str(directory_of(site))],
        env=site.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def answer(site: Site, name: str = "working") -> dict[str, Any]:
    """What a probe says of the only worker of this site."""
    places = runtime.places(directory_of(site))
    assert len(places) == 1, places
    try:
        return asking.ask(places[0].connect(5), name).body
    except (OSError, asking.NoAnswer) as error:
        raise AssertionError(f"no answer: {error}") from error


def row(site: Site) -> tuple[str, bool, bool, bool]:
    """A row of the table of the docs: the state, and whether it lives, is ready, works."""
    answers = [answer(site, name) for name in PROBES]
    states = {each["state"] for each in answers}
    assert len(states) == 1, f"it has changed meanwhile: {states}"
    live, ready, working = (each["ok"] for each in answers)
    return states.pop(), live, ready, working
