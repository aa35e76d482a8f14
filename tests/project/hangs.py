"""Tasks that hang in every way there is, and others that crash, grow and race.

A worker imports them with `-I tests.project.hangs`. The line on which a task hangs or
crashes ends with `# here`. No task is known to be slow by its name: each says in the
ledger that it runs, and in which process.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import psycopg
from celery import Task, shared_task
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import task_failure, worker_process_init, worker_process_shutdown

from tests.project import ledger
from unstuck.worker import hooks

HOOK_SECONDS = "HANGS_HOOK_SECONDS"
"""The variable that makes the limit of hooks shorter than its 30 seconds."""

hooks.HOOK_SECONDS = float(os.environ.get(HOOK_SECONDS, hooks.HOOK_SECONDS))

LIMIT = 2
SOFT_LIMIT = 1
RACED_LIMIT = 0.01
LONG = 600
EVER_SO_OFTEN = 10**9
MIB = 2**20

hanging = {"bind": True, "time_limit": LIMIT}
"""Options of a task that reaches its hard limit."""


def _run(task: Any, **facts: Any) -> None:
    ledger.write("run", task=task.name, id=task.request.id, **facts)


@worker_process_init.connect
def _born(**_: Any) -> None:
    ledger.write("born")


@worker_process_shutdown.connect
def _gone(**_: Any) -> None:
    ledger.write("gone")


# In the interpreter and in C.


@shared_task(**hanging)
def sleep(self: Any) -> None:
    _run(self)
    time.sleep(LONG)  # here


@shared_task(**hanging)
def regular_expression(self: Any) -> None:
    _run(self)
    re.match(r"(a+)+$", "a" * 60 + "b")  # here


@shared_task(**hanging)
def key_derivation(self: Any) -> None:
    _run(self)
    hashlib.pbkdf2_hmac("sha256", b"", b"", EVER_SO_OFTEN)  # here


@shared_task(**hanging)
def hold_the_gil(self: Any) -> None:
    _run(self)
    _hold_the_gil()


def _hold_the_gil() -> None:
    """In a deadlock of C, which no signal ends; PyDLL keeps the GIL meanwhile."""
    python, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
    python.pthread_mutex_lock(mutex)
    python.pthread_mutex_lock(mutex)  # here


@shared_task(**hanging, soft_time_limit=SOFT_LIMIT)
def swallow_exceptions(self: Any) -> None:
    _run(self)
    while True:
        try:
            time.sleep(LONG)  # here
        except Exception:
            ledger.write("swallowed", id=self.request.id)


@shared_task(**hanging, soft_time_limit=SOFT_LIMIT)
def swallow_everything(self: Any) -> None:
    _run(self)
    while True:
        try:
            sum(1 for _ in iter(int, 1))  # here
        except BaseException:
            ledger.write("swallowed", id=self.request.id)


# For the network, files, locks and processes.


@shared_task(**hanging)
def receive(self: Any, port: int) -> None:
    _run(self)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.recv(1)  # here


@shared_task(**hanging)
def query(self: Any, url: str) -> None:
    _run(self)
    # No connection of Django's: this hang is the driver's alone.
    with psycopg.connect(url) as connection:
        connection.execute(f"SELECT pg_sleep({LONG})")  # here


@shared_task(**hanging)
def file_lock(self: Any, path: str) -> None:
    _run(self)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # here


@shared_task(**hanging)
def lock_of_a_thread(self: Any) -> None:
    _run(self)
    lock, taken = threading.Lock(), threading.Event()

    def hold_the_lock() -> None:
        with lock:
            taken.set()
            time.sleep(LONG)

    threading.Thread(target=hold_the_lock, daemon=True).start()
    taken.wait()
    lock.acquire()  # here


@shared_task(**hanging)
def wait_for_a_process(self: Any) -> None:
    process = subprocess.Popen(["sleep", str(LONG)])
    _run(self, started=process.pid)
    process.wait()  # here


@shared_task(**hanging)
def wait_for_a_session(self: Any) -> None:
    """Like a browser, which puts itself into a process group of its own."""
    process = subprocess.Popen(["sleep", str(LONG)], start_new_session=True)
    _run(self, started=process.pid)
    process.wait()  # here


@shared_task(**hanging)
def join_a_thread(self: Any) -> None:
    """What a thread has started is not among the children of the main thread."""
    started: list[int] = []

    def start_and_wait() -> None:
        process = subprocess.Popen(["sleep", str(LONG)], start_new_session=True)
        started.append(process.pid)
        process.wait()

    thread = threading.Thread(target=start_and_wait, daemon=True)
    thread.start()
    while not started:
        time.sleep(0.01)
    _run(self, started=started[0])
    thread.join()  # here


@shared_task(**hanging)
def wait_for_the_start_of_a_process(self: Any, fifo: str) -> None:
    """Uninterruptible: until the process runs, its parent cannot."""
    _run(self)
    open_it = [(os.POSIX_SPAWN_OPEN, 0, fifo, os.O_RDONLY, 0)]
    os.posix_spawn("/bin/true", ["true"], {}, file_actions=open_it)  # here


# With signals.


@shared_task(**hanging, soft_time_limit=SOFT_LIMIT)
def ignore_signals(self: Any) -> None:
    _run(self)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(LONG)  # here


@shared_task(**hanging)
def block_signals(self: Any) -> None:
    _run(self)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(LONG)  # here


@shared_task(**hanging)
def stop(self: Any) -> None:
    _run(self)
    os.kill(os.getpid(), signal.SIGSTOP)  # here
    time.sleep(LONG)  # here


# Together.


@shared_task(bind=True)
def meet(self: Any, path: str, count: int) -> None:
    """Come to an end once so many tasks run at the same time."""
    _run(self)
    with open(path, "a") as file:
        file.write("x")
    while os.path.getsize(path) < count:
        time.sleep(0.02)


@shared_task(bind=True)
def take(self: Any, seconds: float) -> None:
    _run(self)
    time.sleep(seconds)
    ledger.write("end", id=self.request.id)


# With their soft limit.


@shared_task(bind=True, time_limit=LONG, soft_time_limit=SOFT_LIMIT)
def return_at_soft_limit(self: Any) -> str:
    _run(self)
    try:
        time.sleep(LONG)  # here
    except SoftTimeLimitExceeded:
        return "in time"
    return "never"


@shared_task(bind=True, time_limit=LONG, soft_time_limit=SOFT_LIMIT)
def fail_at_soft_limit(self: Any) -> None:
    _run(self)
    try:
        time.sleep(LONG)  # here
    except SoftTimeLimitExceeded:
        raise ValueError("something else") from None


@shared_task(bind=True, time_limit=LONG, soft_time_limit=SOFT_LIMIT)
def end_at_soft_limit(self: Any) -> None:
    _run(self)
    time.sleep(LONG)  # here


@shared_task(bind=True, soft_time_limit=SOFT_LIMIT)
def keep_the_signal(self: Any) -> None:
    """Come to an end after the soft limit, with its signal still on the way."""
    _run(self)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    while signal.SIGUSR1 not in signal.sigpending():
        time.sleep(0.02)


@shared_task(bind=True)
def let_the_signal_in(self: Any) -> bool:
    """Whether the signal has arrived, at the latest now."""
    _run(self)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    time.sleep(0.1)
    return signal.SIGUSR1 not in signal.sigpending()


@shared_task(bind=True, soft_time_limit=RACED_LIMIT)
def race(self: Any, seconds: float) -> None:
    """Come to an end about when the soft limit fires."""
    began = time.monotonic()
    _run(self)
    try:
        while time.monotonic() < began + seconds:
            time.sleep(0.0002)
    except SoftTimeLimitExceeded:
        ledger.write(
            "interrupted", id=self.request.id, seconds=time.monotonic() - began
        )


@shared_task(bind=True)
def bystander(self: Any) -> None:
    """Has a distant limit: whatever interrupts it was meant for another task."""
    _run(self)
    time.sleep(0.002)


# That end their process.


def _burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


@shared_task(bind=True)
def segfault(self: Any) -> None:
    _run(self)
    _burn(0.5)
    ctypes.string_at(0)  # here


@shared_task(bind=True)
def abort(self: Any) -> None:
    _run(self)
    os.abort()  # here


@shared_task(bind=True)
def leave(self: Any, code: int) -> None:
    _run(self)
    os._exit(code)


@shared_task(bind=True)
def exit_in_order(self: Any, code: int) -> None:
    _run(self)
    sys.exit(code)


@shared_task(bind=True)
def use_up_the_cpu(self: Any) -> None:
    _run(self)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 10))
    _burn(LONG)


@shared_task(bind=True)
def wait_for_a_signal(self: Any, number: str = "") -> None:
    _run(self)
    time.sleep(LONG)


@shared_task(bind=True, max_strikes=3)
def kill_itself(self: Any) -> None:
    _run(self)
    os.kill(os.getpid(), signal.SIGKILL)


# That grow.

_kept: list[bytes] = []


@shared_task(bind=True)
def grow(self: Any, mib: int) -> None:
    """Leak so much memory."""
    _run(self)
    _kept.append(bytes(b"x" * mib * MIB))


@shared_task(bind=True)
def grow_and_wait(self: Any, mib: int, seconds: float) -> None:
    _run(self)
    memory = b"x" * mib * MIB  # here
    time.sleep(seconds)  # here
    ledger.write("end", id=self.request.id, size=len(memory))


@shared_task(bind=True)
def wait_for_a_birth(self: Any, births: int) -> None:
    """Come to an end once so many children were born."""
    _run(self)
    while ledger.count("born") < births:
        time.sleep(0.02)


@shared_task(bind=True)
def eat(self: Any) -> None:
    """Take memory until somebody objects."""
    _run(self)
    while True:
        _kept.append(b"x" * 10 * MIB)


@shared_task(bind=True)
def nothing(self: Any) -> None:
    _run(self)


# With hooks.


class Hooked(Task):
    """Notes which of its hooks are called, and with what."""

    def on_failure(self, exc: Any, *args: Any) -> None:
        _note(self, "on_failure", exc, args)

    def after_return(self, status: Any, retval: Any, *args: Any) -> None:
        _note(self, "after_return", retval, args, status=status)


def _note(task: Any, hook: str, error: Any, args: Any, **facts: Any) -> None:
    task_id, task_args, task_kwargs, *einfo = args
    ledger.write(
        "hook",
        hook=hook,
        id=task_id,
        error=type(error).__name__,
        args=list(task_args),
        kwargs=task_kwargs,
        request=task.request.id,
        traceback="".join(str(info.traceback) for info in einfo if info),
        **facts,
    )


@task_failure.connect
def _on_task_failure(
    sender: Any,
    task_id: str,
    exception: Any,
    args: Any,
    kwargs: Any,
    einfo: Any,
    **_: Any,
) -> None:
    if isinstance(sender, Hooked):
        _note(sender, "task_failure", exception, (task_id, args, kwargs, einfo))


@shared_task
def errback(request: Any, exc: Any, traceback: Any) -> None:
    ledger.write(
        "hook",
        hook="errback",
        id=request.id,
        error=type(exc).__name__,
        args=list(request.args),
        kwargs=request.kwargs,
        request=request.id,
        traceback=str(traceback),
    )


@shared_task
def errback_as_task(task_id: str) -> None:
    ledger.write("hook", hook="errback_as_task", id=task_id)


@shared_task(bind=True, base=Hooked)
def hooked_failure(self: Any, *args: Any, **kwargs: Any) -> None:
    _run(self)
    raise ValueError("no")  # here


@shared_task(**hanging, base=Hooked)
def hooked_hang(self: Any, *args: Any, **kwargs: Any) -> None:
    _run(self)
    time.sleep(LONG)  # here


@shared_task(bind=True, base=Hooked)
def hooked_loss(self: Any, *args: Any, **kwargs: Any) -> None:
    _run(self)
    ctypes.string_at(0)  # here


class Hanging(Hooked):
    """Has a hook that hangs."""

    def on_failure(self, exc: Any, task_id: str, *_: Any) -> None:
        ledger.write("hanging", id=task_id)
        _hold_the_gil()
        ledger.write("awake", id=task_id)


@shared_task(**hanging, base=Hanging)
def hang_in_hook_after_hang(self: Any) -> None:
    _run(self)
    time.sleep(LONG)


@shared_task(bind=True, base=Hanging)
def hang_in_hook_after_loss(self: Any) -> None:
    _run(self)
    os.kill(os.getpid(), signal.SIGKILL)


class Lingering(Hooked):
    """Has a hook that hangs when the success is stored already."""

    def on_success(self, *_: Any) -> None:
        time.sleep(LONG)


@shared_task(**hanging, base=Lingering)
def hang_in_hook_after_success(self: Any) -> str:
    _run(self)
    return "done"


class Raising(Hooked):
    """Has a hook that raises."""

    def on_failure(self, exc: Any, *args: Any) -> None:
        super().on_failure(exc, *args)
        raise RuntimeError("in a hook")


@shared_task(bind=True, base=Raising)
def raise_in_hook(self: Any) -> None:
    _run(self)
    os.kill(os.getpid(), signal.SIGKILL)


class Dying(Hooked):
    """Has a hook that kills its process."""

    def on_failure(self, exc: Any, *args: Any) -> None:
        super().on_failure(exc, *args)
        os.kill(os.getpid(), signal.SIGKILL)


@shared_task(bind=True, base=Dying)
def die_in_hook(self: Any) -> None:
    _run(self)
    os.kill(os.getpid(), signal.SIGKILL)


# With Django's database.


@shared_task(**hanging)
def hold_a_row(self: Any, name: str) -> None:
    _run(self)
    _hold(name)


@shared_task(bind=True, max_strikes=1)
def hold_a_row_for_long(self: Any, name: str) -> None:
    _run(self)
    _hold(name)


def _hold(name: str) -> None:
    from django.contrib.auth.models import Group
    from django.db import transaction

    with transaction.atomic():
        Group.objects.select_for_update().get(name=name)
        ledger.write("locked", name=name)
        _sleep_in_the_database()


def _sleep_in_the_database() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_sleep({LONG})")  # here


def _is_connected() -> bool:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return bool(cursor.fetchone() == (1,))


@shared_task(bind=True, soft_time_limit=SOFT_LIMIT)
def query_until_soft_limit(self: Any) -> bool:
    """Catch the soft limit and go on with the same connection."""
    _run(self)
    try:
        _sleep_in_the_database()
    except SoftTimeLimitExceeded:
        return _is_connected()
    return False


@shared_task(bind=True, soft_time_limit=SOFT_LIMIT)
def query_beyond_soft_limit(self: Any) -> None:
    _run(self)
    _sleep_in_the_database()


@shared_task(bind=True, soft_time_limit=SOFT_LIMIT)
def transaction_beyond_soft_limit(self: Any, name: str) -> None:
    _run(self)
    _hold(name)


@shared_task(bind=True)
def is_connected(self: Any) -> bool:
    _run(self)
    return _is_connected()
