"""From the record of an mdoc to what it says of each movie that it names. Pure.

Source: acquisition.md sections 3.1 to 3.3 and 4.
"""

from typing import Any, NamedTuple

from mdcatch.parsers.fields import FIELDS
from mdcatch.parsers.record import Field, Record
from services.kit.errors import Code

_MOVIES = frozenset({"frame_set", "frame_set_with_tilts", "tilt_series"})
# What the head of the file says for all its sections.
_HEAD = (
    "software software_version microscope_id voltage_kV cs_mm tilt_axis_angle_deg pixel_size_A"
).split()


class Shot(NamedTuple):
    """One movie: its base name, its section (None: the file speaks for one movie), what is said.

    A section that cannot be used has a code and a sentence instead.
    """

    file_name: str
    section: int | None
    record: Record
    code: Code | None = None
    detail: str = ""


def shots(record: Record, mdoc_name: str) -> list[Shot]:
    """Return what an mdoc says of each movie that it names.

    Parameters
    ----------
    record
        Of the mdoc.
    mdoc_name
        Base name of the file: that of its movie, with `.mdoc` behind, where it names none.
    """
    if record.kind not in _MOVIES:
        return []
    if record.kind == "frame_set_with_tilts" or not record.sections:
        named = record.get("movie_file") or own_image(mdoc_name)
        return [Shot(named, None, record)]
    found = [_shot(record, number, table) for number, table in enumerate(record.sections)]
    return [shot for shot in found if shot.file_name]


def images(record: Record, mdoc_name: str) -> set[str]:
    """Return base names of files that hold the sums of an mdoc: they are no movies."""
    if record.kind in ("frame_set", "frame_set_with_tilts"):
        return set()
    return {record.get("image_file") or own_image(mdoc_name), own_image(mdoc_name)}


def own_image(mdoc_name: str) -> str:
    """Return the name of the file that an mdoc lies beside."""
    return mdoc_name.rpartition(".")[0]


def _shot(head: Record, number: int, table: dict[str, Any]) -> Shot:
    record = Record(format="mdoc", kind=head.kind, flags=list(table.get("flags", ())))
    for key in _HEAD:
        if key in head.fields:
            record.fields[key] = head.fields[key]
    for key, value in table.items():
        if key in FIELDS and value is not None:
            record.fields[key] = Field(value, "mdoc")
    estimate = table.get("prior_dose_estimate_e_per_A2")
    if estimate is not None and record.get("prior_dose_e_per_A2") is None:
        record.fields["prior_dose_e_per_A2"] = Field(estimate, "computed")
    refused = table.get("refused")
    if not refused:
        return Shot(table.get("movie_file") or "", number, record)
    return Shot(
        table.get("movie_file") or "", number, record, Code(refused["code"]), refused["detail"]
    )
