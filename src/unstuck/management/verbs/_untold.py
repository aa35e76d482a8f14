"""What could not be asked, in words."""

from __future__ import annotations

from unstuck.remote import Untold


def untold_in_words(untold: Untold) -> str:
    """After "Not asked:"."""
    match untold.what:
        case "broker":
            return "the broker and the workers, as the broker did not answer"
        case "node":
            return f"{untold.which}, which did not answer in time"
        case "locks":
            return "the locks, as what keeps them did not answer"
        case "results":
            return "the result, as the result backend did not answer"
        case "no_results":
            return "the result, as the project has no result backend"
        case "database":
            return "letters, runs and the outbox, as the database did not answer"
        case "queues":
            return f"{untold.number} more queues: there are too many"
        case "queue" if untold.number is None:
            return f"all that waits for its time in the queue {untold.which}: there is too much"
        case "queue":
            return f"what comes after the first {untold.number} in {untold.which}"
        case _:
            counted = (
                f" ({untold.number} wait in delay queues)" if untold.number else ""
            )
            return f"the queues, as this broker lets nobody look into them{counted}"
