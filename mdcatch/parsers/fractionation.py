"""How an image XML says that its movie was divided into fractions.

Source: acquisition.md sections 1.5, 2.3.
"""

from itertools import pairwise

from mdcatch.parsers.limits import Bounds, integer
from mdcatch.parsers.record import Record
from mdcatch.parsers.safexml import Element, Pair, clean, local
from services.kit.errors import Code, Refused

_STATED = ("NumberOffractions", "NumberOfFractions")  # the first is EPU's own spelling
_FRAME = Bounds(0, 10_000_000)


def put_fractions(record: Record, settings: Pair) -> None:
    """Add the number of movie frames: stated, or listed one by one; unknown for EER.

    Parameters
    ----------
    record
        Of an image XML; is added to.
    settings
        The pair `FractionationSettings`; the type of its value is the kind of fractionation.

    Raises
    ------
    Refused
        XML_BROKEN for settings that say something twice, OUT_OF_RANGE.
    """
    record.put("fractionation", settings.type or None, "xml")
    inside = [] if settings.element is None else list(settings.element)
    parts = {local(part.tag): part for part in inside}
    if len(parts) < len(inside):
        raise Refused(Code.XML_BROKEN, "FractionationSettings says something twice")
    if (stated := next((parts[name] for name in _STATED if name in parts), None)) is not None:
        record.read("n_frames", clean(stated) or None, "xml")
    elif (listed := parts.get("DoseFractions")) is not None:
        record.put("n_frames", len(listed), "xml")
        spans = [_span(fraction) for fraction in listed]
        _put_lengths(record, sorted(span for span in spans if span), len(spans))


def _put_lengths(record: Record, spans: list[tuple[int, int]], number: int) -> None:
    """Add the camera frames of each fraction, if all of them tell their first and last."""
    if len(spans) < number:
        return
    lengths = [last - first + 1 for first, last in spans]
    record.put("raw_frames_per_fraction", lengths, "xml")
    if any(one[1] + 1 != other[0] for one, other in pairwise(spans)):
        record.flag("frames_mismatch", "the listed fractions have gaps or overlap")


def _span(fraction: Element) -> tuple[int, int] | None:
    """First and last camera frame of a fraction, both included; the first of all is 1."""
    ends = {local(child.tag): clean(child) for child in fraction}
    first, last = ends.get("StartFrameNumber"), ends.get("EndFrameNumber")
    if first is None or last is None:
        return None
    return integer("StartFrameNumber", first, _FRAME), integer("EndFrameNumber", last, _FRAME)
