"""What a process waits for, as the kernel sees it."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from unstuck.pool import proc
from unstuck.pool.descriptors import Thing, address_of, things_of
from unstuck.pool.syscalls import NAMES

LOOKS = 3
MOST_NAMED = 8
MOST_POLLED = 1024
PATH_LENGTH = 256
SOCKADDR_LENGTH = 128
P_PID = 1

POLLIN, POLLPRI, POLLOUT = 0x1, 0x2, 0x4
"""Of epoll as well."""

POLLFD = struct.Struct("=ihh")

RUNNING = "the CPU (running)"
STATES = {
    "R": RUNNING,
    "T": "stopped by a signal (SIGSTOP)",
    "t": "stopped by a debugger",
    "Z": "nothing (it has ended)",
}
"""Where the state says it all."""

ON_DESCRIPTOR = {
    "read": "read on",
    "pread64": "read on",
    "readv": "read on",
    "preadv": "read on",
    "recvfrom": "read on",
    "recvmsg": "read on",
    "recvmmsg": "read on",
    "write": "write on",
    "pwrite64": "write on",
    "writev": "write on",
    "pwritev": "write on",
    "sendto": "write on",
    "sendmsg": "write on",
    "sendmmsg": "write on",
    "sendfile": "write on",
    "accept": "accept on",
    "accept4": "accept on",
    "flock": "flock on",
    "fcntl": "lock on",
    "fsync": "fsync on",
    "fdatasync": "fsync on",
    "syncfs": "sync on",
}
"""Calls whose first argument is the descriptor."""

PLAIN = {
    "nanosleep": "sleep",
    "clock_nanosleep": "sleep",
    "futex": "a lock (futex)",
    "futex_waitv": "a lock (futex)",
    "pause": "a signal",
    "rt_sigsuspend": "a signal",
    "rt_sigtimedwait": "a signal",
    "semop": "a semaphore",
    "semtimedop": "a semaphore",
    "msgsnd": "a message queue",
    "msgrcv": "a message queue",
    "mq_timedsend": "a message queue",
    "mq_timedreceive": "a message queue",
    "io_getevents": "I/O to complete",
    "io_uring_enter": "I/O to complete",
    "sync": "sync of all disks",
    "getrandom": "random numbers",
    "fork": "a new process to start",
    "vfork": "a new process to start",
    "clone": "a new process to start",
    "clone3": "a new process to start",
}

CHANNELS = {
    "hrtimer_nanosleep": "sleep",
    "do_nanosleep": "sleep",
    "futex_": "a lock (futex)",
    "do_wait": "a child process to end",
    "poll_schedule_timeout": "poll",
    "do_sys_poll": "poll",
    "do_select": "poll",
    "ep_poll": "poll",
    "do_epoll_wait": "poll",
    "pipe_read": "read on a pipe",
    "anon_pipe_read": "read on a pipe",
    "pipe_write": "write on a pipe",
    "anon_pipe_write": "write on a pipe",
    "locks_lock_inode_wait": "a file lock",
    "inet_csk_accept": "accept",
}
"""How the name of a place in the kernel begins, and what is waited for there."""


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that a process is in."""

    pid: int
    name: str
    args: tuple[int, ...]
    may_look: bool
    """Whether the memory of the process can be read without the risk to hang."""

    def memory(self, address: int, size: int) -> bytes:
        """So many bytes of the memory of the process, none when that cannot be."""
        if not self.may_look or not address:
            return b""
        try:
            with open(f"{proc.PROC}/{self.pid}/mem", "rb", buffering=0) as memory:
                return os.pread(memory.fileno(), size, address)
        except (OSError, OverflowError):
            return b""


def waiting_for(pid: int) -> str:
    """In a few words, what the main thread of a process waits for.

    Never hangs. Empty when the process is gone or the kernel does not tell.
    """
    state = proc.state_of(pid)
    if state not in ("S", "D"):
        return STATES.get(state, "")
    # Whoever is in D may hold the lock on its memory, and hold it for ever.
    words = _words_of_call(pid, may_look=state == "S")
    channel = proc.read(f"{pid}/wchan").decode("ascii", "replace").strip("0\n")
    if state == "D":
        place = f"uninterruptible: {channel}" if channel else "uninterruptible"
        return f"{words or 'disk'} ({place})"
    return words or _words_of_channel(channel)


def _words_of_call(pid: int, may_look: bool) -> str:
    """What its arguments point to may have changed while we looked: then look again."""
    words = ""
    before = proc.read(f"{pid}/syscall").split()
    for _ in range(LOOKS):
        words = _described(pid, before, may_look)
        after = proc.read(f"{pid}/syscall").split()
        if after == before:
            break
        before = after
    return words


def _described(pid: int, fields: list[bytes], may_look: bool) -> str:
    if fields == [b"running"]:
        return RUNNING
    if len(fields) < 7:  # Not in a call, or not for us to know.
        return ""
    name = NAMES.get(int(fields[0]), "")
    args = tuple(int(field, 16) for field in fields[1:7])
    call = Call(pid, name, args, may_look)
    if name in ON_DESCRIPTOR:
        return _joined(pid, [(ON_DESCRIPTOR[name], args[0])])
    if name in SPECIAL:
        return SPECIAL[name](call)
    return PLAIN.get(name, "")


def _words_of_channel(channel: str) -> str:
    for beginning, words in CHANNELS.items():
        if channel.startswith(beginning):
            return words
    return f"the kernel ({channel})" if channel else ""


# Calls with arguments that tell more.


def _poll(call: Call) -> str:
    address, count = call.args[:2]
    if not count:
        return "sleep"
    array = call.memory(address, min(count, MOST_POLLED) * POLLFD.size)
    whole = array[: len(array) // POLLFD.size * POLLFD.size]
    polled = [(fd, events) for fd, events, _ in POLLFD.iter_unpack(whole) if fd >= 0]
    return _polled(call.pid, polled)


def _select(call: Call) -> str:
    count = min(call.args[0], MOST_POLLED)
    if not any(call.args[1:4]):
        return "sleep"
    events: dict[int, int] = {}
    for address, event in zip(call.args[1:3], (POLLIN, POLLOUT), strict=True):
        bits = int.from_bytes(call.memory(address, (count + 7) // 8), "little")
        for fd in range(count):
            if bits >> fd & 1:
                events[fd] = events.get(fd, 0) | event
    return _polled(call.pid, events.items())


def _epoll(call: Call) -> str:
    polled = []
    for line in proc.read(f"{call.pid}/fdinfo/{call.args[0]}").splitlines():
        match line.split():
            case [b"tfd:", fd, b"events:", events, *_]:
                polled.append((int(fd), int(events, 16)))
    return _polled(call.pid, polled)


def _connect(call: Call) -> str:
    fd, address, size = call.args[:3]
    peer = address_of(call.memory(address, min(size, SOCKADDR_LENGTH)))
    return f"connect to {peer}" if peer else _joined(call.pid, [("connect to", fd)])


def _open(call: Call) -> str:
    address = call.args[0 if call.name == "open" else 1]
    path = call.memory(address, PATH_LENGTH).split(b"\0")[0]
    return f"open of {path.decode('utf-8', 'replace') or 'a file'}"


def _wait4(call: Call) -> str:
    return _end_of(call.args[0] & 0xFFFFFFFF)


def _waitid(call: Call) -> str:
    return _end_of(call.args[1] if call.args[0] == P_PID else 0)


def _end_of(pid: int) -> str:
    if not 0 < pid < 0x80000000:
        return "a child process to end"
    return f"process {pid} ({proc.command_of(pid)}) to end"


SPECIAL: Mapping[str, Callable[[Call], str]] = {
    "poll": _poll,
    "ppoll": _poll,
    "select": _select,
    "pselect6": _select,
    "epoll_wait": _epoll,
    "epoll_pwait": _epoll,
    "epoll_pwait2": _epoll,
    "connect": _connect,
    "open": _open,
    "openat": _open,
    "wait4": _wait4,
    "waitid": _waitid,
}


# Words for descriptors.


def _polled(pid: int, polled: Iterable[tuple[int, int]]) -> str:
    return _joined(pid, [(_doing(events), fd) for fd, events in polled]) or "poll"


def _doing(events: int) -> str:
    names = {POLLIN | POLLPRI: "read", POLLOUT: "write"}
    asked = [name for event, name in names.items() if events & event]
    return f"{' or '.join(asked) or 'poll'} on"


def _joined(pid: int, waits: list[tuple[str, int]]) -> str:
    """As in ``read on 10.0.0.5:5432, 10.0.0.6:6379, write on a pipe and 2 more``."""
    shown = waits[:MOST_NAMED]
    things = things_of(pid, [fd for _, fd in shown])
    names: dict[str, list[str]] = {}
    for doing, fd in shown:
        thing: Thing = things[fd]
        names.setdefault(thing.doing or doing, []).append(thing.name)
    words = ", ".join(f"{doing} {', '.join(of)}" for doing, of in names.items())
    left = len(waits) - len(shown)
    return f"{words} and {left} more" if left else words
