"""The table of all live rules, filled by the modules that have them."""

from unstuck.doctor import (
    archive,
    clocks,
    database,
    hosts,
    nodes,
    queues,
    rabbitmq,
    redis,
    runs,
    unasked,
)
from unstuck.doctor.rule import TABLE

__all__ = [
    "TABLE",
    "archive",
    "clocks",
    "database",
    "hosts",
    "nodes",
    "queues",
    "rabbitmq",
    "redis",
    "runs",
    "unasked",
]
