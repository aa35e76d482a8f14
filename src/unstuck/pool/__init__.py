"""Children that run tasks, and the pool through which Celery uses them."""

from __future__ import annotations

from unstuck.pool.prefork import TaskPool

__all__ = ["TaskPool"]
