"""Addresses of brokers, backends and locks as they may be shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kombu.utils.url import sanitize_url

MAIL = "mailto:"

SECRET_PART = re.compile(
    r"(?i)(\w*(?:key|secret|passw(?:or)?d|token|signature))=[^;&\s]+"
)
"""Of an address: Azure's AccountKey, a password in a query."""


def safe(value: Any) -> Any:
    """A value of a setting, with every text in it as ``safe_url`` shows it.

    A set becomes a list in order: what is shown shall be the same in every process.
    """
    match value:
        case str():
            return safe_url(value)
        case Mapping():
            return {key: safe(item) for key, item in value.items()}
        case list() | tuple():
            return [safe(item) for item in value]
        case set() | frozenset():
            return sorted(safe_url(str(item)) for item in value)
        case _:
            return value


def safe_url(text: str) -> str:
    """An address, or several with ``;`` between them, without what opens it."""
    return SECRET_PART.sub(r"\1=**", ";".join(map(_without_password, text.split(";"))))


def _without_password(address: str) -> str:
    before, at, after = address.rpartition("@")
    if ":" not in before or address.startswith(MAIL):
        return address
    try:
        if "://" in before:
            return str(sanitize_url(address))
    except ValueError:
        pass  # It cannot be taken apart, and may have been meant as an address.
    return f"…{at}{after}"
