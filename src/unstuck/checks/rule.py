"""What a rule is, the one table of all of them, and how they are run.

A rule is a pure function from a ``Project`` to what it found. Its words stand beside it:
what it says of each thing found, and what to do. ``docs/checks.md`` has an anchor for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.checks import CheckMessage, Error, Warning

from unstuck.checks.view import Project

DOCS = "docs/checks.md"


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that a rule found: what it is about, and the facts for its words."""

    obj: str
    facts: Mapping[str, Any]


def found(obj: str, /, **facts: Any) -> Found:
    """One thing that a rule found; ``facts`` fill the places in the rule's words."""
    return Found(obj, facts)


Find = Callable[[Project], Iterable[Found | CheckMessage]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of the table."""

    number: str
    """``E…`` is an error: it cannot work, or loses or hangs. ``W…`` is a warning."""

    title: str
    says: str
    remedy: str
    find: Find
    anywhere: bool = False
    """Whether it makes sense without an app of ours whose settings could be read."""

    @property
    def id(self) -> str:
        """How Django and ``SILENCED_SYSTEM_CHECKS`` name it."""
        return f"unstuck.{self.number}"

    @property
    def anchor(self) -> str:
        """Where the documentation says why, and what to do."""
        return f"{DOCS}#{self.number.lower()}"

    def message(self, seen: Found | CheckMessage) -> CheckMessage:
        """What Django prints of one thing found."""
        if isinstance(seen, CheckMessage):
            seen.hint = f"{seen.hint or ''} ({self.anchor})".lstrip()
            return seen
        kind = Error if self.number.startswith("E") else Warning
        return kind(
            self.says.format(**seen.facts),
            hint=f"{self.remedy.format(**seen.facts)} ({self.anchor})",
            obj=seen.obj,
            id=self.id,
        )


TABLE: dict[str, Rule] = {}
"""Every rule by its number, in the order in which they are run."""


def rule(
    number: str,
    *,
    title: str,
    says: str = "",
    remedy: str = "",
    anywhere: bool = False,
) -> Callable[[Find], Find]:
    """Put a function into the table.

    A function that yields messages of its own making leaves ``says`` and ``remedy`` out.
    """

    def add(find: Find) -> Find:
        if number in TABLE:
            raise ValueError(f"The rule {number} is there already: {TABLE[number]}")
        TABLE[number] = Rule(
            number=number,
            title=title,
            says=says,
            remedy=remedy,
            find=find,
            anywhere=anywhere,
        )
        return find

    return add


BROKEN = "unstuck.W020"

OF_THE_WRONG_TYPE = ("E001", "E002", "E005", "E021", "E024", "E025", "E026")
"""What they find makes other rules stumble: it cannot be compared with anything."""


def run(rules: Iterable[Rule], project: Project) -> Iterator[CheckMessage]:
    """What the rules find. One that raises hides none of the others: it is a finding.

    Where values are of the wrong type, there is no need to say of other rules that they
    cannot compare with them.
    """
    ids: set[str | None] = set()
    broken: dict[str, list[Rule]] = {}
    for each in rules:
        try:
            messages = [each.message(seen) for seen in each.find(project)]
        except Exception as error:
            broken.setdefault(f"{type(error).__name__}: {error}", []).append(each)
            continue
        yield from messages
        ids.update(message.id for message in messages)
    if not ids & {f"unstuck.{number}" for number in OF_THE_WRONG_TYPE}:
        yield from (_broken(error, unmade) for error, unmade in broken.items())


def _broken(error: str, unmade: Sequence[Rule]) -> CheckMessage:
    names = ", ".join(f"{each.number} ({each.title})" for each in unmade)
    return Warning(
        f"A check could not be made, {names}: {error}. All others were.",
        hint=f"Please report it, and silence this meanwhile. ({DOCS}#w020)",
        obj="unstuck.checks",
        id=BROKEN,
    )
