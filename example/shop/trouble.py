"""Every kind of trouble that a task can be in, at the press of a button.

``REGISTRY`` is the one list of them: the trouble page, ``manage.py trouble`` and the
tests all read it. The limits are small, so a run through the page is over quickly.
"""

import ctypes
import itertools
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celery import Task, current_app, shared_task
from celery.exceptions import Reject

SOFT_LIMIT_SECONDS = 4
HARD_LIMIT_SECONDS = 6
MEBIBYTE = 1024 * 1024
HEADROOM_BYTES = 128 * MEBIBYTE
UNKNOWN_TASK = "shop.trouble.not_deployed_yet"

trouble_task = shared_task(
    soft_time_limit=SOFT_LIMIT_SECONDS, time_limit=HARD_LIMIT_SECONDS
)


@trouble_task
def ok() -> str:
    """Succeed: the button to compare the others with."""
    return "ok"


@trouble_task
def hang_python() -> None:
    """Wait for ever, in Python code that an exception can interrupt."""
    while True:
        time.sleep(0.1)


@trouble_task
def hang_python_deaf() -> None:
    """Wait for ever and swallow every exception: the soft limit is one of them."""
    while True:
        try:  # noqa: SIM105 - this is how the mistake looks in the wild
            time.sleep(0.1)
        except Exception:  # noqa: S110
            pass


@trouble_task
def hang_c() -> None:
    """Never come back from C code that holds the GIL.

    ``sum`` asks for no signal on its way and this series has no end. No handler and
    no thread of the process runs any more, so nothing inside it can help.
    """
    sum(itertools.repeat(0))


@trouble_task
def segfault() -> None:
    """Read the memory at address 0."""
    _leave_no_core_file()
    ctypes.string_at(0)


@trouble_task
def os_exit() -> None:
    """End the process without a word, as some C libraries do on a fatal error."""
    os._exit(1)


@trouble_task
def out_of_memory() -> None:
    """Take all the memory that there is: 128 MiB more than the process has now.

    The bound is the process's own ``RLIMIT_AS``, so no neighbour suffers. Python then
    gets no memory and says so with ``MemoryError``, which is a failure like any other.
    The kernel's OOM killer is another matter: it sends SIGKILL, see ``sigkill``.
    """
    hoard = []
    with _address_space_of(_address_space_in_use() + HEADROOM_BYTES):
        while True:
            hoard.append(b"\1" * MEBIBYTE)


@trouble_task
def exception() -> None:
    """Fail, and not be retried."""
    raise RuntimeError("the exception of the trouble page")


@shared_task(
    bind=True,
    default_retry_delay=1,
    soft_time_limit=SOFT_LIMIT_SECONDS,
    time_limit=HARD_LIMIT_SECONDS,
)
def retry_for_ever(self: Task) -> None:
    """Ask for a retry every time; the default of ``max_retries`` ends it."""
    raise self.retry(exc=ConnectionError("the partner is still not there"))


@trouble_task
def sigkill() -> None:
    """Be killed with SIGKILL, as by the kernel's OOM killer.

    In a pool of threads the process is the whole worker.
    """
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(
    acks_late=False, soft_time_limit=SOFT_LIMIT_SECONDS, time_limit=HARD_LIMIT_SECONDS
)
def at_most_once() -> None:
    """Be killed, in a task that must never run a second time."""
    os.kill(os.getpid(), signal.SIGKILL)


@trouble_task
def reject() -> None:
    """Refuse the message for good."""
    raise Reject("the shop does not do this", requeue=False)


def _leave_no_core_file() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _address_space_in_use() -> int:
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[0])
    return pages * resource.getpagesize()


@contextmanager
def _address_space_of(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size, hard))
    try:
        yield
    finally:
        # The process goes on to run other tasks, and those keep their memory.
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def send_unknown(task_id: str) -> None:
    """Send a message for a task that no worker knows."""
    current_app.send_task(UNKNOWN_TASK, task_id=task_id)


def send_malformed(task_id: str) -> None:
    """Send a message whose headers are Celery's and whose body is not JSON."""
    queue = current_app.amqp.default_queue
    with current_app.producer_or_acquire() as producer:
        producer.publish(
            b'\xff\xfe[[], {"cut": ',
            content_type="application/json",
            content_encoding="utf-8",
            correlation_id=task_id,
            headers={
                "lang": "py",
                "id": task_id,
                "root_id": task_id,
                "parent_id": None,
                "task": ok.name,
                "argsrepr": "()",
                "kwargsrepr": "{}",
            },
            exchange=queue.exchange,
            routing_key=queue.routing_key,
            declare=[queue],
            retry=True,
            retry_policy=current_app.conf.task_publish_retry_policy,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One button of the trouble page."""

    key: str
    title: str
    what: str
    """What happens in the worker."""
    seen: str
    """What is to be seen afterwards."""
    expected_reason: str | None
    """The ``reason`` of the dead letter; none when the task succeeds."""
    limit_seconds: int | None
    """The hard time limit of the task; none when no task of ours runs."""
    send: Callable[[str], None]
    """Sends one message under the task id given."""


def _running(
    key: str, task: Any, *, title: str, what: str, seen: str, reason: str | None
) -> Trouble:
    return Trouble(
        key=key,
        title=title,
        what=what,
        seen=seen,
        expected_reason=reason,
        limit_seconds=HARD_LIMIT_SECONDS,
        send=lambda task_id: task.apply_async(task_id=task_id),
    )


_ALL = (
    _running(
        "ok",
        ok,
        title="Nothing",
        what="The task returns at once.",
        seen="A success, and no dead letter.",
        reason=None,
    ),
    _running(
        "exception",
        exception,
        title="Exception",
        what="The task raises RuntimeError and asks for no retry.",
        seen="A dead letter with the traceback.",
        reason="failed",
    ),
    _running(
        "retry_for_ever",
        retry_for_ever,
        title="Retry for ever",
        what="The task asks for a retry after one second, every time it runs.",
        seen="Three retries, because that is the default; then the dead letter.",
        reason="failed",
    ),
    _running(
        "hang_python",
        hang_python,
        title="Hang in Python",
        what="A loop that sleeps and never ends.",
        seen=f"The soft limit interrupts it after {SOFT_LIMIT_SECONDS} seconds.",
        reason="soft_limit",
    ),
    _running(
        "hang_python_deaf",
        hang_python_deaf,
        title="Hang in Python, deaf",
        what="The same loop around “except Exception: pass”, which swallows the soft limit.",
        seen=f"The soft limit is swallowed; the child is killed after {HARD_LIMIT_SECONDS} seconds.",
        reason="hard_limit",
    ),
    _running(
        "hang_c",
        hang_c,
        title="Hang in C, holding the GIL",
        what="sum() over a series without an end: no Python code of the child runs any more, "
        "signal handlers included.",
        seen=f"The child is killed from outside after {HARD_LIMIT_SECONDS} seconds; nothing inside "
        "it could have done so.",
        reason="hard_limit",
    ),
    _running(
        "segfault",
        segfault,
        title="Segmentation fault",
        what="The task reads the memory at address 0 and the kernel ends the child.",
        seen="Three children are lost, one after the other; then the message is poison.",
        reason="poison",
    ),
    _running(
        "sigkill",
        sigkill,
        title="SIGKILL",
        what="The child is killed, as the kernel does when a host runs out of memory.",
        seen="Three children are lost, one after the other; then the message is poison.",
        reason="poison",
    ),
    _running(
        "os_exit",
        os_exit,
        title="Exit",
        what="The task ends its process with os._exit(1).",
        seen="Three children are lost, one after the other; then the message is poison.",
        reason="poison",
    ),
    _running(
        "at_most_once",
        at_most_once,
        title="SIGKILL, at most once",
        what="The child is killed in a task with acks_late=False, which must not run twice.",
        seen="One child is lost. The message is not run again, and not forgotten either.",
        reason="lost",
    ),
    _running(
        "out_of_memory",
        out_of_memory,
        title="Out of memory",
        what="The task takes memory up to an rlimit of its own. Python gets no more and raises "
        "MemoryError. (The kernel’s OOM killer sends SIGKILL: that is the button above.)",
        seen="A dead letter with MemoryError; the child lives on, its rlimit as before.",
        reason="failed",
    ),
    _running(
        "reject",
        reject,
        title="Rejected",
        what="The task raises Reject(requeue=False).",
        seen="A dead letter. Stock Celery drops the message.",
        reason="rejected",
    ),
    Trouble(
        key="unknown_task",
        title="Unknown task",
        what="A message for a task that no worker has, as in the middle of a deploy.",
        seen="It waits for 10 seconds here, 10 minutes by default; then the dead letter. "
        "Stock Celery drops it.",
        expected_reason="unknown_task",
        limit_seconds=None,
        send=send_unknown,
    ),
    Trouble(
        key="malformed",
        title="Malformed message",
        what="A message with good headers and a body that is no JSON.",
        seen="A dead letter with the bytes as they came. Stock Celery drops them.",
        expected_reason="undecodable",
        limit_seconds=None,
        send=send_malformed,
    ),
)

REGISTRY = {trouble.key: trouble for trouble in _ALL}
