"""``manage.py receiver``: the partner that the webhooks go to."""

import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from shop.receiver import Receiver
from shop.stopping import stopped_by_signal


class Command(BaseCommand):
    """Serves the webhook endpoint until SIGTERM or SIGINT."""

    help = "Serve the webhook endpoint: sometimes slow, wrong or silent for ever."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Take another port than the one of the settings."""
        parser.add_argument("--port", type=int, default=settings.SHOP_RECEIVER_PORT)

    def handle(self, *args: Any, port: int, **options: Any) -> None:
        """Serve in a thread and wait for the signal."""
        with stopped_by_signal() as stopped:
            receiver = Receiver(port, self.stdout.write)
            threading.Thread(target=receiver.serve_forever, daemon=True).start()
            self.stdout.write(f"receiver on http://127.0.0.1:{port}")
            self.stdout.flush()
            stopped(None)
            receiver.stop()
