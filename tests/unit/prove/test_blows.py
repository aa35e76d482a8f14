"""The plan of what is to happen."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from unstuck.prove import blows
from unstuck.prove.account import CHILD_KILLED, KILLS, MAIN_KILLED, NODE_FROZEN


@given(st.floats(0.5, 3600), st.integers(0, 2**32), st.data())
def test_as_many_kills_as_asked_for_in_time(
    seconds: float, seed: int, data: st.DataObject
) -> None:
    """However many fit in, in order, and no node is driven into a crash loop."""
    kills = data.draw(st.integers(1, blows.fit_into(seconds)))

    planned = blows.plan(seconds, kills, random.Random(seed))

    kinds = Counter(blow.kind for blow in planned)
    assert sum(kinds[kind] for kind in KILLS) == kills
    assert kinds[MAIN_KILLED] <= 4 * max(1, seconds / 60)
    times = [blow.at for blow in planned]
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] <= seconds


def test_by_default_everything_happens() -> None:
    """Kills of all kinds, most of children, and a freeze."""
    planned = blows.plan(45, blows.kills_for(45), random.Random(0))

    kinds = Counter(blow.kind for blow in planned)
    assert set(kinds) == {*KILLS, NODE_FROZEN}
    assert kinds.most_common(1)[0][0] == CHILD_KILLED
