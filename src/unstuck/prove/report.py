"""What was found, for programs and for people."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from unstuck.prove.account import KILLS, NODE_FROZEN, Recovery
from unstuck.prove.apart import VISIBILITY_SECONDS
from unstuck.prove.proof import Result

Row = tuple[object, ...]
Table = tuple[Row, list[Row]]

HITS = (*KILLS, NODE_FROZEN)
NO_LOSS = "no loss known"
MOST_NAMED = 5


def as_data(result: Result) -> dict[str, Any]:
    """Everything, as plain data."""
    account = result.account
    return {
        "proved": result.is_proved,
        "conclusion": conclusion(result),
        "remarks": remarks(result),
        "id": result.id,
        "seconds": round(result.seconds, 1),
        "sent": len(account.sent),
        "succeeded": _succeeded(result),
        "buried": dict(result.buried),
        "in_flight": account.in_flight,
        "missing": account.missing,
        "sending_failed": len(account.unsure),
        "losses": _times(result),
        "kills": result.kills,
        "kills_asked": result.kills_asked,
        "ended_by_themselves": result.ended_by_themselves,
        "runs": len(account.runs),
        "runs_again": [
            {"task_id": each.task_id, "cause": each.cause} for each in account.again
        ],
        "runs_again_without_a_loss": account.unexplained,
        "overlapping": account.overlapping,
        "recovery": _recovery(account.recoveries()),
        "letters_archived": result.archived,
        "database_error": result.database_error,
        "kept": "" if result.is_proved and not account.lost else result.directory,
    }


def tables(result: Result) -> list[Table]:
    """The ledger, what hit it, and how long it took, each with its headings."""
    return [_ledger(result), _hits(result), _recoveries(result)]


def conclusion(result: Result) -> str:
    """What was proved; or what is missing, and what to do."""
    account = result.account
    if account.missing:
        return _what_is_missing(result)
    if account.unexplained:
        return (
            f"NOT PROVED: nothing is missing, but something has run again without a loss "
            f"that this proof has caused ({len(account.unexplained)}). Was the broker "
            f"restarted meanwhile, or did it lose its connections? Prove again while it "
            f"is left alone. Logs and ledger: {result.directory}"
        )
    hit = f"workers were killed {_times_said(result.kills)}"
    if frozen := _times(result)[NODE_FROZEN]:
        hit += f" and frozen {_times_said(frozen)}"
    return (
        f"PROVED: each of the {len(account.sent)} tasks is accounted for, although {hit}. "
        f"{_repeated(len(account.again))}"
    )


def remarks(result: Result) -> list[str]:
    """What one should know besides."""
    return [text for text in _remarks(result) if text]


def _remarks(result: Result) -> list[str]:
    account = result.account
    stay = len(account.in_flight)
    return [
        f"Still on the broker when nothing had happened for a while: {stay}. That is not "
        f"lost, but nobody took it. The logs say why: {result.directory}"
        if stay
        else "",
        _on_stock_redis(result),
        f"Only {result.kills} of {result.kills_asked} kills could be done: nobody was there "
        f"to hit. More --seconds give nodes the time to start again."
        if result.kills < result.kills_asked
        else "",
        f"Could not be sent: {len(account.unsure)}. The broker did not take them, and they "
        f"do not count."
        if account.unsure
        else "",
        f"Nodes have ended by themselves {_times_said(result.ended_by_themselves)}, and were "
        f"started again."
        if result.ended_by_themselves
        else "",
        f"The dead letters could not be archived: {result.database_error}. "
        f"Outside of a proof they would wait on the broker until it can be done. Is the "
        f"database there, and has `manage.py migrate` been run?"
        if result.database_error
        else "",
    ]


def _on_stock_redis(result: Result) -> str:
    if result.your_recovery is None:
        return ""
    return (
        f"On redis:// what a dead node had comes back after the visibility timeout and the "
        f"next look for it: with your settings after up to {result.your_recovery:g} s. So "
        f"as not to wait for that, the proof had a timeout of {VISIBILITY_SECONDS} s, on "
        f"its own connections only: its times are not yours. With unstuck+redis:// it "
        f"takes seconds (docs/redis-streams.md)."
    )


def _what_is_missing(result: Result) -> str:
    account = result.account
    named = ", ".join(account.missing[:MOST_NAMED])
    more = "…" if len(account.missing) > MOST_NAMED else ""
    why = (
        "With redis:// a message that is popped in the instant in which its node dies is "
        "lost: use unstuck+redis://. Otherwise look for who deletes on the broker"
        if result.your_recovery is not None
        else "Look for who deletes on the broker"
    )
    return (
        f"NOT PROVED: of {len(account.sent)} tasks {len(account.missing)} are missing. The "
        f"broker took them, and they have neither succeeded nor become dead letters, nor "
        f"are they on the broker: {named}{more}. {why}: a purge, FLUSHALL, a maxmemory "
        f"policy that evicts, a restart without persistence. Logs and ledger: "
        f"{result.directory}"
    )


def _times_said(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _repeated(again: int) -> str:
    if not again:
        return "None had to run a second time."
    return f"What had to run again ({again}) did so because of such a loss."


def _ledger(result: Result) -> Table:
    account = result.account
    reasons = ", ".join(
        f"{reason}: {count}" + (" (sent to fail)" if reason == "failed" else "")
        for reason, count in sorted(result.buried.items())
    )
    archived = f"archived in your database: {result.archived}"
    buried = sum(result.buried.values())
    rows: list[Row] = [
        ("sent", len(account.sent), ""),
        ("= succeeded", _succeeded(result), ""),
        ("+ buried", buried, f"{reasons}; {archived}" if buried else ""),
        ("+ still in flight", len(account.in_flight), ""),
        ("+ MISSING", len(account.missing), ""),
    ]
    return ("LEDGER", "TASKS", ""), rows


def _hits(result: Result) -> Table:
    times, causes = _times(result), result.account.causes
    rows: list[Row] = [(kind, times[kind], causes[kind]) for kind in HITS]
    rows.append((NO_LOSS, "", len(result.account.unexplained)))
    return ("WHAT HIT THEM", "TIMES", "RUNS REPEATED"), rows


def _recoveries(result: Result) -> Table:
    recoveries = result.account.recoveries()
    rows: list[Row] = []
    for kind in KILLS:
        of_kind = [each for each in recoveries if each.loss.kind == kind]
        rows.append(_recovery_row(kind, of_kind))
    rows.append(_recovery_row("all", recoveries))
    return ("RUNS AGAIN AFTER", "KILLS", "P50", "P95", "MAX"), rows


def _recovery_row(kind: str, recoveries: Sequence[Recovery]) -> Row:
    found = _recovery(recoveries)
    seconds = [found[name] for name in ("p50", "p95", "max")]
    return (kind, found["kills"], *("" if s is None else f"{s:.1f} s" for s in seconds))


def _recovery(recoveries: Sequence[Recovery]) -> dict[str, Any]:
    """Seconds from a kill until all that it had hit ran again."""
    seconds = sorted(each.seconds for each in recoveries)
    return {
        "kills": len(seconds),
        "p50": _percentile(seconds, 50),
        "p95": _percentile(seconds, 95),
        "max": _percentile(seconds, 100),
    }


def _percentile(ordered: Sequence[float], percent: int) -> float | None:
    """The nearest rank."""
    if not ordered:
        return None
    return round(ordered[math.ceil(percent / 100 * len(ordered)) - 1], 2)


def _succeeded(result: Result) -> int:
    account = result.account
    return len((account.sent & account.succeeded) - set(account.buried))


def _times(result: Result) -> Counter[str]:
    return Counter(loss.kind for loss in result.losses)
