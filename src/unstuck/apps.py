"""The Django app."""

from django.apps import AppConfig


class UnstuckConfig(AppConfig):
    """``"unstuck"`` in ``INSTALLED_APPS``."""

    name = "unstuck"
    verbose_name = "unstuck"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks, and our transport with kombu: whoever may publish."""
        import unstuck.app  # noqa: F401
        from unstuck.checks import register

        register()
