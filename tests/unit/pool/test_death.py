"""Why a process ended, and what the kernel's files tell of memory."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from unstuck.metrics.tally import COUNTED
from unstuck.pool.death import MIB, Death, OomKills, cause_of, kind_of, memory_limit

OOM = "out of memory (killed by the kernel's OOM killer)"


def death(exitcode: int, **facts: Any) -> Death:
    """A death with this exit code; facts that a test does not name are none."""
    known = {"cpu_seconds": 0.0, "peak_rss_bytes": 0, "age_seconds": 0.0}
    return Death(pid=7, exitcode=exitcode, **{**known, **facts})


class TestDeath:
    def test_it_crosses_a_pipe(self) -> None:
        """What main reads is what the supervisor wrote."""
        told = death(-9, cpu_seconds=1.5, peak_rss_bytes=MIB, oom_kills=2)

        assert Death.from_wire(json.loads(json.dumps(told.to_wire()))) == told


class TestCause:
    @pytest.mark.parametrize(
        ("exitcode", "cause"),
        [
            (0, "exited with code 0"),
            (3, "exited with code 3"),
            (-signal.SIGTERM, "killed by SIGTERM"),
            (-signal.SIGKILL, "killed by SIGKILL from outside"),
            (-signal.SIGSEGV, "crashed with SIGSEGV (segmentation fault)"),
            (-signal.SIGBUS, "crashed with SIGBUS (bus error)"),
            (-signal.SIGFPE, "crashed with SIGFPE (arithmetic error)"),
            (-signal.SIGILL, "crashed with SIGILL (illegal instruction)"),
            (-signal.SIGABRT, "crashed with SIGABRT (aborted)"),
            (-(signal.SIGRTMIN + 2), f"killed by signal {signal.SIGRTMIN + 2}"),
        ],
    )
    def test_it_is_one_line_in_words(self, exitcode: int, cause: str) -> None:
        """A code, a crash of its own or a signal from somebody."""
        assert cause_of(death(exitcode)) == cause

    def test_the_cpu_limit_says_how_much_it_used(self) -> None:
        """The one case that CPU seconds explain."""
        cause = cause_of(death(-signal.SIGXCPU, cpu_seconds=59.8))

        assert cause == "killed by SIGXCPU after 60 s of CPU time"

    @pytest.mark.parametrize(
        ("exitcode", "ended_by_us", "busy", "kind"),
        [
            (0, "", False, "recycled"),
            (0, "", True, "exited"),
            (3, "", False, "exited"),
            (-signal.SIGSEGV, "", True, "crashed"),
            (-signal.SIGTERM, "", True, "killed"),
            (-signal.SIGKILL, "", True, "killed"),
            (-signal.SIGKILL, "hard limit", True, "hard_limit"),
            (-signal.SIGKILL, "memory: 9 MiB used of 8", True, "memory_limit"),
            (-signal.SIGTERM, "ended by SIGTERM on request", True, "request"),
            (0, "shutdown", False, "shutdown"),
            (-signal.SIGKILL, "it did not start in time", False, "other"),
        ],
    )
    def test_it_is_counted_as_one_of_few(
        self, exitcode: int, ended_by_us: str, busy: bool, kind: str
    ) -> None:
        """What we did wins here, too."""
        assert kind_of(death(exitcode), ended_by_us=ended_by_us, busy=busy) == kind
        assert kind in COUNTED["children"]

    def test_the_oom_killer_is_counted_apart(self) -> None:
        """From somebody with a SIGKILL."""
        killed = death(-signal.SIGKILL, oom_kills=1)
        assert kind_of(killed, ended_by_us="", busy=True) == "out_of_memory"

    def test_what_we_did_wins(self) -> None:
        """Whatever the kernel saw of it."""
        killed = death(-signal.SIGKILL, oom_kills=1)

        assert cause_of(killed, ended_by_us="shutdown") == "shutdown"

    @pytest.mark.parametrize(
        ("peak", "rss", "limit", "memory"),
        [
            (0, None, None, ""),
            (0, 300 * MIB, None, ": 300 MiB"),
            (0, None, 512 * MIB, ": 512 MiB allowed"),
            (500 * MIB, None, 512 * MIB, ": 500 MiB of 512 MiB allowed"),
            (500 * MIB, 300 * MIB, 512 * MIB, ": 500 MiB of 512 MiB allowed"),
            (0, 300 * MIB, 512 * MIB, ": 300 MiB of 512 MiB allowed"),
        ],
    )
    def test_the_oom_killer_is_a_witness(
        self, peak: int, rss: int | None, limit: int | None, memory: str
    ) -> None:
        """With what the process held at most, and the limit, as far as known."""
        killed = death(-signal.SIGKILL, oom_kills=1, peak_rss_bytes=peak)

        cause = cause_of(killed, rss_bytes=rss, memory_limit=limit)

        assert cause == OOM + memory

    def test_the_oom_killer_does_not_explain_an_exit(self) -> None:
        """It killed another process at that time."""
        assert cause_of(death(1, oom_kills=1)) == "exited with code 1"

    @pytest.mark.parametrize(
        ("peak", "rss", "cause"),
        [
            (0, 90, "killed by SIGKILL, probably out of memory (90 MiB of 100 MiB"),
            (95, None, "killed by SIGKILL, probably out of memory (95 MiB of 100 MiB"),
            (95, 89, "killed by SIGKILL from outside"),
            (0, None, "killed by SIGKILL from outside"),
        ],
    )
    def test_without_a_witness_memory_near_the_limit_speaks(
        self, peak: int, rss: int | None, cause: str
    ) -> None:
        """What it held last; at most, where nobody looked."""
        killed = death(-signal.SIGKILL, peak_rss_bytes=peak * MIB)
        last = None if rss is None else rss * MIB

        told = cause_of(killed, rss_bytes=last, memory_limit=100 * MIB)

        assert told.startswith(cause)

    def test_without_a_limit_nothing_is_near_it(self) -> None:
        """A big process that somebody killed."""
        killed = death(-signal.SIGKILL, peak_rss_bytes=10_000 * MIB)

        assert cause_of(killed) == "killed by SIGKILL from outside"


class Machine:
    """A machine's /proc and cgroups as files that a test writes."""

    def __init__(self, directory: Path) -> None:
        self.proc = directory / "proc"
        self.root = directory / "root"
        self.write("proc/self/cgroup", "")
        self.write("proc/self/mountinfo", "")
        self.vmstat(0)

    def write(self, path: str, text: str) -> None:
        """Write a file, with its directories."""
        file = self.proc.parent / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def vmstat(self, kills: int) -> None:
        """What the whole machine counts."""
        self.write("proc/vmstat", f"oom_kill_x 99\noom_kill {kills}\npgfree 1\n")

    def be_in(self, *cgroups: str) -> None:
        """The lines of /proc/self/cgroup."""
        self.write("proc/self/cgroup", "".join(f"{line}\n" for line in cgroups))

    def mount(self, *mounts: tuple[str, str, str, str]) -> None:
        """The mounted root, the mount point, the kind and its options, each."""
        lines = [
            f"31 23 0:28 {mounted} {point} rw,relatime shared:9 - {kind} cgroup {options}\n"
            for mounted, point, kind, options in mounts
        ]
        disk = "23 1 8:1 / / rw - ext4 /dev/root rw\n"
        self.write("proc/self/mountinfo", disk + "".join(lines))

    def group(self, path: str, **files: object) -> None:
        """The files of one cgroup; two underscores stand for a dot."""
        for name, value in files.items():
            self.write(f"root{path}/{name.replace('__', '.')}", f"{value}\n")

    def oom_kills(self) -> OomKills:
        """Counts on this machine."""
        return OomKills(proc=self.proc, root=self.root)

    @property
    def memory_limit(self) -> int | None:
        """The limit on this machine."""
        return memory_limit(proc=self.proc, root=self.root)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine without any cgroup."""
    return Machine(tmp_path)


V2 = ("/", "/sys/fs/cgroup", "cgroup2", "rw,nsdelegate")
V1 = ("/", "/sys/fs/cgroup/memory", "cgroup", "rw,memory")
NO_LIMIT_V1 = 9223372036854771712


def events(kills: int) -> str:
    """The content of `memory.events`."""
    return f"low 0\nhigh 0\nmax 7\noom 3\noom_kill {kills}\noom_group_kill 0"


def oom_control(kills: int) -> str:
    """The content of `memory.oom_control`."""
    return f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}"


class TestOomKills:
    def test_version_2_counts_in_our_cgroup(self, machine: Machine) -> None:
        """Only what is new; what other groups count is not ours."""
        machine.be_in("0::/system.slice/shop.service")
        machine.mount(V2)
        machine.group("/sys/fs/cgroup/system.slice", memory__events=events(50))
        own = "/sys/fs/cgroup/system.slice/shop.service"
        machine.group(own, memory__events=events(5))
        kills = machine.oom_kills()

        first = kills.new()
        machine.group(own, memory__events=events(7))
        machine.group("/sys/fs/cgroup/system.slice", memory__events=events(60))

        assert (first, kills.new(), kills.new()) == (0, 2, 0)

    def test_version_1_counts_in_our_cgroup(self, machine: Machine) -> None:
        """Beside a version 2 that has nothing to do with memory."""
        machine.be_in("4:memory:/shop", "3:cpu,cpuacct:/other", "0::/elsewhere")
        machine.mount(
            ("/", "/sys/fs/cgroup/cpu", "cgroup", "rw,cpu,cpuacct"),
            ("/", "/sys/fs/cgroup/unified", "cgroup2", "rw"),
            V1,
        )
        machine.group("/sys/fs/cgroup/unified/elsewhere", cgroup__procs="1")
        machine.group("/sys/fs/cgroup/memory/shop", memory__oom_control=oom_control(1))
        kills = machine.oom_kills()

        machine.group("/sys/fs/cgroup/memory/shop", memory__oom_control=oom_control(2))

        assert kills.new() == 1

    @pytest.mark.parametrize(
        ("path", "mounted"),
        [
            ("/", "/"),
            ("/docker/4711", "/docker/4711"),
            ("/docker/4711", "/"),
            ("/", "/../.."),
            ("/../4712", "/"),
            ("/docker/4711 (deleted)", "/"),
        ],
        ids=["namespace", "bind", "hidden", "parent", "outside", "deleted"],
    )
    def test_in_a_container_what_is_mounted_is_ours(
        self, machine: Machine, path: str, mounted: str
    ) -> None:
        """With a cgroup namespace, without, and where we cannot be found."""
        machine.be_in(f"0::{path}")
        machine.mount((mounted, "/sys/fs/cgroup", "cgroup2", "rw"))
        machine.group("/sys/fs/cgroup", memory__events=events(0))
        kills = machine.oom_kills()

        machine.group("/sys/fs/cgroup", memory__events=events(1))

        assert kills.new() == 1

    def test_a_cgroup_outside_of_the_namespace_is_found_where_it_is_mounted(
        self, machine: Machine
    ) -> None:
        """Path and mount both begin above the root of the namespace."""
        machine.be_in("0::/../shop")
        machine.mount(("/..", "/sys/fs/cgroup", "cgroup2", "rw"))
        machine.group("/sys/fs/cgroup/shop", memory__events=events(0))
        kills = machine.oom_kills()

        machine.group("/sys/fs/cgroup/shop", memory__events=events(1))

        assert kills.new() == 1

    def test_a_cgroup_without_its_own_count_leaves_it_to_the_one_above(
        self, machine: Machine
    ) -> None:
        """Not each has the memory controller."""
        machine.be_in("0::/user.slice/session")
        machine.mount(V2)
        machine.group("/sys/fs/cgroup/user.slice", memory__events=events(0))
        machine.group("/sys/fs/cgroup/user.slice/session", cgroup__procs="1")
        kills = machine.oom_kills()

        machine.group("/sys/fs/cgroup/user.slice", memory__events=events(1))

        assert kills.new() == 1

    def test_a_mount_point_may_have_any_name(self, machine: Machine) -> None:
        """The kernel writes a space as \\040."""
        machine.be_in("0::/")
        machine.mount(("/", r"/my\040groups", "cgroup2", "rw"))
        machine.group("/my groups", memory__events=events(0))
        kills = machine.oom_kills()

        machine.group("/my groups", memory__events=events(1))

        assert kills.new() == 1

    def test_without_a_count_of_a_cgroup_the_machines_counts(
        self, machine: Machine
    ) -> None:
        """The root cgroup has no `memory.events`."""
        machine.be_in("0::/")
        machine.mount(V2)
        machine.group("/sys/fs/cgroup", cgroup__procs="1")
        kills = machine.oom_kills()

        machine.vmstat(4)

        assert kills.new() == 4

    def test_where_nothing_counts_there_is_nothing_new(self, tmp_path: Path) -> None:
        """Not even a /proc."""
        assert OomKills(proc=tmp_path, root=tmp_path).new() == 0

    def test_a_count_that_went_away_is_no_kill(self, machine: Machine) -> None:
        """Nor is one that starts again."""
        machine.vmstat(4)
        kills = machine.oom_kills()
        machine.vmstat(1)
        first = kills.new()
        (machine.proc / "vmstat").unlink()

        assert (first, kills.new()) == (0, 0)

    def test_this_machine_can_be_asked(self) -> None:
        """Whatever it is."""
        assert OomKills().new() >= 0


class TestMemoryLimit:
    def test_version_2(self, machine: Machine) -> None:
        """`memory.max` of our cgroup."""
        machine.be_in("0::/shop")
        machine.mount(V2)
        machine.group("/sys/fs/cgroup/shop", memory__max=200 * MIB)

        assert machine.memory_limit == 200 * MIB

    def test_version_1(self, machine: Machine) -> None:
        """`memory.limit_in_bytes` of our cgroup."""
        machine.be_in("4:memory:/shop")
        machine.mount(V1)
        machine.group("/sys/fs/cgroup/memory/shop", memory__limit_in_bytes=MIB)

        assert machine.memory_limit == MIB

    def test_the_nearest_cgroup_with_a_limit_counts(self, machine: Machine) -> None:
        """`max` is none."""
        machine.be_in("0::/a/b/c")
        machine.mount(V2)
        machine.group("/sys/fs/cgroup/a", memory__max=900 * MIB)
        machine.group("/sys/fs/cgroup/a/b", memory__max=800 * MIB)
        machine.group("/sys/fs/cgroup/a/b/c", memory__max="max")

        assert machine.memory_limit == 800 * MIB

    def test_version_1_says_no_limit_by_a_big_number(self, machine: Machine) -> None:
        """As near to 2**63 as a page allows."""
        machine.be_in("4:memory:/shop")
        machine.mount(V1)
        group = "/sys/fs/cgroup/memory"
        machine.group(group, memory__limit_in_bytes=NO_LIMIT_V1)
        machine.group(f"{group}/shop", memory__limit_in_bytes=NO_LIMIT_V1)

        assert machine.memory_limit is None

    def test_without_a_cgroup_there_is_none(self, machine: Machine) -> None:
        """Nor where nothing is mounted."""
        machine.be_in("0::/shop")

        assert machine.memory_limit is None

    def test_this_machine_can_be_asked(self) -> None:
        """Whatever it is."""
        limit = memory_limit()

        assert limit is None or limit > 0


def test_a_real_death_is_told_as_it_was() -> None:
    """The exit code is the one of `os.waitstatus_to_exitcode()`."""
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    os.kill(pid, signal.SIGTERM)
    _, status = os.waitpid(pid, 0)

    assert cause_of(death(os.waitstatus_to_exitcode(status))) == "killed by SIGTERM"
