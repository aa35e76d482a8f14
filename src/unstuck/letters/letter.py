"""A dead letter: the whole message and everything known of its end."""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from unstuck.core.frames import OTHER_THREADS, is_foreign
from unstuck.core.verdict import Reason
from unstuck.letters.message import StoredMessage

FRAME = re.compile(
    r'^[\s|]*File "(?P<path>[^"]+)", line \d+, in (?P<function>\S+)', re.M
)
OTHERS = re.compile(rf"^{OTHER_THREADS}$", re.M)
SEPARATOR = re.compile(r"[/\\]")
FINGERPRINT_LENGTH = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One buried delivery."""

    message: StoredMessage
    task_id: str
    task_name: str
    reason: Reason
    buried_at: datetime
    cause: str = ""
    exception_type: str = ""
    exception_message: str = ""
    traceback: str = ""
    stack: str = ""
    soft_stack: str = ""
    """Where it stood at its soft limit."""
    waiting_for: str = ""
    attempts: int = 1
    """Runs of this task, the first one counted."""
    deliveries: int = 1
    """Hand-overs of this attempt, lost ones counted."""
    node: str = ""
    pid: int | None = None
    runtime_seconds: float | None = None
    rss_bytes: int | None = None
    cpu_seconds: float | None = None
    child_age_seconds: float | None = None
    dropped: bool = False
    """Whether the broker has dropped it, and not we."""

    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    """One per burial: whoever archives a letter twice finds it by this."""

    @property
    def fingerprint(self) -> str:
        """What letters of the same trouble share: the reason and the guilty frame."""
        return fingerprint_of(
            self.reason.value,
            self.exception_type,
            self.stack or self.traceback,
            self.task_name,
        )

    def to_wire(self) -> dict[str, Any]:
        """As plain data for the queue of dead letters."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields["message"] = self.message.to_wire()
        fields["reason"] = self.reason.value
        fields["buried_at"] = self.buried_at.isoformat()
        return fields

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Letter:
        """The inverse of ``to_wire``. Fields of a newer version are left out."""
        if not isinstance(wire, Mapping):
            raise TypeError(f"A letter is a JSON object, not {wire!r:.100}")
        known = {f.name for f in dataclasses.fields(cls)}
        fields = {name: value for name, value in wire.items() if name in known}
        fields["message"] = StoredMessage.from_wire(fields["message"])
        fields["reason"] = Reason(fields["reason"])
        fields["buried_at"] = datetime.fromisoformat(fields["buried_at"])
        return cls(**fields)


def fingerprint_of(
    ending: str, exception_type: str, traceback: str, task_name: str
) -> str:
    """What the same trouble has in common: how it ended and the guilty frame.

    Where no frame is guilty the name of the task stands for it.
    """
    parts = [ending, exception_type, guilty_frame(traceback) or task_name]
    return " | ".join(part for part in parts if part)[:FINGERPRINT_LENGTH]


def guilty_frame(traceback: str) -> str:
    """The innermost frame of the project's own code, as ``function (dir/file.py)``.

    Empty when there is none. What other threads did does not count.
    """
    of_task = OTHERS.split(traceback, maxsplit=1)[0]
    own = [frame for frame in _frames(of_task) if not is_foreign(frame[0])]
    if not own:
        return ""
    path, function = own[-1]
    place = "/".join(SEPARATOR.split(path)[-2:])
    return f"{function} ({place})"


def _frames(traceback: str) -> Iterator[tuple[str, str]]:
    for match in FRAME.finditer(traceback):
        yield match["path"], match["function"]
