"""`logfile.pdf`: one page of curves and histograms, an output that RELION's job types declare.

The page is written by hand: a few lines of PDF, and no job waits a second for a plotting library.
Source: preprocessing.md section 2.13; PDF 1.4 (ISO 32000), sections on syntax and graphics.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from algorithms.formats.atomic import atomic_write

PAGE = (595, 842)  # points: A4
MARGIN, GAP, TITLE = 50.0, 26.0, 40.0
MOST_POINTS, BINS = 2000, 30


class Frame(NamedTuple):
    """Where a plot is, in points."""

    x: float
    y: float
    width: float
    height: float


def write_logfile(path: Path, title: str, columns: Mapping[str, Sequence[float]]) -> None:
    """Write a page: for each column its values in the order of the table, and their histogram."""
    height = (PAGE[1] - 2 * MARGIN - TITLE) / max(1, len(columns)) - GAP
    content = [_text(MARGIN, PAGE[1] - MARGIN, 14, title)]
    for row, (label, values) in enumerate(columns.items()):
        y = PAGE[1] - MARGIN - TITLE - (row + 1) * (height + GAP) + GAP
        content += _plots(label, [v for v in values if math.isfinite(v)], y, height)
    atomic_write(path, _document("\n".join(content).encode("ascii", "replace")), durable=False)


def _plots(label: str, values: list[float], y: float, height: float) -> list[str]:
    width = (PAGE[0] - 2 * MARGIN - GAP) / 2
    curve = Frame(MARGIN, y, width, height)
    bars = Frame(MARGIN + width + GAP, y, width, height)
    low, high = min(values, default=0.0), max(values, default=0.0)
    middle = sorted(values)[len(values) // 2] if values else math.nan
    words = f"{label}: {len(values)} values, {low:.4g} to {high:.4g}, median {middle:.4g}"
    lines = [_text(MARGIN, y + height + 4, 9, words), _box(curve), _box(bars)]
    if not values:
        return lines
    span = high - low or 1.0
    step = max(1, math.ceil(len(values) / MOST_POINTS))
    shown = values[::step]
    across = curve.width / max(1, len(shown) - 1)
    points = [
        f"{curve.x + i * across:.2f} {curve.y + (v - low) / span * curve.height:.2f}"
        for i, v in enumerate(shown)
    ]
    lines.append(f"{points[0]} m " + " ".join(f"{p} l" for p in points[1:]) + " S")
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, int((value - low) / span * BINS))] += 1
    wide, tallest = bars.width / BINS, max(counts)
    lines += [
        f"{bars.x + i * wide:.2f} {bars.y:.2f} {wide:.2f} {n / tallest * bars.height:.2f} re f"
        for i, n in enumerate(counts)
        if n
    ]
    return lines


def _box(frame: Frame) -> str:
    return "0.5 w {:.2f} {:.2f} {:.2f} {:.2f} re S".format(*frame)


def _text(x: float, y: float, size: int, words: str) -> str:
    safe = words.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
    return f"BT /F1 {size} Tf {x:.2f} {y:.2f} Td ({safe}) Tj ET"


def _document(content: bytes) -> bytes:
    """Return a PDF file with one page that shows `content`."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>" % PAGE,
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    file = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(file)
    file += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    file += b"".join(b"%010d 00000 n \n" % place for place in places)
    file += b"trailer\n<< /Size %d /Root 1 0 R >>\n" % (len(objects) + 1)
    return bytes(file) + b"startxref\n%d\n%%%%EOF\n" % start
