"""The recorder: a process that writes what happened to the Django database."""
