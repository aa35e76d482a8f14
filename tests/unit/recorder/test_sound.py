"""Values as every database takes them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest

from unstuck.core.clock import system_clock
from unstuck.recorder import sound


def test_an_id_is_itself() -> None:
    """And of what is none, always the same one, whatever is in it."""
    own = uuid.uuid4()

    assert sound.identity(str(own)) == own
    assert sound.identity("\udc80 none") == sound.identity("\udc80 none")
    assert sound.identity("one") != sound.identity("other")
    assert isinstance(sound.identity(7), uuid.UUID)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(9999, 12, 31, 23, 59, tzinfo=timezone(-timedelta(hours=12))),
        datetime(1969, 12, 31, tzinfo=UTC),
        datetime(2200, 1, 1, tzinfo=UTC),
    ],
)
def test_an_instant_beyond_all_reason_is_now(moment: datetime) -> None:
    """What cannot be stored, or not be read again."""
    assert system_clock() - sound.instant(moment) < timedelta(minutes=1)


def test_an_instant_is_in_utc() -> None:
    """Also where it does not say."""
    east = timezone(timedelta(hours=2))
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)

    assert sound.instant(datetime(2026, 3, 1, 12)) == noon
    assert sound.instant(datetime(2026, 3, 1, 14, tzinfo=east)) == noon


def test_a_number_can_be_added_up() -> None:
    """What is none is unknown."""
    numbers = [1.5, 0.0, float("nan"), float("inf"), None]

    assert [sound.number(each) for each in numbers] == [1.5, 0.0, None, None, None]
