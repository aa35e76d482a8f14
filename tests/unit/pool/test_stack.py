"""Stacks: real dumps of faulthandler, made readable."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from tests.unit.pool.programs import running
from tests.waiting import eventually
from unstuck.core.frames import OTHER_THREADS
from unstuck.letters.letter import guilty_frame
from unstuck.pool import stack
from unstuck.pool.stack import HERE, is_complete, of_frame, readable

PRELUDE = """
import faulthandler, signal, sys, threading, time
faulthandler.register(signal.SIGUSR2, open(sys.argv[1], "ab"), all_threads=True)

def ready():
    print(threading.get_ident(), file=open(sys.argv[1] + ".ident", "w"), flush=True)
    print("ready", flush=True)
"""

MAIN = 0x1F
DUMP = b"""Thread 0x000000000000002e (most recent call first):
  File "/srv/shop/pump.py", line 4 in pump
  File "/srv/lib/python3.11/threading.py", line 975 in run

Current thread 0x000000000000001f (most recent call first):
  File "/srv/lib/python3.11/socket.py", line 706 in readinto
  File "/srv/shop/bank.py", line 8 in ask
  File "/srv/shop/tasks.py", line 20 in pay
  File "/srv/venv/bin/celery", line 8 in <module>
"""


def dumped(program: str, tmp_path: Path, inner: str = "<module>") -> tuple[bytes, int]:
    """What a program writes when it is asked where it stands, and its main thread.

    Asked again until it stands in the function ``inner``.
    """
    file = tmp_path / "dump"
    with running(PRELUDE + textwrap.dedent(program), file) as process:
        main = int((tmp_path / "dump.ident").read_text())

        def dump() -> bytes:
            file.write_bytes(b"")
            process.send_signal(signal.SIGUSR2)
            eventually(lambda: is_complete(file.read_bytes(), main))
            last = file.read_bytes().rpartition(b"hread 0x")[2].splitlines()
            assert last[1].endswith(f" in {inner}".encode())
            return file.read_bytes()

        return eventually(dump), main


def crashed(program: str) -> bytes:
    """What a program writes when it crashes."""
    program = "import faulthandler; faulthandler.enable()\n" + textwrap.dedent(program)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert ended.returncode == -signal.SIGSEGV
    return ended.stderr


def written(directory: Path, name: str, source: str) -> Path:
    """A file of a program."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source).lstrip())
    return path


def marked(text: str) -> list[str]:
    """The lines with the mark."""
    return [line for line in text.splitlines() if line.endswith(HERE)]


# Whether a dump is complete.


def test_a_dump_is_complete_when_the_main_thread_is_in_it(tmp_path: Path) -> None:
    """Cut anywhere before, it is not."""
    program = """
        for _ in range(3):
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        ready()
        time.sleep(600)
    """

    dump, main = dumped(program, tmp_path)

    assert dump.count(b"hread 0x") == 4
    assert is_complete(dump)
    assert not any(is_complete(dump[:end], main) for end in range(len(dump)))


def test_a_dump_of_one_thread_is_complete(tmp_path: Path) -> None:
    """There is nothing but the main thread."""
    dump, main = dumped("ready(); time.sleep(600)", tmp_path)

    assert is_complete(dump)
    assert not any(is_complete(dump[:end]) for end in range(len(dump)))
    assert not is_complete(dump, main + 1)


def test_a_dump_of_a_deep_stack_ends_in_dots(tmp_path: Path) -> None:
    """It is complete as far as it goes. Python 3.13.0 leaves out the dots."""
    program = """
        def down(steps):
            if steps:
                return down(steps - 1)
            ready()
            time.sleep(600)

        down(300)
    """

    dump, main = dumped(program, tmp_path, inner="down")

    assert not dump.endswith(b" in <module>\n")
    assert is_complete(dump.removesuffix(b"  ...\n"), main)
    lines = readable(dump, main).splitlines()
    assert lines[1] == "  ..."
    assert lines.count("  ...") == 1
    assert "  [Previous line repeated 96 more times]" in lines


def test_a_child_that_a_thread_forked_has_the_bottom_of_that_thread(
    tmp_path: Path,
) -> None:
    """Which is complete for whoever knows that it is the main thread."""
    program = """
        import os

        def fork():
            if os.fork():
                return
            ready()
            os.kill(os.getpid(), signal.SIGUSR2)
            signal.pause()

        thread = threading.Thread(target=fork)
        thread.start()
        time.sleep(600)
    """
    file = tmp_path / "dump"
    with running(PRELUDE + textwrap.dedent(program), file):
        eventually(lambda: b"_bootstrap\n" in file.read_bytes())
        main = int((tmp_path / "dump.ident").read_text())

        assert is_complete(file.read_bytes(), main)
        assert not is_complete(file.read_bytes())


def test_with_too_many_threads_the_main_thread_is_not_reached() -> None:
    """CPython stops after a hundred."""
    dump = DUMP.partition(b"\n\n")[0] + b"\n\n...\n"

    assert is_complete(dump)
    assert is_complete(dump, MAIN)


@pytest.mark.parametrize("dump", [b"", b"\n", b"\xff\xfe\n", b"hello\n", b"  ...\n"])
def test_what_is_no_dump_is_not_complete(dump: bytes) -> None:
    """Nor an empty one."""
    assert not is_complete(dump)
    assert not is_complete(dump, MAIN)


# How it reads.


def test_a_dump_reads_like_a_traceback(tmp_path: Path) -> None:
    """The main thread first, with source, the own frame marked, the others after."""
    bank = written(tmp_path, "shop/bank.py", "def ask(line):\n    line.wait(600)\n")
    program = f"""
        sys.path.insert(0, {str(bank.parent)!r})
        import bank
        pump = threading.Thread(target=bank.ask, args=[threading.Event()], daemon=True)
        pump.start()
        ready()
        bank.ask(threading.Event())
    """

    text = readable(*dumped(program, tmp_path, inner="wait"))

    task, others = text.split(f"\n\n{OTHER_THREADS}\n\n")
    lines = task.splitlines()
    assert lines[0] == "Stack (most recent call last):"
    assert lines[2:4] == [
        f'  File "{bank}", line 2, in ask{HERE}',
        "    line.wait(600)",
    ]
    assert lines[-2].endswith(", in wait")
    assert marked(text) == [lines[2]]
    assert guilty_frame(text) == "ask (shop/bank.py)"
    header, bottom, *_ = others.splitlines()
    assert header.startswith("Thread 0x")
    assert header.endswith(" (most recent call last):")
    assert bottom.endswith(", in _bootstrap")
    assert f'  File "{bank}", line 2, in ask\n    line.wait(600)' in others


def test_code_that_holds_the_interpreter_does_not_hide(tmp_path: Path) -> None:
    """A regular expression that never ends lets no Python code run."""
    tasks = written(
        tmp_path,
        "shop/tasks.py",
        """
        import re
        def parse():
            re.match(r"(a+)+$", "a" * 64 + "b")
        """,
    )
    program = f"""
        sys.path.insert(0, {str(tasks.parent)!r})
        import tasks
        ready()
        tasks.parse()
    """

    text = readable(*dumped(program, tmp_path, inner="match"))

    assert marked(text) == [f'  File "{tasks}", line 3, in parse{HERE}']


def test_a_crash_is_said_first(tmp_path: Path) -> None:
    """Then where it was."""
    dump = crashed("def dive():\n    faulthandler._sigsegv()\ndive()")

    text = readable(dump, None)

    assert text.startswith("Fatal Python error: Segmentation fault\n\nStack (")
    assert text.splitlines()[-1] == '  File "<string>", line 3, in dive'


def test_the_thread_that_crashed_comes_before_the_main_thread() -> None:
    """It is the one to look at."""
    dump = crashed(
        """
        import sys, threading
        thread = threading.Thread(target=faulthandler._sigsegv)
        thread.start()
        thread.join()
        """
    )
    main = int(dump.rpartition(b"hread 0x")[2].split()[0], 16)

    crash, others = readable(dump, main).split(OTHER_THREADS)

    assert "in _bootstrap" in crash
    assert "in <module>" in others


def test_a_crash_counts_more_than_a_dump_before_it() -> None:
    """Both went to the same file."""
    crash = b"Fatal Python error: Aborted\n\n" + DUMP.replace(b" in ask", b" in sink")

    text = readable(DUMP + crash, MAIN)

    assert text == readable(crash, MAIN)
    assert text.startswith("Fatal Python error: Aborted\n")
    assert guilty_frame(text) == "sink (shop/bank.py)"


def test_a_dump_without_source_is_as_good_as_it_gets() -> None:
    """The files are on another host, say."""
    assert readable(DUMP, MAIN) == textwrap.dedent(
        f"""\
        Stack (most recent call last):
          File "/srv/shop/tasks.py", line 20, in pay
          File "/srv/shop/bank.py", line 8, in ask{HERE}
          File "/srv/lib/python3.11/socket.py", line 706, in readinto

        Other threads:

        Thread 0x000000000000002e (most recent call last):
          File "/srv/lib/python3.11/threading.py", line 975, in run
          File "/srv/shop/pump.py", line 4, in pump"""
    )


@pytest.mark.parametrize("main", [None, 0x99])
def test_of_an_unknown_main_thread_the_current_one_stands_first(
    main: int | None,
) -> None:
    """A signal to a process is handled in its main thread, as a rule."""
    assert readable(DUMP, main) == readable(DUMP, MAIN)


def test_who_is_foreign_can_be_said() -> None:
    """By the path of the file."""
    text = readable(DUMP, MAIN, is_foreign=lambda path: "tasks" not in path)

    assert "pay" in marked(text)[0]


def test_of_a_cut_dump_what_can_be_read_is_shown() -> None:
    """Wherever it was cut, nothing fails."""
    texts = [readable(DUMP[:end], MAIN) for end in range(len(DUMP))]

    assert texts[0] == ""
    cut = DUMP.index(b"line 20 in pay")
    assert marked(texts[cut]) == [f'  File "/srv/shop/bank.py", line 8, in ask{HERE}']
    assert "/srv/shop/tasks.py" not in texts[cut]


def test_of_a_spoiled_dump_what_can_be_read_is_shown() -> None:
    """Bytes that are no text, half a character, places that Python did not know."""
    spoiled = (
        b"\xff\x00\nThread 0x000000000000001f [pump] (most recent call first):\n"
        b"  Garbage-collecting\n"
        b"  File ???, line ??? in ???\n"
        b'  File "/srv/caf\\xe9/\\udc80\\x00\\uffffffff.py", line 3 in gr\\xfc\xdf\n'
        b"  <no Python frame>\n"
        b"hello\n"
    )

    text = readable(spoiled, MAIN)

    assert text.splitlines() == [
        "\ufffd",
        "",
        "Stack (most recent call last):",
        "  <no Python frame>",
        f'  File "/srv/café/\\udc80\\x00\\uffffffff.py", line 3, in grü\ufffd{HERE}',
        '  File "???", line 0, in ???',
        "  Garbage-collecting",
    ]
    assert readable(b"", MAIN) == ""
    assert readable(b"\n\n", None) == ""


# The machinery around a task.


@pytest.fixture
def celery(tmp_path: Path) -> dict[str, Path]:
    """Files at the places of Celery's, each with a function that calls another."""
    calls = "def {}(inner, *outer):\n    return inner(*outer)\n"
    return {
        name: written(
            tmp_path, f"lib/site-packages/celery/{name}.py", calls.format(name[-4:])
        )
        for name in ("app/trace", "app/task", "backends/base", "bin/worker")
    }


def called_through(*files: Path, inner: Callable[[], str]) -> str:
    """What ``inner`` returns, called by the functions in these files."""
    functions = []
    for file in files:
        names: dict[str, Callable[..., str]] = {}
        exec(compile(file.read_text(), file, "exec"), names)
        functions.append(names[file.stem[-4:]])
    return functions[0](*functions[1:], inner)


def where_i_stand() -> str:
    """The stack here."""
    return of_frame(sys._getframe())


def files_in(text: str) -> list[str]:
    """The names of the files in a stack."""
    frames = [line for line in text.splitlines() if line.startswith("  File")]
    return [Path(line.split('"')[1]).name for line in frames]


def test_a_stack_begins_at_the_task(celery: dict[str, Path]) -> None:
    """What calls the task is the same in each."""
    around = [celery[name] for name in ("bin/worker", "app/trace", "app/task")]

    text = called_through(*around, inner=where_i_stand)

    assert files_in(text) == [Path(__file__).name]
    assert guilty_frame(text) == "where_i_stand (pool/test_stack.py)"


def test_what_celery_does_after_a_task_is_shown(celery: dict[str, Path]) -> None:
    """A result that cannot be stored is no fault of the project's."""
    around = [celery[name] for name in ("bin/worker", "app/trace", "backends/base")]

    text = called_through(*around, inner=where_i_stand)

    assert files_in(text) == ["base.py", Path(__file__).name]


def test_without_a_task_the_machinery_is_left_out(tmp_path: Path) -> None:
    """A child that hangs in the project's own receiver of a signal."""
    machinery = b'  File "/v/lib/python3.11/site-packages/billiard/x.py", line 1 in x\n'
    bottom = b'  File "<frozen runpy>", line 198 in _run_module_as_main\n'
    header = b"Current thread 0x000000000000001f (most recent call first):\n"
    own = b'  File "/srv/shop/apps.py", line 3 in connect\n'

    with_own = readable(header + machinery + own + machinery + bottom, MAIN)
    without = readable(header + machinery + machinery + bottom, MAIN)

    assert files_in(with_own) == ["apps.py", "x.py"]
    assert files_in(without) == ["<frozen runpy>", "x.py", "x.py"]
    assert marked(without) == []


# Live frames.


def test_a_live_frame_reads_the_same() -> None:
    """As at a soft limit, where the process itself can tell."""
    frames: list[FrameType] = []

    def stands() -> None:
        frames.append(sys._getframe())

    stands()
    here = of_frame(frames[0]).splitlines()

    assert here[0] == "Stack (most recent call last):"
    assert here[-2:] == [
        f'  File "{__file__}", line {frames[0].f_lineno}, in stands{HERE}',
        "    frames.append(sys._getframe())",
    ]


def test_a_deep_live_stack_is_cut_and_its_repetitions_are_counted() -> None:
    """Nobody reads a thousand lines of a recursion that never ends."""

    def down(steps: int) -> str:
        return down(steps - 1) if steps else where_i_stand()

    text = in_a_thread(lambda: down(5))
    cut = in_a_thread(lambda: down(300))

    assert "  [Previous line repeated 3 more times]" in text.splitlines()
    assert cut.splitlines()[1] == "  ..."
    assert len(files_in(cut)) < stack.MOST_FRAMES


def in_a_thread(function: Callable[[], str]) -> str:
    """Call it where nothing of pytest is on the stack."""
    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]
