"""The ports of `unstuck dev`."""

from __future__ import annotations

import socket

import pytest

from unstuck.dev.errors import DevError
from unstuck.dev.ports import HOST, answers, claim_is_possible, free_port


def test_a_taken_port_is_named_with_the_way_out() -> None:
    """The refusal is one line with the port and the option for another."""
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]

        with pytest.raises(DevError) as refusal:
            claim_is_possible(port, option="--port")

    assert f"port {port} " in str(refusal.value)
    assert "--port" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_free_port_can_be_claimed() -> None:
    """What `free_port` gives is free, and nobody answers there."""
    port = free_port()

    claim_is_possible(port, option="--port")

    assert not answers(port)


def test_a_port_with_a_server_answers() -> None:
    """Somebody who listens answers."""
    with socket.create_server((HOST, 0)) as server:
        assert answers(server.getsockname()[1])
