"""One HTTP request to a partner, and whether it can be believed."""

import json
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

MAX_ANSWER_BYTES = 64 * 1024


class DeliveryFailed(Exception):
    """The partner did not say that it has the event. Trying again is safe."""


def post(
    url: str,
    event: Mapping[str, object],
    *,
    key: str,
    timeout_seconds: float | None,
) -> None:
    """Deliver *event* to *url*, or raise ``DeliveryFailed``.

    *key* is the same for every attempt, so the partner can tell a repetition.
    *timeout_seconds* bounds each wait for the network, not the sum of them: a partner
    that sends one byte a second is patience without end, and only the time limit of
    the task helps. With ``None`` there is no bound at all.
    """
    parts = urlsplit(url)
    connection = HTTPConnection(
        parts.hostname or "", parts.port, timeout=timeout_seconds
    )
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    try:
        connection.request("POST", parts.path, json.dumps(event), headers)
        response = connection.getresponse()
        _believe(response.status, response.read(MAX_ANSWER_BYTES))
    except (OSError, HTTPException) as error:
        # What the partner sent may be anything, NUL and all, and this is stored.
        raise DeliveryFailed(f"{type(error).__name__}: {str(error)!r}") from error
    finally:
        connection.close()


def _believe(status: int, body: bytes) -> None:
    if status != 200:
        raise DeliveryFailed(f"answered {status}")
    try:
        answer = json.loads(body)
    except ValueError:
        raise DeliveryFailed("answered 200 and something that is not JSON") from None
    if answer != {"received": True}:
        raise DeliveryFailed("answered 200 without having received the event")
