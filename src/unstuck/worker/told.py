"""What a process of the project says of itself: its code, its settings, its host.

A node tells it to whoever asks by remote control; who asks compares it with itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import socket
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from signal import SIGTERM
from typing import Any

from celery.app.defaults import SETTING_KEYS

from unstuck import conf, configuration
from unstuck.addresses import safe
from unstuck.core import alerts
from unstuck.core.settings import SECRET_SETTINGS, SETTINGS
from unstuck.letters.redact import redacted_kwargs, storable
from unstuck.pool import proc
from unstuck.pool.board import CHILDREN, FIRST_CHILD, Column
from unstuck.pool.death import memory_limit
from unstuck.profile import PROFILE
from unstuck.worker.task import own_tasks

PACKAGES = ("unstuck", "celery", "kombu", "Django", "redis", "amqp")

OF_ONE_PROCESS = ("worker_", "imports", "include", "result_backend_transport_options")
"""How the names of settings begin that may differ from process to process: by the command
line of a worker, and by what a worker itself makes of them."""

OF_ONE_NODE = frozenset({"PROBE_ADDRESS", "RUNTIME_DIR", "RELEASE"})

ADDRESS = re.compile(r" at 0x[0-9a-f]+")
LONGEST = 100


def by_worker(worker: Any) -> dict[str, Any]:
    """All that a worker says, in main, at once, and without asking anybody."""
    first = os.getppid() if worker.has_supervisor else os.getpid()
    return {
        "clock": time.time(),
        "code": code_of(worker.app),
        "queues": sorted(_consumed(worker.consumer)),
        "host": {
            "name": socket.gethostname(),
            "age": proc.age_of(first) or 0.0,
            "collects_strangers": worker.has_supervisor,
            "process1": _process1(first),
            "descriptors": _fewest_descriptors(first),
            "room": _room(worker, first),
            "threads": list(worker.threads_before_fork),
        },
    }


def code_of(app: Any) -> dict[str, Any]:
    """What this process is made of."""
    return {
        "versions": dict(_versions()),
        "settings": dict(_settings(app)),
        "tasks": [task.name for task in own_tasks(app)],
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:  # not installed, or a checkout on the path
            continue
    yield "Python", platform.python_version()
    if release := conf.current().release:
        yield "release", release


# Settings.


def _settings(app: Any) -> Iterator[tuple[str, str]]:
    names = {row.name for row in PROFILE}
    names |= {key for key in SETTING_KEYS if _is_given(app.conf, key)}
    for name in sorted(names):
        if not name.startswith(OF_ONE_PROCESS):
            yield name, _shown(name, app.conf[name])
    given = conf.given()
    for setting in SETTINGS:
        if setting.key not in OF_ONE_NODE and setting.key in given:
            yield f"UNSTUCK[{setting.key!r}]", _shown(setting.key, given[setting.key])


def _is_given(settings: Any, name: str) -> bool:
    return configuration.given(settings, name) is not configuration.MISSING


def _shown(name: str, value: Any) -> str:
    """The same text for the same value in every process, without what is secret."""
    if name == "ALERTS":
        value = alerts.shown(value)
    if name == "beat_schedule":
        value = dict(_without_arguments(value))
    known = safe(redacted_kwargs({name: value}, SECRET_SETTINGS)[name])
    text = json.dumps(storable(known), sort_keys=True, ensure_ascii=False)
    text = ADDRESS.sub("", text)
    if len(text) <= LONGEST:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{text[:LONGEST]}… ({digest})"


def _without_arguments(schedule: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, entry in schedule.items():
        told = dict(entry) if isinstance(entry, Mapping) else {}
        yield name, {key: told[key] for key in told.keys() - {"args", "kwargs"}}


def _consumed(consumer: Any) -> Iterator[str]:
    tasks = consumer.task_consumer
    for queue in tasks.queues if tasks else ():
        yield queue.name


# The host.


def _process1(first: int) -> dict[str, Any]:
    above, pid = False, first
    while pid > 1:
        pid = proc.parent_of(pid)
        above = above or pid == 1
    return {
        # Its arguments may be secret.
        "command": next(iter(proc.command_of(1).split()), ""),
        "is_first": first == 1,
        "is_above": above,
        "hears_sigterm": proc.catches(1, SIGTERM) or proc.blocks(1, SIGTERM),
    }


def _fewest_descriptors(first: int) -> dict[str, int] | None:
    found = []
    for pid in (first, *proc.descendants_of(first)):
        used, most = proc.descriptors_of(pid) or (0, 0)
        if most:
            found.append((used / most, pid, used, most))
    if not found:
        return None
    _, pid, used, most = max(found)
    return {"pid": pid, "used": used, "most": most}


def _room(worker: Any, first: int) -> dict[str, Any] | None:
    """What the children of a node may come to need; of pools without children nothing."""
    base = proc.rss_of(first)
    if not worker.has_supervisor or base is None:
        return None
    rows = map(worker.board.row, range(FIRST_CHILD, FIRST_CHILD + CHILDREN))
    pids = [pid for row in rows if (pid := row[Column.PID])]
    peaks = [proc.peak_rss_of(pid) or 0 for pid in pids]
    said = worker.max_memory_per_child
    return {
        "limit": memory_limit() or _memory_of_host(),
        "slots": worker.max_concurrency or worker.concurrency or 1,
        "base": base,
        "child": said * 1024 if said else max(peaks, default=0),
        "is_set": bool(said),
    }


def _memory_of_host() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
