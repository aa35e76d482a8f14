"""The transport: where the server is, and the poller that asks it for messages."""

from __future__ import annotations

import time
from functools import partial
from queue import Empty
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from kombu.transport import redis as kombu_redis
from kombu.utils.eventio import ERR, READ
from kombu.utils.url import parse_url

from unstuck.transport.channel import Channel, SentinelChannel

PREFIX = "unstuck+"
SENTINEL_PORT = 26379
LONGEST_POLL = 1.0
"""Seconds; what another thread acknowledges makes room without waking a poll."""


class Address:
    """A kombu connection's parameters, read from a URL that kombu has not taken apart.

    Everything else is asked of the connection itself.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.alt = [str(url).removeprefix(PREFIX) for url in client.alt]
        self.hostname, self.port = client.hostname, client.port
        self.virtual_host = client.virtual_host
        self.userid, self.password, self.ssl = (
            client.userid,
            client.password,
            client.ssl,
        )
        self.scheme = str(client.transport_cls).removeprefix(PREFIX)
        if "://" in (client.hostname or ""):
            self._read(client.hostname.removeprefix(PREFIX))
        if self.scheme == "rediss" and not self.ssl:
            self.ssl = {"ssl_cert_reqs": "required"}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def _read(self, url: str) -> None:
        self.scheme = url.partition("://")[0]
        if self.scheme in ("unix", "socket", "redis+socket"):
            self._read_path(url)
            return
        parts = parse_url(url)
        self.hostname = parts["hostname"]
        self.port = parts["port"]
        self.virtual_host = parts["virtual_host"] or self.virtual_host
        self.userid = parts["userid"] or self.userid
        self.password = parts["password"] or self.password
        self.ssl = parts.get("ssl") or self.ssl

    def _read_path(self, url: str) -> None:
        """A unix socket, as kombu's channel wants to have it."""
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        number = options.pop("db", None) or options.pop("virtual_host", None)
        self.virtual_host = number or self.virtual_host
        user = parts.netloc.rpartition("@")[0]
        at = f"{user}@" if user else ""
        query = urlencode({**options, "virtual_host": number or 0})
        self.hostname = f"socket://{at}{parts.path}?{query}"


class Poller(kombu_redis.MultiChannelPoller):
    """Asks for messages whenever there is room for some, and takes the answers."""

    def on_poll_start(self) -> None:
        """Before each wait: ask, and have said what is to be said."""
        for channel in list(self._channels):
            channel.drop_if_overdue()
            if channel.may_ask:
                self._register_BRPOP(channel)
            if channel.active_fanout_queues:
                self._register_LISTEN(channel)
                channel.listen_for_life()
            channel.say_what_cannot_wait()

    def on_poll_init(self, poller: Any) -> None:
        """The event loop's own poller is to be used."""
        self.poller = poller

    def maybe_restore_messages(self) -> None:
        """Nothing: the steward does that."""

    def maybe_check_brpop_health(self) -> None:
        """Nothing: no answer is waited for without end."""

    def forget(self, loop: Any, lost: Any) -> None:
        """That connection has no socket any more; the next one has another."""
        for key in [key for key in self._chan_to_sock if key[1].connection is lost]:
            channel, _, kind = key
            del self._chan_to_sock[key]
            for fileno in [
                f for f, to in self._fd_to_chan.items() if to == (channel, kind)
            ]:
                loop.remove(fileno)
                del self._fd_to_chan[fileno]

    def on_readable(self, fileno: int) -> None:
        """An answer has come."""
        channel, kind = self._fd_to_chan.get(fileno, (None, ""))
        if channel is not None:
            channel.handlers[kind]()

    def handle_event(self, fileno: int, event: int) -> bool:
        """An answer has come, or the connection is gone."""
        if event & (READ | ERR):
            self.on_readable(fileno)
        return True

    def get(self, callback: Any, timeout: float | None = None) -> None:
        """Wait for one event; for who has no event loop. Raises ``Empty``."""
        self._in_protected_read = True
        try:
            self.on_poll_start()
            wait = LONGEST_POLL if timeout is None else min(timeout, LONGEST_POLL)
            for fileno, event in self._poll(wait):
                self.handle_event(fileno, event)
                return
            raise Empty
        finally:
            self._in_protected_read = False
            while self.after_read:
                self.after_read.pop()()

    def _poll(self, seconds: float) -> Any:
        if not self._fd_to_chan:
            time.sleep(min(seconds, 0.01))
            return ()
        return self.poller.poll(seconds) or ()


class Transport(kombu_redis.Transport):
    """Redis Streams: ``unstuck+redis://``, ``+rediss``, ``+sentinel`` and ``+unix``."""

    Channel = Channel

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.client = Address(client)
        if self.client.scheme == "sentinel":
            self.Channel = SentinelChannel
            self.default_port = SENTINEL_PORT
        self.cycle = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Be served by an event loop, also after a connection was lost (not in kombu 5.6)."""
        super().register_with_event_loop(connection, loop)
        self.cycle._on_connection_disconnect = partial(self.cycle.forget, loop)
        for channel in self.channels[:1]:
            channel.desk.belong_to_loop(loop)
