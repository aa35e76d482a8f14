"""The pages of the shop, and the buttons on them."""

import random
from collections.abc import Callable

from django.contrib import messages
from django.db.models import Count, F, Window
from django.db.models.functions import RowNumber
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from shop import selling
from shop.models import (
    Invoice,
    MonthlyReport,
    Order,
    OrderImport,
    Product,
    RejectedRow,
    Thumbnail,
    TroubleSent,
    WebhookDelivery,
)
from shop.tasks import refresh_monthly_reports
from shop.trouble import REGISTRY
from unstuck.models import DeadLetter

LATEST = 8
REJECTED_SHOWN = 500

ACTIONS: dict[str, tuple[str, Callable[[random.Random], object]]] = {
    "order": ("Place an order", selling.place_order),
    "import": ("Import a file", selling.import_file),
    "repaint": ("New picture", selling.repaint_product),
    "silent": ("Notify a silent partner", selling.notify_silent_partner),
    "report": ("Build the reports", lambda rng: refresh_monthly_reports.delay()),
}


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Show what the shop has done so far."""
    webhooks = WebhookDelivery.objects.all()
    context = {
        "actions": {key: title for key, (title, _) in ACTIONS.items()},
        "stocked": Product.objects.exists(),
        "counts": {
            "orders": Order.objects.count(),
            "invoices": Invoice.objects.count(),
            "products": Product.objects.count(),
            "imports": OrderImport.objects.count(),
            "rejected rows": RejectedRow.objects.count(),
            "thumbnails": Thumbnail.objects.count(),
            "webhooks delivered": webhooks.exclude(delivered_at=None).count(),
            "webhooks open": webhooks.filter(delivered_at=None).count(),
        },
        "orders": Order.objects.select_related("product", "invoice")[:LATEST],
        "imports": OrderImport.objects.all()[:LATEST],
        "webhooks": webhooks.select_related("order")[:LATEST],
        "thumbnails": Thumbnail.objects.select_related("product")
        .filter(wanted_width=240)
        .order_by("-made_at")[:LATEST],
        "reports": MonthlyReport.objects.all()[:LATEST],
    }
    return render(request, "shop/home.html", context)


@require_POST
def act(request: HttpRequest, action: str) -> HttpResponseRedirect:
    """Do one of ``ACTIONS``."""
    if action not in ACTIONS:
        raise Http404(action)
    title, do = ACTIONS[action]
    if Product.objects.exists():
        _tell(request, lambda: do(random.Random()), f"{title}: sent.")
    else:
        messages.error(request, "The shop is empty: run manage.py seed first.")
    return redirect("shop:home")


@require_safe
def order_import(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a partner's file and what was wrong with its lines."""
    found = get_object_or_404(OrderImport, pk=pk)
    problems = found.rejected.order_by().values("problem").annotate(rows=Count("pk"))
    context = {
        "import": found,
        "problems": problems.order_by("-rows", "problem"),
        "rejected": found.rejected.all()[:REJECTED_SHOWN],
    }
    return render(request, "shop/import.html", context)


@require_safe
def trouble(request: HttpRequest) -> HttpResponse:
    """Show every kind of trouble with its button, and what became of the last ones."""
    sent = _last_sent(3)
    counts = dict(
        TroubleSent.objects.order_by().values_list("kind").annotate(Count("pk"))
    )
    kinds = [
        {
            "trouble": one,
            "count": counts.get(one.key, 0),
            "sent": sent.get(one.key, []),
        }
        for one in REGISTRY.values()
    ]
    return render(request, "shop/trouble.html", {"kinds": kinds})


@require_POST
def send_trouble(request: HttpRequest, key: str) -> HttpResponseRedirect:
    """Send one message of one kind of trouble."""
    if key not in REGISTRY:
        raise Http404(key)
    chosen = REGISTRY[key]
    _tell(request, lambda: TroubleSent.objects.send(chosen), f"{chosen.title}: sent.")
    response = redirect("shop:trouble")
    response["Location"] += f"#{key}"
    return response


def _last_sent(each: int) -> dict[str, list[TroubleSent]]:
    """Return the last rows of each kind, each with the reason it was buried for."""
    place = Window(RowNumber(), partition_by="kind", order_by=F("sent_at").desc())
    rows = list(TroubleSent.objects.annotate(place=place).filter(place__lte=each))
    ids = [str(row.task_id) for row in rows]
    reasons = dict(
        DeadLetter.objects.filter(task_id__in=ids).values_list("task_id", "reason")
    )
    by_kind: dict[str, list[TroubleSent]] = {}
    for row in rows:
        row.reason = reasons.get(str(row.task_id))
        by_kind.setdefault(row.kind, []).append(row)
    return by_kind


def _tell(request: HttpRequest, do: Callable[[], object], done: str) -> None:
    try:
        do()
    except selling.BROKER_ERRORS as error:
        messages.error(request, f"The broker did not take it: {error}")
    else:
        messages.success(request, done)
