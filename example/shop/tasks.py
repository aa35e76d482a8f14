"""The real work of the shop.

Delivery is at least once: every task here may run a second time, and then finds its
work done. A task is given an id and looks up the rest, so a message never disagrees
with the database.
"""

from celery import shared_task
from django.conf import settings

from shop import billing, gallery, importing, webhook
from shop.models import ImportChunk, Order, OrderImport, Product, WebhookDelivery

WEBHOOK_TIMEOUT_SECONDS = 3


@shared_task(time_limit=60)
def plan_import(import_id: int) -> None:
    """Cut a partner's file into chunks and send a task for each that is not done."""
    order_import = OrderImport.objects.get(pk=import_id)
    for chunk_id in importing.plan(order_import):
        import_chunk.delay(chunk_id)


@shared_task(time_limit=120)
def import_chunk(chunk_id: int) -> None:
    """Import some lines; broken ones are reported and stop nothing."""
    importing.import_lines(chunk_id)
    render_invoices.delay(chunk_id)


@shared_task(time_limit=120)
def render_invoices(chunk_id: int) -> int:
    """Render the invoices of a chunk that are not there yet."""
    chunk = ImportChunk.objects.get(pk=chunk_id)
    orders = Order.objects.filter(
        order_import=chunk.order_import_id,
        line__range=(chunk.first_line, chunk.last_line),
    )
    return billing.invoice_missing(orders)


@shared_task(time_limit=30)
def render_invoice(order_id: int) -> str:
    """Render one invoice."""
    return billing.invoice(Order.objects.select_related("product").get(pk=order_id))


@shared_task(time_limit=60)
def make_thumbnails(product_id: int) -> int:
    """Make the thumbnails of a product that are missing or out of date."""
    return gallery.make_thumbnails(Product.objects.get(pk=product_id))


@shared_task(
    autoretry_for=(webhook.DeliveryFailed,),
    max_retries=3,
    retry_backoff=2,
    retry_backoff_max=30,
    time_limit=20,
)
def deliver_webhook(delivery_id: int) -> None:
    """Tell a partner of an order, and try again a few times when it does not listen."""
    _deliver(delivery_id, timeout_seconds=WEBHOOK_TIMEOUT_SECONDS)


@shared_task(soft_time_limit=8, time_limit=10)
def notify_without_timeout(delivery_id: int) -> None:
    """Tell a partner of an order, and wait for its answer for ever.

    This is the mistake that everybody makes once: no timeout. The soft limit ends it.
    """
    _deliver(delivery_id, timeout_seconds=None)


@shared_task(time_limit=120)
def refresh_monthly_reports() -> int:
    """Add up every month with orders anew; beat sends this."""
    months = billing.months_with_orders()
    for month in months:
        billing.report(month)
    return len(months)


def _deliver(delivery_id: int, *, timeout_seconds: float | None) -> None:
    delivery = WebhookDelivery.objects.select_related("order").get(pk=delivery_id)
    if delivery.delivered_at is not None:
        return
    delivery.begin_attempt()
    event = {
        "event": "order.placed",
        "order": delivery.order.reference,
        "total_cents": delivery.order.quantity * delivery.order.unit_price_cents,
        "ordered_at": delivery.order.ordered_at.isoformat(),
    }
    url = settings.SHOP_RECEIVER_URL + delivery.path
    try:
        webhook.post(url, event, key=str(delivery.key), timeout_seconds=timeout_seconds)
    except webhook.DeliveryFailed as error:
        delivery.fail(error)
        raise
    delivery.succeed()
