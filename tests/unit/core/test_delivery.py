"""The facts of one hand-over."""

from __future__ import annotations

from datetime import UTC, datetime

from unstuck.core.delivery import Delivery

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_a_first_delivery_counts_one() -> None:
    """No strike went before."""
    assert Delivery(task_id="1", task_name="t", queue="q").deliveries == 1


def test_each_strike_was_a_delivery() -> None:
    """Retries are counted apart."""
    delivery = Delivery(
        task_id="1", task_name="t", queue="q", attempt=5, strikes=(NOW, NOW)
    )

    assert delivery.deliveries == 3
