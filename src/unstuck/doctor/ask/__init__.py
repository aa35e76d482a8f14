"""Asking: each part at the same time as the others, and none for longer than it may."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from unstuck.app import Celery
from unstuck.core.clock import system_clock
from unstuck.doctor import SECONDS
from unstuck.doctor.ask import broker, database, nodes
from unstuck.doctor.ask.here import here_of
from unstuck.doctor.facts import Part, Seen


@dataclass(frozen=True, slots=True)
class _Answer:
    value: Any = None
    problem: str = ""


def look(
    app: Celery, *, rabbitmq_api: str | None = None, seconds: float = SECONDS
) -> Seen:
    """Everything that can be seen from here."""
    here = here_of(app)
    wanted = sorted({*here.queues, *here.sent_to, here.letters})
    answers = together(
        {
            Part.BROKER: lambda: broker.ask(app, wanted, rabbitmq_api),
            Part.DATABASE: lambda: database.ask(here.database),
            Part.NODES: lambda: nodes.ask(app),
        },
        seconds,
    )
    asked: dict[str, Any] = {}
    unasked: dict[Part, str] = {}
    for part, answer in answers.items():
        if answer.problem:
            unasked[part] = answer.problem
        else:
            facts, problems = answer.value
            asked |= facts
            unasked |= problems
    return Seen(now=system_clock(), here=here, unasked=unasked, **asked)


def together(
    questions: Mapping[Part, Callable[[], Any]], seconds: float
) -> dict[Part, _Answer]:
    """The answers, or what became of the question.

    One that hangs is left behind in its thread, which nobody waits for.
    """
    answers: dict[Part, _Answer] = {}

    def ask(part: Part, question: Callable[[], Any]) -> None:
        try:
            answers[part] = _Answer(question())
        except Exception as error:
            answers[part] = _Answer(problem=in_words(error))

    threads = [
        threading.Thread(target=ask, args=item, name=f"doctor-{item[0]}", daemon=True)
        for item in questions.items()
    ]
    give_up_at = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, give_up_at - time.monotonic()))
    late = _Answer(problem=f"no answer within {seconds:g} s")
    # A copy: a late answer must not change what is judged already.
    told = dict(answers)
    return {part: told.get(part, late) for part in questions}


def in_words(error: Exception) -> str:
    """An error in one line, without a full stop."""
    text = " ".join(str(error).split()).rstrip(".")
    return text or type(error).__name__
