"""Files below ``MEDIA_ROOT``, written whole or not at all."""

import os
import tempfile
from pathlib import Path

from django.conf import settings


def media_path(name: str) -> Path:
    """Return where the file called *name* lives."""
    return Path(settings.MEDIA_ROOT) / name


def write(name: str, content: bytes) -> None:
    """Put *content* into the file called *name*, replacing what was there.

    Whoever reads meanwhile sees the old file or the new one: a task that is killed
    half way leaves a temporary file behind, never half a picture.
    """
    target = media_path(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".unfinished-")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        os.unlink(temporary)
        raise
