"""What the shop promises about its database: ``manage.py test``."""
# ruff: noqa: S101 - asserts are what tests are made of

import random
from dataclasses import replace
from datetime import UTC, date, datetime
from tempfile import TemporaryDirectory
from unittest import mock

from django.test import TestCase, override_settings
from django.urls import reverse
from kombu.exceptions import OperationalError

from shop import billing, files, gallery, importing, orderfile, selling
from shop.catalog import ARTICLES
from shop.models import Invoice, Order, Product, RejectedRow, TroubleSent
from shop.trouble import REGISTRY

UNTIL = datetime(2025, 6, 1, tzinfo=UTC)


class ShopTestCase(TestCase):
    """A shop with products without pictures, and a media directory of its own."""

    def setUp(self) -> None:
        """Put everything where it does not stay."""
        self.media = self.enterContext(TemporaryDirectory())
        self.enterContext(override_settings(MEDIA_ROOT=self.media))
        Product.objects.bulk_create(
            Product(sku=one.sku, name=one.name, price_cents=one.price_cents)
            for one in ARTICLES
        )


class ImportTests(ShopTestCase):
    """Files of orders."""

    def setUp(self) -> None:
        """Receive a file of three chunks and some."""
        super().setUp()
        self.received = importing.receive_file(seed=1, rows=900, until=UNTIL)

    def test_every_line_is_an_order_or_a_report_however_often_it_runs(self) -> None:
        """Delivery is at least once."""
        for chunk_id in importing.plan(self.received) * 2:
            importing.import_lines(chunk_id)

        self.received.refresh_from_db()
        assert self.received.finished_at is not None
        assert Order.objects.count() == self.received.rows_imported
        assert RejectedRow.objects.count() == self.received.rows_rejected > 0
        assert Order.objects.count() + RejectedRow.objects.count() == 900
        assert importing.plan(self.received) == []

    def test_a_chunk_that_dies_half_way_leaves_nothing(self) -> None:
        """All of a chunk or none of it."""
        (chunk_id, *_) = importing.plan(self.received)

        with (
            mock.patch.object(importing, "_report", side_effect=KeyboardInterrupt),
            self.assertRaises(KeyboardInterrupt),  # noqa: PT027
        ):
            importing.import_lines(chunk_id)

        assert Order.objects.count() == 0
        assert chunk_id in importing.plan(self.received)

    def test_a_reference_is_ordered_once(self) -> None:
        """The second line that has it is reported, and the first one stays."""
        line = b"P1-1,2025-03-04T10:00:00+00:00,Ada,a@example.com,TEA-001,2,8.90\n"
        header = ",".join(orderfile.COLUMNS).encode() + b"\n"
        files.write(self.received.file, header + line + line)

        for chunk_id in importing.plan(self.received):
            importing.import_lines(chunk_id)

        assert Order.objects.get().line == 2
        assert RejectedRow.objects.get().problem == "duplicate"


class GalleryTests(ShopTestCase):
    """Thumbnails."""

    def test_thumbnails_are_made_when_they_are_missing_or_out_of_date(self) -> None:
        """And at no other time."""
        product = Product.objects.get(sku="CUP-001")
        gallery.repaint(product, seed=1)
        product.refresh_from_db()

        assert gallery.make_thumbnails(product) == 3
        assert gallery.make_thumbnails(product) == 0
        gallery.repaint(product, seed=2)
        assert gallery.make_thumbnails(product) == 3
        files.media_path(product.thumbnails.first().file).unlink()
        assert gallery.make_thumbnails(product) == 1


class BillingTests(ShopTestCase):
    """Invoices and reports."""

    def order(self, reference: str, ordered_at: datetime, quantity: int = 1) -> Order:
        """Place an order of the first product."""
        return Order.objects.create(
            reference=reference,
            product=Product.objects.get(sku="TEA-001"),
            customer="Ada <b>",
            email="ada@example.com",
            quantity=quantity,
            unit_price_cents=890,
            ordered_at=ordered_at,
        )

    def test_an_order_has_one_invoice(self) -> None:
        """However often it is rendered."""
        order = self.order("A", UNTIL)

        billing.invoice(order)
        billing.invoice(order)

        assert Invoice.objects.get().total_cents == 890
        assert billing.invoice_missing(Order.objects.all()) == 0

    def test_a_month_begins_at_its_first_instant_and_ends_before_the_next(self) -> None:
        """December included."""
        self.order("before", datetime(2024, 11, 30, 23, 59, 59, tzinfo=UTC))
        self.order("first", datetime(2024, 12, 1, tzinfo=UTC), quantity=2)
        self.order("last", datetime(2024, 12, 31, 23, 59, 59, tzinfo=UTC))
        self.order("after", datetime(2025, 1, 1, tzinfo=UTC))

        report = billing.report(date(2024, 12, 1))

        assert (report.orders, report.units, report.customers) == (2, 3, 1)
        assert report.revenue_cents == 3 * 890
        assert report.best_seller == "TEA-001"
        assert len(billing.months_with_orders()) == 3

    def test_a_month_without_orders_adds_up_to_nothing(self) -> None:
        """Rather than to NULL."""
        report = billing.report(date(2020, 2, 1))

        assert (report.orders, report.units, report.revenue_cents) == (0, 0, 0)


class PageTests(ShopTestCase):
    """Pages and buttons."""

    def test_the_pages_open(self) -> None:
        """With something on them."""
        received = importing.receive_file(seed=1, rows=300, until=UNTIL)
        for chunk_id in importing.plan(received):
            importing.import_lines(chunk_id)

        for url in ("/", "/trouble/", reverse("shop:import", args=[received.pk])):
            assert self.client.get(url).status_code == 200, url

    def test_a_button_takes_a_post_only(self) -> None:
        """A crawler that follows links sends no trouble."""
        assert self.client.get("/trouble/segfault/").status_code == 405
        assert self.client.get("/do/import/").status_code == 405
        assert self.client.post("/trouble/nonsense/").status_code == 404

    def test_a_broker_that_is_away_is_said_on_the_page(self) -> None:
        """And the message that was not sent is not counted."""
        refusing = replace(REGISTRY["ok"], send=mock.Mock(side_effect=OperationalError))

        with mock.patch.dict(REGISTRY, ok=refusing):
            response = self.client.post("/trouble/ok/", follow=True)

        assert "The broker did not take it" in response.content.decode()
        assert TroubleSent.objects.count() == 0

    def test_tasks_are_sent_after_the_commit(self) -> None:
        """A worker must find the rows that it is told of."""
        with self.captureOnCommitCallbacks() as callbacks:
            selling.place_order(random.Random(1))

        assert len(callbacks) == 2
