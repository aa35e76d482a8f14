"""The text format: read back by the parser of Prometheus' own client."""

from __future__ import annotations

import math

from tests.unit.metrics.scraped import Scraped
from unstuck.metrics.family import Distribution, Family, Kind, Point, Reading
from unstuck.metrics.text import to_text

GAUGE = Family(
    "unstuck_things", Kind.GAUGE, 'What is "there" \\ in\ntwo lines.', ("a",)
)


def text_of(family: Family, *points: Point) -> str:
    return to_text([Reading(family, family.labels, points)])


def test_head_and_series() -> None:
    """As the format has it, to the byte."""
    assert text_of(GAUGE, Point(("x",), 1), Point(("y",), 2.5)) == (
        '# HELP unstuck_things What is "there" \\\\ in\\ntwo lines.\n'
        "# TYPE unstuck_things gauge\n"
        'unstuck_things{a="x"} 1\n'
        'unstuck_things{a="y"} 2.5\n'
    )


def test_nothing_to_say_is_a_head_alone() -> None:
    """And nothing at all is nothing."""
    [family] = Scraped(text_of(GAUGE)).families
    assert (family.name, family.samples) == ("unstuck_things", [])
    assert to_text([]) == ""


def test_values_come_back() -> None:
    """Large, small, true, and none that can be told."""
    values = [0, 2**53, 1e-9, 1.5e300, True, math.inf, -math.inf]
    points = [Point((str(place),), value) for place, value in enumerate(values)]

    read = Scraped(text_of(GAUGE, *points)).samples

    assert [one.value for one in read] == [float(value) for value in values]


def test_odd_labels_come_back() -> None:
    """Quotes, lines, slashes, braces, other scripts."""
    odd = ['"', "\n", "\\", "\\n", "}{", "a=b,c", "주문", ""]

    read = Scraped(text_of(GAUGE, *(Point((one,), 1) for one in odd))).samples

    assert [one.labels["a"] for one in read] == odd


def test_a_histogram_adds_up() -> None:
    """Buckets hold all that is shorter; the last one everything."""
    family = Family("unstuck_time_seconds", Kind.HISTOGRAM, "Time.", ("a",))
    seen = Distribution((0.5, 30.0), (2, 0, 1), 99.5)

    text = text_of(family, Point(("x",), seen))

    assert text.splitlines()[2:] == [
        'unstuck_time_seconds_bucket{a="x",le="0.5"} 2',
        'unstuck_time_seconds_bucket{a="x",le="30"} 2',
        'unstuck_time_seconds_bucket{a="x",le="+Inf"} 3',
        'unstuck_time_seconds_sum{a="x"} 99.5',
        'unstuck_time_seconds_count{a="x"} 3',
    ]
    [family_read] = Scraped(text).families
    assert family_read.type == "histogram"


def test_a_histogram_without_labels() -> None:
    """No empty braces."""
    family = Family("unstuck_time_seconds", Kind.HISTOGRAM, "Time.")
    text = text_of(family, Point((), Distribution((1.0,), (1, 1), 3.0)))

    assert 'unstuck_time_seconds_bucket{le="1"} 1\n' in text
    assert text.endswith("unstuck_time_seconds_sum 3.0\nunstuck_time_seconds_count 2\n")
