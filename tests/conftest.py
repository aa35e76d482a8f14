"""What every test may use; the servers are in `tests.services`."""

from __future__ import annotations

pytest_plugins = ["tests.services"]
