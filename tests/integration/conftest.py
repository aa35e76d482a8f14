"""The sites of integration tests are those of all tests."""

from __future__ import annotations

from tests.sites import MakeSite

__all__ = ["MakeSite"]
