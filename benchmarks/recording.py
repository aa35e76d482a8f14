"""What recording costs a worker: the same one with its recorder, and with none.

    .venv/bin/python benchmarks/recording.py [--tasks 40000] [--rounds 7] [--json]

Tasks that do nothing, so that there is nothing beside it, two children and a backlog, as in
``throughput.py``; the worker is of a Django project, on PostgreSQL and on SQLite. Without a
recorder main counts nothing either and nobody writes to the database: there is no setting
for that, the module of the benchmark takes both out. The two run at once, so that they have
the same machine, each with a broker of its own. What is bounded is the time of processors
that a task takes, of all processes of the worker: tasks that do nothing wait for nothing
else, so a worker that takes five percent more of it has five percent less throughput. (The
database server's own is not in it; that of SQLite is.)

Ends with 1 when it is more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import arena
import psycopg
from arena import Terms
from backlog import Ground, Pace, Side
from contestants import PROCESSES, celery_side
from postgres import PostgreSQL

LEAST = 0.95
"""What a task takes without a recorder to what it takes with one."""

ON, OFF = "recording", "not recording"
NAME_WIDTH, WIDTH = 26, 12

PROJECT = """
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="recording",
    USE_TZ=True,
    DATABASES={{"default": {database!r}}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=[
        "django.contrib.contenttypes", "django.contrib.auth", "unstuck",
    ],
)
django.setup()
"""

WITHOUT = """
from unstuck.recorder.step import RecorderStep
from unstuck.worker.reporter import Reporter

app.steps["worker"].discard(RecorderStep)
Reporter.ended = lambda *_: None
"""

MIGRATE = "from django.core.management import call_command; call_command('migrate', verbosity=0)"


@dataclass(slots=True)
class Contest:
    """The two on one database."""

    database: str
    sides: dict[str, Side]
    paces: dict[str, list[Pace]] = field(default_factory=lambda: {ON: [], OFF: []})

    def rates(self, which: str) -> list[float]:
        """Tasks a second of every round."""
        return [pace.rate for pace in self.paces[which]]

    @property
    def ratios(self) -> list[float]:
        """What a task takes of the processors without to what it takes with, by round."""
        pairs = zip(self.paces[ON], self.paces[OFF], strict=True)
        return [off.worker_microseconds / on.worker_microseconds for on, off in pairs]

    @property
    def median(self) -> float:
        """The middle one of these."""
        return statistics.median(self.ratios)

    def microseconds(self, which: str) -> float:
        """What a task takes of the processors: all processes of the worker."""
        return statistics.median(pace.worker_microseconds for pace in self.paces[which])

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "database": self.database,
            "ratio": round(self.median, 3),
            "ratios": [round(ratio, 3) for ratio in self.ratios],
            "wanted": LEAST,
            **{
                which: {
                    "rounds": [round(rate, 1) for rate in self.rates(which)],
                    "worker_microseconds": round(self.microseconds(which), 1),
                }
                for which in (ON, OFF)
            },
        }


@contextmanager
def contests() -> Iterator[list[Contest]]:
    """One on PostgreSQL and one on SQLite; each side has tables of its own."""
    with ExitStack() as stack:
        server = stack.enter_context(PostgreSQL.open())
        place = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="recording-"))
        )
        yield [
            Contest(
                f"{server.version}", _sides(lambda name: _postgresql(server, name))
            ),
            Contest("SQLite", _sides(lambda name: _sqlite(place, name))),
        ]


def _sides(database: Any) -> dict[str, Side]:
    made = {}
    for which, word in ((ON, "with"), (OFF, "without")):
        project = PROJECT.format(database=database(word))
        subprocess.run([sys.executable, "-c", project + MIGRATE], check=True)
        side = celery_side("unstuck", Terms(concurrency=PROCESSES), name=which)
        more = WITHOUT if which == OFF else ""
        made[which] = Side(
            name=which,
            source=project + side.source + more,
            commands=side.commands,
            scheme=side.scheme,
        )
    return made


def _postgresql(server: PostgreSQL, name: str) -> dict[str, Any]:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]
    parts = urlsplit(server.url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": parts.username,
        "HOST": parts.hostname,
        "PORT": parts.port,
    }


def _sqlite(place: Path, name: str) -> dict[str, Any]:
    file = str(place / f"{name}.sqlite3")
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": file}


def measure(
    grounds: Sequence[Ground], contest: Contest, tasks: int, rounds: int
) -> None:
    """All rounds on one database: the two at once, each with a broker of its own."""
    pairs = list(zip(contest.sides.items(), grounds, strict=True))
    for (_, side), ground in pairs:
        ground.store(side, tasks)
    with ThreadPoolExecutor(len(pairs)) as both:
        for _ in arena.turns(rounds, ""):
            paces = both.map(lambda one: one[1].drain(one[0][1], tasks), pairs)
            for ((which, _), _), pace in zip(pairs, paces, strict=True):
                contest.paces[which].append(pace)


def _show(found: dict[str, Any], contests: list[Contest]) -> None:
    print(*(found[name] for name in ("where", "versions", "said")), sep="\n")
    heads = ("tasks/s", "least", "most", "CPU us")
    for contest in contests:
        print(
            f"\n{contest.database:{NAME_WIDTH}}"
            + "".join(f"{head:>{WIDTH}}" for head in heads)
        )
        for which in (ON, OFF):
            rates = contest.rates(which)
            values = (statistics.median(rates), min(rates), max(rates))
            cells = "".join(f"{value:{WIDTH}.0f}" for value in values)
            print(
                f"{which:{NAME_WIDTH}}{cells}{contest.microseconds(which):{WIDTH}.0f}"
            )
        ratios = contest.ratios
        missed = "" if contest.median >= LEAST else "  MISSED"
        print(
            f"ratio by round: median {contest.median:.3f}, {min(ratios):.3f} to "
            f"{max(ratios):.3f}   wanted >= {LEAST}{missed}"
        )


def _options() -> argparse.Namespace:
    parser = arena.parser_of(__doc__, tasks=40_000, rounds=7)
    parser.add_argument("--json", action="store_true", help="print JSON, not tables")
    return parser.parse_args()


def main() -> int:
    """Measure and print; 1 when recording costs more than it may."""
    options = _options()
    with Ground.open() as ground, Ground.open() as other, contests() as both:
        for contest in both:
            measure((ground, other), contest, options.tasks, options.rounds)
        found = {
            "where": arena.surroundings(),
            "versions": f"{arena.packages()}, {ground.server}, {both[0].database}",
            "said": f"{options.tasks} tasks, {options.rounds} rounds; "
            f"{Terms(concurrency=PROCESSES)}",
        }
    if options.json:
        print(
            json.dumps(found | {"contests": [one.document() for one in both]}, indent=2)
        )
    else:
        _show(found, both)
    return 0 if all(contest.median >= LEAST for contest in both) else 1


if __name__ == "__main__":
    sys.exit(main())
