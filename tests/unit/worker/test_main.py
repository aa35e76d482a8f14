"""The worker program, before it starts anything."""

from __future__ import annotations

from typing import Any

import pytest

from unstuck import Celery


@pytest.mark.django_db  # Celery runs Django's checks, which may ask what SQLite can do.
@pytest.mark.filterwarnings("ignore::celery.exceptions.SecurityWarning")
def test_a_misspelt_setting_is_told_in_a_line(app: Celery, settings: Any) -> None:
    """With what was meant, on each broker; Redis Streams asks for settings first."""
    settings.UNSTUCK = {"MAX_STRIKE": 3}
    app.conf.broker_url = "unstuck+redis://127.0.0.1:1/0"

    with pytest.raises(SystemExit) as refused:
        app.Worker(hostname="one@host", pool="solo")

    assert "Did you mean 'MAX_STRIKES'?" in str(refused.value.code)
