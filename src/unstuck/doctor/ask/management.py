"""RabbitMQ's management API, where it is and we may use it."""

from __future__ import annotations

import http.client
import json
from base64 import b64encode
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import SplitResult, quote, unquote, urlsplit

SECONDS = 4.0
PORT, TLS_PORT = 15672, 15671
MOST_BYTES = 64 * 1024 * 1024
COLUMNS = "name,type,arguments,effective_policy_definition,policy,operator_policy"


class NotTold(Exception):
    """It was not asked, or did not say."""


def parsed(url: str) -> SplitResult:
    """The parts of the address of an API. Raises ``ValueError`` for what is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not _port(parts):
        raise ValueError(
            f"{url!r} is no address of RabbitMQ's management API. Write for example "
            f"http://rabbit:15672"
        )
    return parts


def _port(parts: SplitResult) -> int | None:
    """The one it names, else the usual one; ``None`` of what is no port."""
    try:
        port = parts.port
    except ValueError:
        return None
    if port is None:
        return TLS_PORT if parts.scheme == "https" else PORT
    return port or None


@dataclass(frozen=True, slots=True)
class Management:
    """Where it is, and who asks."""

    tls: bool
    host: str
    port: int
    path: str
    user: str = field(repr=False)
    password: str = field(repr=False)

    @classmethod
    def of(cls, connection: Any, url: str | None) -> Self:
        """At ``url``, else where the plugin listens by default on the broker's host."""
        scheme = "https" if connection.ssl else "http"
        parts = parsed(url or f"{scheme}://{connection.hostname}")
        return cls(
            tls=parts.scheme == "https",
            host=parts.hostname or "",
            port=_port(parts) or PORT,
            path=parts.path.rstrip("/").removesuffix("/api"),
            user=unquote(parts.username or connection.userid or "guest"),
            password=unquote(parts.password or connection.password or "guest"),
        )

    def nodes(self) -> tuple[list[dict[str, Any]], float | None]:
        """The nodes of the cluster; and what time it is there. Raises ``NotTold``."""
        return self._get("nodes")

    def queues(self, vhost: str) -> list[dict[str, Any]]:
        """The queues of a virtual host. Raises ``NotTold``."""
        found, _ = self._get(f"queues/{quote(vhost, safe='')}?columns={COLUMNS}")
        return found

    def _get(self, what: str) -> tuple[list[dict[str, Any]], float | None]:
        kind = http.client.HTTPSConnection if self.tls else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=SECONDS)
        who = b64encode(f"{self.user}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {who}"}
        try:
            connection.request("GET", f"{self.path}/api/{what}", headers=headers)
            reply = connection.getresponse()
            body = reply.read(MOST_BYTES)
        except (OSError, http.client.HTTPException) as error:
            where = f"{self.host}:{self.port}"
            raise NotTold(f"{where} does not answer: {error}") from error
        finally:
            connection.close()
        return _read(reply, body), _date_of(reply)


def _read(reply: http.client.HTTPResponse, body: bytes) -> list[dict[str, Any]]:
    if reply.status != http.client.OK:
        raise NotTold(f"it answers {reply.status} {reply.reason}")
    try:
        found = json.loads(body)
    except ValueError as error:
        raise NotTold("what answers there is not RabbitMQ") from error
    if not isinstance(found, list):
        raise NotTold("what answers there is not RabbitMQ")
    return found


def _date_of(reply: http.client.HTTPResponse) -> float | None:
    try:
        return parsedate_to_datetime(reply.headers["Date"]).timestamp()
    except (TypeError, ValueError):
        return None
