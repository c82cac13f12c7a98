"""The picture of a movie's motion: the whole frame's track, and the patches' where they are.

Source: preprocessing.md section 2.13.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from algorithms.motion import CorrectedMovie

SIDE_PX, SMOOTH = 600, 2  # of the longer side; drawn this many times larger, for smooth lines
MAGNIFIED = 40.0
_GLOBAL, _START = (31, 78, 170), (200, 30, 30)
_SEEN, _FITTED, _LEFT_OUT = (160, 160, 160), (20, 20, 20), (230, 190, 150)


def shift_plot(path: Path, corrected: CorrectedMovie) -> None:
    """Write a PNG: tracks 40 times as long as they are, row 0 of the image at the bottom.

    Blue is the whole frame about the middle, its start red; grey what each patch showed beyond
    that at its centre, black the fitted model; pale, patches that were left out of the fit.
    """
    _, ny, nx = corrected.movie_shape
    scale = SMOOTH * SIDE_PX / max(nx, ny)
    size = (max(1, round(nx * scale)), max(1, round(ny * scale)))
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, size[0] - 1, size[1] - 1), outline=(200, 200, 200), width=SMOOTH)

    def line(centre: Iterable[float], track: np.ndarray, colour: tuple[int, int, int]) -> None:
        points = (np.asarray(centre) + MAGNIFIED * track) * scale
        points[:, 1] = size[1] - points[:, 1]
        draw.line([tuple(p) for p in points.tolist()], fill=colour, width=SMOOTH, joint="curve")

    field = corrected.field
    if field is not None:
        for index, centre in enumerate(field.centre_px):
            line(centre, field.observed_px[index], _SEEN if field.used[index] else _LEFT_OUT)
            if field.model is not None:
                z = np.arange(field.frame[-1] + 1)
                x, y = (np.full_like(z, c / n - 0.5) for c, n in zip(centre, (nx, ny), strict=True))
                line(centre, field.model.shift(z, x, y), _FITTED)
    track = corrected.shifts_px[np.isfinite(corrected.shifts_px[:, 0])]
    line((nx / 2, ny / 2), track, _GLOBAL)
    x, y = nx / 2 * scale, size[1] - ny / 2 * scale
    radius = 3 * SMOOTH
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_START)
    smaller = (max(1, size[0] // SMOOTH), max(1, size[1] // SMOOTH))
    picture.resize(smaller, Image.Resampling.BOX).save(path, "PNG")
