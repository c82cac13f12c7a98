"""EPU's image XML as the watcher keeps it: one typed value per field, None where unknown."""

import msgspec

from mdcatch.parsers.record import Record

# Fields whose name here is not that of the record.
_NAMES = {
    "dose_e_A2": "total_dose_e_per_A2",
    "dose_on_camera_e_px": "dose_on_camera_e_per_image_px",
    "tilt_alpha_deg": "tilt_angle_deg",
    "beam_tilt_rad": "beam_tilt",
    "acquired_at": "acquisition_time",
}
_APART = {"image_width_px", "image_height_px", "other"}


class EpuImage(msgspec.Struct, frozen=True, kw_only=True):
    """One image XML: it describes EPU's sum; pixel and size of the movie are derived."""

    software: str | None = None  # EPU, or TemAppCommon for atlas files
    software_version: str | None = None
    microscope_id: str | None = None
    microscope_model: str | None = None
    voltage_kV: float | None = None
    image_pixel_size_A: float | None = None
    super_resolution_factor: int | None = None
    binning: int | None = None
    image_width_px: int | None = None
    image_height_px: int | None = None
    exposure_time_s: float | None = None
    dose_e_A2: float | None = None  # whole exposure, at the specimen
    dose_on_camera_e_px: float | None = None  # whole exposure, per image pixel
    n_frames: int | None = None
    fractionation: str | None = None
    frame_rate_hz: float | None = None
    detector: str | None = None
    detector_model: str | None = None
    counting: bool | None = None
    gain_reference: str | None = None  # base name
    magnification: float | None = None
    applied_defocus_um: float | None = None
    lens_defocus_um: float | None = None
    tilt_alpha_deg: float | None = None
    tilt_beta_deg: float | None = None
    stage_um: tuple[float, float, float] | None = None
    beam_shift: tuple[float, float] | None = None  # arbitrary unit: for grouping only
    beam_tilt_rad: tuple[float, float] | None = None
    image_shift: tuple[float, float] | None = None
    energy_filter_on: bool | None = None
    slit_width_eV: float | None = None
    slit_inserted: bool | None = None
    phase_plate: bool | None = None
    c2_aperture: str | None = None
    objective_aperture: str | None = None
    spot_index: int | None = None
    beam_diameter_um: float | None = None
    probe_mode: str | None = None
    acquired_at: str | None = None  # ISO 8601, verbatim
    other: dict[str, str] = {}  # keys of the two lists that have no field here, untouched

    @property
    def upsampling(self) -> int:
        """Movie pixels per image pixel along one axis; super-resolution exists only in counting."""
        return upsampling(self.super_resolution_factor, self.counting)

    @property
    def pixel_size_A(self) -> float | None:
        """Pixel of the movie on disk."""
        return (
            None if self.image_pixel_size_A is None else self.image_pixel_size_A / self.upsampling
        )

    @property
    def movie_size_px(self) -> tuple[int, int] | None:
        """Width and height of the movie: read-out area times the super-resolution factor."""
        if self.image_width_px is None or self.image_height_px is None:
            return None
        return self.image_width_px * self.upsampling, self.image_height_px * self.upsampling

    @property
    def n_frames_estimate(self) -> int | None:
        """Raw frames of an EER exposure; the file itself knows better."""
        return estimate(self.n_frames, self.frame_rate_hz, self.exposure_time_s)

    @property
    def dose_per_frame_e_A2(self) -> float | None:
        """Dose over the stated, else the estimated, number of frames."""
        frames = self.n_frames or self.n_frames_estimate
        return self.dose_e_A2 / frames if self.dose_e_A2 is not None and frames else None


_KEYS = {field: _NAMES.get(field, field) for field in EpuImage.__struct_fields__}


def image_of(record: Record) -> EpuImage:
    """Return an image's record in this form."""
    values = {
        field: record.get(key)
        for field, key in _KEYS.items()
        if field not in _APART and key in record.fields
    }
    if size := record.get("image_size_px"):
        values["image_width_px"], values["image_height_px"] = size
    return EpuImage(**values, other=record.unknown)


def upsampling(factor: int | None, counting: bool | None) -> int:
    """Return movie pixels per image pixel along one axis; only counting has super-resolution."""
    return (factor or 1) if counting is not False else 1


def estimate(n_frames: int | None, rate_hz: float | None, exposure_s: float | None) -> int | None:
    """Return the frames of an exposure that does not state them, None when it cannot be told."""
    if n_frames is not None or rate_hz is None or exposure_s is None:
        return None
    return round(rate_hz * exposure_s)
