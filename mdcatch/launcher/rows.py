"""What the launcher shows of the newest exposure and of the boxes, as rows of text. Pure."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from mdcatch.launch import checks
from mdcatch.launch.known import Known
from mdcatch.launch.options import frame_dose
from mdcatch.launch.request import OpenRequest
from mdcatch.parsers.fields import FIELDS

# What is shown of an exposure's files, in this order; the rest is in `mdcatch parse`.
SHOWN = {
    "software": "software",
    "software_version": "its version",
    "microscope_id": "microscope",
    "magnification": "magnification",
    "detector_model": "camera",
    "detector": "camera's id",
    "counting": "electrons counted",
    "super_resolution_factor": "super-resolution",
    "binning": "camera binning",
    "movie_size_px": "size of the movie",
    "exposure_time_s": "exposure time",
    "frame_rate_hz": "frame rate",
    "fractionation": "fractions",
    "applied_defocus_um": "defocus asked for",
    "target_defocus_um": "defocus asked for",
    "slit_width_eV": "energy slit",
    "phase_plate": "phase plate",
    "acquisition_time": "taken at",
    "grid_square_id": "grid square",
    "foil_hole_id": "foil hole",
}
_HEADER_WINS = ("movie_size_px",)
_DERIVED = (
    ("voltage_kV", "voltage", "kV"),
    ("spherical_aberration_mm", "spherical aberration", "mm"),
    ("pixel_size_A", "pixel of the movies", "A"),
    ("processing_pixel_A", "pixel of the micrographs", "A"),
    ("dose_e_A2", "dose of a movie", "e/A^2"),
    ("n_frames", "frames", ""),
)
UNKNOWN = "unknown"


class Row(NamedTuple):
    """One value: what it is, the value, its unit, and where it comes from."""

    name: str
    value: str
    unit: str = ""
    source: str = ""


def measured(known: Known) -> list[Row]:
    """Return what the newest exposure says, and what is made of it."""
    return [*_derived(known), *_stated(known)]


def boxes(request: OpenRequest, known: Known) -> list[Row]:
    """Return the sizes that follow from the particle's diameter; empty while unknown."""
    found, pixel_A = checks.suggestion(request, known), known.exposure.processing_pixel_A
    if found is None or pixel_A is None:
        return []
    sizes = found.boxes
    scaled_A = pixel_A * sizes.box_px / sizes.scaled_px
    rows = [
        Row("Box", f"{sizes.box_px} px", f"{sizes.box_px * pixel_A:.0f} A"),
        Row("Scaled to", f"{sizes.scaled_px} px", f"{scaled_A:.3g} A per pixel"),
        Row("Mask", f"{sizes.mask_A:.0f} A", f"{sizes.mask_A / pixel_A:.0f} px"),
    ]
    if sizes.tube_A is not None:
        rows.append(Row("Tube", f"{sizes.tube_A:.0f} A", "outer diameter"))
    if found.distance_px is not None:
        rows.append(Row("Distance", f"{found.distance_px} px", "between boxes"))
    return rows


def _derived(known: Known) -> Iterator[Row]:
    """Yield what decides; a value that nobody says is shown as unknown, for it will be missed."""
    exposure = known.exposure
    for key, name, unit in _DERIVED:
        value = getattr(exposure, key)
        if value is None:
            yield Row(name, UNKNOWN)
        elif key == "processing_pixel_A":
            binned = f"movies binned by {exposure.bin_factor}" if exposure.bin_factor > 1 else ""
            yield Row(name, _text(value), unit, binned or "not binned")
        else:
            yield Row(name, _text(value), unit, str(exposure.sources.get(key, "")))
    plan, dose = exposure.eer, frame_dose(known)
    if dose is not None:
        yield Row(f"dose of a {'fraction' if plan else 'frame'}", _text(dose), "e/A^2", "computed")
    if plan is not None:
        text = f"{plan.fractions} of {plan.group} frames, {plan.leftover} left over"
        yield Row("EER fractions", text, "", "computed")
    if known.files.gain is not None:
        yield Row("gain reference", known.files.gain.name, "", "found")


def _stated(known: Known) -> Iterator[Row]:
    for key, name in SHOWN.items():
        records = [known.metadata, known.header]
        if key in _HEADER_WINS:
            records.reverse()
        fields = [record.fields[key] for record in records if record and key in record.fields]
        if fields:
            unit = FIELDS[key].unit
            shown = "x" if unit == "times" else unit
            yield Row(name, _text(fields[0].value), shown, fields[0].source)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if value == round(value) and abs(value) < 1e9 else f"{value:.5g}"
    if isinstance(value, tuple | list):
        return " x ".join(map(_text, value))
    return str(value)
