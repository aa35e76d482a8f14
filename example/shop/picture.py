"""Product pictures and their thumbnails, made with Pillow from bytes to bytes."""

import io
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

PICTURE_SIZE = (1200, 900)
THUMBNAIL_WIDTHS = (96, 240, 480)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """A picture made smaller, as JPEG."""

    width: int
    height: int
    jpeg: bytes


def paint(title: str, *, seed: int) -> bytes:
    """Return a JPEG for an article, the same one for the same arguments."""
    rng = random.Random(seed)
    image = _gradient(_colour(rng, 40, 120), _colour(rng, 120, 220))
    draw = ImageDraw.Draw(image, "RGBA")
    width, height = PICTURE_SIZE
    for _ in range(12):
        x, y, radius = (
            rng.randrange(width),
            rng.randrange(height),
            rng.randrange(60, 320),
        )
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, fill=(*_colour(rng, 60, 255), 90))
    font = ImageFont.load_default(64)
    draw.text((60, height - 130), title, font=font, fill="white")
    return _jpeg(image)


def shrink(jpeg: bytes, width: int) -> Scaled:
    """Return the picture at *width*, in its own proportions, never enlarged."""
    with Image.open(io.BytesIO(jpeg)) as source:
        image = source.convert("RGB")
    image.thumbnail((width, image.height), Image.Resampling.LANCZOS)
    return Scaled(width=image.width, height=image.height, jpeg=_jpeg(image))


def _gradient(top: tuple[int, ...], bottom: tuple[int, ...]) -> Image.Image:
    strip = Image.new("RGB", (1, 2))
    strip.putdata([top, bottom])
    return strip.resize(PICTURE_SIZE, Image.Resampling.BICUBIC)


def _colour(rng: random.Random, low: int, high: int) -> tuple[int, int, int]:
    return rng.randrange(low, high), rng.randrange(low, high), rng.randrange(low, high)


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=82)
    return out.getvalue()
