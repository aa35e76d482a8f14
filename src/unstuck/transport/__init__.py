"""Redis Streams for kombu: ``unstuck+redis://``.

An island: it imports nothing of ours, and nothing imports it. kombu finds it by its name,
and what it can do beyond kombu's channels is asked of the channel (``core.broker``).

A message on its way, by file: ``publishing`` puts it into a stream, ``channel`` reads it from
there, ``desk`` has what this process has reserved and what it has yet to say of it, ``steward``
says it, keeps the lease and looks after the dead, ``scripts`` is what the server does as
one step, ``keys`` how things are called there.
"""

from unstuck.transport.redis import Transport

__all__ = ["Transport"]
