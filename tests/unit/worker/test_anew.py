"""What a program is called with that begins again in its own process."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from unstuck.worker.anew import start_anew
from unstuck.worker.sdnotify import Notifier


@pytest.mark.parametrize(
    "done", [["--workdir", "app"], ["--workdir=app"], ["--detach"], []]
)
def test_it_is_called_as_it_was(monkeypatch: Any, done: list[str]) -> None:
    """Without what would be done to this process a second time; systemd's is given back."""
    called: list[Any] = []
    monkeypatch.setattr(os, "execv", lambda *words: called.append(words))
    argv = ["python3", "-m", "celery", *done, "-A", "shop", "beat", "-l", "info"]
    monkeypatch.setattr(sys, "orig_argv", argv)
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    notifier = Notifier.take_from(os.environ)

    start_anew(notifier)

    words = ["-m", "celery", "-A", "shop", "beat", "-l", "info"]
    assert called == [(sys.executable, [sys.executable, *words])]
    assert os.environ["NOTIFY_SOCKET"] == "/run/notify"
