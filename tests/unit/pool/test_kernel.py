"""What a process waits for: real ones that block, and what the kernel does not tell."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.pool.programs import running
from tests.waiting import eventually
from unstuck.pool import proc
from unstuck.pool.kernel import waiting_for
from unstuck.pool.syscalls import MACHINES, NUMBERS, names_on

READY = "import sys; print('ready', flush=True)\n"

TO_PEER = """
import select, socket, sys
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
"""


def soon(pid: int, words: str) -> None:
    """Assert that this is what the process waits for, as soon as it got there."""

    def probe() -> bool:
        assert waiting_for(pid) == words
        return True

    eventually(probe)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A peer on this machine that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """A peer on this machine that takes no more connections."""
    waiting = []
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        try:
            while True:
                client = socket.socket()
                waiting.append(client)
                client.settimeout(0.2)
                if client.connect_ex(server.getsockname()) == errno.EAGAIN:
                    break
            yield server
        finally:
            for client in waiting:
                client.close()


def port_of(server: socket.socket) -> int:
    """Where it listens."""
    return int(server.getsockname()[1])


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a process 7 in a /proc of our own making."""
    monkeypatch.setattr(proc, "PROC", str(tmp_path))
    directory = tmp_path / "7"
    directory.mkdir()
    return directory


# Time, locks, signals, the CPU.


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import time; time.sleep(600)", "sleep"),
        ("import select; select.select([], [], [], 600)", "sleep"),
        ("import select; select.poll().poll(600_000)", "sleep"),
        (
            "import threading; l = threading.Lock(); l.acquire(); l.acquire()",
            "a lock (futex)",
        ),
        ("import threading; threading.Event().wait(600)", "a lock (futex)"),
        ("import signal; signal.pause()", "a signal"),
        ("import signal; signal.sigwait([signal.SIGUSR1])", "a signal"),
        ("while True: pass", "the CPU (running)"),
    ],
)
def test_what_needs_no_peer(program: str, words: str) -> None:
    """A few words each."""
    with running(READY + program) as process:
        soon(process.pid, words)


def test_a_process_may_be_stopped() -> None:
    """And sleeps on when it is woken, in a call that the kernel restarted."""
    with running(READY + "import time; time.sleep(600)") as process:
        soon(process.pid, "sleep")
        process.send_signal(signal.SIGSTOP)
        soon(process.pid, "stopped by a signal (SIGSTOP)")
        process.send_signal(signal.SIGCONT)
        soon(process.pid, "sleep")


def test_a_process_that_ended_waits_for_nothing() -> None:
    """First it is a zombie, then it is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    try:
        soon(process.pid, "nothing (it has ended)")
    finally:
        process.wait()
    assert waiting_for(process.pid) == ""


# Peers.


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("peer.recv(1)", "read on {}"),
        ("peer.settimeout(600); peer.recv(1)", "read on {}"),
        ("while True: peer.send(b'x' * 65536)", "write on {}"),
        (
            "poll = select.poll(); poll.register(peer, select.POLLIN); poll.poll()",
            "read on {}",
        ),
        (
            "peer.setblocking(False)\n"
            "try:\n"
            "    while True: peer.send(b'x' * 65536)\n"
            "except BlockingIOError: pass\n"
            "poll = select.poll(); poll.register(peer, select.POLLOUT); poll.poll()",
            "write on {}",
        ),
        ("select.select([peer], [], [])", "read on {}"),
        ("select.select([peer], [], [], 600)", "read on {}"),
        (
            "poll = select.epoll(); poll.register(peer, select.EPOLLIN); poll.poll()",
            "read on {}",
        ),
    ],
)
def test_a_peer_is_named(program: str, words: str, listener: socket.socket) -> None:
    """However one waits for it."""
    port = port_of(listener)
    with running(TO_PEER + program, port) as process:
        soon(process.pid, words.format(f"127.0.0.1:{port}"))


@pytest.mark.parametrize("timeout", ["None", "600"])
def test_a_peer_that_takes_no_connection_is_named(
    timeout: str, deaf: socket.socket
) -> None:
    """In connect(2) itself, and in the poll(2) of those who have a timeout."""
    port = port_of(deaf)
    program = READY + (
        "import socket\n"
        f"socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout={timeout})"
    )
    with running(program, port) as process:
        soon(process.pid, f"connect to 127.0.0.1:{port}")


def test_several_peers_are_joined(listener: socket.socket) -> None:
    """By what is waited for."""
    port = port_of(listener)
    program = """
        import os, select, socket, sys
        poll = select.poll()
        for _ in range(2):
            peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
            poll.register(os.dup(peer.fileno()), select.POLLIN)
        poll.register(os.pipe()[0], 0)
        print("ready", flush=True)
        poll.poll()
    """
    with running(program, port) as process:
        peer = f"127.0.0.1:{port}"
        soon(process.pid, f"read on {peer}, {peer}, poll on a pipe")


def test_not_all_of_many_are_named() -> None:
    """Eight, and how many more there are."""
    program = """
        import os, select
        poll = select.poll()
        for _ in range(11):
            poll.register(os.pipe()[0], select.POLLIN)
        print("ready", flush=True)
        poll.poll()
    """
    with running(program) as process:
        soon(process.pid, f"read on {', '.join(['a pipe'] * 8)} and 3 more")


def test_one_who_listens_waits_for_a_connection() -> None:
    """In accept(2), and in select(2) over the listening socket."""
    program = """
        import select, socket, sys
        server = socket.create_server(("127.0.0.1", 0))
        print("ready", flush=True)
        server.accept() if sys.argv[1] == "accept" else select.select([server], [], [])
    """
    for how in ("accept", "select"):
        with running(program, how) as process:
            eventually(
                lambda pid=process.pid: waiting_for(pid).startswith(
                    "accept on 127.0.0.1:"
                )
            )


def test_a_resolver_is_told_from_a_server() -> None:
    """Names are looked up over UDP."""
    program = """
        import socket, sys
        peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        peer.connect(("127.0.0.1", int(sys.argv[1])))
        print("ready", flush=True)
        peer.recv(1)
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.bind(("127.0.0.1", 0))
        port = port_of(resolver)
        with running(program, port) as process:
            soon(process.pid, f"read on 127.0.0.1:{port} (udp)")


@pytest.mark.skipif(
    not Path("/proc/sys/net/ipv6/conf/lo").exists(), reason="no IPv6 here"
)
@pytest.mark.parametrize(
    ("host", "words"),
    [("::1", "read on [::1]:{}"), ("::ffff:127.0.0.1", "read on 127.0.0.1:{}")],
)
def test_ipv6_is_written_as_usual(host: str, words: str) -> None:
    """In brackets, and IPv4 as what it is."""
    program = """
        import socket, sys
        peer = socket.socket(socket.AF_INET6)
        peer.connect((sys.argv[1], int(sys.argv[2])))
        print("ready", flush=True)
        peer.recv(1)
    """
    with socket.socket(socket.AF_INET6) as server:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", 0))
        server.listen()
        port = port_of(server)
        with running(program, host, port) as process:
            soon(process.pid, words.format(port))


def test_a_unix_socket_is_named_by_the_path_of_its_server(tmp_path: Path) -> None:
    """The client's own end has none."""
    path = str(tmp_path / "server")
    program = """
        import socket, sys
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(sys.argv[1])
        print("ready", flush=True)
        peer.recv(1)
    """
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        with running(program, path) as process:
            soon(process.pid, "read on a unix socket")
            accepted, _ = server.accept()
            with accepted:
                soon(process.pid, f"read on {path}")


def test_a_unix_socket_that_takes_no_connection_is_named(tmp_path: Path) -> None:
    """The path stands in what was asked for."""
    path = str(tmp_path / "server")
    program = """
        import socket, sys
        print("ready", flush=True)
        peers = []
        while True:
            peers.append(socket.socket(socket.AF_UNIX))
            peers[-1].connect(sys.argv[1])
    """
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(0)
        with running(program, path) as process:
            soon(process.pid, f"connect to {path}")


# Files, pipes, processes.


def test_the_lock_on_a_file_is_named(tmp_path: Path) -> None:
    """Both kinds of it."""
    path = tmp_path / "lock"
    program = """
        import fcntl, os, signal, sys
        lock = fcntl.flock if sys.argv[2] == "flock" else fcntl.lockf
        hear, tell = os.pipe()
        if not os.fork():
            file = open(sys.argv[1], "w")
            lock(file, fcntl.LOCK_EX)
            os.write(tell, b".")
            signal.pause()
        os.read(hear, 1)
        print("ready", flush=True)
        lock(open(sys.argv[1], "w"), fcntl.LOCK_EX)
    """
    for how, words in (("flock", "flock on"), ("lockf", "lock on")):
        with running(program, path, how) as process:
            soon(process.pid, f"{words} {path}")


def test_a_file_that_does_not_open_is_named(tmp_path: Path) -> None:
    """A pipe with a name opens when both ends are there."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with running(READY + "open(sys.argv[1])", path) as process:
        soon(process.pid, f"open of {path}")


def test_the_other_end_of_a_pipe_is_named() -> None:
    """If a descendant holds it; here a grandchild does."""
    program = """
        import os
        ours, theirs = os.pipe()
        os.set_inheritable(theirs, True)
        if not os.fork():
            if not os.fork():
                os.execvp("sleep", ["sleep", "600"])
            os.close(theirs)
            os.close(ours)
            print("ready", flush=True)
            os.wait()
        os.close(theirs)
        os.read(ours, 1)
    """
    with running(program) as process:
        [child] = proc.children_of(process.pid)
        [grandchild] = proc.children_of(child)

        soon(process.pid, f"read on a pipe of process {grandchild} (sleep 600)")


def test_a_process_that_is_waited_for_is_named() -> None:
    """With its command line; whoever waits for any child says so."""
    program = """
        import os, subprocess, sys
        child = subprocess.Popen(["sleep", "600"])
        print("ready", flush=True)
        {
            "one": child.wait,
            "any": os.wait,
            "id": lambda: os.waitid(os.P_PID, child.pid, os.WEXITED),
        }[sys.argv[1]]()
    """
    for how in ("one", "id"):
        with running(program, how) as process:
            [child] = proc.children_of(process.pid)
            soon(process.pid, f"process {child} (sleep 600) to end")
    with running(program, "any") as process:
        soon(process.pid, "a child process to end")


def test_who_cannot_be_interrupted_says_so(tmp_path: Path) -> None:
    """A parent that lent its memory to a child which does not get to its program."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = READY + (
        "import os\n"
        "stdin = (os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)\n"
        "os.posix_spawn('/bin/true', ['true'], {}, file_actions=[stdin])"
    )
    with running(program, fifo) as process:
        eventually(
            lambda: waiting_for(process.pid).startswith(
                "a new process to start (uninterruptible"
            )
        )


# What the kernel does not tell.


@pytest.mark.parametrize(
    ("state", "channel", "words"),
    [
        ("S", "hrtimer_nanosleep", "sleep"),
        ("S", "futex_wait_queue", "a lock (futex)"),
        ("S", "poll_schedule_timeout.constprop.0", "poll"),
        ("S", "rpc_wait_bit_killable", "the kernel (rpc_wait_bit_killable)"),
        ("S", "0", ""),
        ("D", "folio_wait_bit", "disk (uninterruptible: folio_wait_bit)"),
        ("D", "0", "disk (uninterruptible)"),
        ("t", "ptrace_stop", "stopped by a debugger"),
    ],
)
def test_without_the_right_to_look_the_place_in_the_kernel_must_do(
    fake: Path, state: str, channel: str, words: str
) -> None:
    """As it is under a strict Yama."""
    (fake / "stat").write_text(f"7 (python) {state} 1 7 7 0")
    (fake / "wchan").write_text(channel)

    assert waiting_for(7) == words


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("running", "the CPU (running)"),
        ("-1 0x7ffd 0x7f00", ""),
        ("999 0x0 0x0 0x0 0x0 0x0 0x0 0x7ffd 0x7f00", ""),
        ("0 0x5 0x0 0x0 0x0 0x0 0x0 0x7ffd 0x7f00", "read on descriptor 5"),
        ("7 0x10 0x1 0x0 0x0 0x0 0x0 0x7ffd 0x7f00", "poll"),
        ("270 0x5 0x10 0x0 0x0 0x0 0x0 0x7ffd 0x7f00", "poll"),
        ("232 0x5 0x10 0x0 0x0 0x0 0x0 0x7ffd 0x7f00", "poll"),
        (
            "42 0x5 0x10 0x10 0x0 0x0 0x0 0x7ffd 0x7f00",
            "connect to descriptor 5",
        ),
        (
            "257 0x5 0xffffffffffffffff 0x0 0x0 0x0 0x0 0x7ffd 0x7f00",
            "open of a file",
        ),
    ],
)
def test_a_call_is_told_as_far_as_it_can_be_read(
    fake: Path, monkeypatch: pytest.MonkeyPatch, call: str, words: str
) -> None:
    """Neither memory nor descriptors are there."""
    monkeypatch.setattr("unstuck.pool.kernel.NAMES", names_on("x86_64"))
    (fake / "stat").write_text("7 (python) S 1 7 7 0")
    (fake / "syscall").write_text(call)
    (fake / "mem").write_bytes(b"")

    assert waiting_for(7) == words


def test_each_machine_has_its_own_numbers() -> None:
    """No number twice, and none where we know nothing."""
    x86_64, aarch64 = map(names_on, MACHINES)

    assert len(x86_64) == len(NUMBERS)
    assert aarch64[73] == "ppoll"
    assert len(aarch64) == sum(arm is not None for _, arm in NUMBERS.values())
    assert names_on("s390x") == {}
