"""Invoices as files, and what a month brought in."""

from datetime import date, datetime

from django.db.models import Count, F, QuerySet, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from shop import files
from shop.invoice import InvoiceData, render
from shop.models import Invoice, MonthlyReport, Order


def invoice(order: Order) -> str:
    """Render the order's invoice and return the name of its file; safe to repeat."""
    data = InvoiceData(
        number=order.reference,
        ordered_at=order.ordered_at,
        customer=order.customer,
        email=order.email,
        sku=order.product.sku,
        article=order.product.name,
        quantity=order.quantity,
        unit_price_cents=order.unit_price_cents,
    )
    name = f"invoices/{order.reference}.html"
    files.write(name, render(data).encode())
    Invoice.objects.update_or_create(
        order=order,
        defaults={
            "file": name,
            "total_cents": data.total_cents,
            "rendered_at": timezone.now(),
        },
    )
    return name


def invoice_missing(orders: QuerySet[Order]) -> int:
    """Render the invoices that *orders* lack and return how many those were."""
    missing = orders.filter(invoice=None).select_related("product")
    return sum(1 for order in missing if invoice(order))


def months_with_orders() -> list[date]:
    """Return the first day of every month in which something was ordered."""
    return [
        instant.date() for instant in Order.objects.datetimes("ordered_at", "month")
    ]


def report(month: date) -> MonthlyReport:
    """Add up one month in SQL and store the result; safe to repeat."""
    start = datetime(month.year, month.month, 1, tzinfo=timezone.get_default_timezone())
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    orders = Order.objects.filter(ordered_at__gte=start, ordered_at__lt=end)
    revenue = Sum(F("quantity") * F("unit_price_cents"))
    totals = orders.aggregate(
        orders=Count("pk"),
        customers=Count("email", distinct=True),
        units=Coalesce(Sum("quantity"), 0),
        revenue_cents=Coalesce(revenue, 0),
    )
    best = (
        orders.values(sku=F("product__sku"))
        .annotate(revenue=revenue)
        .order_by("-revenue", "sku")
        .first()
    )
    row, _ = MonthlyReport.objects.update_or_create(
        month=start.date(),
        defaults={
            **totals,
            "best_seller": best["sku"] if best else "",
            "built_at": timezone.now(),
        },
    )
    return row
