"""`/metrics` of a node: what the board and the tally say, at once."""

from __future__ import annotations

import os
import time

import pytest

from tests.unit.metrics.scraped import Scraped
from tests.unit.metrics.test_tally import minute
from unstuck.metrics.text import to_text
from unstuck.pool.board import (
    FIRST_CHILD,
    MAIN,
    PROBES,
    RECORDER,
    SUPERVISOR,
    Board,
    Column,
)
from unstuck.probes import metrics
from unstuck.probes.judge import State
from unstuck.probes.process import routes
from unstuck.probes.snapshot import About

ABOUT = About(
    node="celery@w1",
    supervised=True,
    stall_seconds=30,
    tier="queue",
    started_at=1_790_000_000.5,
    info={"node": "celery@w1", "version": "1.0", "release": "abc"},
)


@pytest.fixture
def board() -> Board:
    """Of an idle node that is fine, with two children."""
    board = Board()
    for row in (SUPERVISOR, MAIN, PROBES, FIRST_CHILD, FIRST_CHILD + 900):
        board.row(row).clear(os.getpid())
    main = board.row(MAIN)
    for column in (Column.READY, Column.CONNECTED):
        main[column] = 1
    main[Column.WAITING] = 8
    main[Column.SLOTS], main[Column.FREE], main[Column.SERVING] = 4, 3, 6
    main[Column.RUNNING], main[Column.RESERVED] = 1, 2
    return board


def scrape(board: Board, about: About = ABOUT) -> Scraped:
    return Scraped(to_text(metrics.readings(board, about)))


def test_every_metric_is_there(board: Board) -> None:
    """Read back, with its type."""
    board.row(RECORDER).clear(os.getpid())
    board.tally.by_task().add(minute("send", "mail", 0.1, succeeded=1))

    families = {family.name: family for family in scrape(board).families}

    for family in metrics.FAMILIES:
        read = families[family.name.removesuffix("_total")]
        assert (read.type, bool(read.samples)) == (family.kind, True), family.name
        assert read.documentation == family.help


def test_what_the_board_says(board: Board) -> None:
    """One number each."""
    seen = scrape(board)

    expected = {
        "slots": 4,
        "slots_free": 3,
        "children": 6,
        "children_spare": 2,
        "messages_waiting": 7,
        "tasks_running": 1,
        "tasks_reserved": 2,
        "broker_connected": 1,
        "broker_away_seconds": 0,
        "database_away_seconds": 0,
        "node_started_timestamp_seconds": 1_790_000_000.5,
    }
    for name, value in expected.items():
        assert seen.total(f"unstuck_{name}") == value, name
    assert seen.found("unstuck_node_info")[0].labels == {
        "node": "celery@w1",
        "pool": "",
        "release": "abc",
    }


def test_the_state_is_what_the_probes_say(board: Board) -> None:
    """One state, and what each probe makes of it."""
    board.row(MAIN)[Column.UNANSWERED] = time.monotonic_ns() - 90 * 10**9

    seen = scrape(board)

    states = seen.found("unstuck_node_state")
    assert {one.labels["state"] for one in states} == set(State)
    assert [s.labels["state"] for s in states if s.value] == ["broker_away"]
    wells = {s.labels["probe"]: s.value for s in seen.found("unstuck_node_well")}
    assert wells == {"live": 1, "ready": 0, "working": 0}
    assert seen.total("unstuck_broker_away_seconds") == pytest.approx(90, abs=60)


def test_what_is_not_known_is_not_said(board: Board) -> None:
    """No recorder, no count of what waits: no series, and so no wrong zero."""
    board.row(MAIN)[Column.WAITING] = 0

    seen = scrape(board)

    assert seen.found("unstuck_messages_waiting") == []
    assert seen.found("unstuck_recorder_lag_seconds") == []
    assert seen.found("unstuck_process_silent_seconds", process="recorder") == []


def test_memory_is_of_those_that_are_there(board: Board) -> None:
    """Of all children together, wherever their rows are."""
    one = scrape(board).total("unstuck_process_resident_memory_bytes", process="main")
    all_ = scrape(board).total(
        "unstuck_process_resident_memory_bytes", process="children"
    )

    assert one > 2**20
    assert all_ == pytest.approx(2 * one, rel=0.2)
    for row in (FIRST_CHILD, FIRST_CHILD + 900):
        board.row(row)[Column.PID] = 0
    assert board.children() == []
    assert not scrape(board).found(
        "unstuck_process_resident_memory_bytes", process="children"
    )


def test_it_is_a_page_beside_the_probes(board: Board) -> None:
    """In parts, so that a probe need not wait for all of it."""
    for number in range(300):
        board.tally.by_task().add(minute(f"t{number}", "mail", succeeded=1))
    about = About(node="w", supervised=True, stall_seconds=30, tier="task")

    page = routes(board, about)["/metrics"]()
    head, *parts = page.parts(with_body=True)

    assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n" in head
    assert b"Content-Length" not in head
    assert len(parts) > 10
    text = b"".join(parts).decode()
    assert Scraped(text).total("unstuck_tasks_ended_total", ending="succeeded") == 300
