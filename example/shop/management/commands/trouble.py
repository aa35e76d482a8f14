"""``manage.py trouble``: the trouble page on the command line."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from shop.models import TroubleSent
from shop.trouble import REGISTRY


class Command(BaseCommand):
    """Sends one message for each kind of trouble and prints ``KEY TASK_ID``."""

    help = "Send trouble: " + ", ".join(REGISTRY)

    def add_arguments(self, parser: CommandParser) -> None:
        """Take keys of ``REGISTRY``, or all of them."""
        parser.add_argument("keys", nargs="*", metavar="KEY")
        parser.add_argument("--all", action="store_true", help="one of each kind")

    def handle(self, *args: Any, keys: list[str], **options: Any) -> None:
        """Send them in the order given."""
        wanted = list(REGISTRY) if options["all"] else keys
        unknown = [key for key in wanted if key not in REGISTRY]
        if unknown or not wanted:
            raise CommandError(
                f"unknown: {', '.join(unknown) or 'nothing given'}; "
                f"there is --all and {', '.join(REGISTRY)}"
            )
        for key in wanted:
            row = TroubleSent.objects.send(REGISTRY[key])
            self.stdout.write(f"{key} {row.task_id}")
