"""What is in the tables of a site, whichever database they are in."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import psycopg

from tests.node import Site


def rows(site: Site, sql: str) -> list[Any]:
    """What a query of the site's database finds."""
    if site.database.startswith("sqlite"):
        with closing(sqlite3.connect(file_of(site), timeout=30)) as file:
            return file.execute(sql).fetchall()
    with psycopg.connect(site.database, autocommit=True) as connection:
        return connection.execute(sql).fetchall()  # type: ignore[arg-type]


def file_of(site: Site) -> str:
    """Where its SQLite database is."""
    return site.database.removeprefix("sqlite:///")
