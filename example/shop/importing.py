"""A partner's file on its way into the shop, in chunks that may run twice."""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from shop import files
from shop.catalog import ARTICLES
from shop.models import ImportChunk, Order, OrderImport, Product, RejectedRow
from shop.orderfile import BrokenRow, OrderRow, Problem, order_csv, parse_lines

CHUNK_LINES = 250


def receive_file(*, seed: int, rows: int, until: datetime) -> OrderImport:
    """Store a partner's file and return its import, which nobody has begun yet."""
    content = order_csv(seed=seed, rows=rows, articles=ARTICLES, until=until)
    order_import = OrderImport.objects.create(file="")
    order_import.file = f"imports/{order_import.pk}-orders-{seed}.csv"
    files.write(order_import.file, content)
    order_import.save(update_fields=["file"])
    return order_import


def plan(order_import: OrderImport) -> list[int]:
    """Cut the file into chunks, once, and return the ids of those still to do."""
    with files.media_path(order_import.file).open("rb") as file:
        last_line = sum(1 for _ in file)
    ImportChunk.objects.bulk_create(
        [
            ImportChunk(
                order_import=order_import,
                first_line=first,
                last_line=min(first + CHUNK_LINES - 1, last_line),
            )
            # Line 1 names the columns.
            for first in range(2, last_line + 1, CHUNK_LINES)
        ],
        ignore_conflicts=True,
    )
    unfinished = order_import.chunks.filter(finished_at=None).order_by("first_line")
    return list(unfinished.values_list("pk", flat=True))


def import_lines(chunk_id: int) -> None:
    """Import one chunk in one transaction; a chunk that is done stays as it is."""
    with transaction.atomic():
        chunk = (
            ImportChunk.objects.select_for_update(of=("self",))
            .select_related("order_import")
            .get(pk=chunk_id)
        )
        if chunk.finished_at is None:
            _import(chunk)
    _finish_import(chunk.order_import)


def _import(chunk: ImportChunk) -> None:
    products = {product.sku: product for product in Product.objects.all()}
    good, broken = parse_lines(_lines(chunk), products)
    duplicates = _insert(chunk.order_import, good, products)
    _report(chunk.order_import, broken + duplicates)
    OrderImport.objects.filter(pk=chunk.order_import_id).update(
        rows_imported=F("rows_imported") + len(good) - len(duplicates),
        rows_rejected=F("rows_rejected") + len(broken) + len(duplicates),
    )
    chunk.finished_at = timezone.now()
    chunk.save(update_fields=["finished_at"])


def _lines(chunk: ImportChunk) -> Iterator[tuple[int, bytes]]:
    with files.media_path(chunk.order_import.file).open("rb") as file:
        lines = islice(file, chunk.first_line - 1, chunk.last_line)
        yield from enumerate(lines, chunk.first_line)


def _insert(
    order_import: OrderImport, rows: list[OrderRow], products: dict[str, Product]
) -> list[BrokenRow]:
    """Insert the orders that are new and return the rows that are not."""
    # In one order everywhere: two chunks that share references would otherwise each
    # wait for a row of the other.
    Order.objects.bulk_create(
        [
            Order(
                reference=row.reference,
                product=products[row.sku],
                customer=row.customer,
                email=row.email,
                quantity=row.quantity,
                unit_price_cents=row.unit_price_cents,
                ordered_at=row.ordered_at,
                order_import=order_import,
                line=row.line,
            )
            for row in sorted(rows, key=lambda row: (row.reference, row.line))
        ],
        ignore_conflicts=True,
    )
    inserted = set(
        Order.objects.filter(
            order_import=order_import, line__in=[row.line for row in rows]
        ).values_list("line", flat=True)
    )
    return [_duplicate(row) for row in rows if row.line not in inserted]


def _duplicate(row: OrderRow) -> BrokenRow:
    return BrokenRow(
        line=row.line,
        problem=Problem.DUPLICATE,
        detail=f"there is an order {row.reference!r} already",
        raw=row.raw,
    )


def _report(order_import: OrderImport, rows: list[BrokenRow]) -> None:
    RejectedRow.objects.bulk_create(
        [
            RejectedRow(
                order_import=order_import,
                line=row.line,
                problem=row.problem.value,
                detail=row.detail,
                raw=row.raw,
            )
            for row in rows
        ],
        ignore_conflicts=True,
    )


def _finish_import(order_import: OrderImport) -> None:
    # After the commit: of two chunks that end together at least the later one looks
    # when both are done.
    if not order_import.chunks.filter(finished_at=None).exists():
        OrderImport.objects.filter(pk=order_import.pk, finished_at=None).update(
            finished_at=timezone.now()
        )
