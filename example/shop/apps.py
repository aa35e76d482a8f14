"""Where Django finds the shop."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """The example shop."""

    name = "shop"
    verbose_name = "Shop"
