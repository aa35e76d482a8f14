"""What is stored in the Django database."""

from __future__ import annotations

from typing import Any

from django.db import models

from unstuck.core.verdict import Reason
from unstuck.letters.message import StoredMessage


class DeadLetter(models.Model):
    """A buried delivery: the whole message and everything known of its end."""

    REASONS = [(reason.value, reason.value.replace("_", " ")) for reason in Reason]

    letter_id = models.UUIDField(unique=True, editable=False)
    task_id = models.CharField(max_length=255, db_index=True)
    task_name = models.CharField(max_length=255, db_index=True)
    queue = models.CharField(max_length=255)
    args = models.JSONField(null=True, help_text="Redacted. None: could not be read.")
    kwargs = models.JSONField(null=True, help_text="Redacted. None: could not be read.")

    message = models.BinaryField(help_text="The body of the message, byte for byte.")
    content_type = models.CharField(max_length=255)
    content_encoding = models.CharField(max_length=255, blank=True)
    headers = models.JSONField(default=dict)
    properties = models.JSONField(default=dict)

    reason = models.CharField(max_length=20, choices=REASONS, db_index=True)
    cause = models.TextField(blank=True)
    exception_type = models.CharField(max_length=255, blank=True)
    exception_message = models.TextField(blank=True)
    traceback = models.TextField(blank=True)
    stack = models.TextField(blank=True)
    waiting_for = models.TextField(blank=True)
    fingerprint = models.CharField(max_length=255, db_index=True)

    attempts = models.PositiveIntegerField(default=1)
    deliveries = models.PositiveIntegerField(default=1)
    node = models.CharField(max_length=255, blank=True)
    pid = models.PositiveIntegerField(null=True)
    runtime_seconds = models.FloatField(null=True)
    rss_bytes = models.BigIntegerField(null=True)
    buried_at = models.DateTimeField(db_index=True)
    archived_at = models.DateTimeField(auto_now_add=True)

    replayed_at = models.DateTimeField(null=True, blank=True)
    replayed_as = models.CharField(
        max_length=255, blank=True, db_index=True, help_text="Task id of the replay."
    )
    replay_of = models.CharField(
        max_length=255, blank=True, db_index=True, help_text="Task id of the original."
    )

    class Meta:
        ordering = ["-buried_at", "-id"]
        permissions = [
            ("operate", "Can replay, purge and stop"),
            ("view_payload", "Can see the arguments of tasks"),
        ]

    def __str__(self) -> str:
        return f"{self.task_name or '?'}[{self.task_id or '?'}] {self.reason}"

    def stored_message(self) -> StoredMessage:
        """The message as it was on the broker."""
        return StoredMessage(
            body=bytes(self.message),
            content_type=self.content_type,
            content_encoding=self.content_encoding,
            headers=self.headers,
            properties=self.properties,
            queue=self.queue,
        )


class AuditEntry(models.Model):
    """Who did what, when and why."""

    at = models.DateTimeField(auto_now_add=True, db_index=True)
    who = models.CharField(max_length=255)
    what = models.CharField(max_length=50, help_text="The action: replay, purge, …")
    why = models.TextField(blank=True)
    target = models.CharField(max_length=255, blank=True)
    details: models.JSONField[Any, Any] = models.JSONField(default=dict)

    class Meta:
        ordering = ["-at", "-id"]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.what} {self.target} by {self.who}"
