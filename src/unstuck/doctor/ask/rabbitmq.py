"""Asking a RabbitMQ: by AMQP, and by its management API where there is one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import kombu

from unstuck.addresses import safe_url
from unstuck.app import Celery
from unstuck.doctor.ask.management import Management, NotTold
from unstuck.doctor.ask.skews import skew
from unstuck.doctor.facts import Memory, Part, Queue, Rabbit
from unstuck.rabbit import server
from unstuck.rabbit.queues import arguments_of

POLICIES = ("policy", "operator_policy")
ALARMS = {"mem_alarm": "memory", "disk_free_alarm": "disk space"}


def ask(
    app: Celery, connection: Any, names: Sequence[str], api: str | None
) -> tuple[dict[str, Any], dict[Part, str]]:
    """The server and its queues; what the management API does not say is named."""
    channel = connection.default_channel
    said = channel.connection.server_properties
    vhost = connection.virtual_host or "/"
    known: dict[str, Any] = {
        "where": safe_url(connection.as_uri()),
        "vhost": vhost,
        "version": str(said.get("version", "")),
    }
    management = Management.of(connection, api)
    policies: dict[str, Mapping[str, Any]] = {}
    problems = {}
    try:
        policies = _policies(management, vhost)
        known |= _managed(management)
    except NotTold as error:
        problems[Part.MANAGEMENT] = str(error)
    found = tuple(_queue(app, channel, name, policies.get(name)) for name in names)
    return {"rabbit": Rabbit(**known), "queues": found}, problems


def _queue(
    app: Celery, channel: Any, name: str, managed: Mapping[str, Any] | None
) -> Queue:
    try:
        declared = server.aside(channel, lambda c: c.queue_declare(name, passive=True))
    except channel.connection.channel_errors as error:
        if server.code_of(error) != server.MISSING:
            raise
        return Queue(name=name, waiting=None, consumers=0)
    known = _by_management(managed) if managed else _by_amqp(app, channel, name)
    return Queue(
        name=name,
        waiting=int(declared.message_count),
        consumers=int(declared.consumer_count),
        **known,
    )


def _by_amqp(app: Celery, channel: Any, name: str) -> dict[str, Any]:
    """What it was declared with, as far as AMQP tells; nothing of policies."""
    queue = app.amqp.queues.get(name) or kombu.Queue(name)
    arguments = arguments_of(channel, queue)
    if arguments is None:
        return {}
    given = _plain(arguments)
    kind = str(given.get("queue-type", "classic"))
    return {"kind": kind, "definition": given, "arguments": frozenset(given)}


def _by_management(managed: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments win over policies, but of two numbers the lower one holds."""
    given = _plain(managed.get("arguments") or {})
    said = managed.get("effective_policy_definition") or {}
    policy = said if isinstance(said, Mapping) else {}
    by_policy = {
        name
        for name, value in policy.items()
        if name not in given
        or (
            (isinstance(value, int) and isinstance(given[name], int))
            and value < given[name]
        )
    }
    return {
        "kind": str(managed.get("type") or given.get("queue-type", "classic")),
        "definition": {**given, **{name: policy[name] for name in by_policy}},
        "arguments": frozenset(set(given) - by_policy),
        "policies": {each: managed[each] for each in POLICIES if managed.get(each)},
    }


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """By the names that policies have for the same."""
    return {name.removeprefix("x-"): value for name, value in arguments.items()}


def _policies(management: Management, vhost: str) -> dict[str, Mapping[str, Any]]:
    return {str(each["name"]): each for each in management.queues(vhost)}


def _managed(management: Management) -> dict[str, Any]:
    """What only its nodes know. Raises ``NotTold``, also for the first seconds of one."""
    asked = time.time()
    nodes, clock = management.nodes()
    heard = time.time()
    memory = tuple(_memories(nodes))
    if not memory:
        raise NotTold("it does not tell how much memory is in use")
    return {
        "memory": memory,
        "alarms": tuple(
            f"{what} on {node['name']}"
            for node in nodes
            for name, what in ALARMS.items()
            if node.get(name)
        ),
        # A second is as exact as it is told.
        "skew": None if clock is None else skew(clock, int(asked), heard),
    }


def _memories(nodes: Iterable[Mapping[str, Any]]) -> Iterable[Memory]:
    for node in nodes:
        if node.get("mem_limit"):
            used, most = int(node["mem_used"]), int(node["mem_limit"])
            yield Memory(used=used, most=most, of=f"the limit of {node['name']}")
