"""The picture of one micrograph: low-passed, with its picks as circles and a scale bar."""

import numpy as np
from PIL import Image, ImageDraw

from services.report.ctfplots import GREYS, label
from services.report.thumbnails import posterized, thumbnail

WIDTH_PX = 900
SMOOTH, LINE_PX = 3, 3  # circles are drawn so many times larger, and then made smaller
CIRCLE, BAR = (86, 224, 255), (255, 255, 255)
BARS_A = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


def with_picks(
    image: np.ndarray,
    pixel_size_A: float,
    places_px: np.ndarray,
    radius_px: float,
    *,
    low_pass_A: float = 20.0,
) -> Image.Image:
    """Return a micrograph with circles around its picks, and a scale bar.

    Parameters
    ----------
    image
        Micrograph [ny, nx] in MRC orientation.
    pixel_size_A
        Of the micrograph.
    places_px
        Picks `[n, 2]` (x, y), px of the micrograph from the centre of its first one.
    radius_px
        Of the particle, px of the micrograph.
    low_pass_A
        Resolution at which the low-pass filter has fallen to one half.
    """
    grey = thumbnail(image, pixel_size_A, width_px=WIDTH_PX, low_pass_A=low_pass_A)
    ny, _ = image.shape
    scale = grey.height / ny
    x = (places_px[:, 0] + 0.5) * scale
    y = grey.height - (places_px[:, 1] + 0.5) * scale  # row 0 of the data is at the bottom
    picture = posterized(grey, GREYS).convert("RGB")
    marks = _circles(picture.size, np.column_stack([x, y]), radius_px * scale)
    picture.paste(CIRCLE, (0, 0), marks)
    _scale_bar(picture, pixel_size_A / scale)
    return picture


def _circles(size: tuple[int, int], places: np.ndarray, radius: float) -> Image.Image:
    """Return a mask of smooth rings."""
    large = Image.new("L", (size[0] * SMOOTH, size[1] * SMOOTH), 0)
    pen = ImageDraw.Draw(large)
    for x, y in (SMOOTH * places).tolist():
        reach = SMOOTH * radius
        box = (x - reach, y - reach, x + reach, y + reach)
        pen.ellipse(box, outline=255, width=LINE_PX * SMOOTH)
    return large.resize(size, Image.Resampling.BOX)


def _scale_bar(picture: Image.Image, pixel_size_A: float) -> None:
    """Draw a bar of a round length, a fifth of the width at most, at the lower left."""
    fitting = [length for length in BARS_A if length / pixel_size_A <= picture.width / 5]
    length_A = fitting[-1] if fitting else BARS_A[0]
    pen = ImageDraw.Draw(picture)
    left, bottom = 14, picture.height - 14
    right = left + round(length_A / pixel_size_A)
    pen.rectangle((left - 2, bottom - 10, right + 2, bottom + 2), fill=(0, 0, 0))
    pen.rectangle((left, bottom - 8, right, bottom), fill=BAR)
    text = f"{length_A} Å" if length_A < 1000 else f"{length_A // 1000},000 Å"
    label(pen, (left, bottom - 36), text, BAR)
