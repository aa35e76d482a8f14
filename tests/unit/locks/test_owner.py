"""Whose the locks are that are taken somewhere."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor

from unstuck.locks.owner import current, deadline, new_owner, owned_by


def test_each_thread_is_an_owner() -> None:
    """One and the same for as long as it lives."""
    with ThreadPoolExecutor(1) as other:
        theirs = other.submit(current).result()
        assert theirs == other.submit(current).result()

    assert current() == current() != theirs
    assert current().token != theirs.token
    assert (current().pid, current().node) == (os.getpid(), socket.gethostname())
    assert deadline() is None


def test_a_run_of_a_task_is_an_owner() -> None:
    """Within it, nested ones included; not in other threads."""
    run, nested = new_owner(task_id="1", task_name="t", node="w"), new_owner()
    with ThreadPoolExecutor(1) as other, owned_by(run, until=5.0):
        assert (current(), deadline()) == (run, 5.0)
        with owned_by(nested):
            assert (current(), deadline()) == (nested, None)
        assert (current(), deadline()) == (run, 5.0)
        assert other.submit(current).result() != run

    assert current() not in (run, nested)
    assert (run.task_id, run.task_name, run.node) == ("1", "t", "w")
