"""Text from a URL."""

from __future__ import annotations

from django.http import HttpRequest

LONGEST = 255
"""Of an id or a name in our tables."""


def text_in(request: HttpRequest, name: str) -> str:
    """What the URL says of this, as far as it can be an id or a name."""
    return request.GET.get(name, "").replace("\x00", "").strip()[:LONGEST]
