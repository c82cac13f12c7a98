"""A contact sheet of scored class averages: the best first, each with its score and what became of
it.
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from services.kit.events import ClassesRanked
from services.report.thumbnails import to_grey

TILE_PX = 128
LINE_PX = 13
FRAME_PX = 3
GAP_PX = 5
# Readable for people who do not tell red from green: the word is there too.
COLOURS = {"keep": (0, 130, 60), "ask": (170, 100, 0), "drop": (190, 40, 40)}
UNKNOWN_A = 999.0


def selection_lines(told: ClassesRanked) -> list[str]:
    """Return what a report says of a selection: counts, threshold and where it comes from."""
    counts = [told.outcomes.count(word) for word in ("keep", "ask", "drop")]
    lines = [
        f"{told.job} from iteration {told.iteration} of {told.process}: {counts[0]} classes kept, "
        f"{counts[1]} for a person to decide, {counts[2]} dropped; {told.particles:,} of "
        f"{told.total:,} particles are selected.",
        f"{told.threshold_note[:1].upper()}{told.threshold_note[1:]}."
        if told.threshold_note
        else f"Threshold {told.threshold:.3g}, as given.",
        f"Weights: {told.weights.rpartition('/')[2]}, mode {told.mode}.",
    ]
    if not told.automatic:
        lines.append("Automatic selection is off for these weights: a person keeps classes.")
    if told.overrides:
        lines.append(f"{told.overrides} classes are decided by a person.")
    return [*lines, *told.remarks]


def contact_sheet(
    images: np.ndarray,
    scores: np.ndarray,
    sizes: np.ndarray,
    resolutions_A: np.ndarray,
    outcomes: Sequence[str],
    reasons: Sequence[str],
) -> Image.Image:
    """Return class averages sorted by score; those without one come last.

    Parameters
    ----------
    images
        `[K, n, n]`, row 0 at the bottom.
    scores, sizes, resolutions_A
        Of each class `[K]`; scores below -900: none.
    outcomes
        `keep`, `ask` or `drop`, of each class.
    reasons
        `score`, `minimum`, `person` or `unscored`.
    """
    order = np.argsort(-scores, kind="stable")
    columns = max(1, math.ceil(math.sqrt(len(order) * 1.6)))
    rows = max(1, math.ceil(len(order) / columns))
    edge = TILE_PX + 2 * FRAME_PX
    wide, high = edge + GAP_PX, edge + 2 * LINE_PX + GAP_PX
    sheet = Image.new("RGB", (columns * wide + GAP_PX, rows * high + GAP_PX), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for place, klass in enumerate(order.tolist()):
        left = GAP_PX + (place % columns) * wide
        top = GAP_PX + (place // columns) * high
        colour = COLOURS[str(outcomes[klass])]
        draw.rectangle((left, top, left + edge - 1, top + edge - 1), fill=colour)
        image = np.nan_to_num(images[klass], nan=0.0, posinf=0.0, neginf=0.0)
        tile = to_grey(image, 0.1, 99.9).resize((TILE_PX, TILE_PX))
        sheet.paste(tile, (left + FRAME_PX, top + FRAME_PX))
        score = "no score" if scores[klass] < -900.0 else f"{scores[klass]:.2f}"
        why = "" if reasons[klass] in ("score", "unscored") else f" ({reasons[klass]})"
        known = 0.0 < resolutions_A[klass] < UNKNOWN_A
        resolution = f"{resolutions_A[klass]:.1f} A" if known else "-"
        draw.text((left, top + edge), f"{score} {outcomes[klass]}{why}", fill=colour)
        text = f"{klass + 1}: {sizes[klass]:.0f}, {resolution}"
        draw.text((left, top + edge + LINE_PX), text, fill=(0, 0, 0))
    return sheet
