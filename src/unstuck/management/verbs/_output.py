"""What verbs print: aligned tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TextIO

from django.core.serializers.json import DjangoJSONEncoder
from django.utils import timezone


def print_json(data: Any, out: TextIO) -> None:
    """Print one JSON document."""
    out.write(json.dumps(data, indent=2, cls=DjangoJSONEncoder, ensure_ascii=False))
    out.write("\n")


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[object]], out: TextIO
) -> None:
    """Print rows in columns as wide as their widest cell."""
    cells = [list(headings), *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.write("  ".join(padded).rstrip() + "\n")


def moment(at: datetime | None) -> str:
    """An instant in the time zone of the project."""
    if at is None:
        return "-"
    local = timezone.localtime(at) if timezone.is_aware(at) else at
    return local.strftime("%Y-%m-%d %H:%M:%S")


def one_line(value: object) -> str:
    """``value`` as text in which nothing can move the cursor of a terminal."""
    return "".join(
        char if char.isprintable() else " " if char.isspace() else ascii(char)[1:-1]
        for char in str(value)
    )


def printable(text: str) -> str:
    """Likewise for text of several lines, which keeps its lines and tabs."""
    lines = text.split("\n")
    return "\n".join(
        "\t".join(one_line(part) for part in line.split("\t")) for line in lines
    )
