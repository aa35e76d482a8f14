"""Asking RabbitMQ about itself, over AMQP alone: no management plugin, no admin rights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from kombu.utils.text import version_string_as_tuple

T = TypeVar("T")

SINCE = (3, 10)
"""The first version whose quorum queues know TTLs and dead-letter at least once."""

MISMATCH, MISSING = 406, 404
"""AMQP's codes: what is declared differs from what is there; there is no such thing."""


def has_quorum_queues(channel: Any) -> bool:
    """Whether the other end is a RabbitMQ whose quorum queues can do what we need."""
    said = getattr(channel.connection, "server_properties", None) or {}
    if said.get("product") != "RabbitMQ":
        return False
    version = version_string_as_tuple(said.get("version") or "0")
    return (version.major, version.minor) >= SINCE


def aside(channel: Any, ask: Callable[[Any], T]) -> T:
    """Ask on a channel of its own, which an error closes; ``channel`` stays open."""
    other = channel.connection.channel()
    try:
        return ask(other)
    finally:
        if other.is_open:
            other.close()


def code_of(error: BaseException) -> int:
    """The code of an AMQP error; 0 of anything else."""
    return int(getattr(error, "reply_code", 0) or 0)


def words_of(error: BaseException) -> str:
    """What the broker said."""
    return str(getattr(error, "reply_text", "") or error)
