"""Static checks for ``manage.py check``."""


def register() -> None:
    """Register the checks with Django."""
