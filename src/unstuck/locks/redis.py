"""Locks in Redis or Valkey, by the server's clock alone."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from functools import lru_cache
from itertools import islice
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from unstuck.addresses import safe_url
from unstuck.core.errors import LocksUnreachable
from unstuck.locks import scripts
from unstuck.locks.backend import Busy, Claim, Held, Owner, Taken
from unstuck.locks.scripts import Script

ANSWER_SECONDS, CONNECT_SECONDS = 4.0, 2.0
"""The longest that is waited, if the broker's settings do not say."""

BLOCK_SHARE = 0.5
"""Of the time that an answer may take, so long the server may make us wait for one."""

AT_ONCE = 500
"""So many locks in one step: it takes the server no time that others would miss."""


class RedisBackend:
    """Keeps locks on a server that kombu can reach.

    ``transport`` is kombu's for it, and says how to connect; nothing is connected before
    it is needed.
    """

    def __init__(self, transport: Any) -> None:
        channel = _channel_of(transport)
        pool = channel._get_pool()
        # Who waits keeps a connection busy, and kombu's ten are soon all taken.
        pool.max_connections = 2**31
        # What was done and is done again says "no": a lock that was released would look lost.
        pool.connection_kwargs.update(
            retry=Retry(NoBackoff(), 0), retry_on_timeout=False
        )
        self._longest_block = channel.socket_timeout * BLOCK_SHARE
        self._client = redis.Redis(connection_pool=pool)
        self._client.response_callbacks = {}
        self._root = f"{channel.global_keyprefix}unstuck:lock:"
        self._where = safe_url(transport.client.as_uri())

    def __repr__(self) -> str:
        return f"<locks at {self._where}>"

    def take(
        self, name: str, owner: Owner, lease: float, *, waits: bool = False
    ) -> Taken | Busy:
        """Take a lock for ``lease`` seconds, if it is free or its lease is over."""
        answer = self._run(
            scripts.TAKE,
            name,
            name,
            owner.token,
            _written(owner),
            int(lease * 1000),
            int(waits),
            owner.born,
        )
        if isinstance(answer, bytes):
            return Taken(int(answer))
        row, cycle = answer
        return Busy(
            _held_in(row),
            tuple((wanted.decode(), _read(who)) for wanted, who in cycle),
        )

    def wait(self, name: str, owner: Owner, seconds: float) -> None:
        """Return when the lock may be free, at the latest after so long."""
        key = f"{self._root}wake:{owner.token}"
        seconds = round(min(seconds, self._longest_block), 3)
        try:
            self._command(name, "BLPOP", key, max(seconds, 0.001))
        except LocksUnreachable as error:
            # A connection that breaks meanwhile is as good as a call: asking will tell.
            if not isinstance(error.__cause__, redis.exceptions.ConnectionError):
                raise

    def give_up(self, name: str, owner: Owner) -> None:
        """The owner no longer waits."""
        self._run(scripts.GIVE_UP, name, name, owner.token)

    def renew(self, claims: Collection[Claim], lease: float) -> set[Claim]:
        """Let the leases begin anew; returns those that are not held, or no longer."""
        gone: set[Claim] = set()
        for some in _batches(claims):
            words = [word for claim in some for word in claim]
            places = self._run(scripts.RENEW, some[0].name, int(lease * 1000), *words)
            gone |= {some[place] for place in places}
        return gone

    def release(self, claim: Claim) -> bool:
        """Let go; ``False`` if it was not held, or no longer."""
        return bool(self._run(scripts.RELEASE, claim.name, claim.name, claim.token))

    def is_held(self, claim: Claim) -> bool:
        """Whether that owner holds that lock now."""
        key = f"{self._root}held:{claim.name}"
        token = self._command(claim.name, "HGET", key, "token")
        return bool(token == claim.token.encode())

    def note(self, claim: Claim, notes: Mapping[str, str]) -> bool:
        """Write down what the next holder shall know; an empty text is forgotten."""
        words = [word for note in notes.items() for word in note]
        return bool(self._run(scripts.NOTE, claim.name, *claim, *words))

    def notes(self, name: str) -> dict[str, str]:
        """All that the holders of a lock have written down."""
        words = self._run(scripts.NOTES, name, name)
        pairs = zip(words[::2], words[1::2], strict=True)
        return {about.decode(): text.decode() for about, text in pairs}

    def all_held(self) -> list[Held]:
        """All locks that are held now, by name."""
        found: dict[str, Held] = {}
        for names in _batches(sorted(self._names())):
            for *row, waiting in self._run(scripts.ROWS, "", *names):
                held = _held_in(row, tuple(_read(one) for one in waiting))
                found[held.name] = held
        return sorted(found.values(), key=lambda held: held.name)

    def evict(
        self, name: str, note: str = "", *, fence: int | None = None
    ) -> Held | None:
        """Take a lock from whoever holds it; who that was."""
        row = self._run(scripts.EVICT, name, name, note, "" if fence is None else fence)
        return _held_in(row) if row else None

    def note_on(self, name: str, fence: int) -> str:
        """Who took the lock from the holder with that fence, and why, if somebody did."""
        note = self._command(name, "GET", f"{self._root}evicted:{fence}")
        return note.decode(errors="replace") if note else ""

    def _names(self) -> set[str]:
        start = f"{self._root}held:"
        pattern = "".join(f"\\{sign}" if sign in "*?[]\\" else sign for sign in start)
        names: set[str] = set()
        cursor: Any = b"0"
        while True:
            cursor, keys = self._command(
                "", "SCAN", cursor, "MATCH", f"{pattern}*", "COUNT", 1000
            )
            names |= {key.decode()[len(start) :] for key in keys}
            if cursor == b"0":
                return names

    def _run(self, script: Script, name: str, *arguments: Any) -> Any:
        try:
            return self._command(name, "EVALSHA", script.sha, 0, self._root, *arguments)
        except redis.exceptions.NoScriptError:
            return self._command(name, "EVAL", script.text, 0, self._root, *arguments)

    def _command(self, name: str, *words: Any) -> Any:
        try:
            return self._client.execute_command(*words)
        except redis.exceptions.NoScriptError:
            raise
        except (redis.exceptions.RedisError, OSError) as error:
            raise LocksUnreachable(
                f"The server of the locks, {self._where}, did not do what was asked of "
                f"it: {error}. Look whether it runs and can be reached from here; it is "
                'the one of UNSTUCK["LOCK_URL"], else the broker.',
                name=name,
            ) from error


def _channel_of(transport: Any) -> Any:
    """kombu's reading of all that is said of a server, without a connection to it."""
    channel = object.__new__(transport.Channel)
    channel.connection = transport
    options = transport.client.transport_options
    for name in channel.from_transport_options:
        if name in options:
            setattr(channel, name, options[name])
    channel.socket_timeout = channel.socket_timeout or ANSWER_SECONDS
    channel.socket_connect_timeout = channel.socket_connect_timeout or CONNECT_SECONDS
    return channel


def _batches(items: Collection[Any]) -> Iterator[list[Any]]:
    rest = iter(items)
    while some := list(islice(rest, AT_ONCE)):
        yield some


@lru_cache(maxsize=1024)
def _written(owner: Owner) -> str:
    return json.dumps(asdict(owner))


def _read(owner: bytes) -> Owner:
    return Owner(**json.loads(owner))


def _held_in(row: list[Any], waiting: tuple[Owner, ...] = ()) -> Held:
    name, owner, since, fence, milliseconds = row
    return Held(
        name=name.decode(),
        owner=_read(owner),
        since=int(since) / 1_000_000,
        fence=int(fence),
        seconds_left=max(0, milliseconds) / 1000,
        waiting=waiting,
    )
