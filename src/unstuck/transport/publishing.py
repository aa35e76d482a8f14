"""The half of a channel that publishes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from kombu.utils.json import dumps
from redis.exceptions import RedisError, ResponseError

from unstuck.transport import scripts
from unstuck.transport.connected import ConnectedChannel
from unstuck.transport.desk import Step
from unstuck.transport.keys import RETURNED, Keys
from unstuck.transport.message import due_milliseconds

PUT_AT_ONCE = 1000
"""Messages in one pipeline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """One message on its way to one queue: now, or when it is due."""

    queue: str
    content: str
    stream: str
    step: int | str
    due: int | None = None
    """Milliseconds since the epoch."""

    keys: Keys

    def with_content(self, content: str) -> Put:
        """The same way for another message."""
        return Put(
            queue=self.queue,
            content=content,
            stream=self.stream,
            step=self.step,
            due=self.due,
            keys=self.keys,
        )

    def first(self) -> Put:
        """The same message before all others in its queue."""
        stream = self.keys.stream(self.queue, RETURNED)
        return replace(self, stream=stream, step=RETURNED)

    def arguments(self) -> tuple[Any, ...]:
        """The five arguments of ``put`` in the scripts."""
        if self.due is None:
            return ("now", self.stream, self.content, "", "")
        delayed, member = self.keys.delayed(self.queue), f"{self.step}|{self.content}"
        return (self.keys.due, delayed, self.due, member, self.queue)

    def command(self) -> tuple[Any, ...]:
        """As it is sent on its own."""
        if self.due is None:
            return ("XADD", self.stream, "*", "m", self.content)
        return ("EVAL", scripts.DELAY.text, 0, *self.arguments())


class PublishingChannel(ConnectedChannel):
    """Publishes to streams; ``basic_publish`` calls ``_put`` for each queue."""

    publish_errors = (RedisError, OSError)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._place = threading.local()
        self._expires: dict[str, int] = {}
        """Of queues that expire: after how many milliseconds."""

        super().__init__(*args, **kwargs)

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        batch = kwargs.pop("_publish_batch", None)
        put = self._way_to(queue, message)
        collected = getattr(self._place, "puts", None)
        if collected is not None:
            collected.append(put)
        elif batch is not None:
            for command in self._commands_for(put):
                batch.add("execute_command", *command)
        else:
            self.send(put)

    def send(self, put: Put) -> None:
        """Publish one message in one round trip."""
        if put.queue not in self._expires:
            self._tell(put.command())
            return
        with self.commands.pipeline(transaction=False) as pipe:
            for command in self._commands_for(put):
                pipe.execute_command(*command)
            pipe.execute()

    def _way_to(self, queue: str, message: Any) -> Put:
        step = self.priority(self._get_message_priority(message))
        return Put(
            queue=queue,
            content=dumps(message),
            stream=self.keys.stream(queue, step),
            step=step,
            due=due_milliseconds(message),
            keys=self.keys,
        )

    def _commands_for(self, put: Put) -> Iterator[tuple[Any, ...]]:
        yield put.command()
        if put.queue in self._expires:
            for name in self._names_of(put.queue):
                # kombu's client puts its prefix before the names of a PEXPIRE.
                yield ("pexpire", name, self._expires[put.queue])

    @contextmanager
    def collected(self) -> Iterator[list[Put]]:
        """What is published within, by this thread, is not sent but collected."""
        puts: list[Put] = []
        self._place.puts = puts
        try:
            yield puts
        finally:
            self._place.puts = None

    def _tell(self, command: Sequence[Any]) -> Any:
        """Send one command, once; redis-py's client takes as long as the server for one."""
        connection = self.pool.get_connection()
        try:
            connection.send_command(*command)
            return connection.read_response()
        except ResponseError:
            raise
        except BaseException:
            connection.disconnect()
            raise
        finally:
            self.pool.release(connection)

    def send_all(self, puts: Sequence[Put]) -> list[Exception | None]:
        """Publish what was collected, in as few round trips as possible.

        Says for each what the server had against it. What a connection that breaks leaves
        in doubt counts as not sent.
        """
        self._make_sure_of_connection()
        said: list[Exception | None] = []
        for start in range(0, len(puts), PUT_AT_ONCE):
            said += self._send_some(puts[start : start + PUT_AT_ONCE])
        return said

    def _make_sure_of_connection(self) -> None:
        """A connection from the pool may be dead: nothing is in doubt if it is tried now."""
        try:
            self.commands.ping()
        except self.connection_errors:
            self.commands.ping()

    def _send_some(self, puts: Sequence[Put]) -> list[Exception | None]:
        commands = [list(self._commands_for(put)) for put in puts]
        with self.commands.pipeline(transaction=False) as pipe:
            for command in (each for some in commands for each in some):
                pipe.execute_command(*command)
            try:
                answers = pipe.execute(raise_on_error=False)
            except (RedisError, OSError) as error:
                return [error] * len(puts)
        firsts, place = [], 0
        for some in commands:
            firsts.append(answers[place])
            place += len(some)
        return [each if isinstance(each, Exception) else None for each in firsts]

    @contextmanager
    def in_place_of(self, delivery_tag: str, *, first: bool = False) -> Iterator[None]:
        """What is published within takes the place of a message that is in hand.

        As one step, carried out soon and until the server has taken it; not at all if the
        message is no longer ours by then. Without anything published it is acknowledged.
        ``first``: before all others in its queue, as it has waited its turn.
        """
        with self.collected() as puts:
            yield
        self.qos.release(delivery_tag)
        if puts:
            puts = [put.first() for put in puts] if first else puts
            arguments = [each for put in puts for each in put.arguments()]
            self.desk.step(Step(delivery_tag, scripts.SETTLE, arguments))
        else:
            self.desk.ack(delivery_tag)
