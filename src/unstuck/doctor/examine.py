"""The whole examination: the static checks, and what can only be seen live."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core import checks

from unstuck.app import Celery
from unstuck.checks import TAG
from unstuck.checks.rule import DOCS
from unstuck.doctor.ask import look
from unstuck.doctor.facts import Seen
from unstuck.doctor.rule import Finding, Level, run
from unstuck.doctor.table import TABLE

ORDER = tuple(Level)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found, the gravest first, and what was asked."""

    findings: tuple[Finding, ...]
    silenced: int
    """How many more the project does not want to hear of."""

    seen: Seen

    @property
    def counts(self) -> dict[Level, int]:
        """How many of each level."""
        found = Counter(each.level for each in self.findings)
        return {level: found[level] for level in Level}

    def is_well(self, fail_level: Level) -> bool:
        """Whether nothing is as grave as that; what was not asked is as an error."""
        last = max(map(ORDER.index, (fail_level, Level.NOT_ASKED)))
        return all(ORDER.index(each.level) > last for each in self.findings)


def examine(app: Celery, **options: Any) -> Report:
    """Look, and judge. Takes the options of ``look``."""
    # First: it imports what a worker would.
    found = list(static())
    seen = look(app, **options)
    found += run(TABLE.values(), seen)
    silenced = getattr(settings, "SILENCED_SYSTEM_CHECKS", [])
    heard = [each for each in found if each.id not in silenced]
    return Report(
        findings=tuple(sorted(heard, key=lambda each: ORDER.index(each.level))),
        silenced=len(found) - len(heard),
        seen=seen,
    )


def static() -> Iterator[Finding]:
    """What ``manage.py check`` finds of ours."""
    for message in checks.run_checks(tags=[TAG]):
        number = (message.id or "").rpartition(".")[2].lower()
        docs = f"{DOCS}#{number}"
        yield Finding(
            id=message.id or "",
            level=Level.ERROR if message.level >= checks.ERROR else Level.WARNING,
            subject=str(message.obj),
            what=message.msg,
            since=None,
            why="",
            remedy=(message.hint or "").removesuffix(f"({docs})").rstrip(),
            command="",
            docs=docs,
            facts={},
        )
