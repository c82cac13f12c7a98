"""Class averages as one picture: the largest first, each with its size and resolution."""

import math

import numpy as np
from PIL import Image, ImageDraw

from services.report.thumbnails import to_grey

TILE_PX = 128
LABEL_PX = 14
GAP_PX = 4


def class_montage(
    images: np.ndarray, fractions: np.ndarray, resolutions_A: np.ndarray, particles: int
) -> Image.Image:
    """Return class averages, sorted by the particles in them.

    Parameters
    ----------
    images
        `[K, N, N]`, row 0 at the bottom.
    fractions
        Share of the particles in each class `[K]`.
    resolutions_A
        Of each class, A.
    particles
        Number of all particles.
    """
    order = np.argsort(-fractions, kind="stable")
    columns = max(1, math.ceil(math.sqrt(len(order) * 1.6)))
    rows = math.ceil(len(order) / columns)
    wide, high = TILE_PX + GAP_PX, TILE_PX + LABEL_PX + GAP_PX
    sheet = Image.new("L", (columns * wide + GAP_PX, rows * high + GAP_PX), 255)
    draw = ImageDraw.Draw(sheet)
    for place, klass in enumerate(order):
        left = GAP_PX + (place % columns) * wide
        top = GAP_PX + (place // columns) * high
        tile = to_grey(images[klass], 0.1, 99.9).resize((TILE_PX, TILE_PX))
        sheet.paste(tile, (left, top))
        known = 0.0 < resolutions_A[klass] < 999.0
        resolution = f"{resolutions_A[klass]:.1f} A" if known else "-"
        text = f"{klass + 1}: {fractions[klass] * particles:.0f}, {resolution}"
        draw.text((left + 2, top + TILE_PX), text, fill=0)
    return sheet
