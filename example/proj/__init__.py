"""The Django project of the example shop."""

from .celery import app as celery_app

__all__ = ("celery_app",)
