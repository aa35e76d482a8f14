"""Addresses as they may be shown."""

from __future__ import annotations

import re

import pytest

from unstuck.addresses import safe, safe_url


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("redis://u:pw@h:6379/0", "redis://u:**@h:6379/0"),
        (
            "amqp://u:p1@h1:5672//;amqp://u:p2@h2:5672//",
            "amqp://u:**@h1:5672//;amqp://u:**@h2:5672//",
        ),
        ("sentinel://:pw1@a:26379;sentinel://:pw2@b:26379", None),
        (
            "azureblockblob://DefaultEndpointsProtocol=https;AccountKey=abc+/=",
            "azureblockblob://DefaultEndpointsProtocol=https;AccountKey=**",
        ),
        ("redis://h/0?password=pw&db=1", "redis://h/0?password=**&db=1"),
        ("redis://h:port;with/0", None),
        ("redis://:pw@h:port", "…@h:port"),
        ("redis//:pw@h", "…@h"),
        ("user:pw@h:5672", "…@h:5672"),
        ("amqp://guest@h//", "amqp://guest@h//"),
        ("mailto:ops@shop.example", "mailto:ops@shop.example"),
        ("ops@shop.example", "ops@shop.example"),
        ("no address", "no address"),
    ],
)
def test_an_address_is_shown_without_what_opens_it(text: str, safe: str | None) -> None:
    """Each of several; one that cannot be taken apart is not shown as it is."""
    found = safe_url(text)

    assert not re.search(r"pw|p1|p2|abc", found)
    assert found == (safe or found)


def test_so_is_every_address_in_a_value() -> None:
    """At any depth; a set becomes a list, in order."""
    url = "redis://:pw@h/0"
    found = safe({"urls": [url, {"of": (url, 7)}], 3: {url, "a"}, "none": None})

    safely = "redis://:**@h/0"
    assert found == {
        "urls": [safely, {"of": [safely, 7]}],
        3: ["a", safely],
        "none": None,
    }
