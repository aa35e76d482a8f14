"""How long each page of the dashboard takes when there is very much to show.

    .venv/bin/python benchmarks/dashboard.py [--letters 1000000] [--runs 10000000]
        [--names 500] [--nodes 100] [--days 90] [--times 40] [--seconds 60] [--json]

It starts a PostgreSQL of its own and fills it, which takes minutes. Then every page is asked
for ``--times`` times with ever other rows, by somebody who has logged in; what pages ask the
broker and the workers is answered by a Valkey and by nodes in name (``answering.py``). At last
another process stores what 3,000 tasks a second leave, 200 of which fail for good, with the classes
of the recorder, and the overview is asked for meanwhile, for ``--seconds``.

Ends with 1 when a page takes longer than it may, asks too many questions or none at all.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import answering  # noqa: E402
import arena  # noqa: E402
import django  # noqa: E402
from months import Size, fill  # noqa: E402
from postgres import PostgreSQL  # noqa: E402

MOST_MILLISECONDS = 150
MOST_QUERIES = 30
MOST_BUSY_MILLISECONDS = 500
"""Of the overview while rows are written."""

TASKS, FAILING = 3_000, 200
PRUNED = 100
"""Batches of rows that are too old."""

MOST_PRUNING_MILLISECONDS = 1_000
"""That one of them may keep its rows locked."""

LEAST_SHARE = 0.95
"""Of what should be stored each second."""

BETWEEN_SECONDS = 0.5
WRITER = Path(__file__).with_name("writing.py")
NAME_WIDTH, WIDTH = 44, 9


def ask(times: int) -> list[Any]:
    """Every page, so often."""
    import pages

    lots = random.Random(5)
    client = pages.operator()
    asked = pages.walk(pages.Known.some(lots))
    for page in arena.turns(1, *asked):
        _touch_nodes()
        pages.measure(client, page, times, lots)
    return asked


def ask_while_busy(url: str, seconds: int) -> tuple[Any, dict[str, Any]]:
    """The overview, while another process writes; and what that one has written."""
    import pages

    lots = random.Random(5)
    client = pages.operator()
    known = pages.Known.some(lots)
    overview = next(page for page in pages.walk(known) if page.name == "overview")
    overview.how = "busy"
    command = [sys.executable, str(WRITER), str(seconds), str(TASKS), str(FAILING)]
    with subprocess.Popen(
        command, env=_environment(url), stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        while writer.poll() is None and not overview.problem:
            pages.measure(client, overview, 1, lots)
            time.sleep(BETWEEN_SECONDS)
        written = json.loads(writer.stdout.read())
    return overview, written


def prune(batches: int = PRUNED) -> dict[str, float]:
    """Some of the transactions in which the recorder deletes what is too old."""
    from unstuck.core.clock import system_clock
    from unstuck.recorder.retention import prune_batch

    took, rows = [], 0
    for _ in range(batches):
        began = time.perf_counter()
        rows += prune_batch(system_clock())
        took.append(time.perf_counter() - began)
    return {
        "rows_a_second": round(rows / sum(took)),
        "longest_milliseconds": round(max(took) * 1000, 1),
    }


def _touch_nodes() -> None:
    """What a recorder says every ten seconds."""
    from django.utils import timezone

    from unstuck.models import Node

    Node.objects.update(seen_at=timezone.now())


def _environment(url: str, broker: str = "memory://") -> dict[str, str]:
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "UNSTUCK_TEST_DATABASE_URL": url,
        "CELERY_BROKER_URL": broker,
        "PYTHONPATH": str(ROOT),
    }


def _set_up(url: str, broker: str) -> Any:
    """Be a web process of a project whose app is ours; that is returned."""
    os.environ.update(_environment(url, broker))
    from django.conf import settings

    settings.UNSTUCK = {"LOCK_URL": "database"}  # The table has been filled.
    django.setup()
    from django.core.management import call_command

    from unstuck import Celery

    call_command("migrate", verbosity=0)
    return Celery("shop", set_as_current=True)


# The report.


def problems(
    asked: Sequence[Any], busy: Any, written: dict[str, Any], pruned: dict[str, float]
) -> list[str]:
    """The bounds that were broken."""
    found = [f"{page}: {page.problem}" for page in (*asked, busy) if page.problem]
    for page in asked:
        if not page.problem and page.p95 > MOST_MILLISECONDS:
            found.append(f"{page}: p95 {page.p95:.0f} ms, at most {MOST_MILLISECONDS}")
        if page.queries > MOST_QUERIES:
            found.append(f"{page}: {page.queries} queries, at most {MOST_QUERIES}")
    if not busy.problem and busy.p95 > MOST_BUSY_MILLISECONDS:
        found.append(f"{busy}: p95 {busy.p95:.0f} ms, at most {MOST_BUSY_MILLISECONDS}")
    for what, wanted in (("tasks", TASKS), ("runs", FAILING), ("letters", FAILING)):
        if written[what] < wanted * LEAST_SHARE:
            found.append(
                f"{written[what]:.0f} {what} a second were stored, not {wanted}"
            )
    if pruned["longest_milliseconds"] > MOST_PRUNING_MILLISECONDS:
        found.append(f"a batch of what is too old took longer: {pruned}")
    if written["dropped"]:
        found.append(f"{written['dropped']} facts were dropped")
    return found


def _show(found: dict[str, Any], asked: Sequence[Any], busy: Any) -> None:
    """CPU is that of this process, without the database."""
    print(*(found[name] for name in ("where", "versions", "said")), sep="\n")
    steps = ", ".join(f"{name} {took:.0f} s" for name, took in found["filling"].items())
    print(f"filled by: {steps}; {found['bytes'] / 2**30:.1f} GiB")
    heads = ("p50 ms", "p95 ms", "max ms", "CPU ms", "queries")
    print(f"\n{'':{NAME_WIDTH}}" + "".join(f"{head:>{WIDTH}}" for head in heads))
    for page in (*asked, busy):
        if page.problem:
            print(f"{page!s:{NAME_WIDTH}}{page.problem}")
            continue
        times = (page.p50, page.p95, page.longest, page.python)
        cells = "".join(f"{value:{WIDTH}.1f}" for value in times)
        print(f"{page!s:{NAME_WIDTH}}{cells}{page.queries:{WIDTH}}")
    print(f"\n{len(asked)} ways to ask, and one while rows are written")
    print(f"written meanwhile, a second: {found['written']}")
    print(f"rows that are too old go in batches: {found['pruned']}")
    print(
        "\n".join(f"BROKEN  {one}" for one in found["broken"]) or "all bounds are kept"
    )


def _options() -> argparse.Namespace:
    size = Size()
    parser = arena.parser_of(
        __doc__,
        **{name: getattr(size, name) for name in Size.__slots__},
        times=40,
        seconds=60,
    )
    parser.add_argument("--json", action="store_true", help="print JSON, not tables")
    return parser.parse_args()


def main() -> int:
    """Fill, ask and print; 1 when a bound is broken."""
    options = _options()
    size = Size(**{name: getattr(options, name) for name in Size.__slots__})
    memory = {"shared_buffers": f"{_memory_megabytes() // 4}MB"}
    with PostgreSQL.open(**memory) as server, answering.broker() as broker:
        app = _set_up(server.url, broker)
        took = fill(server.url, size)
        answering.delay(app)
        with answering.answered(broker, _nodes()):
            asked = ask(options.times)
        pruned = prune()
        busy, written = ask_while_busy(server.url, options.seconds)
        found = {
            "where": arena.surroundings(),
            "versions": f"{arena.packages()}, {server.version}",
            "said": f"{size}; {options.times} times each, one after the other, one "
            f"connection, warm; shared_buffers {memory['shared_buffers']}",
            "filling": {name: round(seconds, 1) for name, seconds in took.items()},
            "bytes": _bytes(),
            "written": written,
            "pruned": pruned,
            "broken": problems(asked, busy, written, pruned),
        }
    if options.json:
        pages = [page.document() for page in (*asked, busy)]
        print(json.dumps(found | {"pages": pages}, indent=2))
    else:
        _show(found, asked, busy)
    return 1 if found["broken"] else 0


def _memory_megabytes() -> int:
    """Of this machine. PostgreSQL's manual would give a quarter of it to the server."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20


def _nodes() -> list[str]:
    from unstuck.models import Node

    return list(Node.objects.values_list("name", flat=True))


def _bytes() -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_database_size(current_database())")
        return int(cursor.fetchone()[0])


if __name__ == "__main__":
    sys.exit(main())
