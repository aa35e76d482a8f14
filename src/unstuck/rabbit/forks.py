"""AMQP connections that a fork has copied into a child.

The child's kombu closes all connections of its pools, and py-amqp shuts down what it
closes: for the parent as well. What the parent was just publishing it then publishes
again, and a task runs twice though nothing was lost.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any


def keep_connections_in_parent(app: Any) -> None:
    """Have all children of this process let go of its connections for publishing."""
    os.register_at_fork(after_in_child=partial(_let_go, app.pool))


def _let_go(pool: Any) -> None:
    """Close the sockets without a word to the other side."""
    for connection in [*pool._resource.queue, *pool._dirty]:
        # Not by their properties, which would connect.
        amqp: Any = getattr(connection, "_connection", None)
        transport: Any = getattr(amqp, "_transport", None)
        if transport is not None and transport.sock is not None:
            transport.sock.close()
            transport.sock = None
