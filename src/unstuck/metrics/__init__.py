"""What is counted and measured, for Prometheus and OpenTelemetry.

``tally`` is where a node counts, ``family`` what a metric is, ``text`` how Prometheus reads
it. What a node shows is put together by ``unstuck.probes.metrics``, what the fleet shows by
``unstuck.dashboard.queries.fleet``.
"""
