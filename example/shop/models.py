"""What the shop stores. Money is in cents, instants are aware."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from django.db import models
from django.db.models import F
from django.utils import timezone

from shop.money import euros

if TYPE_CHECKING:
    from shop.trouble import Trouble


class Product(models.Model):
    """An article, with a picture that may be painted anew."""

    sku = models.CharField(max_length=20, unique=True)
    name = models.CharField(max_length=100)
    price_cents = models.PositiveIntegerField()
    picture = models.CharField(max_length=200, blank=True)
    """Name of the file below ``MEDIA_ROOT``."""

    class Meta:
        ordering = ["sku"]

    def __str__(self) -> str:
        return f"{self.sku} {self.name}"


class Thumbnail(models.Model):
    """A product's picture at one width, and which picture it was made of."""

    product = models.ForeignKey(
        Product, on_delete=models.CASCADE, related_name="thumbnails"
    )
    wanted_width = models.PositiveIntegerField()
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    size_bytes = models.PositiveIntegerField()
    file = models.CharField(max_length=200)
    source_digest = models.CharField(max_length=64)
    made_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["product", "wanted_width"], name="one_thumbnail_per_width"
            )
        ]

    def __str__(self) -> str:
        return self.file


class OrderImport(models.Model):
    """A partner's CSV file on its way into the shop."""

    file = models.CharField(max_length=200)
    received_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)
    rows_imported = models.PositiveIntegerField(default=0)
    rows_rejected = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["-received_at"]

    def __str__(self) -> str:
        return self.file


class ImportChunk(models.Model):
    """Some lines of a file: what one task imports in one transaction."""

    order_import = models.ForeignKey(
        OrderImport, on_delete=models.CASCADE, related_name="chunks"
    )
    first_line = models.PositiveIntegerField()
    last_line = models.PositiveIntegerField()
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["order_import", "first_line"], name="one_chunk_per_line"
            )
        ]

    def __str__(self) -> str:
        return f"{self.order_import}: {self.first_line}-{self.last_line}"


class RejectedRow(models.Model):
    """A line that did not become an order, and why."""

    order_import = models.ForeignKey(
        OrderImport, on_delete=models.CASCADE, related_name="rejected"
    )
    line = models.PositiveIntegerField()
    problem = models.CharField(max_length=20)
    detail = models.TextField()
    raw = models.TextField()

    class Meta:
        ordering = ["line"]
        constraints = [
            models.UniqueConstraint(
                fields=["order_import", "line"], name="one_report_per_line"
            )
        ]

    def __str__(self) -> str:
        return f"{self.order_import}:{self.line} {self.problem}"


class Order(models.Model):
    """An order of one article, placed in the shop or imported from a file."""

    reference = models.CharField(max_length=40, unique=True)
    product = models.ForeignKey(Product, on_delete=models.PROTECT)
    customer = models.CharField(max_length=100)
    email = models.EmailField(max_length=200)
    quantity = models.PositiveIntegerField()
    unit_price_cents = models.PositiveIntegerField()
    ordered_at = models.DateTimeField(db_index=True)
    order_import = models.ForeignKey(
        OrderImport, on_delete=models.PROTECT, null=True, blank=True
    )
    line = models.PositiveIntegerField(null=True, blank=True)
    """Where it stands in the file, when it was imported."""

    class Meta:
        ordering = ["-ordered_at"]

    def __str__(self) -> str:
        return self.reference

    @property
    def total(self) -> str:
        """The gross total, for people."""
        return euros(self.quantity * self.unit_price_cents)


class Invoice(models.Model):
    """The rendered invoice of an order."""

    order = models.OneToOneField(Order, on_delete=models.CASCADE)
    file = models.CharField(max_length=200)
    total_cents = models.PositiveIntegerField()
    rendered_at = models.DateTimeField()

    class Meta:
        ordering = ["-rendered_at"]

    def __str__(self) -> str:
        return self.file


class WebhookDelivery(models.Model):
    """The news of an order on its way to a partner."""

    key = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="webhooks")
    path = models.CharField(max_length=40)
    created_at = models.DateTimeField(default=timezone.now)
    attempts = models.PositiveIntegerField(default=0)
    delivered_at = models.DateTimeField(null=True, blank=True)
    last_error = models.TextField(blank=True)

    class Meta:
        ordering = ["-created_at"]
        verbose_name_plural = "webhook deliveries"

    def __str__(self) -> str:
        return f"{self.path} for {self.order}"

    def begin_attempt(self) -> None:
        """Count an attempt before it is made: the next line may be its last."""
        self._change(attempts=F("attempts") + 1, last_error="no answer yet")

    def fail(self, error: Exception) -> None:
        """Note why the attempt failed."""
        self._change(last_error=str(error))

    def succeed(self) -> None:
        """Note that the partner has it."""
        self._change(delivered_at=timezone.now(), last_error="")

    def _change(self, **values: object) -> None:
        WebhookDelivery.objects.filter(pk=self.pk).update(**values)


class MonthlyReport(models.Model):
    """One month of orders in five numbers, kept up to date by beat."""

    month = models.DateField(unique=True)
    orders = models.PositiveIntegerField()
    customers = models.PositiveIntegerField()
    units = models.PositiveIntegerField()
    revenue_cents = models.PositiveBigIntegerField()
    best_seller = models.CharField(max_length=20, blank=True)
    built_at = models.DateTimeField()

    class Meta:
        ordering = ["-month"]

    def __str__(self) -> str:
        return f"{self.month:%B %Y}"

    @property
    def revenue(self) -> str:
        """The gross revenue, for people."""
        return euros(self.revenue_cents)


class TroubleSentManager(models.Manager["TroubleSent"]):
    """Sends trouble and keeps count of it."""

    def send(self, trouble: Trouble) -> TroubleSent:
        """Send one message and remember its task id.

        The row comes first: a message that has no row would be one that nobody
        counts. When the broker does not take the message, the row goes again.
        """
        row = self.create(kind=trouble.key)
        try:
            trouble.send(str(row.task_id))
        except Exception:
            row.delete()
            raise
        return row


class TroubleSent(models.Model):
    """A message of the trouble page."""

    task_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    kind = models.CharField(max_length=40, db_index=True)
    sent_at = models.DateTimeField(default=timezone.now)

    objects = TroubleSentManager()

    class Meta:
        ordering = ["-sent_at"]
        verbose_name_plural = "trouble sent"

    def __str__(self) -> str:
        return f"{self.kind} {self.task_id}"
