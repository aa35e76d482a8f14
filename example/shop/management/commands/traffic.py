"""``manage.py traffic``: customers and partners who never sleep."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from shop import selling
from shop.stopping import stopped_by_signal

ROWS_PER_FILE = 1000
WEIGHTS = {"order": 80, "repaint": 14, "import": 2, "silent": 4}

ACTIONS = {
    "order": selling.place_order,
    "repaint": selling.repaint_product,
    "import": lambda rng: selling.import_file(rng, rows=ROWS_PER_FILE),
    "silent": selling.notify_silent_partner,
}


class Command(BaseCommand):
    """Stocks the shop and keeps it busy until told to stop."""

    help = "Keep the shop busy until SIGTERM, SIGINT or --seconds."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the pace, the duration and the seed."""
        parser.add_argument("--rate", type=float, default=1.0, help="per second")
        parser.add_argument("--seconds", type=float, default=None, help="then stop")
        parser.add_argument("--seed", type=int, default=None)

    def handle(self, *args: Any, rate: float, **options: Any) -> None:
        """Do something now and then, whatever the broker says."""
        if rate <= 0:
            raise CommandError(f"--rate is {rate}; it must be above 0")
        rng = random.Random(options["seed"])
        done: Counter[str] = Counter()
        with stopped_by_signal() as stopped:
            call_command("seed", stdout=self.stdout)
            pauses = _pauses(rng, rate, options["seconds"])
            for pause, name in zip(pauses, _names(rng), strict=False):
                if stopped(pause):
                    break
                done[self._act(name, rng)] += 1
        summary = ", ".join(f"{count} {name}" for name, count in done.most_common())
        self.stdout.write(f"traffic: {summary}")

    def _act(self, name: str, rng: random.Random) -> str:
        try:
            ACTIONS[name](rng)
        except selling.BROKER_ERRORS as error:
            # Customers come back when the shop does.
            self.stderr.write(f"{name}: the broker did not take it: {error}")
            return "refused"
        return name


def _pauses(rng: random.Random, rate: float, seconds: float | None) -> Iterator[float]:
    """Yield the time to the next customer until *seconds* are over."""
    end = None if seconds is None else time.monotonic() + seconds
    while end is None or time.monotonic() < end:
        yield min(rng.expovariate(rate), 5 / rate)


def _names(rng: random.Random) -> Iterator[str]:
    """Yield what happens: one of each, so that a short run shows all; then by weight."""
    yield from ACTIONS
    while True:
        yield from rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
