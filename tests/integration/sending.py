"""Sending to a site, as a client that knows no task."""

from __future__ import annotations

from typing import Any

from tests.node import Site

TASKS = "tests.project.tasks."


def send(site: Site, name: str, *args: Any, **options: Any) -> str:
    """Send a task; its id."""
    with site.client() as app:
        return str(app.send_task(TASKS + name, args, **options).id)


def send_raw(site: Site, body: bytes, **headers: Any) -> None:
    """Send what no Celery would send."""
    with site.client() as app, app.producer_or_acquire() as producer:
        producer.publish(
            body,
            routing_key="celery",
            declare=[app.amqp.queues["celery"]],
            content_type="application/json",
            content_encoding="utf-8",
            headers=headers,
        )
