"""What is shown of things to those who may not see the arguments of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ARGUMENTS = frozenset({"args", "kwargs"})
"""Details of an entry of the audit that are arguments of a task, redacted."""


def without_arguments(details: Mapping[str, Any]) -> dict[str, Any]:
    """The details of an entry of the audit, as everybody may see them who sees the audit."""
    return {name: value for name, value in details.items() if name not in ARGUMENTS}
