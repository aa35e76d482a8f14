"""What the values in our tables are called on a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils.translation import gettext_lazy as _

from unstuck.core.planned import Why
from unstuck.core.verdict import Reason

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise

REASONS: dict[str, _StrPromise] = {
    Reason.FAILED: _("failed"),
    Reason.SOFT_LIMIT: _("soft limit"),
    Reason.HARD_LIMIT: _("hard limit"),
    Reason.POISON: _("poison"),
    Reason.LOST: _("lost"),
    Reason.REJECTED: _("rejected"),
    Reason.UNKNOWN_TASK: _("unknown task"),
    Reason.UNDECODABLE: _("undecodable"),
}

MEANINGS: dict[str, _StrPromise] = {
    Reason.FAILED: _(
        "The task raised an error and has no retry left. "
        "Correct the cause, deploy, then replay."
    ),
    Reason.SOFT_LIMIT: _(
        "The task did not end within its soft limit. Look at where it stood, "
        "then make it faster or raise its limit."
    ),
    Reason.HARD_LIMIT: _(
        "The task was stopped from outside at its hard limit. Look at where it stood "
        "and what it waited for: most often a call without a time-out."
    ),
    Reason.POISON: _(
        "Each process that ran it died. Replay it only when the cause of "
        "the last death is gone: memory, a crash in C code, or a kill."
    ),
    Reason.LOST: _(
        "Its process died and the task must not run twice (acks_late=False). "
        "Find out how far it came before you replay it."
    ),
    Reason.REJECTED: _(
        "The task or the broker rejected the message. "
        "Replay it if that was a mistake, else purge it."
    ),
    Reason.UNKNOWN_TASK: _(
        "No worker has code for a task of this name. Deploy the code, then replay."
    ),
    Reason.UNDECODABLE: _(
        "It is not a task message, or its body cannot be read. Without the name of a "
        "task it cannot be replayed; with one, a replay sends the same bytes, which "
        "helps once workers can read them."
    ),
}
"""What it means, and what to do about it."""

HAPPENED: dict[str, _StrPromise] = {
    Reason.FAILED: _("fail in"),
    Reason.SOFT_LIMIT: _("were too slow in"),
    Reason.HARD_LIMIT: _("hang in"),
    Reason.POISON: _("killed their process in"),
    Reason.LOST: _("were lost in"),
    Reason.REJECTED: _("were rejected:"),
    Reason.UNKNOWN_TASK: _("are of a task without code:"),
    Reason.UNDECODABLE: _("cannot be read"),
}
"""Between how many letters and where it was."""

CONDITIONS: dict[str, _StrPromise] = {
    "starting": _("starting"),
    "ready": _("ready"),
    "stopping": _("stopping"),
    "gone": _("gone"),
    "lost": _("lost"),
}

ACTIONS: dict[str, _StrPromise] = {
    "replay": _("replay"),
    "purge": _("purge"),
    "release lock": _("release lock"),
    "stop task": _("stop task"),
    "pause queue": _("pause queue"),
    "resume queue": _("resume queue"),
    "run task now": _("run task now"),
    "drop task": _("drop task"),
}

PLANNED: dict[str, _StrPromise] = {
    Why.ETA: _("ETA or countdown"),
    Why.RETRY: _("retry"),
    Why.LOCK: _("waits for a lock"),
    Why.UNKNOWN_TASK: _("waits for a deploy: no node knows it"),
    Why.LOST: _("again after a loss"),
    Why.OUTBOX: _("in the outbox"),
}
"""Why a run waits for its time."""

ENDINGS: dict[str, _StrPromise] = {
    **REASONS,
    "succeeded": _("succeeded"),
    "retried": _("retried"),
    "child_lost": _("process lost"),
    "node_lost": _("node lost"),
    "ignored": _("ignored"),
    "revoked": _("revoked"),
    "expired": _("expired"),
}

SORTS: dict[str, _StrPromise] = {
    "name": _("Task"),
    "runs": _("Runs"),
    "rate": _("In trouble"),
    "failed": _("Failed"),
    "limits": _("Limits"),
    "lost": _("Lost"),
    "retried": _("Retried"),
}
"""What tasks are sorted by, besides percentiles."""

PROBLEMS: dict[str, _StrPromise] = {
    "slow": _(
        "The database took too long, so this is not shown. "
        "Narrow the search, or try again."
    ),
    "away": _("The database cannot be reached. What is here is shown when it is back."),
    "unmigrated": _(
        "The tables are missing or old. Run: python manage.py migrate unstuck"
    ),
    "locks": _(
        "What keeps the locks does not answer. Tasks that need one wait for it "
        "or are put off; see why: python manage.py unstuck locks list"
    ),
    "broker": _(
        "The broker does not answer, so workers cannot be asked. Tasks that run go on."
    ),
    "app": _(
        "No Celery app of unstuck is loaded here. Import it in the __init__.py of "
        "the project's package."
    ),
}
