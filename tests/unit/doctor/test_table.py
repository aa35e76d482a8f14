"""The table of live rules as a whole: what it promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.doctor.seen import WELL
from tests.unit.doctor.test_rules import FIRING
from unstuck.doctor.rule import BROKEN, Level, Rule, rule, run
from unstuck.doctor.table import TABLE

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs" / "doctor.md"
FIRING_BY_NUMBER = {number: seen for number, seen, _, _ in FIRING}
REAL = sorted((ROOT / "tests" / "integration").glob("test_doctor*.py"))


def test_every_id_is_documented_once_in_order_with_its_level() -> None:
    """An id without words is no help, and none may mean two things."""
    rows = re.findall(
        r'<a id="(d\d{3})"></a>`unstuck\.(D\d{3})` \| ([a-z ]+) \|', DOCS.read_text()
    )

    assert [number for _, number, _ in rows] == sorted([*TABLE, BROKEN])
    assert [anchor.upper() for anchor, _, _ in rows] == sorted([*TABLE, BROKEN])
    for _, number, level in rows:
        assert number == BROKEN or level == TABLE[number].level, number


def test_each_has_facts_where_it_fires_and_is_provoked_for_real() -> None:
    """By a server, a database or a node that is as it says."""
    text = "\n".join(path.read_text() for path in REAL)

    assert {case[0] for case in FIRING} == set(TABLE)
    assert [number for number in TABLE if f'"{number}"' not in text] == []


def test_most_can_be_mended_by_a_command() -> None:
    """Which stands alone, to be copied."""
    (evicts,) = run([TABLE["D012"]], FIRING_BY_NUMBER["D012"])
    without = {number for number, each in TABLE.items() if "`" not in each.remedy}

    assert evicts.command.startswith("redis-cli -u redis://cache:6379/0 CONFIG SET")
    assert without == {
        *("D011", "D020", "D022", "D023", "D024"),
        *("D070", "D071", "D072", "D084"),
    }


def test_no_title_is_there_twice() -> None:
    """Each says something of its own."""
    assert len({each.title for each in TABLE.values()}) == len(TABLE)


def test_a_number_that_is_taken_cannot_be_given_again() -> None:
    """Two rules under one id could not be silenced apart."""
    words = {"title": "another", "says": "", "why": "", "remedy": ""}
    with pytest.raises(ValueError, match="D012 is there already"):
        rule("D012", Level.ERROR, **words)(lambda _: ())


def test_a_rule_that_raises_hides_no_other_and_is_not_passed_as_fine() -> None:
    """It is a finding of its own: which rule, and what it raised."""

    def stumble(_: Any) -> Any:
        raise LookupError("over a stone")

    bad = Rule(
        number="D999",
        level=Level.INFO,
        title="a bad one",
        says="",
        why="",
        remedy="",
        find=stumble,
    )

    (finding,) = run([bad, *TABLE.values()], WELL)

    assert (finding.id, finding.level) == (f"unstuck.{BROKEN}", Level.NOT_ASKED)
    assert "unstuck.D999 (a bad one)" in finding.what
    assert "LookupError: over a stone" in finding.what
