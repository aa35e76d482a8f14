"""Histograms: near enough, mergeable, and the same after the wire."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unstuck.core.histogram import LAST, LEAST, MOST, Histogram, bounds

durations = st.floats(min_value=0, max_value=1e9)


def counted(values: Iterable[float]) -> Histogram:
    """A histogram of these."""
    histogram = Histogram()
    for seconds in values:
        histogram.add(seconds)
    return histogram


@given(st.floats(min_value=LEAST, max_value=MOST, exclude_max=True))
def test_a_duration_is_in_its_bucket_and_told_within_a_sixteenth(
    seconds: float,
) -> None:
    """From less than a millisecond to more than an hour."""
    histogram = counted([seconds])

    [bucket] = histogram.counts
    low, high = bounds(bucket)
    assert low <= seconds < high
    told = histogram.percentile(50)
    assert told is not None
    assert abs(told - seconds) <= seconds / 16


@pytest.mark.parametrize("seconds", [-1e9, -0.0, 0.0, 1e-9, math.nextafter(LEAST, 0)])
def test_what_is_too_short_to_tell_is_in_the_first_bucket(seconds: float) -> None:
    """A clock that was set back as well."""
    assert counted([seconds]).counts == {0: 1}
    assert bounds(0) == (0.0, LEAST)


@pytest.mark.parametrize("seconds", [MOST, 1e300, math.inf, math.nan])
def test_what_is_too_long_to_tell_is_in_the_last_bucket(seconds: float) -> None:
    """It is counted all the same."""
    assert counted([seconds]).counts == {LAST: 1}
    assert bounds(LAST)[0] == MOST


def test_buckets_follow_each_other_without_a_gap() -> None:
    """Where one ends the next one begins."""
    assert [bounds(n)[1] for n in range(LAST)] == [
        bounds(n + 1)[0] for n in range(LAST)
    ]


@given(st.lists(durations, min_size=1), st.sampled_from([0.0, 1.0, 50.0, 95.0, 100.0]))
def test_percentiles_are_those_of_the_nearest_rank(
    values: list[float], percent: float
) -> None:
    """The bucket of the one that so many percent do not exceed."""
    rank = max(1, math.ceil(len(values) * percent / 100))
    exact = sorted(values)[rank - 1]

    assert counted(values).percentile(percent) == counted([exact]).percentile(50)


@given(st.lists(durations))
def test_several_percentiles_are_those_of_each(values: list[float]) -> None:
    """Also where several are in one bucket, and where nothing was counted."""
    histogram, percents = counted(values), [0.0, 1.0, 50.0, 50.0, 95.0, 99.0, 100.0]

    apart = [histogram.percentile(percent) for percent in percents]

    assert histogram.percentiles(percents) == apart


def test_of_nothing_there_is_no_percentile() -> None:
    """Nor is it 0."""
    assert Histogram().percentile(50) is None
    assert Histogram().total == 0
    assert Histogram().to_wire() == ""


@given(st.lists(st.lists(durations), max_size=4))
def test_parts_add_up(parts: list[list[float]]) -> None:
    """Through the wire, as if all had been counted in one."""
    whole = counted(seconds for part in parts for seconds in part)

    added = Histogram.of(counted(part).to_wire() for part in parts)

    assert added.counts == whole.counts
    assert added.to_wire() == whole.to_wire()
    assert added.total == sum(map(len, parts))


def test_the_wire_can_be_read_by_people() -> None:
    """And is short."""
    assert counted([0.0, 0.1, 0.1, 60.0]).to_wire() == "0:1 77:2 152:1"


@pytest.mark.parametrize("text", ["7", "7:", ":7", "a:1", "7:1,8:1", "[[7, 1]]"])
def test_what_is_no_histogram_is_an_error(text: str) -> None:
    """And not an empty one."""
    with pytest.raises(ValueError, match="invalid literal"):
        Histogram.of([text])
