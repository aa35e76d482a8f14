"""What is stored in the Django database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import models
from django.db.models import Q

from unstuck.core.clock import system_clock
from unstuck.core.verdict import Reason
from unstuck.letters.message import StoredMessage

MICROSECONDS = "Since 1970, by the clock of the database."
HISTOGRAM = "How many runs took how long, as unstuck.core.histogram reads it."


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

    reason = models.CharField(max_length=20, choices=REASONS)
    cause = models.TextField(blank=True)
    exception_type = models.CharField(max_length=255, blank=True)
    exception_message = models.TextField(blank=True)
    traceback = models.TextField(blank=True)
    stack = models.TextField(blank=True)
    soft_stack = models.TextField(blank=True)
    waiting_for = models.TextField(blank=True)
    fingerprint = models.CharField(max_length=255)

    attempts = models.PositiveIntegerField(default=1)
    deliveries = models.PositiveIntegerField(default=1)
    node = models.CharField(max_length=255, blank=True)
    pid = models.PositiveIntegerField(null=True)
    runtime_seconds = models.FloatField(null=True)
    rss_bytes = models.BigIntegerField(null=True)
    cpu_seconds = models.FloatField(null=True)
    child_age_seconds = models.FloatField(null=True)
    buried_at = models.DateTimeField()
    archived_at = models.DateTimeField(auto_now_add=True, db_index=True)

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
        indexes = [
            models.Index(fields=["-buried_at", "-id"], name="unstuck_letter_newest"),
            # With what is asked of thousands of them, which are all over the table.
            *(
                models.Index(
                    fields=[of, "-buried_at", "-id", *others, "replayed_at"], name=name
                )
                for name, of, *others in (
                    ("unstuck_letter_of_task", "task_name", "reason", "fingerprint"),
                    ("unstuck_letter_reason", "reason", "fingerprint", "task_name"),
                    ("unstuck_letter_trouble", "fingerprint", "reason", "task_name"),
                )
            ),
            # What is looked at most by far: those that nobody has replayed.
            models.Index(
                fields=["-buried_at", "-id", "reason", "fingerprint", "task_name"],
                name="unstuck_open_newest",
                condition=Q(replayed_at__isnull=True),
            ),
            models.Index(
                fields=["-buried_at", "-id"],
                name="unstuck_replayed_newest",
                condition=Q(replayed_at__isnull=False),
            ),
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
    """A run that did not simply succeed; with ``RECORD_SUCCESSES`` any run."""

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
    waited_seconds = models.FloatField(
        null=True, help_text="From when it could have run to when it did."
    )
    runtime_seconds = models.FloatField(null=True)
    rss_bytes = models.BigIntegerField(null=True)
    rss_growth_bytes = models.BigIntegerField(null=True)
    cpu_seconds = models.FloatField(null=True)
    child_age_seconds = models.FloatField(null=True)

    class Meta:
        ordering = ["-ended_at", "-id"]
        indexes = [
            models.Index(
                fields=["task_name", "-ended_at"],
                name="unstuck_trouble_of_task",
                condition=~Q(ending="succeeded"),
            ),
            models.Index(
                fields=["fingerprint", "-ended_at"], name="unstuck_run_of_trouble"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task_name or '?'}[{self.task_id or '?'}] {self.ending}"


class TaskMinute(models.Model):
    """How often a task of a queue ended in which way on a node, within a minute.

    Old ones are added up: over all nodes, of a quarter of an hour, of an hour.
    """

    minute = models.DateTimeField(help_text="Its first second.")
    span_minutes = models.PositiveSmallIntegerField(
        default=1, help_text="15 or 60: so many minutes together, of all nodes."
    )
    node = models.CharField(
        max_length=255, blank=True, help_text="Empty: all of them together."
    )
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
    runtimes = models.TextField(blank=True, help_text=HISTOGRAM)
    wait_seconds = models.FloatField(default=0.0, help_text="Of all runs together.")
    wait_max = models.FloatField(default=0.0)
    waits = models.TextField(blank=True, help_text=HISTOGRAM)
    waits_unknown = models.PositiveIntegerField(
        default=0,
        help_text="Runs of which nobody knows since when they could have run.",
    )
    rss_growth_bytes = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["-minute", "task_name", "queue", "node"]
        constraints = [
            models.UniqueConstraint(
                fields=["minute", "span_minutes", "node", "task_name", "queue"],
                name="unstuck_one_minute",
            )
        ]
        indexes = [
            models.Index(fields=["span_minutes", "minute"], name="unstuck_minute_span"),
            models.Index(
                fields=["task_name", "-minute"], name="unstuck_minute_of_task"
            ),
            models.Index(
                fields=["minute"],
                name="unstuck_minute_of_node",
                condition=~Q(node=""),
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
    """Something that happened to a node rather than to a task.

    Some last (``LASTING``) until they are resolved.
    """

    LASTING = ("node_lost", "letters_waiting")

    incident_id = models.UUIDField(unique=True, editable=False)
    kind = models.CharField(max_length=50)
    at = models.DateTimeField(db_index=True)
    node = models.CharField(max_length=255, blank=True)
    process = models.CharField(max_length=50, blank=True)
    pid = models.PositiveIntegerField(null=True)
    what = models.TextField()
    resolved_at = models.DateTimeField(
        null=True, help_text="Of what lasts: when it was over."
    )
    stack = models.TextField(blank=True)
    waiting_for = models.TextField(blank=True)
    details: models.JSONField[Any, Any] = models.JSONField(default=dict)

    class Meta:
        ordering = ["-at", "-id"]
        indexes = [
            models.Index(fields=["kind", "resolved_at"], name="unstuck_incident_open"),
        ]

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
    release = models.CharField(
        max_length=255, blank=True, help_text='Of the project: UNSTUCK["RELEASE"].'
    )
    running: models.JSONField[Any, Any] = models.JSONField(
        default=list,
        help_text="What it ran when it was seen last and had run for seconds.",
    )
    facts_lag_seconds = models.FloatField(
        default=0.0,
        help_text="How long the oldest fact that was not stored then had waited.",
    )
    chores_failed = models.PositiveBigIntegerField(
        default=0,
        help_text="Chores of the fleet that failed here, since its recorder started.",
    )
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


class QueueSample(models.Model):
    """What there was of a queue at an instant; null is what its broker does not tell."""

    queue = models.CharField(max_length=255)
    at = models.DateTimeField()
    waiting = models.PositiveBigIntegerField(
        null=True, help_text="Messages that no node has. Null: no such queue."
    )
    oldest_seconds = models.FloatField(
        null=True, help_text="How long the first of them has waited."
    )
    reserved = models.PositiveBigIntegerField(
        null=True, help_text="Messages that nodes have in hand."
    )
    delayed = models.PositiveBigIntegerField(
        null=True, help_text="Messages whose time has not come."
    )
    consumers = models.PositiveIntegerField(null=True)
    grain_seconds = models.PositiveIntegerField(
        default=0, help_text="The first of so many seconds: old ones with less go."
    )

    class Meta:
        ordering = ["-at", "queue"]
        indexes = [
            models.Index(fields=["queue", "-at"], name="unstuck_sample_of_queue"),
            # With all that a chart needs.
            models.Index(
                fields=["grain_seconds", "at", "queue", "waiting", "oldest_seconds"],
                name="unstuck_sample_grain",
            ),
            models.Index(fields=["at"], name="unstuck_sample_at"),
        ]

    def __str__(self) -> str:
        return f"{self.queue} {self.at:%Y-%m-%d %H:%M:%S}"


class PeriodicEntry(models.Model):
    """An entry of beat's schedule, as the beat that leads has told of it last."""

    OVERDUE_AFTER = timedelta(seconds=30)

    beat = models.CharField(max_length=255, help_text="Of which beats it is one.")
    name = models.CharField(max_length=255)
    task_name = models.CharField(max_length=255)
    schedule = models.CharField(max_length=255, help_text="In words.")
    enabled = models.BooleanField(default=True)
    last_run_at = models.DateTimeField(
        null=True, help_text="When it was sent last; before that, when beat met it."
    )
    runs = models.PositiveBigIntegerField(
        default=0, help_text="How often it was sent, as far as its schedule knows."
    )
    next_run_at = models.DateTimeField(null=True, db_index=True)
    last_error = models.TextField(
        blank=True, help_text="Why it is not sent, though it is due."
    )
    told_by = models.CharField(max_length=255, help_text="The beat that led.")
    told_at = models.DateTimeField()

    class Meta:
        ordering = ["beat", "name"]
        verbose_name_plural = "periodic entries"
        constraints = [
            models.UniqueConstraint(
                fields=["beat", "name"], name="unstuck_entry_of_beat"
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def overdue_seconds(self) -> float:
        """How long ago it should have been sent; 0 if it is not overdue."""
        if not self.enabled or self.next_run_at is None:
            return 0.0
        late = system_clock() - self.next_run_at
        return late.total_seconds() if late > self.OVERDUE_AFTER else 0.0


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


class Lease(models.Model):
    """Who alone does something just now."""

    name = models.CharField(max_length=50, unique=True, help_text="What is done.")
    holder = models.CharField(max_length=32)
    node = models.CharField(
        max_length=255, blank=True, help_text="Where the holder is."
    )
    until = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.name}: {self.node or self.holder} until {self.until}"


class Alert(models.Model):
    """Something that somebody is to be told, and what became of telling."""

    alert_id = models.UUIDField(unique=True, editable=False)
    target_id = models.CharField(max_length=16, editable=False)
    target = models.CharField(max_length=255, help_text="Of a web address its host.")
    condition = models.CharField(max_length=50)
    subject = models.CharField(max_length=255, blank=True)
    what = models.TextField()
    remedy = models.TextField(blank=True)
    facts: models.JSONField[Any, Any] = models.JSONField(default=dict)
    since = models.DateTimeField()
    seen_at = models.DateTimeField(help_text="When it was so last.")
    resolved_at = models.DateTimeField(null=True)
    told_at = models.DateTimeField(null=True, help_text="Last.")
    due_at = models.DateTimeField(
        null=True, help_text="From then on it is told, again if it was before."
    )
    attempts = models.PositiveIntegerField(
        default=0, help_text="How often telling has failed since it did not."
    )
    last_error = models.TextField(blank=True)

    class Meta:
        ordering = ["-since", "-id"]
        indexes = [
            models.Index(fields=["target_id", "due_at"], name="unstuck_alert_due"),
            models.Index(
                fields=["target_id", "resolved_at"], name="unstuck_alert_open"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.condition} {self.subject}".rstrip()

    @property
    def is_firing(self) -> bool:
        """Whether it is so now; of what happens rather than lasts: not told yet."""
        return self.resolved_at is None


class Lock(models.Model):
    """A lock that is held, or was not long ago; kept by ``unstuck.locks.database``."""

    name = models.CharField(max_length=255, unique=True)
    fence = models.BigIntegerField(
        db_index=True, help_text="Given anew whenever it is taken; it only grows."
    )
    token = models.CharField(max_length=255, blank=True, help_text="Of its owner.")
    born = models.FloatField()
    pid = models.BigIntegerField()
    node = models.TextField(blank=True)
    task_id = models.TextField(blank=True)
    task_name = models.TextField(blank=True)
    since = models.BigIntegerField(help_text=MICROSECONDS)
    until = models.BigIntegerField(db_index=True, help_text=MICROSECONDS)

    def __str__(self) -> str:
        return self.name


class LockNote(models.Model):
    """What the holders of a lock have written down for those after them."""

    name = models.CharField(max_length=255, help_text="Of the lock.")
    about = models.CharField(max_length=255)
    text = models.TextField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["name", "about"], name="unstuck_note_of_lock"
            )
        ]

    def __str__(self) -> str:
        return f"{self.name}: {self.about}"


class LockWaiter(models.Model):
    """Who waits for a lock, and asks for it again and again."""

    token = models.CharField(max_length=255, primary_key=True)
    name = models.CharField(max_length=255, db_index=True)
    born = models.FloatField()
    pid = models.BigIntegerField()
    node = models.TextField(blank=True)
    task_id = models.TextField(blank=True)
    task_name = models.TextField(blank=True)
    since = models.BigIntegerField(help_text=MICROSECONDS)
    until = models.BigIntegerField(db_index=True, help_text=MICROSECONDS)

    def __str__(self) -> str:
        return f"{self.token} waits for {self.name}"
