"""Which queue a message came from."""

from __future__ import annotations

from typing import Any


def queue_of(message: Any, consumer: Any) -> str:
    """The name of the queue that handed this message to the consumer.

    Queueing again by exchange and routing key could reach other queues as well, or
    run through a delay once more; by queue name it goes just where it was.
    """
    info = message.delivery_info or {}
    if queue := info.get("queue"):
        return str(queue)  # Our own transport says so.
    tags = getattr(consumer.task_consumer, "_active_tags", None) or {}
    for queue, tag in tags.items():
        if tag == info.get("consumer_tag"):
            return str(queue)
    exchange, routing_key = info.get("exchange"), info.get("routing_key") or ""
    if exchange:
        routed = _routed_to(consumer, exchange, routing_key)
        if routed:
            return routed
    return str(routing_key)


def _routed_to(consumer: Any, exchange: str, routing_key: str) -> str:
    """Where a broker without consumer tags (Redis) routed a message that we got."""
    channel = consumer.task_consumer.channel
    lookup = getattr(channel, "_lookup", None)
    if lookup is None:
        return ""
    ours = {queue.name for queue in consumer.task_consumer.queues}
    return next(
        (str(name) for name in lookup(exchange, routing_key) if name in ours), ""
    )
