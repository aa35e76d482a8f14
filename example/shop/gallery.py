"""Products, their pictures and the thumbnails of those."""

import hashlib

from django.utils import timezone

from shop import files
from shop.catalog import ARTICLES
from shop.models import Product, Thumbnail
from shop.picture import THUMBNAIL_WIDTHS, paint, shrink


def stock() -> list[Product]:
    """Put every article of the catalogue into the shop, with a picture; safe to repeat."""
    for article in ARTICLES:
        product, _ = Product.objects.get_or_create(
            sku=article.sku,
            defaults={"name": article.name, "price_cents": article.price_cents},
        )
        if not (product.picture and files.media_path(product.picture).exists()):
            repaint(product, seed=product.pk)
    return list(Product.objects.all())


def repaint(product: Product, *, seed: int) -> None:
    """Give the product another picture; its thumbnails are then out of date."""
    name = f"products/{product.sku}.jpg"
    files.write(name, paint(product.name, seed=seed))
    Product.objects.filter(pk=product.pk).update(picture=name)


def make_thumbnails(product: Product) -> int:
    """Make the thumbnails that are missing or out of date and return how many."""
    jpeg = files.media_path(product.picture).read_bytes()
    digest = hashlib.sha256(jpeg).hexdigest()
    current = {
        thumbnail.wanted_width
        for thumbnail in product.thumbnails.filter(source_digest=digest)
        if files.media_path(thumbnail.file).exists()
    }
    missing = [width for width in THUMBNAIL_WIDTHS if width not in current]
    for width in missing:
        _make(product, jpeg, digest, width)
    return len(missing)


def _make(product: Product, jpeg: bytes, digest: str, width: int) -> None:
    scaled = shrink(jpeg, width)
    name = f"thumbnails/{product.sku}-{width}.jpg"
    # The file first: a row without its file would be a broken picture on the page.
    files.write(name, scaled.jpeg)
    Thumbnail.objects.update_or_create(
        product=product,
        wanted_width=width,
        defaults={
            "width": scaled.width,
            "height": scaled.height,
            "size_bytes": len(scaled.jpeg),
            "file": name,
            "source_digest": digest,
            "made_at": timezone.now(),
        },
    )
