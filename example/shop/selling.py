"""What a customer or a partner sets going: a row first, then the tasks for it."""

import random
import uuid
from functools import partial

from django.db import transaction
from django.utils import timezone
from kombu.exceptions import OperationalError

from shop import tasks
from shop.gallery import repaint
from shop.importing import receive_file
from shop.models import Order, OrderImport, Product, WebhookDelivery

BROKER_ERRORS = (OperationalError, RuntimeError)
"""What a task that cannot be sent raises: RuntimeError is Celery's word for a Redis
result backend that is away, and the shop's results live beside its messages."""

ROWS_PER_FILE = 3000

_CUSTOMERS = (
    ("Ada Brontë", "ada@example.com"),
    ("Chloé Kim, Jr.", "chloe@example.com"),
    ("Dmitri O'Neill", "dmitri@example.com"),
    ("Gül <script>alert('hello')</script>", "guel@example.com"),
)


def place_order(rng: random.Random, *, webhook_path: str = "/mixed") -> Order:
    """Place an order: its invoice and the partner's webhook follow as tasks."""
    product = rng.choice(list(Product.objects.all()))
    customer, email = rng.choice(_CUSTOMERS)
    with transaction.atomic():
        order = Order.objects.create(
            reference=f"W-{uuid.uuid4().hex[:10].upper()}",
            product=product,
            customer=customer,
            email=email,
            quantity=rng.choice((1, 1, 2, 3)),
            unit_price_cents=product.price_cents,
            ordered_at=timezone.now(),
        )
        delivery = WebhookDelivery.objects.create(order=order, path=webhook_path)
        # A worker is faster than a commit: it must not look for rows that are not there.
        transaction.on_commit(partial(tasks.render_invoice.delay, order.pk))
        transaction.on_commit(partial(tasks.deliver_webhook.delay, delivery.pk))
    return order


def notify_silent_partner(rng: random.Random) -> WebhookDelivery:
    """Send news of some order to a partner that never answers, with no timeout."""
    order = Order.objects.order_by("-ordered_at").first() or place_order(rng)
    path = rng.choice(("/silent", "/trickle"))
    delivery = WebhookDelivery.objects.create(order=order, path=path)
    tasks.notify_without_timeout.delay(delivery.pk)
    return delivery


def import_file(rng: random.Random, *, rows: int = ROWS_PER_FILE) -> OrderImport:
    """Take in a partner's file of orders."""
    order_import = receive_file(
        seed=rng.randrange(10**6), rows=rows, until=timezone.now()
    )
    tasks.plan_import.delay(order_import.pk)
    return order_import


def repaint_product(rng: random.Random) -> Product:
    """Give a product a new picture: its thumbnails follow as a task."""
    product = rng.choice(list(Product.objects.all()))
    repaint(product, seed=rng.randrange(10**6))
    tasks.make_thumbnails.delay(product.pk)
    return product
