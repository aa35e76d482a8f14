"""Which queue a message came from."""

from __future__ import annotations

from typing import Any


def queue_of(message: Any, consumer: Any) -> str:
    """The name of the queue that handed this message to the consumer.

    Queueing again by exchange and routing key could reach other queues as well, or
    run through a delay once more; by queue name it goes just where it was.
    """
    info = message.delivery_info or {}
    tags = getattr(consumer.task_consumer, "_active_tags", None) or {}
    for queue, tag in tags.items():
        if tag == info.get("consumer_tag"):
            return str(queue)
    exchange, routing_key = info.get("exchange"), info.get("routing_key") or ""
    if exchange:
        for name, queue in consumer.app.amqp.queues.items():
            bound = queue.exchange is not None and queue.exchange.name == exchange
            if bound and queue.routing_key == routing_key:
                return str(name)
    return str(routing_key)
