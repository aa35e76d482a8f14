"""Asking a Redis or Valkey about itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from unstuck.addresses import safe_url
from unstuck.core.clock import system_clock
from unstuck.doctor.ask.skews import skew
from unstuck.doctor.facts import Memory, Part, Redis

OF_MEMORY = ("used_memory", "maxmemory", "maxmemory_policy", "evicted_keys")
"""Without these nobody knows what happens when the memory is full."""


def ask(connection: Any) -> tuple[dict[str, Any], dict[Part, str]]:
    """What it says; some do not say all of it to everybody."""
    client = connection.default_channel.client
    asked = time.time()
    seconds, micros = client.time()
    ahead = skew(seconds + micros / 1e6, asked, time.time())
    told: Mapping[str, Any] = client.info()
    problems: dict[Part, str] = {}
    try:
        configured = {**client.config_get("save"), **client.config_get("maxclients")}
    except connection.channel_errors as error:
        configured, problems[Part.SAVING] = {}, str(error)
    else:
        if "save" not in configured:
            problems[Part.SAVING] = "CONFIG GET save has no answer"
    if untold := [name for name in OF_MEMORY if name not in told]:
        problems[Part.MEMORY] = f"INFO lacks {', '.join(untold)}"
    return {"redis": _redis(connection, told, configured, ahead)}, problems


def _redis(
    connection: Any, told: Mapping[str, Any], configured: Mapping[str, Any], skew: float
) -> Redis:
    most_clients = configured.get("maxclients") or told.get("maxclients")
    return Redis(
        where=safe_url(connection.as_uri()).removeprefix("unstuck+"),
        program="Valkey" if "valkey_version" in told else "Redis",
        version=str(told.get("valkey_version") or told["redis_version"]),
        started_at=system_clock() - timedelta(seconds=told["uptime_in_seconds"]),
        policy=str(told.get("maxmemory_policy", "noeviction")),
        memory=_memory(told),
        evicted=int(told.get("evicted_keys", 0)),
        role=str(told.get("role", "master")),
        append_only=bool(told.get("aof_enabled")),
        save=configured.get("save"),
        saved_at=datetime.fromtimestamp(told.get("rdb_last_save_time", 0), UTC),
        failing=tuple(_failing(told)),
        clients=int(told.get("connected_clients", 0)),
        most_clients=int(most_clients) if most_clients else None,
        skew=skew,
    )


def _memory(told: Mapping[str, Any]) -> Memory:
    used = int(told.get("used_memory") or 0)
    if told.get("maxmemory"):
        return Memory(used=used, most=int(told["maxmemory"]), of="its maxmemory")
    host = int(told.get("total_system_memory") or 0)
    return Memory(used=used, most=host, of="the memory of its host")


def _failing(told: Mapping[str, Any]) -> Iterator[str]:
    names = {
        "rdb_last_bgsave_status": "the last snapshot",
        "aof_last_write_status": "the last write to the append-only file",
        "aof_last_bgrewrite_status": "the last rewrite of the append-only file",
    }
    for name, words in names.items():
        if told.get(name, "ok") != "ok":
            yield words
