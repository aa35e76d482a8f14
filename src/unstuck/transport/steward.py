"""A thread beside the consumer: keeps the lease, says what is to be said, moves what is due.

It is a thread so that a task that runs in this process for long (``-P solo``), or a main
that is busy, does not cost the lease; and so that the consumer never waits for the server.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import NoScriptError, RedisError, ResponseError

from unstuck.fields import Fields
from unstuck.transport import scripts
from unstuck.transport.desk import Desk, Step, entry_of, tag_of
from unstuck.transport.keys import GROUP, Keys

logger = logging.getLogger(__name__)

TICKS_PER_LEASE = 10
GATHER_SECONDS = 0.005
"""After the bell: more is to be said soon, or the consumer takes it along itself."""

BRIDGE_MOST = 500
BRIDGE_SECONDS = 1.0
"""How often kombu's own lists are looked at."""

GHOST_SECONDS = 1.0
"""What was reserved for us so long ago has reached us, or was lost on its way."""

CHORES_SECONDS = 10.0
LEAVE_SECONDS = 2.0
"""How long a channel that closes waits for the last word to be said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What one channel needs to be looked after."""

    streams: Collection[str]
    lists: Mapping[str, str] = field(default_factory=dict)
    """kombu's own, each with the stream that its messages belong to."""

    expiring: Mapping[str, int] = field(default_factory=dict)
    """The keys that live for so many milliseconds when nobody reads them."""

    restore: Callable[[], object] = lambda: None
    """Gives back what dead workers with kombu's own transport had in hand."""


class Steward:
    """Keeps a desk's promises to the server, while anybody needs it."""

    def __init__(
        self,
        desk: Desk,
        keys: Keys,
        client: Any,
        *,
        lease_seconds: float,
        predecessors: Sequence[str] = (),
        steps: Iterable[str],
    ) -> None:
        self._desk = desk
        self._keys = keys
        self._client = client
        self._lease_ms = int(lease_seconds * 1000)
        self._tick_seconds = lease_seconds / TICKS_PER_LEASE
        self._steps = tuple(steps)
        self._over = list(predecessors)
        self._known = False
        """Whether the server has us among its nodes."""

        self._lock = threading.RLock()
        self._bell = threading.Event()
        self._left = threading.Event()
        """Whether there is no thread, and the server knows nothing of us."""

        self._left.set()
        self._thread: threading.Thread | None = None
        self._services: dict[object, Service] = {}
        self._next_tick = self._next_bridge = self._next_chores = 0.0
        self._next_ghosts = 0.0
        self._suspicions: deque[float] = deque()
        """When to look for what a lost connection has taken along."""

        self._next_death = math.inf
        """When the lease of some node is over, unless that is renewed meanwhile."""

        self._must_search = False
        """Whether it is not known, of what is in hand, what others have been given."""

        self._trouble = ""
        desk.lease_seconds = lease_seconds
        desk.wake = self._bell.set

    # For the channels.

    def serve(self, who: object, service: Service) -> None:
        """Look after what a channel reads. Returns when the lease is there."""
        with self._lock:
            self._services[who] = service
            self._register()
            self._tick()
            if self._thread is None:
                self._left.clear()
                self._thread = threading.Thread(
                    target=self._run, name="unstuck-steward", daemon=True
                )
                self._thread.start()

    def dismiss(self, who: object, *, wait: bool) -> None:
        """A channel reads nothing more and has nothing in hand.

        After the last one all is said that is to be said, and the lease is given up,
        unless something is still in hand; ``wait`` for that, but not for long.
        """
        self._services.pop(who, None)
        self._bell.set()
        if wait and not self._services and not self._desk.reserved:
            self._left.wait(LEAVE_SECONDS)

    def suspect_ghosts(self) -> None:
        """What is on its way to us is lost with a connection, or not taken."""
        self._suspicions.append(time.monotonic() + 1.2 * GHOST_SECONDS)

    # The thread.

    def _run(self) -> None:
        while True:
            if self._bell.wait(max(0.0, self._next_tick - time.monotonic())):
                time.sleep(GATHER_SECONDS)
                self._bell.clear()
            if self._turn():
                return

    def _turn(self) -> bool:
        """Do what is due; whether that was the last of it."""
        try:
            with self._lock:
                if self._services or self._desk.reserved:
                    self._work()
                    return False
                self._leave()
                return True
        except (RedisError, OSError) as error:
            self._complain(str(error))
            self._client.connection_pool.disconnect()
        except Exception:
            logger.exception("The steward stumbled")
        time.sleep(self._tick_seconds / 2)  # What cannot be said may ring all the time.
        return False

    def _leave(self) -> None:
        self._desk.flush(self._client)
        self._call(scripts.LEAVE, self._keys.root, self._desk.node)
        self._client.connection_pool.disconnect()
        self._known = False
        self._thread = None
        self._left.set()

    def _work(self) -> None:
        now = time.monotonic()
        if now >= self._next_tick:
            self._tick()
        if now >= self._next_bridge:
            self._bridge(now)
        if now >= self._next_chores:
            self._chores(now)
        while self._suspicions and now >= self._suspicions[0]:
            self._suspicions.popleft()
            self._next_ghosts = now
        if now >= self._next_ghosts:
            self._give_back_ghosts(now)
        if self._desk.has_something_to_say:
            self._desk.flush(self._client)
        if self._trouble:
            logger.warning("The server of the broker answers again")
            self._trouble = ""

    def _tick(self) -> None:
        sent = time.monotonic()
        over, known = tuple(self._over), self._known
        look = sent >= self._next_death
        # The server says it once: who does not get its answer has to look.
        search, self._must_search = self._must_search, known
        lost, wait, death, reaped, problem = self._call(
            scripts.TICK,
            *(self._keys.root, self._desk.node, self._lease_ms, int(known), int(look)),
            *over,
        )
        self._known = True
        if problem:
            self._complain(problem.decode())
        else:
            self._over = [node for node in self._over if node not in over]
        for node, number in reaped:
            _tell_of_death(node.decode(), number)
        if look or death >= 0:
            self._next_death = sent + death / 1000 if death >= 0 else math.inf
        if lost:
            self._desk.renewed_at = -math.inf  # Until we know it, nothing is ours.
        if lost or search:
            self._find_out_what_is_lost()
        self._must_search = False
        self._desk.renewed_at = sent
        soon = self._tick_seconds if wait < 0 else wait / 1000
        self._next_tick = min(sent + min(soon, self._tick_seconds), self._next_death)

    def _register(self) -> None:
        streams = self._streams()
        if streams:
            self._client.sadd(self._keys.streams_of(self._desk.node), *streams)

    def _streams(self) -> list[str]:
        # A copy: a channel may be dismissed meanwhile, without waiting for the lock.
        services = list(self._services.values())
        return list({stream for each in services for stream in each.streams})

    def _find_out_what_is_lost(self) -> None:
        """We were away, perhaps for longer than the lease, and others have taken over."""
        self._register()
        tags = self._desk.was_away()
        found = self._which_are_pending(tags)
        lost = [tag for tag, is_ours in zip(tags, found, strict=True) if not is_ours]
        self._desk.lose(lost)
        if lost:
            logger.warning(
                "This node was away for longer than its lease, and its messages were given "
                "to others: %(fields)s",
                Fields(messages=len(lost)),
            )

    def _bridge(self, now: float) -> None:
        services = list(self._services.values())
        lists = {name: to for each in services for name, to in each.lists.items()}
        with self._client.pipeline(transaction=False) as pipe:
            for name, stream in lists.items():
                pipe.eval(scripts.BRIDGE.text, 2, name, stream, BRIDGE_MOST)
            for each in services:
                for name, milliseconds in each.expiring.items():
                    pipe.pexpire(name, milliseconds)
            moved = pipe.execute()[: len(lists)]
        self._next_bridge = now + BRIDGE_SECONDS
        if any(number >= BRIDGE_MOST for number in moved):
            self._next_bridge = now
            self._bell.set()

    def _chores(self, now: float) -> None:
        self._next_chores = now + CHORES_SECONDS
        self._call(scripts.ADOPT, self._keys.root, *self._steps)
        for restore in {each.restore for each in list(self._services.values())}:
            restore()

    def _give_back_ghosts(self, now: float) -> None:
        """Give back what was reserved for us and lost on its way here."""
        self._next_ghosts = now + CHORES_SECONDS
        idle, node = int(GHOST_SECONDS * 1000), self._desk.node
        for stream in self._streams():
            for entry, *_ in self._pending(stream, "IDLE", idle, "-", "+", 1000, node):
                tag = tag_of(stream, entry.decode())
                if self._desk.lose_unless_known(tag):
                    step = Step(tag, scripts.GIVE_BACK)
                    self._client.execute_command(*step.command())

    # The server.

    def _which_are_pending(self, tags: Sequence[str]) -> list[bool]:
        """Whether the server has each of these in our name; one wait for all of them."""
        with self._client.pipeline(transaction=False) as pipe:
            for tag in tags:
                stream, entry = entry_of(tag)
                which = (entry, entry, 1, self._desk.node)
                pipe.execute_command("XPENDING", stream, GROUP, *which)
            return [bool(_found(each)) for each in pipe.execute(raise_on_error=False)]

    def _pending(self, stream: str, *arguments: Any) -> Any:
        try:
            return self._client.execute_command("XPENDING", stream, GROUP, *arguments)
        except ResponseError as error:
            return _found(error)

    def _call(self, script: scripts.Script, *arguments: Any) -> Any:
        try:
            return self._client.execute_command("EVALSHA", script.sha, 0, *arguments)
        except NoScriptError:
            return self._client.execute_command("EVAL", script.text, 0, *arguments)

    def _complain(self, trouble: str) -> None:
        if trouble != self._trouble:
            logger.warning(
                "The server of the broker is in trouble: %(fields)s",
                Fields(trouble=trouble),
            )
        self._trouble = trouble


def _found(answer: Any) -> Any:
    """What XPENDING has found; nothing where the server has lost its data."""
    if not isinstance(answer, Exception):
        return answer
    if isinstance(answer, ResponseError) and "NOGROUP" in str(answer):
        return []
    raise answer


def _tell_of_death(node: str, messages: int) -> None:
    if messages:
        logger.warning(
            "A node is dead, and its messages are given to others: %(fields)s",
            Fields(node=node, messages=messages),
        )
    else:
        # Or a command that asked something, and ended: nobody need look after it.
        logger.info("A node is gone that had no message: %(fields)s", Fields(node=node))
