"""The table of all rules, filled by the modules that have them."""

from unstuck.checks import (
    code,
    earlier,
    messages,
    names,
    options,
    runs,
    schedule,
    surroundings,
    timeouts,
    values,
)
from unstuck.checks.rule import TABLE

__all__ = [
    "TABLE",
    "code",
    "earlier",
    "messages",
    "names",
    "options",
    "runs",
    "schedule",
    "surroundings",
    "timeouts",
    "values",
]
