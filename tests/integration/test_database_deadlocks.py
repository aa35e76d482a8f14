"""Two tasks whose transactions wait for each other, on a real PostgreSQL."""

from __future__ import annotations

import psycopg
import pytest

from tests.integration.sending import send
from tests.node import Site
from tests.sites import MakeSite
from tests.waiting import eventually

ROWS = ("first", "second")
TABLE = """
CREATE TABLE item (name text PRIMARY KEY, number integer NOT NULL);
INSERT INTO item VALUES ('first', 0), ('second', 0);
"""


@pytest.fixture
def site(postgresql_archive: MakeSite) -> Site:
    """A project with two rows that tasks lock in the wrong order."""
    site = postgresql_archive()
    with psycopg.connect(site.database) as connection:
        connection.execute(TABLE)
    return site


def numbers(site: Site) -> list[int]:
    """How often each row was updated by a transaction that came to its end."""
    with psycopg.connect(site.database) as connection:
        rows = connection.execute("SELECT number FROM item").fetchall()
    return [number for (number,) in rows]


def meet(site: Site, name: str) -> list[str]:
    """Send two tasks that meet; their ids."""
    orders = (ROWS, ROWS[::-1])
    return [send(site, name, *order, str(site.directory)) for order in orders]


def test_with_the_option_both_succeed(site: Site) -> None:
    """The one that the database has chosen is tried again."""
    with site.node("-c", "2"):
        sent = meet(site, "meet_again")
        eventually(lambda: numbers(site) == [2, 2], 40)

        assert sorted(site.runs(task_id) for task_id in sent) == [1, 2]
        assert site.letters() == []


def test_without_it_one_is_buried(site: Site) -> None:
    """It failed, as any task that raises."""
    with site.node("-c", "2"):
        sent = meet(site, "meet")
        [letter] = eventually(site.letters, 40)
        eventually(lambda: numbers(site) == [1, 1], 20)

    assert letter["reason"] == "failed"
    assert letter["task_id"] in sent
    assert "deadlock detected" in letter["traceback"]
    assert [site.runs(task_id) for task_id in sent] == [1, 1]
