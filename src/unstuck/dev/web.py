"""Django's development server as one process, silent until it is asked something.

`python -m unstuck.dev.web HOST:PORT`. What runserver says at its start would bury the
one line of `unstuck dev` that names the URL.
"""

from __future__ import annotations

import io
import sys

import django
from django.core.management import call_command


def main(address: str) -> None:
    """Serve the project of DJANGO_SETTINGS_MODULE on `address` until killed."""
    django.setup()
    call_command("runserver", address, use_reloader=False, stdout=io.StringIO())


if __name__ == "__main__":
    main(sys.argv[1])
