"""A scheduler of the project's own, which hangs while a file is there."""

from __future__ import annotations

import os
import time
from typing import Any

from celery.beat import PersistentScheduler
from django.conf import settings


class Hanging(PersistentScheduler):
    """Looks for the file whenever it looks for what is due."""

    def is_due(self, entry: Any) -> Any:
        while os.path.exists(settings.HANGS_WHILE):
            time.sleep(0.1)
        return super().is_due(entry)
