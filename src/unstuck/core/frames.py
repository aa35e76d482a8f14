"""Whose frame it is, the project's own or another's, and how a stack is divided."""

from __future__ import annotations

import re

OTHER_THREADS = "Other threads:"
"""The line in a stack after which nothing stems from the thread that ran the task."""

FOREIGN = re.compile(
    r"""
      ^[<?]                                                # <frozen ...>, <string>, ???
    | [/\\](?:site-packages|dist-packages)[/\\]
    | [/\\]lib(?:64)?[/\\]python[\d.]+t?[/\\]              # the standard library
    | [/\\]unstuck[/\\](?:core|letters|pool|worker)[/\\]   # we, when installed editable
    | [/\\]bin[/\\]celery$
    """,
    re.VERBOSE,
)


def is_foreign(path: str) -> bool:
    """Whether the file of a frame is none of the project's own code."""
    return bool(FOREIGN.search(path))
