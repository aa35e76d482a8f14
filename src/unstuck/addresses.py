"""Addresses of brokers, backends and locks as they may be shown."""

from __future__ import annotations

import re

from kombu.utils.url import maybe_sanitize_url

SECRET_PART = re.compile(
    r"(?i)(\w*(?:key|secret|passw(?:or)?d|token|signature))=[^;&\s]+"
)
"""Of an address: Azure's AccountKey, a password in a query."""

UNREADABLE = "[redacted]"


def safe_url(text: str) -> str:
    """An address, or several with ``;`` between them, without what opens it."""
    try:
        parts = [
            maybe_sanitize_url(part) if "@" in part else part
            for part in text.split(";")
        ]
    except ValueError:
        return UNREADABLE  # It cannot be taken apart.
    return SECRET_PART.sub(r"\1=**", ";".join(parts))
