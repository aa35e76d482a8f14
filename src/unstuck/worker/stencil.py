"""Messages of one task that differ in id and arguments alone, made quickly.

Celery makes one of them, with all that its settings, routes and options say. In its JSON
the places of id and arguments are found, and the others are printed from that.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any

from celery.utils.saferepr import saferepr
from kombu.exceptions import EncodeError
from kombu.utils.json import dumps

JSON = "application/json"
ID, ARGS, KWARGS, BODY = "\0id", "\0args", "\0kwargs", "\0body"
PLAIN = (int, float, bool, type(None))
SHORT = 40


class Stencil:
    """Prints messages that are like one that Celery has made."""

    def __init__(
        self, parts: Sequence[str], embed: str, reprs: Mapping[str, int]
    ) -> None:
        self._parts = parts
        self._embed = embed
        self._reprs = reprs

    @classmethod
    def of(cls, content: str, task_id: str, reprs: Mapping[str, int]) -> Stencil | None:
        """The stencil of a message; ``None`` if it has not the shape of most.

        ``reprs`` are the options for ``saferepr`` that the settings ask for.
        """
        message = json.loads(content)
        headers, properties = message["headers"], message["properties"]
        if "__type__" in content or message["content-type"] != JSON:
            return None
        if properties.get("body_encoding") != "base64" or headers.get("compression"):
            return None
        body = json.loads(base64.b64decode(message["body"]))
        if headers.get("id") != task_id or len(body) != 3:
            return None
        for fields, name in (
            (headers, "id"),
            (headers, "root_id"),
            (properties, "correlation_id"),
        ):
            if fields.get(name) == task_id:
                fields[name] = ID
        headers["argsrepr"], headers["kwargsrepr"] = ARGS, KWARGS
        message["body"] = BODY
        return cls(_parts_of(json.dumps(message)), json.dumps(body[2]), reprs)

    def message(self, task_id: str, args: Any, kwargs: Any) -> str:
        """The JSON of one more. Raises what cannot be encoded."""
        body = f"[{_json(list(args))}, {_json(kwargs)}, {self._embed}]"
        printed = {
            ID: f'"{task_id}"',
            ARGS: encode_basestring_ascii(self._repr(tuple(args))),
            KWARGS: encode_basestring_ascii(self._repr(kwargs)),
            BODY: f'"{base64.b64encode(body.encode()).decode()}"',
        }
        return "".join([printed.get(part, part) for part in self._parts])

    def _repr(self, values: Any) -> str:
        items = values.values() if isinstance(values, dict) else values
        if len(values) < SHORT and all(type(item) in PLAIN for item in items):
            return repr(values)
        return str(saferepr(values, **self._reprs))


def _parts_of(content: str) -> list[str]:
    """What is printed as it is, with what is not between."""
    parts = [content]
    for mark in (ID, ARGS, KWARGS, BODY):
        token = json.dumps(mark)
        parts = [
            piece
            for part in parts
            for place, text in enumerate(part.split(token))
            for piece in ([mark, text] if place else [text])
        ]
    return parts


def _json(value: Any) -> str:
    if not value:
        return str(value)  # An empty list or dict, as many have.
    try:
        return json.dumps(value)
    except TypeError:
        pass
    try:
        return str(dumps(value))  # Which knows dates, decimals and the like.
    except TypeError as error:
        raise EncodeError(str(error)) from error
