"""What a live rule is, the one table of all of them, and how they are run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from unstuck.doctor.facts import Seen

DOCS = "docs/doctor.md"
COMMAND = re.compile(r"`([^`]+)`")


class Level(StrEnum):
    """How grave a finding is, the gravest first."""

    ERROR = "error"
    """Tasks are lost, stuck or repeated, now or at the next mishap."""

    NOT_ASKED = "not asked"
    """Nobody knows: as grave as an error, until somebody does."""

    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that a rule found: what it is about, since when, and facts for its words."""

    subject: str
    since: datetime | None
    facts: Mapping[str, Any]


def found(subject: str, /, *, since: datetime | None = None, **facts: Any) -> Found:
    """One thing that a rule found; ``facts`` fill the places in the rule's words."""
    return Found(subject, since, facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What people and programs are told."""

    id: str
    level: Level
    subject: str
    what: str
    since: datetime | None
    """``None``: nobody knows."""

    why: str
    remedy: str
    """What mends it; commands and lines to write stand between backticks."""

    command: str
    """The first of them; empty where no command mends it."""

    docs: str
    facts: Mapping[str, Any]

    def to_wire(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


Find = Callable[[Seen], Iterable[Found]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of the table."""

    number: str
    """``D…``; never used again for something else."""

    level: Level
    title: str
    says: str
    why: str
    remedy: str
    find: Find

    @property
    def id(self) -> str:
        """How ``SILENCED_SYSTEM_CHECKS`` names it."""
        return f"unstuck.{self.number}"

    @property
    def anchor(self) -> str:
        """Where the documentation says more."""
        return f"{DOCS}#{self.number.lower()}"

    def finding(self, seen: Found) -> Finding:
        """What is told of one thing found."""
        remedy = self.remedy.format(**seen.facts)
        command = COMMAND.search(remedy)
        return Finding(
            id=self.id,
            level=self.level,
            subject=seen.subject,
            what=self.says.format(**seen.facts),
            since=seen.since,
            why=self.why.format(**seen.facts),
            remedy=remedy,
            command=command[1] if command else "",
            docs=self.anchor,
            facts=seen.facts,
        )


TABLE: dict[str, Rule] = {}
"""Every rule by its number, in the order in which they are run."""


def rule(
    number: str, level: Level, *, title: str, says: str, why: str, remedy: str
) -> Callable[[Find], Find]:
    """Put a function into the table."""

    def add(find: Find) -> Find:
        if number in TABLE:
            raise ValueError(f"The rule {number} is there already: {TABLE[number]}")
        TABLE[number] = Rule(
            number=number,
            level=level,
            title=title,
            says=says,
            why=why,
            remedy=remedy,
            find=find,
        )
        return find

    return add


BROKEN = "D009"


def run(rules: Iterable[Rule], seen: Seen) -> Iterator[Finding]:
    """What the rules find. One that raises hides none of the others: it is a finding."""
    for each in rules:
        try:
            findings = [each.finding(one) for one in each.find(seen)]
        except Exception as error:
            yield _broken(each, error)
            continue
        yield from findings


def _broken(stumbled: Rule, error: Exception) -> Finding:
    return Finding(
        id=f"unstuck.{BROKEN}",
        level=Level.NOT_ASKED,
        subject=stumbled.id,
        what=f"{stumbled.id} ({stumbled.title}) could not be judged: "
        f"{type(error).__name__}: {error}.",
        since=None,
        why="Whether it is so, nobody knows. All others were judged.",
        remedy="Please report it.",
        command="",
        docs=f"{DOCS}#{BROKEN.lower()}",
        facts={},
    )
