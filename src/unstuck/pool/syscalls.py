"""The numbers of the system calls that a process can wait in."""

from __future__ import annotations

import os
import sys

NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "open": (2, None),
    "poll": (7, None),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "readv": (19, 65),
    "writev": (20, 66),
    "select": (23, None),
    "pause": (34, None),
    "nanosleep": (35, 101),
    "sendfile": (40, 71),
    "connect": (42, 203),
    "accept": (43, 202),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "clone": (56, 220),
    "fork": (57, None),
    "vfork": (58, None),
    "wait4": (61, 260),
    "semop": (65, 193),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "fcntl": (72, 25),
    "flock": (73, 32),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133),
    "sync": (162, 81),
    "futex": (202, 98),
    "io_getevents": (208, 4),
    "semtimedop": (220, 192),
    "clock_nanosleep": (230, 115),
    "epoll_wait": (232, None),
    "mq_timedsend": (242, 182),
    "mq_timedreceive": (243, 183),
    "waitid": (247, 95),
    "openat": (257, 56),
    "pselect6": (270, 72),
    "ppoll": (271, 73),
    "epoll_pwait": (281, 22),
    "accept4": (288, 242),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "recvmmsg": (299, 243),
    "syncfs": (306, 267),
    "sendmmsg": (307, 269),
    "getrandom": (318, 278),
    "io_uring_enter": (426, 426),
    "clone3": (435, 435),
    "epoll_pwait2": (441, 441),
    "futex_waitv": (449, 449),
}
"""On x86_64 and on aarch64."""

MACHINES = ("x86_64", "aarch64")


def names_on(machine: str) -> dict[int, str]:
    """Number to name; of a machine that we do not know, nothing."""
    if machine not in MACHINES:
        return {}
    column = MACHINES.index(machine)
    numbers = {name: columns[column] for name, columns in NUMBERS.items()}
    return {number: name for name, number in numbers.items() if number is not None}


# A process of 32 bits has other numbers, and its children have what it has.
NAMES = names_on(os.uname().machine) if sys.maxsize > 2**32 else {}
