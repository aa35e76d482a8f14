"""Brokers for which Celery has no event loop: the pool turns in a thread of its own."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import celery

from tests.integration.sending import TASKS
from tests.node import Site
from tests.waiting import eventually


def test_a_broker_without_an_event_loop(
    tmp_path: Path, migrated_database: Path
) -> None:
    """Results, limits, losses and an orderly end, as on any other."""
    shutil.copy(migrated_database, tmp_path / "db.sqlite3")
    folders = {"data_folder_in": "queue", "data_folder_out": "queue"}
    options = {
        name: str(tmp_path / folder)
        for name, folder in {**folders, "control_folder": "control"}.items()
    }
    for folder in options.values():
        Path(folder).mkdir(exist_ok=True)
    settings = {"CELERY_BROKER_TRANSPORT_OPTIONS": options}
    site = Site(directory=tmp_path, broker="filesystem://", settings=settings)
    app = celery.Celery(broker="filesystem://", set_as_current=False)
    app.conf.broker_transport_options = options

    with site.node("-c", "2") as node:
        sent = {
            name: app.send_task(TASKS + name, args).id
            for name, args in [("add", (1, 2)), ("hard", ()), ("kill", ())]
        }
        buried = {name: site.letter(sent[name], 60) for name in ("hard", "kill")}
        eventually(lambda: site.runs(sent["add"]) == 1, 20)
        node.send(signal.SIGTERM)
        assert node.wait() == 0
    app.close()

    assert buried["hard"]["reason"] == "hard_limit"
    assert buried["kill"]["reason"] == "poison"
    assert site.runs(sent["kill"]) == 3
