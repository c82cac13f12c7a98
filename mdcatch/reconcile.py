"""What is true of an exposure when several sources speak: one value each, and flags. Pure.

The strongest source decides: a person, the site's calibration, the metadata, the movie's header,
what was inherited, an estimate. Frames and size are the header's, whatever others say. Sources
that disagree are flagged, each flag with a sentence that holds both values.

Source: acquisition.md sections 1.13, 2.4, 2.5, 3.3, 5 to 7 and 9.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from mdcatch import derive
from mdcatch.derive import EerPlan, Sampling, Suggestion
from mdcatch.parsers.record import Field, Record
from services.kit.sitetables import Camera, Microscope

# How far two statements of one quantity may differ, as a share of the larger.
DOSE_TOLERANCE = 0.10  # doses are rounded, and measured minutes apart
PIXEL_TOLERANCE = 0.10  # calibrations correct the nominal pixel by up to five percent
VOLTAGE_TOLERANCE = 0.01
FRAMES_TOLERANCE = 0.05  # of an estimate by frame rate
TIFF_PIXEL_A = (0.1, 20.0)  # a resolution tag outside of this is a screen's, not a microscope's


class Exposure(msgspec.Struct, kw_only=True):
    """Everything that is known of an exposure and follows from it; None is unknown."""

    voltage_kV: float | None = None
    spherical_aberration_mm: float | None = None
    n_frames: int | None = None
    movie_size_px: tuple[int, int] | None = None
    sampling: Sampling | None = None
    pixel_size_A: float | None = None  # of the movie
    processing_pixel_A: float | None = None  # of the micrograph
    bin_factor: int = 1
    dose_e_A2: float | None = None  # whole exposure
    dose_per_frame_e_A2: float | None = None  # mean
    frame_doses: tuple[tuple[float, int], ...] = ()  # dose and number of such frames, if uneven
    group_frames: int = 1
    eer: EerPlan | None = None
    sources: dict[str, str] = {}  # field -> `Source`, or "site default"
    flags: dict[str, str] = {}  # word -> sentence

    def suggest(self, diameter_A: float, *, is_helix: bool = False) -> Suggestion | None:
        """Return the boxes for a particle or filament, None while the pixel is unknown."""
        if self.processing_pixel_A is None:
            return None
        return derive.boxes(diameter_A, self.processing_pixel_A, is_helix=is_helix)

    def check_counts(self, counts_px_frame: float) -> None:
        """Flag a dose that the raw counts of a counting camera contradict."""
        if not self.dose_per_frame_e_A2 or not self.pixel_size_A:
            return
        share, fits = derive.counted_share(
            counts_px_frame, self.dose_per_frame_e_A2, self.pixel_size_A
        )
        if not fits:
            self.flags["dose_conflict"] = (
                f"the frames hold {share:.2g} counts per electron of "
                f"{self.dose_per_frame_e_A2:.3g} e/A2 at {self.pixel_size_A:.4g} A; believable is "
                f"{derive.COUNTED_LOW:g} to {derive.COUNTED_HIGH:g}: check dose and pixel"
            )


def reconcile(
    metadata: Record | None,
    header: Record | None,
    *,
    microscope: Microscope | None = None,
    camera: Camera | None = None,
    operator: Mapping[str, float] | None = None,
    inherited: Mapping[str, Field] | None = None,
    dose_per_fraction_e_A2: float = 1.0,
) -> Exposure:
    """Return what is true of one exposure.

    Parameters
    ----------
    metadata
        Of the image XML or the frame mdoc.
    header
        Of the movie file.
    microscope, camera
        Of the site, if it knows them.
    operator
        Values a person gave, by the names of `FIELDS`.
    inherited
        Fields of the session's last exposure, used where nothing else speaks.
    dose_per_fraction_e_A2
        Wanted for EER.
    """
    known = _Known(metadata, header, operator or {}, inherited or {})
    found = Exposure(flags=_told(metadata, header))
    _instrument(found, known, microscope)
    _frames(found, known)
    _size(found, known)
    _pixel(found, known, camera)
    _dose(found, known)
    found.bin_factor = derive.correction_binning(_oversampling(found, known))
    if found.pixel_size_A is not None:
        found.processing_pixel_A = found.pixel_size_A * found.bin_factor
    if known.is_eer and found.n_frames is not None:
        found.eer = derive.eer_plan(found.n_frames, found.dose_e_A2, dose_per_fraction_e_A2)
    else:
        found.group_frames = derive.frame_groups(found.dose_per_frame_e_A2)
    return found


class _Known:
    """The statements of all sources, asked for by field."""

    def __init__(
        self,
        metadata: Record | None,
        header: Record | None,
        operator: Mapping[str, float],
        inherited: Mapping[str, Field],
    ):
        self.metadata, self.header, self.inherited = metadata, header, inherited
        self.operator = {key: Field(value, "operator") for key, value in operator.items()}
        if header is not None:
            self.is_eer = header.format == "eer"
        else:
            named = str(self.of_metadata("movie_file") or "").lower()
            self.is_eer = self.of_metadata("movie_format") == "eer" or named.endswith(".eer")

    def by_person(self, key: str) -> Field | None:
        return self.operator.get(key)

    def of_metadata(self, key: str) -> Any:
        return self.metadata.get(key) if self.metadata else None

    def of_header(self, key: str) -> Any:
        return self.header.get(key) if self.header else None

    def first(self, key: str) -> Field | None:
        """Return the statement of the strongest source but the site."""
        records = (record.fields for record in (self.metadata, self.header) if record)
        layers = (self.operator, *records, {k: _inherit(f) for k, f in self.inherited.items()})
        return next((layer[key] for layer in layers if key in layer), None)


def _told(*records: Record | None) -> dict[str, str]:
    """Return the flags that the parsers raised, each with its sentence."""
    return {
        word: next((n.removeprefix(f"{word}: ") for n in record.notes if n.startswith(word)), word)
        for record in records
        if record is not None
        for word in record.flags
    }


def _inherit(field: Field) -> Field:
    return Field(field.value, "inherited")


def _keep(found: Exposure, name: str, field: Field | None) -> None:
    if field is not None:
        setattr(found, name, field.value)
        found.sources[name] = field.source


def _instrument(found: Exposure, known: _Known, microscope: Microscope | None) -> None:
    """Voltage as the microscope says it; Cs as the site knows it, for files only repeat it."""
    voltage, cs = known.first("voltage_kV"), known.by_person("cs_mm")
    if microscope is not None:
        usual = microscope.voltage_kV
        if voltage is None and usual is not None:
            voltage = Field(usual, "site")
        elif voltage and usual and derive.conflicting((voltage.value, usual), VOLTAGE_TOLERANCE):
            found.flags["voltage_conflict"] = (
                f"the {voltage.source} says {voltage.value:g} kV, the site {usual:g} kV for "
                f"{microscope.name}"
            )
        cs = cs or Field(microscope.spherical_aberration_mm, "site")
    _keep(found, "voltage_kV", voltage)
    _keep(found, "spherical_aberration_mm", cs or known.first("cs_mm"))


def _frames(found: Exposure, known: _Known) -> None:
    counted, stated = known.of_header("n_frames"), known.of_metadata("n_frames")
    estimate = known.of_metadata("n_frames_estimate")
    if known.is_eer and stated == 1:
        stated = None  # what Tomography's mdoc says of every EER movie
    if counted is None:
        field = known.first("n_frames")
        if field is None and estimate is not None:
            field = Field(estimate, "frames x rate")
        _keep(found, "n_frames", field)
        return
    _keep(found, "n_frames", Field(counted, "header"))
    tolerance, said = (FRAMES_TOLERANCE, estimate) if stated is None else (0.0, stated)
    if said is not None and derive.conflicting((counted, said), tolerance):
        found.flags["frames_mismatch"] = f"the file has {counted} frames, its metadata says {said}"
    if counted < derive.FEWEST_FRAMES:
        found.flags["few_frames"] = (
            f"{counted} frames; motion correction needs {derive.FEWEST_FRAMES}"
        )


def _size(found: Exposure, known: _Known) -> None:
    stated = known.metadata.fields.get("movie_size_px") if known.metadata else None
    field = known.header.fields.get("movie_size_px") if known.header else None
    field = field or stated
    if field is None:
        return
    width, height = field.value
    _keep(found, "movie_size_px", Field((width, height), field.source))
    if stated is not None and sorted(stated.value) != sorted(field.value):
        found.flags["size_mismatch"] = (
            f"the file is {width} x {height} px, its metadata says "
            f"{stated.value[0]} x {stated.value[1]}"
        )


def _sampling(known: _Known) -> Sampling | None:
    return derive.sampling(
        known.of_metadata("super_resolution_factor"),
        known.of_metadata("binning"),
        known.of_metadata("counting"),
        known.of_metadata("super_resolution"),
    )


def _oversampling(found: Exposure, known: _Known) -> float | None:
    """Movie pixels per sensor pixel: the size of the file decides where the camera is known."""
    stated = found.sampling.per_sensor_pixel if found.sampling else None
    if known.is_eer:  # rendered at the sensor's own pixel
        return 1.0
    seen = None if found.movie_size_px is None else derive.sampling_of_size(found.movie_size_px)
    if seen is not None and stated is not None and seen != stated:
        found.flags["sampling_conflict"] = (
            f"a movie of this size has {seen:g} pixels per sensor pixel, its metadata says "
            f"{stated:g}"
        )
    return stated if seen is None else seen


def _pixel(found: Exposure, known: _Known, camera: Camera | None) -> None:
    found.sampling = _sampling(known)
    stated = known.metadata.fields.get("pixel_size_A") if known.metadata else None
    table = _table_pixel(found, known, camera)
    if table and stated and derive.conflicting((table.value, stated.value), PIXEL_TOLERANCE):
        found.flags["pixel_conflict"] = (
            f"the site's table gives {table.value:.4g} A, the {stated.source} "
            f"{stated.value:.4g} A: check table and super-resolution"
        )
    field = known.by_person("pixel_size_A") or table or stated or _header_pixel(found, known)
    if field is not None and field is table:
        found.flags["pixel_from_table"] = f"{field.value:.4g} A is the site's calibration"
    if field is None and "pixel_size_A" in known.inherited:
        field = _inherit(known.inherited["pixel_size_A"])
    _keep(found, "pixel_size_A", field)


def _table_pixel(found: Exposure, known: _Known, camera: Camera | None) -> Field | None:
    magnification = known.first("magnification")
    if camera is None or magnification is None or found.sampling is None:
        return None
    sensor_A = camera.pixel_sizes_A.get(round(magnification.value))
    return None if sensor_A is None else Field(derive.movie_pixel(sensor_A, found.sampling), "site")


def _header_pixel(found: Exposure, known: _Known) -> Field | None:
    pixel = known.of_header("pixel_size_A")
    if pixel is None or not TIFF_PIXEL_A[0] <= pixel <= TIFF_PIXEL_A[1]:
        return None
    found.flags["pixel_from_header"] = f"{pixel:.4g} A is only the file's header: give --pixel-size"
    return Field(pixel, "header")


def _dose(found: Exposure, known: _Known) -> None:
    """Choose the dose, then compare all that was said of it."""
    person, stated = known.by_person("total_dose_e_per_A2"), known.first("total_dose_e_per_A2")
    image = derive.dose_of_pixels(
        known.of_metadata("dose_on_camera_e_per_image_px"), known.of_metadata("image_pixel_size_A")
    )
    header = derive.dose_of_pixels(known.of_header("total_dose_e_per_px"), found.pixel_size_A)
    field = stated if stated is not None and stated.value else None
    if (image or header) and (field is None or field.source == "inherited"):
        field = Field(image or header, "xml" if image else "header")
    if field is None:
        field = _estimated_dose(found, known)
    _keep(found, "dose_e_A2", field)
    found.dose_per_frame_e_A2 = derive.dose_per_frame(found.dose_e_A2, found.n_frames)
    if person is not None or field is None or field.source == "computed":
        return
    _uneven(found, known)
    said = {"chosen": field.value, "image": image, "header": header}
    said["frames"] = known.of_metadata("frame_dose_sum_e_per_A2")
    if derive.conflicting(said.values(), DOSE_TOLERANCE):
        values = ", ".join(f"{value:.4g}" for value in said.values() if value)
        found.flags["dose_conflict"] = (
            f"doses of {values} e/A2 are stated; {field.value:.4g} of the {field.source} is used"
        )


def _estimated_dose(found: Exposure, known: _Known) -> Field | None:
    rate, exposure = known.of_metadata("dose_rate_e_per_px_s"), known.first("exposure_time_s")
    if found.sampling is None or found.pixel_size_A is None or exposure is None:
        return None
    sensor_pixel_A = found.pixel_size_A * found.sampling.per_sensor_pixel
    dose = derive.dose_of_rate(rate, exposure.value, sensor_pixel_A)
    if dose is None:
        return None
    found.flags["dose_estimated"] = (
        f"{dose:.3g} e/A2 from the rate at the camera; the specimen took more: calibrate the dose"
    )
    return Field(dose, "computed")


def _uneven(found: Exposure, known: _Known) -> None:
    """Take doses frame by frame where they are stated, agree and cover the file's frames."""
    pairs = tuple((dose, count) for dose, count in known.of_metadata("frame_doses") or ())
    raw = known.of_metadata("raw_frames_per_fraction")
    if raw and found.dose_e_A2:
        pairs = derive.uneven_doses(found.dose_e_A2, raw)
    total = sum(dose * count for dose, count in pairs)
    covers = found.n_frames == sum(count for _, count in pairs)
    agrees = not derive.conflicting((total, found.dose_e_A2), DOSE_TOLERANCE)
    if len({dose for dose, _ in pairs}) > 1 and total and covers and agrees:
        found.frame_doses = pairs
