"""Where the value of a Celery setting comes from, and our layer among the others.

Celery keeps its settings as a chain of mappings: what was set on the app, the
project's own, and Celery's defaults. Our defaults go right before Celery's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from unstuck.profile import (
    PROFILE,
    WORKER_RESULT_RETRIES,
    Default,
    transport_options,
)

MISSING = object()

BROKER_OPTIONS = "broker_transport_options"
RESULT_OPTIONS = "result_backend_transport_options"
MERGED = (BROKER_OPTIONS, RESULT_OPTIONS)
"""A dict is one value to Celery: unmerged, one own key would take all of ours away."""


@dataclass(frozen=True, slots=True)
class InForce:
    """One setting: its value and who said so."""

    name: str
    value: Any
    source: str


def add_profile(conf: Any, wiring: Mapping[str, Any]) -> None:
    """Lay our defaults, and what wires our parts in, under the project's settings.

    ``conf`` is the loaded configuration of a Celery app.
    """
    layer = {**wiring, **{row.name: _with_aliases(conf, row) for row in PROFILE}}
    layer[BROKER_OPTIONS] = dict(transport_options(conf.broker_url))
    for name in MERGED:
        own = given(conf, name)
        if isinstance(own, Mapping):
            put(conf, name, {**layer[name], **own})
    conf.maps.insert(len(conf.maps) - 1, layer)
    conf.defaults.insert(len(conf.defaults) - 1, layer)
    conf.__dict__["unstuck_layer"] = layer


def let_worker_wait_for_results(conf: Any) -> None:
    """In a worker, sit out a restart of the result store, unless the project decides."""
    options = conf[RESULT_OPTIONS]
    ours = conf.__dict__["unstuck_layer"][RESULT_OPTIONS]["retry_policy"]
    if options.get("retry_policy") is ours:
        patient = {**options, "retry_policy": WORKER_RESULT_RETRIES}
        put(conf, RESULT_OPTIONS, patient)


def let_main_not_wait_for_results(conf: Any) -> None:
    """Take it back in a process that must not stand still: its children sit it out."""
    options = conf[RESULT_OPTIONS]
    if options.get("retry_policy") is WORKER_RESULT_RETRIES:
        ours = conf.__dict__["unstuck_layer"][RESULT_OPTIONS]["retry_policy"]
        put(conf, RESULT_OPTIONS, {**options, "retry_policy": ours})


def given(conf: Any, name: str) -> Any:
    """What the project itself says of a setting, or ``MISSING``."""
    conf.get("broker_url")  # Celery reads the settings when somebody asks for one.
    # Celery 5.6 looks for each key in all mappings, 5.7 in each mapping for all keys:
    # its own class knows.
    own = type(conf)({}, _own(conf), conf._keys, conf.prefix)
    return own.get(name, MISSING)


def written(conf: Any) -> Iterator[tuple[str, Any]]:
    """Every key that the project's own settings hold, known to Celery or not.

    With Django's settings as their source, all of Django's are among them.
    """
    merged = {conf._to_keys(name)[0] for name in MERGED}
    for mapping in _own(conf):
        for key in list(mapping.keys()):
            if not (mapping is conf.changes and key in merged):
                yield str(key), mapping.get(key)


def put(conf: Any, name: str, value: Any) -> None:
    """Set a value above whatever the project says."""
    conf.changes[conf._to_keys(name)[0]] = value


def _find(conf: Any, name: str) -> tuple[str, Any]:
    """Under which key the project says something of a setting, and what."""
    for mapping in _own(conf):
        for key in conf._to_keys(name):
            try:
                return key, mapping[key]
            except KeyError:
                continue
    return "", MISSING


def in_force(conf: Any) -> Iterator[InForce]:
    """Every setting of the profile with its value and source."""
    for row in PROFILE:
        yield InForce(row.name, conf[row.name], _source(conf, row))
    options = transport_options(conf.broker_url)
    own = _before_merging(conf, BROKER_OPTIONS)
    for key, value in sorted({**options, **own}.items()):
        source = "project" if key in own else "unstuck"
        yield InForce(f"broker_transport_options[{key}]", value, source)


def _own(conf: Any) -> list[Any]:
    layer = conf.__dict__.get("unstuck_layer")
    return [mapping for mapping in conf.maps[:-1] if mapping is not layer]


def _with_aliases(conf: Any, row: Default) -> Any:
    """What the project says under any name that Celery might not honour, or ours."""
    if row.name in MERGED:
        return row.value
    for name in (row.name, *row.aliases):
        value = given(conf, name)
        if value is not MISSING:
            return value
    return row.value


def _before_merging(conf: Any, name: str) -> Mapping[str, Any]:
    """A dict of the project's as it is in its settings; what we merge lies above."""
    for mapping in reversed(_own(conf)):
        for key in conf._to_keys(name):
            try:
                value = mapping[key]
            except KeyError:
                continue
            return value if isinstance(value, Mapping) else {}
    return {}


def _source(conf: Any, row: Default) -> str:
    for name in (row.name, *row.aliases):
        if name in conf.changes:
            return "app.conf"
        key, value = _find(conf, name)
        if value is not MISSING:
            return f"project: {key}"
    return "unstuck"
