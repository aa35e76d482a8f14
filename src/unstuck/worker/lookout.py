"""A thread in main that sees what only main can see, tells the board, and heals deafness.

A thread, so that a broker that does not answer keeps nobody waiting but it.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import Any

from celery import bootsteps
from celery.concurrency import solo
from celery.worker import state
from celery.worker.state import active_requests

from unstuck.core.clock import system_clock
from unstuck.core.facts import Incident
from unstuck.fields import Fields
from unstuck.pool import stack
from unstuck.pool.board import MAIN, SUPERVISOR, Board, Column
from unstuck.pool.hands import Hands
from unstuck.worker.census import Census
from unstuck.worker.hearing import Hearing, Look

LOOK_SECONDS = 2.0
EARLY_SECONDS = 0.3
"""Until main is connected there is more news."""

PART = 20
"""A look that takes long is followed by a pause of so many times its length."""

LONGEST_PAUSE_SECONDS = 10.0

CALM_SECONDS = 600.0
"""So long after a main was replaced for being deaf, the next one is not treated for it."""

logger = logging.getLogger(__name__)


class Lookout:
    """Looks every other second, for as long as main lives."""

    def __init__(self, worker: Any, board: Board) -> None:
        self._worker = worker
        self._row = board.row(MAIN)
        self._counts = board.tally.sheet(MAIN)
        self._above = board.row(SUPERVISOR)
        self._census = Census(worker.app)
        self._hearing = Hearing()
        self._over = threading.Event()
        self._taken = 0
        self._deaf_since: float | None = None
        self._restarts = 0
        """How often the consumer was restarted for being deaf, and is still."""

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._look_on, name="lookout", daemon=True).start()

    def stop(self) -> None:
        """Look no more. It is not waited for: the broker may be away."""
        self._row[Column.STOPPING] = 1
        self._over.set()

    def _look_on(self) -> None:
        pause, stumbles = EARLY_SECONDS, 0
        while not self._over.wait(pause):
            before = time.monotonic()
            try:
                answered, stumbles = self.look(), 0
            except Exception:
                # Nobody else would go on looking.
                answered, stumbles = False, stumbles + 1
                if stumbles == 1:
                    logger.exception("The lookout stumbled")
            spent = (time.monotonic() - before) if answered else 0.0
            pause = min(max(LOOK_SECONDS, PART * spent), LONGEST_PAUSE_SECONDS)
            if answered and not self._row[Column.CONNECTED]:
                pause = EARLY_SECONDS
        self._census.close()

    def look(self) -> bool:
        """Look once; says whether the broker has answered."""
        consumer = self._worker.consumer
        hands = self._tell_hands()
        connected = _is_connected(consumer)
        consumed = _consumed(consumer) if connected else set()
        full = connected and not _has_room(consumer)
        row = self._row
        row[Column.CONNECTED] = connected
        row[Column.PAUSED] = connected and not consumed
        row[Column.FULL] = full
        if _is_stopping(consumer):
            row[Column.STOPPING] = 1
        self._note_what_was_taken(consumer.taken)
        waiting, answered = self._ask(consumed, connected)
        self._listen(
            Look(
                at=time.monotonic(),
                waiting=waiting,
                taken=consumer.taken,
                may_take=connected
                and bool(consumed)
                and not full
                and hands.free > 0
                and not _is_stopping(consumer),
            )
        )
        return answered

    # What it sees.

    def _tell_hands(self) -> Hands:
        pool = self._worker.pool
        hands = pool.hands() if hasattr(pool, "hands") else _hands_of_others(pool)
        row = self._row
        row[Column.SLOTS], row[Column.FREE] = hands.slots, hands.free
        row[Column.SERVING] = hands.serving
        running, taken = len(active_requests), len(state.reserved_requests)
        row[Column.RUNNING], row[Column.RESERVED] = running, max(0, taken - running)
        row[Column.LONGEST] = int((hands.longest_since or 0) * 1e9)
        if isinstance(pool, solo.TaskPool) and not hands.free:
            # Its loop stands still while a task runs, whose limits are kept by another.
            row.beat()
        return hands

    def _note_what_was_taken(self, taken: int) -> None:
        if taken != self._taken:
            self._counts.count("taken", by=max(0, taken - self._taken))
            self._taken = taken
            self._row[Column.TAKEN] = time.monotonic_ns()
            self._recovered()

    def _ask(self, consumed: set[str], connected: bool) -> tuple[int | None, bool]:
        """How many messages wait that could be taken, and whether the broker answered."""
        row = self._row
        if not self._census.may_ask:
            self._tell_answer(connected)
            return None, connected
        asked = {*consumed, *self._worker.app.amqp.queues.consume_from}
        counted = self._census.waiting_in(asked)
        self._tell_answer(counted is not None)
        if counted is None or not connected:
            row[Column.WAITING] = 0
            return None, counted is not None
        row[Column.WAITING] = sum(counted[name] for name in consumed) + 1
        shared = consumed - _given_to_one_alone(self._worker.consumer)
        return sum(counted[name] for name in shared), True

    def _tell_answer(self, answered: bool) -> None:
        row, now = self._row, time.monotonic_ns()
        if answered:
            row[Column.ANSWERED], row[Column.UNANSWERED] = now, 0
        elif not row[Column.UNANSWERED]:
            row[Column.UNANSWERED] = row[Column.ANSWERED] or now

    # What it does about a consumer that is deaf.

    def _listen(self, look: Look) -> None:
        if not self._hearing.is_deaf(look):
            if look.waiting == 0:
                self._recovered()
            return
        self._hearing.begin_anew()
        first = self._deaf_since is None
        if first:
            self._deaf_since = look.at
            self._row[Column.DEAF] = int(look.at * 1e9)
        if self._was_replaced_lately():
            if first:
                logger.error(
                    "Messages wait and none is taken, though main is a new one"
                )
        elif not self._restarts:
            self._restart_consumer(look)
        elif self._worker.has_supervisor:
            # The supervisor says so, and writes the incident.
            self._row[Column.REPLACE] = 1

    def _restart_consumer(self, look: Look) -> None:
        self._restarts += 1
        what = (
            f"{look.waiting} messages wait in the queues of this worker, it is free to "
            f"run them, and it takes none: its consumer is restarted"
        )
        logger.error(
            "Messages wait, this worker is free and takes none; its consumer is "
            "restarted: %(fields)s",
            Fields(waiting=look.waiting),
        )
        self._counts.count("incidents", "deaf")
        self._worker.facts.send(
            Incident(
                kind="deaf",
                node=self._worker.hostname,
                at=system_clock(),
                process="main",
                pid=self._row[Column.PID],
                what=what,
                stack=_stack_of_main_thread(),
            )
        )
        self._worker.consumer.restart_soon("it takes no messages")

    def _was_replaced_lately(self) -> bool:
        replaced = self._above[Column.REPLACED]
        calm = CALM_SECONDS * 1e9
        return bool(replaced) and time.monotonic_ns() - replaced < calm

    def _recovered(self) -> None:
        if self._deaf_since is not None:
            logger.warning("Messages are taken again, or none wait")
        self._deaf_since, self._restarts = None, 0
        self._row[Column.DEAF] = 0


def _is_connected(consumer: Any) -> bool:
    running = consumer.blueprint.state == bootsteps.RUN
    return running and bool(consumer.consumes and consumer.task_consumer)


def _is_stopping(consumer: Any) -> bool:
    asked = (state.should_stop, state.should_terminate)
    closing = (bootsteps.CLOSE, bootsteps.TERMINATE)
    return any(value not in (None, False) for value in asked) or (
        consumer.blueprint.state in closing
    )


def _consumed(consumer: Any) -> set[str]:
    return {queue.name for queue in consumer.task_consumer.queues}


def _given_to_one_alone(consumer: Any) -> set[str]:
    """Queues whose messages go to one worker, which may be another one."""
    argument = "x-single-active-consumer"
    queues = consumer.task_consumer.queues if consumer.task_consumer else ()
    return {
        queue.name for queue in queues if (queue.queue_arguments or {}).get(argument)
    }


def _has_room(consumer: Any) -> bool:
    """Whether the prefetch limit lets another message in."""
    qos = getattr(consumer.task_consumer.channel, "qos", None)
    if qos is not None:
        return bool(qos.can_consume())
    # RabbitMQ counts by itself; a limit for each consumer stays as it was set.
    moves = consumer.qos_global is not False
    most = consumer.qos.value if moves else consumer.initial_prefetch_count
    try:
        return not most or consumer.in_hand < most
    except RuntimeError:  # More came in while they were counted.
        return False


def _hands_of_others(pool: Any) -> Hands:
    """Those of Celery's own pools, which say nothing of their processes."""
    slots, running = int(pool.num_processes or 1), list(active_requests)
    begun = [began for request in running if (began := request.time_start)]
    ago = time.time() - min(begun) if begun else None
    return Hands(
        slots=slots,
        free=max(0, slots - len(running)),
        serving=slots,
        longest_since=time.monotonic() - ago if ago is not None else None,
    )


def _stack_of_main_thread() -> str:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return stack.of_frame(frame) if frame else ""
