"""The parts of the example shop that need neither database nor broker."""

from __future__ import annotations

import resource
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "example"
sys.path.append(str(EXAMPLE))

from shop import (  # noqa: E402
    invoice,
    money,
    orderfile,
    picture,
    receiver,
    trouble,
    webhook,
)
from shop.catalog import ARTICLES  # noqa: E402
from shop.orderfile import BrokenRow, OrderRow, Problem  # noqa: E402

SKUS = {article.sku for article in ARTICLES}
UNTIL = datetime(2025, 6, 1, tzinfo=UTC)
REASONS = {
    "failed",
    "soft_limit",
    "hard_limit",
    "poison",
    "lost",
    "rejected",
    "unknown_task",
    "undecodable",
}
GOOD = b'P1-00001,2025-03-04T10:00:00+00:00,"Kim, Jr.",A@Example.com,TEA-001,2,8.90\n'


def partner_file(rows: int = 3000, seed: int = 7) -> bytes:
    return orderfile.order_csv(seed=seed, rows=rows, articles=ARTICLES, until=UNTIL)


def parse(raw: bytes) -> OrderRow | BrokenRow:
    return orderfile.parse_line(2, raw, SKUS)


class TestOrderFile:
    def test_the_same_arguments_make_the_same_file(self) -> None:
        assert partner_file() == partner_file()
        assert partner_file() != partner_file(seed=8)

    def test_no_line_is_dropped_and_about_two_in_a_hundred_are_broken(self) -> None:
        lines = partner_file().splitlines(keepends=True)

        good, broken = orderfile.parse_lines(enumerate(lines[1:], 2), SKUS)

        assert lines[0].decode().strip().split(",") == list(orderfile.COLUMNS)
        assert sorted(row.line for row in [*good, *broken]) == list(range(2, 3002))
        assert 30 <= len(broken) <= 90

    def test_its_broken_lines_are_of_every_kind(self) -> None:
        """A duplicate is a good line that comes twice: only the database can tell."""
        lines = partner_file(rows=20_000).splitlines()

        good, broken = orderfile.parse_lines(enumerate(lines[1:], 2), SKUS)
        repeated = Counter(row.reference for row in good).most_common(1)[0][1] > 1

        assert {row.problem for row in broken} == set(Problem) - {Problem.DUPLICATE}
        assert repeated

    def test_a_good_line_becomes_an_order(self) -> None:
        row = parse(GOOD)

        assert row == OrderRow(
            line=2,
            reference="P1-00001",
            ordered_at=datetime(2025, 3, 4, 10, tzinfo=UTC),
            customer="Kim, Jr.",
            email="a@example.com",
            sku="TEA-001",
            quantity=2,
            unit_price_cents=890,
            raw=GOOD.decode().rstrip(),
        )

    @pytest.mark.parametrize(
        ("old", "new", "problem"),
        [
            (b"Kim", b"Zo\xeb", Problem.ENCODING),
            (b"Kim", b"K\0m", Problem.ENCODING),
            (b'Jr."', b"Jr.", Problem.QUOTES),
            (b",8.90", b"", Problem.COLUMNS),
            (b",8.90", b",8.90,", Problem.COLUMNS),
            (b"P1-00001", b"", Problem.REFERENCE),
            (b"P1-00001", b"../../etc", Problem.REFERENCE),
            (b"03-04", b"02-30", Problem.DATE),
            (b"+00:00", b"", Problem.DATE),
            (b"Kim, Jr.", b"", Problem.CUSTOMER),
            (b"@", b" at ", Problem.EMAIL),
            (b"TEA-001", b"TEA-999", Problem.SKU),
            (b",2,", b",0,", Problem.QUANTITY),
            (b",2,", b",two,", Problem.QUANTITY),
            (b",2,", b",1_0,", Problem.QUANTITY),
            (b",2,", b"," + b"9" * 5000 + b",", Problem.QUANTITY),
            (b"8.90", b"NaN", Problem.PRICE),
            (b"8.90", b"0.00", Problem.PRICE),
            (b"8.90", b"-8.90", Problem.PRICE),
            (b"8.90", b"8.905", Problem.PRICE),
        ],
    )
    def test_a_broken_line_is_reported_by_its_problem(
        self, old: bytes, new: bytes, problem: Problem
    ) -> None:
        row = parse(GOOD.replace(old, new, 1))

        assert isinstance(row, BrokenRow)
        assert row.problem is problem
        assert "\0" not in row.raw

    def test_a_quote_never_closed_costs_its_own_line_only(self) -> None:
        lines = [(2, GOOD), (3, GOOD.replace(b'Jr."', b"Jr.")), (4, GOOD)]

        good, broken = orderfile.parse_lines(lines, SKUS)

        assert [row.line for row in good] == [2, 4]
        assert [row.line for row in broken] == [3]

    def test_blank_lines_are_neither_good_nor_broken(self) -> None:
        assert orderfile.parse_lines([(2, b"\n"), (3, b"  \r\n")], SKUS) == ([], [])


class TestMoney:
    def test_cents_are_exact(self) -> None:
        assert money.cents_from_text("0.29") == 29
        assert money.cents_from_text("12.5") == 1250
        assert money.cents_from_text("7") == 700

    def test_euros_are_for_people(self) -> None:
        assert money.euros(123456) == "€1,234.56"
        assert money.euros(-5) == "-€0.05"

    def test_the_tax_is_rounded_half_up(self) -> None:
        assert money.vat_included(12000) == 2000
        assert money.vat_included(3) == 1  # 0.5 cents


class TestInvoice:
    def data(self, **changes: object) -> invoice.InvoiceData:
        values: dict[str, object] = {
            "number": "W-1",
            "ordered_at": UNTIL,
            "customer": "Ada",
            "email": "ada@example.com",
            "sku": "TEA-001",
            "article": "Sencha",
            "quantity": 3,
            "unit_price_cents": 890,
        }
        return invoice.InvoiceData(**(values | changes))  # type: ignore[arg-type]

    def test_it_shows_the_total_and_the_tax_in_it(self) -> None:
        page = invoice.render(self.data())

        assert "<td>€26.70</td>" in page
        assert "of which 20 % VAT</td><td>€4.45</td>" in page
        assert "2025-06-01" in page

    def test_what_a_customer_typed_is_escaped(self) -> None:
        page = invoice.render(self.data(customer="<script>alert(1)</script> {email}"))

        assert "<script>" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt; {email}" in page


class TestPicture:
    def test_thumbnails_keep_the_proportions_and_never_grow(self) -> None:
        jpeg = picture.paint("Teapot", seed=1)

        small, large = picture.shrink(jpeg, 240), picture.shrink(jpeg, 5000)

        assert (small.width, small.height) == (240, 180)
        assert (large.width, large.height) == picture.PICTURE_SIZE
        assert small.jpeg[:2] == b"\xff\xd8"

    def test_the_same_seed_paints_the_same_picture(self) -> None:
        assert picture.paint("Cup", seed=3) == picture.paint("Cup", seed=3)
        assert picture.paint("Cup", seed=3) != picture.paint("Cup", seed=4)


class TestReceiver:
    def test_on_the_mixed_path_the_key_decides(self) -> None:
        kinds = {receiver.behaviour("/mixed", str(key)) for key in range(300)}

        assert kinds == set(receiver.MIXED)
        assert receiver.behaviour("/mixed", "a") == receiver.behaviour("/mixed", "a")

    def test_elsewhere_the_path_decides(self) -> None:
        assert receiver.behaviour("/silent", "whatever") == "silent"


@pytest.fixture(scope="module")
def partner() -> Iterator[str]:
    """The address of a receiver that runs beside the tests."""
    server = receiver.Receiver(0, log=lambda line: None)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.stop()
    thread.join()


class TestWebhook:
    def post(self, url: str, key: str = "1", timeout: float = 5) -> None:
        webhook.post(url, {"order": "W-1"}, key=key, timeout_seconds=timeout)

    def test_a_partner_that_says_so_has_the_event(self, partner: str) -> None:
        self.post(f"{partner}/quick")

    @pytest.mark.parametrize("path", ["error", "wrong", "garbage", "nowhere"])
    def test_any_other_answer_is_a_failure(self, partner: str, path: str) -> None:
        with pytest.raises(webhook.DeliveryFailed) as caught:
            self.post(f"{partner}/{path}")

        assert str(caught.value).isprintable()

    def test_silence_is_a_failure_after_the_timeout(self, partner: str) -> None:
        with pytest.raises(webhook.DeliveryFailed, match="TimeoutError"):
            self.post(f"{partner}/silent", timeout=0.2)

    def test_a_partner_that_is_not_there_is_a_failure(self) -> None:
        with pytest.raises(webhook.DeliveryFailed, match="ConnectionRefusedError"):
            self.post("http://127.0.0.1:1/quick")

    def test_a_flaky_partner_takes_the_third_attempt(self, partner: str) -> None:
        for _ in range(2):
            with pytest.raises(webhook.DeliveryFailed, match="answered 500"):
                self.post(f"{partner}/flaky", key="flaky")

        self.post(f"{partner}/flaky", key="flaky")


class TestTrouble:
    def test_every_kind_of_the_list_has_a_button(self) -> None:
        assert set(trouble.REGISTRY) == {
            "ok",
            "exception",
            "retry_for_ever",
            "hang_python",
            "hang_python_deaf",
            "hang_c",
            "segfault",
            "sigkill",
            "os_exit",
            "at_most_once",
            "out_of_memory",
            "reject",
            "unknown_task",
            "malformed",
        }

    def test_every_reason_is_one_of_a_dead_letter_and_each_is_shown(self) -> None:
        expected = {one.expected_reason for one in trouble.REGISTRY.values()}

        assert expected == REASONS | {None}
        assert trouble.REGISTRY["ok"].expected_reason is None

    @pytest.mark.parametrize("one", trouble.REGISTRY.values(), ids=lambda one: one.key)
    def test_every_button_says_what_it_does_and_is_over_soon(
        self, one: trouble.Trouble
    ) -> None:
        assert trouble.REGISTRY[one.key] is one
        assert one.title
        assert one.what
        assert one.seen
        assert one.limit_seconds is None or one.limit_seconds <= 10

    def test_running_out_of_memory_leaves_the_rlimit_as_it_was(self) -> None:
        before = resource.getrlimit(resource.RLIMIT_AS)

        with pytest.raises(MemoryError):
            trouble.out_of_memory.run()

        assert resource.getrlimit(resource.RLIMIT_AS) == before
