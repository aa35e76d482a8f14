"""The spine: how a delivery ended, and what becomes of its message.

Standard library only, no I/O, no clock reads: everything is passed in.
"""
