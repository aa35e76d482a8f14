"""Names that are made of a task's arguments: ``"report:{user_id}"``.

Less than ``str.format`` can do: a field is an argument, or one item or attribute of one.
What comes in messages never decides how it is printed, nor how much of an object is read.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

FIELD = re.compile(r"([A-Za-z_]\w*)(?:\.([A-Za-z]\w*)|\[([^\[\]{}]+)\])?")


@dataclass(frozen=True, slots=True)
class Field:
    """A place in a template: an argument, and what of it."""

    argument: str
    attribute: str | None = None
    key: str | None = None

    def of(self, values: Mapping[str, Any]) -> str:
        """What is printed in this place."""
        value = values[self.argument]
        if self.attribute is not None:
            value = getattr(value, self.attribute)
        if self.key is not None:
            value = value[int(self.key) if self.key.isdigit() else self.key]
        return str(value)


@dataclass(frozen=True, slots=True)
class Template:
    """A text with fields."""

    text: str
    parts: tuple[str | Field, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Raises ``ValueError`` that says what cannot be read, and what can."""
        parts: list[str | Field] = []
        try:
            for literal, field, spec, conversion in Formatter().parse(text):
                if literal:
                    parts.append(literal)
                if field is not None:
                    parts.append(_field(field, spec, conversion))
        except ValueError as error:
            raise ValueError(f"{error} {{{{ and }}}} are braces as such.") from error
        return cls(text, tuple(parts))

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the arguments that it asks for."""
        return tuple(part.argument for part in self.parts if isinstance(part, Field))

    def render(self, values: Mapping[str, Any]) -> str:
        """The text for these arguments. Raises whatever the arguments raise."""
        return "".join(
            part.of(values) if isinstance(part, Field) else part for part in self.parts
        )


def _field(field: str, spec: str | None, conversion: str | None) -> Field:
    found = FIELD.fullmatch(field)
    if found is None or spec or conversion:
        shown = f"{field}{'!' + conversion if conversion else ''}"
        shown = f"{{{shown}{':' + spec if spec else ''}}}"
        raise ValueError(
            f"{shown} is not one of {{name}}, {{name.attribute}} and {{name[key]}}."
        )
    return Field(*found.groups())


def nearest(word: str, choices: Collection[str]) -> str:
    """`` Did you mean 'x'?``, or nothing if no choice is near."""
    near = difflib.get_close_matches(word.lower(), choices, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
