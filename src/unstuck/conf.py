"""The ``UNSTUCK`` setting of the Django project, read when it is needed."""

from __future__ import annotations

import functools
import os
from typing import Any

from django.apps import apps
from django.conf import ENVIRONMENT_VARIABLE
from django.conf import settings as django_settings
from django.core.signals import setting_changed

from unstuck.core.settings import Settings, parse


def given() -> Any:
    """The value of ``UNSTUCK`` as the project wrote it; ``{}`` outside Django."""
    if not in_django():
        return {}
    return getattr(django_settings, "UNSTUCK", {})


@functools.cache
def current() -> Settings:
    """The settings in force. Raises ``SettingsError`` with every problem at once."""
    return parse(given())


def in_django() -> bool:
    """Whether this process runs within a Django project."""
    return django_settings.configured or ENVIRONMENT_VARIABLE in os.environ


def has_our_tables() -> bool:
    """Whether it is one with ``"unstuck"`` among its apps."""
    return in_django() and apps.is_installed("unstuck")


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "UNSTUCK":
        current.cache_clear()


setting_changed.connect(_forget)
