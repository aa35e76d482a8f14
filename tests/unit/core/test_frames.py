"""Whose code a frame is in."""

from __future__ import annotations

import pytest

from unstuck.core.frames import is_foreign


@pytest.mark.parametrize(
    "path",
    [
        "/srv/venv/lib/python3.12/site-packages/django/db/models/base.py",
        "/usr/lib/python3/dist-packages/redis/connection.py",
        "/usr/lib/python3.11/json/decoder.py",
        "/usr/lib64/python3.13t/threading.py",
        "<frozen runpy>",
        "<string>",
        "???",
        "/home/dev/unstuck/src/unstuck/worker/task.py",
        "/srv/venv/bin/celery",
    ],
)
def test_what_the_project_did_not_write_is_foreign(path: str) -> None:
    """Packages, the standard library, what has no file, and we."""
    assert is_foreign(path)


@pytest.mark.parametrize(
    "path",
    [
        "/srv/shop/tasks.py",
        "/srv/celery/app/orders.py",
        "/home/dev/unstuck/example/shop/tasks.py",
        "C:\\srv\\shop\\tasks.py",
        "manage.py",
    ],
)
def test_anything_else_is_the_project_s_own(path: str) -> None:
    """Whatever its directories are called."""
    assert not is_foreign(path)
