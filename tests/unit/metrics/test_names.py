"""Names keep Prometheus' conventions, and the docs, the board and the rules know them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from scripts.check_docs import anchors

from tests.node import ROOT
from unstuck.core.settings import TIERS
from unstuck.dashboard.queries import fleet
from unstuck.metrics.family import Family, Kind
from unstuck.metrics.tally import COUNTED, ENDINGS, REASONS, VERDICTS
from unstuck.probes import metrics
from unstuck.probes.judge import Probe, State

FAMILIES = (*metrics.FAMILIES, *fleet.FAMILIES)
NAMES = {family.name for family in FAMILIES}
PARTS = ("_bucket", "_sum", "_count")
PROMETHEUS_OWN = {"up"}

DOCS = ROOT / "docs" / "metrics.md"
BOARD = json.loads((ROOT / "contrib" / "grafana" / "unstuck.json").read_text())
RULES = yaml.safe_load((ROOT / "contrib/prometheus/unstuck.rules.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]

LABELS: dict[str, set[str]] = {
    "ending": set(ENDINGS),
    "reason": set(REASONS),
    "verdict": set(VERDICTS),
    "cause": set(COUNTED["children"]),
    "probe": set(Probe),
    "state": {*State, *fleet.STATES},
    "level": set(fleet.LEVELS),
    "kind": {*COUNTED["incidents"], "node_lost", "letters_waiting"},
    "process": {*COUNTED["restarts"], *metrics.PROCESSES, "children"},
}
"""What a selector may ask for."""


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_name_keeps_the_conventions(family: Family) -> None:
    """What `promtool check metrics` asks for: our prefix, base units, a suffix by type."""
    assert re.fullmatch(r"unstuck_[a-z]+(_[a-z]+)*", family.name)
    assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
    assert not family.name.endswith((*PARTS, "_gauge", "_counter", "_histogram"))
    assert not re.search(
        r"_(ms|milliseconds|minutes|hours|kb|kilobytes|percent)(_|$)", family.name
    )
    if family.kind is Kind.HISTOGRAM:
        assert family.name.endswith("_seconds")
    assert re.fullmatch(r"[A-Z].*\.", family.help)
    assert not {"le", "quantile", "job", "instance", "task_id"} & set(family.labels)


def test_no_name_is_there_twice() -> None:
    """Nor is one that a histogram of another makes."""
    made = [
        family.name + part
        for family in FAMILIES
        if family.kind is Kind.HISTOGRAM
        for part in PARTS
    ]
    assert len(NAMES) == len(FAMILIES)
    assert not NAMES & set(made)


def test_the_docs_have_every_metric_and_no_other() -> None:
    """With its labels."""
    rows = re.findall(
        r"^\| `(unstuck_\w+)(?:\{([\w, ]*)\})?` \|", DOCS.read_text(), re.M
    )
    told = {name: tuple(filter(None, labels.split(", "))) for name, labels in rows}

    assert told == {family.name: family.labels for family in FAMILIES}


def test_the_docs_have_every_tier() -> None:
    """By its name."""
    assert all(f'"{tier}"' in DOCS.read_text() for tier in TIERS)


def expressions() -> list[str]:
    """All that the board and the rules ask of Prometheus."""
    targets = [target["expr"] for panel in PANELS for target in panel["targets"]]
    marks = [mark["expr"] for mark in BOARD["annotations"]["list"]]
    lists = [
        variable["definition"]
        for variable in BOARD["templating"]["list"]
        if variable["type"] == "query"
    ]
    return [*targets, *marks, *lists, *(rule["expr"] for rule in ALERTS)]


@pytest.mark.parametrize("expression", expressions())
def test_the_board_and_the_rules_ask_for_what_there_is(expression: str) -> None:
    """Names, labels, and the values of those that are ours."""
    asked = set(re.findall(r"\b(?:unstuck_\w+|up)\b(?=[\[{),\s]|$)", expression))
    assert asked
    for name in asked - PROMETHEUS_OWN:
        family = next(
            one
            for one in FAMILIES
            if name in ({one.name + part for part in PARTS} | {one.name})
        )
        is_part = name != family.name
        assert is_part == (family.kind is Kind.HISTOGRAM)
        for label, _, wanted in _selected(expression, name):
            assert label in {*family.labels, "instance"}, (name, label)
            if label in LABELS:
                assert set(wanted.split("|")) <= LABELS[label], (name, wanted)


def _selected(expression: str, name: str) -> list[tuple[str, str, str]]:
    selectors = re.findall(rf"\b{name}\{{([^}}]*)\}}", expression)
    return re.findall(r'(\w+)(=~|!=|!~|=)"([^"]*)"', ",".join(selectors))


def test_every_metric_is_on_the_board_or_in_a_rule() -> None:
    """What nobody looks at is not worth a series; the rest are of the scrape itself."""
    said = " ".join(expressions())
    unseen = {name for name in NAMES if name not in said}
    assert unseen == {"unstuck_broker_connected", "unstuck_messages_waiting"} | {
        "unstuck_fleet_recorder_lag_seconds",
        "unstuck_fleet_queues_counted_timestamp_seconds",
        "unstuck_fleet_read",
    }


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    """In a line, and in the docs at its own anchor."""
    notes = rule["annotations"]
    path, _, anchor = notes["runbook"].partition("#")

    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(notes) == {"summary", "remedy", "runbook"}
    assert anchor == rule["alert"].lower()
    assert anchor in anchors(ROOT / path)


def test_the_board_can_be_imported() -> None:
    """Ids are its own, panels lie beside each other, and each has a data source to pick."""
    ids = [panel["id"] for panel in BOARD["panels"]]
    cells = [
        (x, y)
        for panel in BOARD["panels"]
        for x in range(
            panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"]
        )
        for y in range(
            panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"]
        )
    ]
    assert len(set(ids)) == len(ids)
    assert len(set(cells)) == len(cells)
    assert {x for x, _ in cells} <= set(range(24))
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in PANELS)
