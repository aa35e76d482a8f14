"""Bring the catalogues in step with the code, and compile them.

``python scripts/translations.py`` after a word on a page has changed; then translate what
is new in ``src/unstuck/locale/*/LC_MESSAGES/django.po``, and run it once more. Django
finds the compiled ``django.mo`` in the wheel.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

SOURCE = Path(__file__).resolve().parents[1] / "src" / "unstuck"
PYTHON = ("dashboard", "templatetags")
KEYWORDS = {"_": None, "gettext": None, "gettext_lazy": None, "ngettext": (1, 2)}
STRING = r"""u?('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
CALL = re.compile(rf"\b(?:_|gettext|ngettext)\({STRING}(?:, ?{STRING})?")
"""What Django makes of the tags of a template; no Python that a parser would take."""

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
HEADER = """msgid ""
msgstr ""
"Project-Id-Version: unstuck\\n"
"Language: {language}\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"Plural-Forms: {plurals}\\n"

"""

Message = str | tuple[str, ...]


def messages() -> Iterator[Message]:
    """Everything that pages say."""
    for folder in PYTHON:
        for path in sorted((SOURCE / folder).rglob("*.py")):
            with path.open("rb") as file:
                for _, found, _, _ in extract("python", file, KEYWORDS):
                    yield found
    for path in sorted((SOURCE / "templates" / "unstuck").glob("*.html")):
        for match in CALL.finditer(templatize(path.read_text(), origin=str(path))):
            one, many = match.groups()
            texts = tuple(ast.literal_eval(text) for text in (one, many) if text)
            yield texts if len(texts) > 1 else texts[0]


def catalogues() -> list[Path]:
    """The file of each language."""
    return sorted((SOURCE / "locale").glob("*/LC_MESSAGES/django.po"))


def load(path: Path) -> Catalog:
    """A catalogue as it is in its file."""
    with path.open("rb") as file:
        return read_po(file, locale=path.parents[1].name)


def written(catalogue: Catalog) -> str:
    """The text of its file: always the same for the same words."""
    buffer = BytesIO()
    write_po(buffer, catalogue, width=100, omit_header=True, sort_output=True)
    header = HEADER.format(
        language=catalogue.locale_identifier, plurals=catalogue.plural_forms
    )
    return header + buffer.getvalue().decode().rstrip("\n") + "\n"


def compiled(catalogue: Catalog) -> bytes:
    """What Django reads of it."""
    catalogue.creation_date = catalogue.revision_date = EPOCH
    buffer = BytesIO()
    write_mo(buffer, catalogue)
    return buffer.getvalue()


def untranslated(catalogue: Catalog) -> list[Message]:
    """What has no words in this language."""
    found: list[Message] = []
    for message in catalogue:
        said = message.string
        forms = list(said) if isinstance(said, (list, tuple)) else [said]
        if message.id and not (forms and all(forms)):
            found.append(message.id)
    return found


def main() -> None:
    """Update and compile all catalogues; name what has no translation."""
    template = Catalog()
    for message in messages():
        template.add(message)
    for path in catalogues():
        catalogue = load(path)
        catalogue.update(template, no_fuzzy_matching=True)
        catalogue.obsolete.clear()
        path.write_text(written(catalogue), encoding="utf-8")
        path.with_suffix(".mo").write_bytes(compiled(catalogue))
        for message in untranslated(catalogue):
            sys.stderr.write(f"{path.parents[1].name}: {message!r}\n")


if __name__ == "__main__":
    main()
