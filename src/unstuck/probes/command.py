"""``unstuck probe``: ask the workers of this host, for exec probes and for people.

The project is not imported, nor Celery, nor Django: a probe that is run every few seconds
must cost next to nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from unstuck.probes import asking, runtime
from unstuck.probes.runtime import Place

PROBES = ("live", "ready", "working")
OK, NOT, USAGE = 0, 1, 2


class Finding(NamedTuple):
    """How one worker is, in words."""

    node: str
    ok: bool
    says: str
    do: str
    body: dict[str, Any]

    def line(self) -> str:
        """For people."""
        return " ".join(
            part for part in (f"{self.node}: {self.says}.", self.do) if part
        )

    def to_wire(self) -> dict[str, Any]:
        """For programs."""
        own = {"node": self.node, "ok": self.ok, "says": self.says, "do": self.do}
        return {**self.body, **own}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be said of a probe."""
    parser.add_argument(
        "probe",
        choices=PROBES,
        help="live: the loops turn; ready: connected, and children are up; working: "
        "messages that wait are being taken",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--node",
        metavar="NAME",
        help="the worker of this name, as in celery@host; without it, all of this host "
        "must be well",
    )
    where.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="where a worker serves its probes (UNSTUCK['PROBE_ADDRESS'])",
    )
    parser.add_argument(
        "--runtime-dir",
        metavar="DIRECTORY",
        help="where the workers have their sockets (UNSTUCK['RUNTIME_DIR'])",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The program ``unstuck``; the exit status is 0 ok, 1 not, 2 usage."""
    parser = argparse.ArgumentParser(
        prog="unstuck",
        description="Ask the workers of this host how they are. Everything else is in "
        "`manage.py unstuck`.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    probe = verbs.add_parser("probe", help="is a worker live, ready, working?")
    add_arguments(probe)
    probe.add_argument("--json", action="store_true", help="print JSON")
    return run(vars(parser.parse_args(arguments)), sys.stdout)


def run(options: dict[str, Any], out: TextIO) -> int:
    """Ask, and print a line for each worker."""
    probe, address = options["probe"], options["address"]
    if address:
        host, _, port = address.rpartition(":")
        if not (host and port.isdecimal() and int(port) <= 65_535):
            sys.stderr.write(f"unstuck: --address {address!r} must be HOST:PORT\n")
            return USAGE
        findings = [_ask_address(probe, address, host.strip("[]"), int(port))]
    else:
        findings = _ask_host(probe, options["node"], options["runtime_dir"])
    if options["json"]:
        found = [finding.to_wire() for finding in findings]
        out.write(json.dumps(found, indent=2) + "\n")
    else:
        for finding in findings:
            out.write(f"{_printable(finding.line())}\n")
        if len(findings) > 1:
            wrong = sum(not finding.ok for finding in findings)
            out.write(f"{len(findings)} workers on this host, {wrong} not well.\n")
    return OK if all(finding.ok for finding in findings) else NOT


def _ask_address(probe: str, address: str, host: str, port: int) -> Finding:
    try:
        reply = asking.ask(asking.connect(host, port), probe)
    except asking.NoAnswer as error:
        return _unanswered(address, str(error))
    except OSError as error:
        why = f"nobody listens there ({error.strerror or error})"
        do = "Is the worker running, with this address as UNSTUCK['PROBE_ADDRESS']?"
        return _unanswered(address, why, do)
    return _answered(address, reply)


def _ask_host(probe: str, node: str | None, directory: str | None) -> list[Finding]:
    directories = [Path(directory)] if directory else runtime.directories()
    findings: list[Finding] = []
    refused: list[Finding] = []
    for each in directories:
        try:
            if not directory:
                runtime.check(each)
        except runtime.RuntimeDirError as error:
            refused.append(_unanswered("unstuck", str(error).rstrip("."), ""))
            continue
        except OSError:
            # It is not there, or within what is somebody else's, and so is none of ours.
            continue
        for place in runtime.places(each):
            if node is None or _is_of(place, node):
                findings += _ask_place(probe, place)
    if findings or refused:
        return findings or refused
    where = " or ".join(map(str, directories))
    what = f"no worker named {node}" if node else "no worker"
    do = f"Is it running, as this user (uid {os.geteuid()})? Or say --runtime-dir."
    return [_unanswered(node or "unstuck", f"{what} has its socket in {where}", do)]


def _is_of(place: Place, node: str) -> bool:
    return place == runtime.place(place.path.parent, node, place.pid)


def _ask_place(probe: str, place: Place) -> list[Finding]:
    """Of a worker whose place was taken by another one, nothing."""
    try:
        reply = asking.ask(place.connect(asking.SECONDS), probe)
    except asking.NoAnswer as error:
        return [_unanswered(place.node, str(error))]
    except OSError as error:
        if not place.is_alive:
            return _of_the_dead(place)
        return [_unanswered(place.node, f"it does not answer ({error.strerror})")]
    return [_answered(place.node, reply)]


def _of_the_dead(place: Place) -> list[Finding]:
    """A worker that ended in order has taken its socket away; this one has not.

    The next worker of its name that starts here takes it away; so does any other, a while
    after, with all that are left.
    """
    if runtime.has_successor(place):
        return []
    says = f"it died (pid {place.pid}) and left its socket {place.path}"
    do = "Start it again. If it is not to come back, remove that file."
    return [_unanswered(place.node, says, do)]


def _answered(place: str, reply: asking.Reply) -> Finding:
    body = reply.body
    node, says = str(body.get("node", place)), str(body.get("says", body.get("error")))
    return Finding(node, reply.ok, says, str(body.get("do", "")), body)


def _unanswered(
    node: str, says: str, do: str = "If this lasts, restart the worker."
) -> Finding:
    return Finding(node, False, says, do, {})


def _printable(line: str) -> str:
    return "".join(char if char.isprintable() else " " for char in line)
