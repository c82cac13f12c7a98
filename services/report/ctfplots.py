"""Pictures of one CTF fit: the curve against its model, and the spectrum with its rings."""

import math
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from services.report.plots import GREEN, INK, QUIET, VERMILION, draw, key
from services.report.readings import Profile
from services.report.thumbnails import posterized, to_grey

LOWEST = 1 / 30.0  # 1/A: nothing is fitted below
SPECTRUM_PX = 512
LETTER_PX, LETTERS_PX = 20, 72  # height of a letter, width of a label
GREYS = 32  # as the eye tells apart, and a file of half the size
RINGS_A = (10.0, 7.0, 5.0, 4.0, 3.0, 2.5, 2.0)
_FIT, _RING = (230, 159, 0), (86, 180, 233)


def curve(profile: Profile, resolution_A: float) -> bytes | None:
    """Return an equiphase average with its model, and their agreement, to beyond the fit."""
    keep = np.isfinite(profile.s) & (profile.s > 0)
    if keep.sum() < 3:
        return None
    reaches = 0 < resolution_A and 1 / resolution_A < profile.s[keep][-1]
    # Beyond the fit there is only noise and a model too fine to be drawn.
    end = min(1.35 / resolution_A, profile.s[keep][-1]) if reaches else profile.s[keep][-1]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        s = profile.s[keep]
        measured = like_model(profile, resolution_A)[keep]
        axes.plot(s, measured, color=INK, linewidth=1.1, label="measured, scaled")
        axes.plot(s, profile.model[keep], color=VERMILION, linewidth=1.1, ls="--", label="model")
        axes.plot(s, profile.agreement[keep], color=GREEN, linewidth=1.5, label="agreement")
        if reaches:
            axes.axvline(1 / resolution_A, color=QUIET, linewidth=1.2, linestyle=":")
            axes.annotate(
                f"fits to {resolution_A:.1f} Å",
                (1 / resolution_A, -0.2),
                xytext=(-3, 0),
                textcoords="offset points",
                ha="right",
                color=QUIET,
                fontsize=8,
                backgroundcolor="white",
            )
        axes.set_ylim(-0.25, 1.25)
        axes.set_xlim(0, end)
        axes.set(xlabel="spatial frequency (1/Å)", ylabel="normalised")
        top = axes.secondary_xaxis("top")
        shown = [ring for ring in (20.0, *RINGS_A) if 1 / ring < 0.97 * end]
        top.set_xticks([1 / ring for ring in shown], [f"{ring:g} Å" for ring in shown])
        top.spines["top"].set_visible(False)
        top.tick_params(labelsize=7.5, length=2, pad=1)
        key(figure)

    return draw(paint, height_in=2.7)


def like_model(profile: Profile, resolution_A: float) -> np.ndarray:
    """Return the equiphase average, scaled and shifted to the model where the rings are strong.

    Programs write it with different normalisation; the eye compares shapes. Scaled over the lower
    half of the fitted band (from 30 A); nothing is shown below it, where no ring is.
    """
    high = (LOWEST + 1 / max(resolution_A, 1.0)) / 2
    band = (profile.s >= LOWEST) & (profile.s <= high) & np.isfinite(profile.epa)
    if band.sum() < 8:
        return profile.epa
    slope, offset = np.polyfit(profile.model[band], profile.epa[band], 1)
    scaled = (profile.epa - offset) / slope if slope > 0 else profile.epa
    return np.where(profile.s >= LOWEST, scaled, np.nan)


def spectrum(
    image: np.ndarray, step_per_A: float, resolution_A: float, limit_A: float | None = None
) -> Image.Image:
    """Return the diagnostic image of a fit with rings: where the fit ends, and the limit.

    Parameters
    ----------
    image
        Spectrum above, equiphase average and model below `[n, n]`, row 0 at the bottom.
    step_per_A
        Frequency from one px to the next, 1/A.
    resolution_A
        To which the CTF fits.
    limit_A
        Of the selection; None draws none.
    """
    side = image.shape[0]
    scale = SPECTRUM_PX / side
    picture = to_grey(image, 0.5, 99.5).resize((SPECTRUM_PX, SPECTRUM_PX))
    picture = posterized(picture, GREYS).convert("RGB")
    pen = ImageDraw.Draw(picture)
    limit = () if limit_A is None else ((limit_A, _RING, 1),)
    for ring_A, colour, width in (*limit, (resolution_A, _FIT, 2)):
        if not ring_A > 0:
            continue
        radius = scale / (ring_A * step_per_A)
        if radius >= SPECTRUM_PX / 2 * math.sqrt(2):
            continue
        # Row 0 of the data is the last of the picture: its centre is a px higher than the middle.
        x, y = (side // 2 + 0.5) * scale, (side - 1 - side // 2 + 0.5) * scale
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=width)
        # The fit's letters at the right, those of the limit at the left: they never meet.
        side_way = 1 if width == 2 else -1
        place = radius * math.sqrt(0.5) + 4
        across = x + side_way * place - (0 if side_way == 1 else LETTERS_PX)
        corner = (min(max(across, 1), SPECTRUM_PX - LETTERS_PX), max(y - place - LETTER_PX - 4, 1))
        label(pen, corner, f"{ring_A:.1f} Å", colour)
    return picture


def label(
    pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, colour: tuple[int, int, int]
) -> None:
    """Write letters that stand out from any grey."""
    pen.text(at, text, fill=colour, font=_font(), stroke_width=2, stroke_fill=(0, 0, 0))


@cache
def _font() -> ImageFont.FreeTypeFont:
    # Pillow's own letters have no angstrom sign.
    return ImageFont.truetype(Path(get_data_path()) / "fonts/ttf/DejaVuSans-Bold.ttf", LETTER_PX)
