"""``manage.py seed``: an empty database becomes a shop."""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand

from shop.gallery import make_thumbnails, stock

DEMO = "demo"
"""Name and password of the first administrator: the demo listens on the loopback."""


class Command(BaseCommand):
    """Stocks the shop and creates the demo user; safe to repeat."""

    help = "Stock the shop with products, pictures and a user; safe to repeat."

    def handle(self, *args: Any, **options: Any) -> None:
        """Do what is still to do, and say so."""
        products = stock()
        made = sum(make_thumbnails(product) for product in products)
        self.stdout.write(f"{len(products)} products, {made} new thumbnails")
        users = get_user_model().objects
        if not users.filter(username=DEMO).exists():
            users.create_superuser(DEMO, "demo@example.com", DEMO)
            self.stdout.write(f"admin user {DEMO!r} with password {DEMO!r}")
