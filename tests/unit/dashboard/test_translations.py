"""Every word on a page is there in every language, and compiled."""

from __future__ import annotations

import gettext
import importlib.util
import re
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import translation

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "translations.py"
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|</?b>|\[redacted\]|unstuck\.\w+|manage\.py \w+")


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("translations", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


translations = _load()
CATALOGUES = translations.catalogues()


def test_there_is_a_korean_catalogue() -> None:
    """The first language besides English."""
    assert [path.parents[1].name for path in CATALOGUES] == ["ko"]


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parents[1].name)
def test_a_catalogue_has_a_translation_of_every_message(path: Path) -> None:
    """And none of what nobody says any more. Run scripts/translations.py."""
    catalogue = translations.load(path)
    said = {_first(message) for message in translations.messages()}
    known = {_first(message.id) for message in catalogue if message.id}

    assert known == said
    assert translations.untranslated(catalogue) == []


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parents[1].name)
def test_translations_keep_what_is_filled_in(path: Path) -> None:
    """A lost placeholder would be an error on the page; markup and commands stay."""
    for message in translations.load(path):
        forms = (
            message.string if isinstance(message.string, tuple) else [message.string]
        )
        wanted = set(PLACEHOLDER.findall(_first(message.id) if message.id else ""))
        for text in forms if message.id else ():
            assert set(PLACEHOLDER.findall(text)) == wanted, text


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parents[1].name)
def test_a_catalogue_is_compiled(path: Path) -> None:
    """What Django reads is what the text says. Run scripts/translations.py."""
    there = gettext.GNUTranslations(BytesIO(path.with_suffix(".mo").read_bytes()))
    fresh = translations.compiled(translations.load(path))
    wanted = gettext.GNUTranslations(BytesIO(fresh))

    assert there._catalog == wanted._catalog  # type: ignore[attr-defined]


@pytest.mark.django_db
def test_pages_speak_korean(operator: Client, settings: Any) -> None:
    """Where the project does."""
    settings.LANGUAGE_CODE = "ko"
    with translation.override("ko"):
        page = operator.get(reverse("unstuck:letters")).content.decode()

    assert '<html lang="ko"' in page
    assert "데드 레터가 없습니다." in page
    assert "Dead letters" not in page


def _first(message: Any) -> str:
    return str(message if isinstance(message, str) else message[0])
