"""The Django app."""

from django.apps import AppConfig


class UnstuckConfig(AppConfig):
    """``"unstuck"`` in ``INSTALLED_APPS``."""

    name = "unstuck"
    verbose_name = "unstuck"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks."""
        from unstuck.checks import register

        register()
