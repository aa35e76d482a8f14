"""What an invoice says: from plain values to an HTML page, with no database."""

from dataclasses import dataclass
from datetime import datetime

from django.utils.html import format_html

from shop.money import VAT_PERCENT, euros, vat_included


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceData:
    """Everything that an invoice shows."""

    number: str
    ordered_at: datetime
    customer: str
    email: str
    sku: str
    article: str
    quantity: int
    unit_price_cents: int

    @property
    def total_cents(self) -> int:
        """The gross total."""
        return self.quantity * self.unit_price_cents


def render(invoice: InvoiceData) -> str:
    """Return the invoice as a complete HTML page, every value escaped."""
    return format_html(
        _PAGE,
        number=invoice.number,
        date=invoice.ordered_at.date().isoformat(),
        customer=invoice.customer,
        email=invoice.email,
        sku=invoice.sku,
        article=invoice.article,
        quantity=invoice.quantity,
        price=euros(invoice.unit_price_cents),
        total=euros(invoice.total_cents),
        percent=VAT_PERCENT,
        vat=euros(vat_included(invoice.total_cents)),
    )


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Invoice {number}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }}
table {{ width: 100%; border-collapse: collapse }}
th, td {{ padding: .5rem 0; border-bottom: 1px solid #ccc; text-align: left }}
td:last-child, th:last-child {{ text-align: right }}
</style>
<h1>Invoice {number}</h1>
<p>{customer}<br>{email}</p>
<p>Ordered on {date}</p>
<table>
<tr><th>Article</th><th>Quantity</th><th>Price</th></tr>
<tr><td>{article} ({sku})</td><td>{quantity}</td><td>{price}</td></tr>
<tr><td colspan="2">Total</td><td>{total}</td></tr>
<tr><td colspan="2">of which {percent} % VAT</td><td>{vat}</td></tr>
</table>
</html>
"""
