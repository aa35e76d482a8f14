"""Locks that die with their holder."""
