"""Our rows in Django's admin, which finds this package by its name."""

from unstuck.admin import audit, fleet, letters, outbox, runs

__all__ = ["audit", "fleet", "letters", "outbox", "runs"]
