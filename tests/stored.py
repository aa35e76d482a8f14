"""What the recorder of a site has stored, read without a process of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.db import DatabaseError, connections
from django.db.utils import load_backend

from tests.settings import database

ALIAS = "site"


def rows(url: str, model: str, **filters: Any) -> list[dict[str, Any]]:
    """The rows of one of our models, of plain values; what fails is an assertion.

    So that it may be asked again and again while something is awaited.
    """
    with _opened(url):
        manager = apps.get_model("unstuck", model)._default_manager.using(ALIAS)
        try:
            found = list(manager.filter(**filters).values())
        except DatabaseError as error:
            raise AssertionError(f"{url} does not tell: {error}") from error
    plain: list[dict[str, Any]] = json.loads(json.dumps(found, default=str))
    return plain


@contextmanager
def _opened(url: str) -> Iterator[None]:
    """A connection for now: tests of other databases are to find none beside theirs."""
    settings = {ALIAS: database(url), "default": connections.settings["default"]}
    settings = connections.configure_settings(settings)[ALIAS]
    connection = load_backend(settings["ENGINE"]).DatabaseWrapper(settings, ALIAS)
    # pytest-django forbids databases to tests that do not ask for its own one.
    connection.ensure_connection = lambda: connection.connection or connection.connect()
    connections.settings[ALIAS] = settings
    connections[ALIAS] = connection
    try:
        yield
    finally:
        connection.close()
        del connections[ALIAS]
        del connections.settings[ALIAS]
