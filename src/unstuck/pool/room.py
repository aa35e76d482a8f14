"""Room for children: main holds four descriptors for each of them."""

from __future__ import annotations

import logging
import resource
from collections.abc import Collection

from unstuck.fields import Fields
from unstuck.pool.board import CHILDREN

logger = logging.getLogger(__name__)

FILES_OF_A_CHILD = 4
KEPT_FREE = 32
"""What no child may take from main: it has to reach the broker, too."""

FOR_ALL_ELSE = 100
"""Those, and what main has open when it starts."""

NO_ROOM = (
    "main may open too few files for one more child: raise its limit (`ulimit -n`, "
    "LimitNOFILE= in systemd, --ulimit in Docker), or lower the concurrency"
)


def make_room(children: int) -> None:
    """Let this process open as many files as it may, up to what it can ever need.

    Only this one: what tasks start often closes every descriptor that it could have.
    Says so where that is not enough for so many ``children``.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(soft, min(hard, _needed(CHILDREN)))
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < _needed(children):
        logger.warning(
            "There are too few descriptors for so many children, and some will not start. "
            "Raise the hard limit (`ulimit -Hn`, LimitNOFILE= in systemd, --ulimit in "
            "Docker), or lower the concurrency: %(fields)s",
            Fields(children=children, needed=_needed(children), limit=most),
        )


def has_room(files: Collection[int]) -> bool:
    """Whether a child has come with all its descriptors, and enough are left."""
    # The kernel gives the lowest numbers that are free, and drops what it has none for.
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return len(files) == FILES_OF_A_CHILD and max(files) < most - KEPT_FREE


def _needed(children: int) -> int:
    return FILES_OF_A_CHILD * children + FOR_ALL_ELSE
