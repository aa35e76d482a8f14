"""Sites for a whole module, so that one worker can serve many tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node import Site
from tests.services import Valkey, started
from tests.sites import MakeSite


@pytest.fixture(scope="module")
def module_site(
    tmp_path_factory: pytest.TempPathFactory, migrated_database: Path
) -> Iterator[MakeSite]:
    """Makes the site of a module, on a Valkey of its own, results included."""
    with started(Valkey) as valkey:

        def make(database: str = "", **settings: Any) -> Site:
            directory = tmp_path_factory.mktemp("site")
            shutil.copy(migrated_database, directory / "db.sqlite3")
            return Site(
                directory=directory,
                broker=valkey.url(0),
                results=valkey.url(1),
                database=database,
                settings=settings,
            )

        yield make
