"""What is stored in the Django database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import models

from unstuck.core.clock import system_clock
from unstuck.core.verdict import Reason
from unstuck.letters.message import StoredMessage

RUNS_SO_LONG = "Runs that took so long, and not less than the next shorter ones."


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
    soft_stack = models.TextField(blank=True)
    waiting_for = models.TextField(blank=True)
    fingerprint = models.CharField(max_length=255, db_index=True)

    attempts = models.PositiveIntegerField(default=1)
    deliveries = models.PositiveIntegerField(default=1)
    node = models.CharField(max_length=255, blank=True)
    pid = models.PositiveIntegerField(null=True)
    runtime_seconds = models.FloatField(null=True)
    rss_bytes = models.BigIntegerField(null=True)
    cpu_seconds = models.FloatField(null=True)
    child_age_seconds = models.FloatField(null=True)
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


class TaskRun(models.Model):
    """A run that did not simply succeed."""

    run_id = models.UUIDField(unique=True, editable=False)
    task_id = models.CharField(max_length=255, db_index=True)
    task_name = models.CharField(max_length=255)
    queue = models.CharField(max_length=255, blank=True)
    attempt = models.PositiveIntegerField(default=1)
    deliveries = models.PositiveIntegerField(default=1)

    ending = models.CharField(max_length=20)
    verdict = models.CharField(max_length=20)
    reason = models.CharField(max_length=20, blank=True, help_text="If buried: why.")
    cause = models.TextField(blank=True)
    exception_type = models.CharField(max_length=255, blank=True)
    exception_message = models.TextField(blank=True)
    traceback = models.TextField(blank=True)
    stack = models.TextField(blank=True)
    soft_stack = models.TextField(blank=True)
    swallowed_soft_limit = models.BooleanField(
        default=False, help_text="It caught its soft limit, and went on or returned."
    )
    waiting_for = models.TextField(blank=True)
    fingerprint = models.CharField(max_length=255)

    node = models.CharField(max_length=255, blank=True)
    pid = models.PositiveIntegerField(null=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(db_index=True)
    runtime_seconds = models.FloatField(null=True)
    rss_bytes = models.BigIntegerField(null=True)
    rss_growth_bytes = models.BigIntegerField(null=True)
    cpu_seconds = models.FloatField(null=True)
    child_age_seconds = models.FloatField(null=True)

    class Meta:
        ordering = ["-ended_at", "-id"]
        indexes = [
            models.Index(fields=["task_name", "-ended_at"], name="unstuck_run_of_task"),
            models.Index(
                fields=["fingerprint", "-ended_at"], name="unstuck_run_of_trouble"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task_name or '?'}[{self.task_id or '?'}] {self.ending}"


class TaskMinute(models.Model):
    """How often a task of a queue ended in which way on a node, within a minute."""

    minute = models.DateTimeField(help_text="Its first second.")
    node = models.CharField(max_length=255, blank=True)
    task_name = models.CharField(max_length=255)
    queue = models.CharField(max_length=255, blank=True)
    succeeded = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    retried = models.PositiveIntegerField(default=0)
    soft_limit = models.PositiveIntegerField(default=0)
    hard_limit = models.PositiveIntegerField(default=0)
    lost = models.PositiveIntegerField(default=0, help_text="Their process or node.")
    other = models.PositiveIntegerField(default=0)
    swallowed = models.PositiveIntegerField(
        default=0, help_text="Soft limits that the task caught."
    )
    runtime_seconds = models.FloatField(default=0.0, help_text="Of all runs together.")
    runtime_max = models.FloatField(default=0.0)
    under_10ms = models.PositiveIntegerField(default=0, help_text=RUNS_SO_LONG)
    under_100ms = models.PositiveIntegerField(default=0, help_text=RUNS_SO_LONG)
    under_1s = models.PositiveIntegerField(default=0, help_text=RUNS_SO_LONG)
    under_10s = models.PositiveIntegerField(default=0, help_text=RUNS_SO_LONG)
    under_1m = models.PositiveIntegerField(default=0, help_text=RUNS_SO_LONG)
    under_5m = models.PositiveIntegerField(default=0, help_text=RUNS_SO_LONG)
    longer = models.PositiveIntegerField(default=0, help_text=RUNS_SO_LONG)
    rss_growth_bytes = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["-minute", "task_name", "queue", "node"]
        constraints = [
            models.UniqueConstraint(
                fields=["minute", "node", "task_name", "queue"],
                name="unstuck_one_minute",
            )
        ]
        indexes = [
            models.Index(
                fields=["task_name", "-minute"], name="unstuck_minute_of_task"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task_name} {self.minute:%Y-%m-%d %H:%M}"

    @property
    def runs(self) -> int:
        """How many ended in this minute."""
        limits = self.soft_limit + self.hard_limit
        well = self.succeeded + self.retried
        return well + self.failed + limits + self.lost + self.other


class Incident(models.Model):
    """Something that happened to a node rather than to a task."""

    incident_id = models.UUIDField(unique=True, editable=False)
    kind = models.CharField(max_length=50)
    at = models.DateTimeField(db_index=True)
    node = models.CharField(max_length=255, blank=True)
    process = models.CharField(max_length=50, blank=True)
    pid = models.PositiveIntegerField(null=True)
    what = models.TextField()
    stack = models.TextField(blank=True)
    waiting_for = models.TextField(blank=True)
    details: models.JSONField[Any, Any] = models.JSONField(default=dict)

    class Meta:
        ordering = ["-at", "-id"]

    def __str__(self) -> str:
        return f"{self.kind} on {self.node or '?'}"


class Node(models.Model):
    """A worker node, as its recorder saw it last."""

    STATES = [(state, state) for state in ("starting", "ready", "stopping", "gone")]
    SEEN_EVERY = timedelta(seconds=10)
    LOST_AFTER = timedelta(seconds=60)
    """So long unseen, a node that did not say goodbye is lost, or its recorder is."""

    name = models.CharField(max_length=255, unique=True)
    host = models.CharField(max_length=255, blank=True)
    pid = models.PositiveIntegerField(null=True, help_text="Of its first process.")
    state = models.CharField(max_length=20, choices=STATES)
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField(db_index=True)
    pool = models.CharField(max_length=255, blank=True)
    concurrency = models.PositiveIntegerField(default=0)
    queues: models.JSONField[Any, Any] = models.JSONField(default=list)
    broker = models.CharField(
        max_length=255, blank=True, help_text="The kind: the scheme of its URL."
    )
    unstuck_version = models.CharField(max_length=50, blank=True)
    celery_version = models.CharField(max_length=50, blank=True)
    python_version = models.CharField(max_length=50, blank=True)
    facts_dropped = models.PositiveBigIntegerField(
        default=0,
        help_text="Runs, minutes and incidents that came faster than they could be "
        "stored, since its recorder started.",
    )
    facts_left_out = models.PositiveBigIntegerField(
        default=0,
        help_text="Those that no database takes, since its recorder started.",
    )
    last_batch = models.UUIDField(null=True, editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def is_lost(self) -> bool:
        """Whether it has not been seen for long, and did not say goodbye."""
        return self.state != "gone" and system_clock() - self.seen_at > self.LOST_AFTER

    @property
    def condition(self) -> str:
        """Its state, or ``lost``."""
        return "lost" if self.is_lost else self.state


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


class OutboxMessage(models.Model):
    """A message that was written with a transaction, and is not sent yet."""

    message_id = models.UUIDField(unique=True, editable=False)
    task_id = models.CharField(max_length=255, db_index=True)
    task_name = models.CharField(max_length=255)
    queue = models.CharField(max_length=255, blank=True)
    body = models.BinaryField(help_text="The body of the message, byte for byte.")
    envelope = models.TextField(help_text="All else that the broker is told.")
    written_at = models.DateTimeField(db_index=True)
    due_at = models.DateTimeField(
        db_index=True, help_text="From then on the recorder sends it."
    )
    attempts = models.PositiveIntegerField(
        default=0, help_text="How often the broker refused this very message."
    )
    last_error = models.TextField(blank=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.task_name}[{self.task_id}]"


class OutboxLease(models.Model):
    """Who sends from the outbox: one at a time, so that the order is kept."""

    holder = models.CharField(max_length=32)
    until = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.holder} until {self.until}"
