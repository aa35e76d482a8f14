"""Telling people: what is to be told, how it is said, and to whom it was."""
