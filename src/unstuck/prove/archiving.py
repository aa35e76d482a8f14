"""What becomes of the dead letters of a proof: archived as any, and then deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import DatabaseError

from unstuck import conf
from unstuck.letters.letter import Letter
from unstuck.models import DeadLetter
from unstuck.recorder import archive


def archive_and_forget(app: Any, letters: Sequence[Letter]) -> tuple[int, str]:
    """Archive letters as a recorder does, see that they are there, and delete them.

    Says how many were there, and what the database had against it.
    """
    if not letters:
        return 0, ""
    alias = conf.current().database
    ours = DeadLetter.objects.using(alias).filter(
        letter_id__in=[letter.id for letter in letters]
    )
    try:
        try:
            archive.store(app, letters)
            return ours.count(), ""
        finally:
            ours.delete()
    except DatabaseError as error:
        return 0, " ".join(str(error).split())
