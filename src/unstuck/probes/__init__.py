"""Whether a worker lives, is ready, and works: asked from outside, answered at once.

``runtime``, ``asking`` and ``command`` are the side of who asks: the standard library
alone, so that a probe costs next to nothing. This package imports nothing.
"""
