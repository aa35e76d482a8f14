"""The pool that Celery's consumer talks to.

Subclassed from Celery's prefork pool and named as it is because Celery and its Django
fixup ask whether a pool is that one; nothing else of it is used.
"""

from __future__ import annotations

import itertools
import logging
import pickle
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.concurrency import prefork
from celery.exceptions import ImproperlyConfigured

from unstuck import conf
from unstuck.pool.board import MAIN
from unstuck.pool.crew import Crew
from unstuck.pool.hands import Hands, hands_of
from unstuck.pool.job import Job, nothing
from unstuck.pool.nursery import Nursery
from unstuck.pool.room import make_room
from unstuck.pool.terms import Terms
from unstuck.pool.watch import Watch

logger = logging.getLogger(__name__)

BEAT_SECONDS = 1
TURN_SECONDS = 0.2
EXIT_SECONDS = 5
"""How long children may take to exit at the end, all together."""

KIB = 1024


class TaskPool(prefork.TaskPool):
    """Runs tasks in children of the supervisor, under limits that hold."""

    uses_semaphore = False
    """Jobs wait in the pool, so that short ones can be handed out in batches."""

    crew: Crew
    watch: Watch

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.on_hurry: Callable[[], None] = lambda: None
        """Gives back what still runs when the time to stop is over."""

        self._nursery: Nursery | None = None
        self._numbers = itertools.count(1)
        self._stop_before: float | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._loop: Any = None

    def belong_to(self, nursery: Nursery) -> None:
        """Get the children from this supervisor."""
        self._nursery = nursery
        self._row = nursery.board.row(MAIN)

    # Celery's questions and orders.

    def on_start(self) -> None:
        """Have the children forked."""
        if self._nursery is None:
            raise ImproperlyConfigured(
                "unstuck's pool needs its supervisor: start the worker with "
                "'celery worker', or choose another pool for a worker that is "
                "embedded in something else."
            )
        memory = self.options.get("max_memory_per_child")
        terms = Terms(
            limit=self.limit,
            spares=conf.current().spares,
            tasks_per_child=self.options.get("maxtasksperchild"),
            memory_bytes=memory * KIB if memory else None,
            threaded=bool(self.options.get("threads")),
        )
        make_room(terms.limit + terms.spares)
        self.crew = Crew(self._nursery, terms)
        self.watch = Watch(self.crew)
        self.watch.start()
        self.crew.staff.replenish()
        if self.crew.terms.threaded:
            self._thread = threading.Thread(target=self._turn_for_ever, daemon=True)
            self._thread.start()

    def did_start_ok(self) -> bool:
        """Children that cannot start are reported, and forked again."""
        return True

    def register_with_event_loop(self, loop: Any) -> None:
        """Have the event loop call us; after each reconnect anew."""
        self._loop = loop
        self.crew.call_soon = loop.call_soon
        loop.add_reader(self.crew.fileno(), self._turn)
        loop.call_repeatedly(BEAT_SECONDS, self._turn)

    def _turn_for_ever(self) -> None:
        """What the event loop does, for brokers that Celery has none for."""
        while not self._stopping:
            self.crew.turn(TURN_SECONDS)

    def _turn(self, seconds: float = 0.0) -> None:
        self.beat()
        self.crew.turn(seconds)

    def beat(self) -> None:
        """Tell the supervisor that main is well."""
        self._row.beat()

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Any = (),
        kwargs: Any = None,
        *,
        accept_callback: Callable[..., Any] | None = None,
        callback: Callable[..., Any] | None = None,
        error_callback: Callable[..., Any] | None = None,
        timeout_callback: Callable[..., Any] | None = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        correlation_id: str = "",
        name: str = "",
        extra: bool = False,
        **_: Any,
    ) -> Job:
        """Have a call made in a child. Limits in seconds."""
        job = Job(
            number=next(self._numbers),
            payload=pickle.dumps((target, args, timeout), pickle.HIGHEST_PROTOCOL),
            name=name or str(next(iter(args), target)),
            correlation_id=correlation_id,
            hard=timeout,
            soft=soft_timeout,
            extra=extra,
            accept_callback=accept_callback or nothing,
            callback=callback or nothing,
            error_callback=error_callback or nothing,
            timeout_callback=timeout_callback or nothing,
        )
        self.crew.submit(job)
        return job

    def hands(self) -> Hands:
        """What there is to run tasks with."""
        if not hasattr(self, "crew"):
            return Hands(slots=self.limit, free=0, serving=0, longest_since=None)
        return hands_of(self.crew)

    def appetite(self) -> int:
        """How many tasks more could be taken now without one that waits long."""
        return self.crew.appetite()

    def recall(self) -> None:
        """Take back from children what they have not begun with."""
        self.crew.recall_all()

    def flush(self) -> None:
        """Forget what has not begun: the connection that it came by is lost."""
        self.crew.drop_waiting()

    def maintain_pool(self, *_: Any, **__: Any) -> None:
        """Make up for what is missing."""
        self.crew.staff.replenish()

    def grow(self, n: int = 1) -> None:
        """Run ``n`` more tasks at once."""
        self._resize(self.limit + n)

    def shrink(self, n: int = 1) -> None:
        """Run ``n`` fewer at once; what runs is not disturbed."""
        if n > self.limit:
            raise ValueError(f"There are {self.limit} processes: {n} cannot go.")
        self._resize(self.limit - n)

    def _resize(self, limit: int) -> None:
        self.limit = limit
        self.crew.resize(limit)

    def restart(self) -> None:
        """Replace every child as soon as it is free."""
        logger.warning(
            "Children are replaced, with the code that the supervisor has loaded. "
            "Send the supervisor a SIGHUP to load it anew."
        )
        self.crew.staff.renew()

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """End the task that runs in a child by a signal."""
        self.crew.terminate(pid, signal or prefork.platforms.signals.signum("TERM"))

    @property
    def num_processes(self) -> int:
        """How many tasks run at once."""
        return int(self.limit)

    def _get_info(self) -> dict[str, Any]:
        terms = self.crew.terms
        info = super(prefork.TaskPool, self)._get_info()
        return {
            **info,
            "processes": [m.pid for m in self.crew.members.values()],
            "max-tasks-per-child": terms.tasks_per_child or "N/A",
            "put-guarded-by-semaphore": False,
            "timeouts": (
                self.options.get("soft_timeout") or 0,
                self.options.get("timeout") or 0,
            ),
            "spares": terms.spares,
        }

    # The end.

    def stop_within(self, seconds: float) -> None:
        """From now on, wait so long for what runs when the pool is stopped."""
        before = time.monotonic() + seconds
        self._stop_before = min(before, self._stop_before or before)

    def on_close(self) -> None:
        """No more jobs will come."""

    def on_stop(self) -> None:
        """Wait for what runs, give back the rest, end the children."""
        if self._stop_before is None:
            self.stop_within(self.app.conf.worker_soft_shutdown_timeout)
        self._take_over_from_thread()
        while not self.crew.is_at_rest and not self._is_time_over():
            self._turn_at_the_end()
        if not self.crew.is_at_rest:
            self.crew.recall_all()
            self.on_hurry()
            self.crew.end_tasks("shutdown")
            self._let_hooks_finish()
        self._end_children()

    def _take_over_from_thread(self) -> None:
        self._stopping = True
        if self._thread:
            self._thread.join()

    def _let_hooks_finish(self) -> None:
        deadline = time.monotonic() + EXIT_SECONDS
        while not self.crew.is_at_rest and time.monotonic() < deadline:
            self._turn_at_the_end()

    def on_terminate(self) -> None:
        """End the children at once; what they ran stays with the broker."""
        self._take_over_from_thread()
        self.crew.kill_all("shutdown")
        self._end_children()

    def _is_time_over(self) -> bool:
        # Asked anew each time: a second signal makes it shorter.
        return time.monotonic() >= (self._stop_before or 0)

    def _turn_at_the_end(self) -> None:
        self._turn(TURN_SECONDS)
        # Kombu forgets which loop is the current one when it is reset, as after a fork.
        if (hub := self._loop) is not None:
            # Heartbeats to the broker, verdicts that are carried out again, and what
            # was to be acknowledged soon.
            for work in (hub.fire_timers, partial(_run_ready, hub)):
                try:
                    work()
                except Exception:
                    logger.warning("At the end of the pool", exc_info=True)

    def _end_children(self) -> None:
        self.crew.terms.closed = True
        self.crew.staff.dismiss_all()
        deadline = time.monotonic() + EXIT_SECONDS
        while self.crew.members and time.monotonic() < deadline:
            self._turn_at_the_end()
        self.crew.kill_all("shutdown")
        self.watch.stop()
        self.crew.close()


def _run_ready(hub: Any) -> None:
    """Acknowledge what Celery has put off; on Celery 5.6 it does that itself."""
    run = getattr(prefork, "_run_ready_callbacks", None)
    if run is not None:
        run(hub)
