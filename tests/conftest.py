"""What every test may use; the servers are in `tests.services`, sites in `tests.sites`."""

from __future__ import annotations

pytest_plugins = ["tests.services", "tests.sites"]
