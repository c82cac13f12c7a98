"""What the proc tasks are asked and what they answer: Structs without any heavy import."""

from typing import Literal

import msgspec


class PickRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Pick particles in one micrograph."""

    movie: str
    micrograph: str
    coordinates: str  # output, below the project
    pixel_size_A: float
    diameter_min_A: float
    diameter_max_A: float
    max_resolution_A: float
    adjust_threshold: float
    upper_threshold: float
    invert: bool
    max_stddev_noise: float | None = 1.1  # around a pick; RELION's LoG has no such limit


class Coordinates(msgspec.Struct, frozen=True, kw_only=True):
    """What the requests of all pickers say: where the coordinates go."""

    coordinates: str


class PickResult(msgspec.Struct, frozen=True, kw_only=True):
    """Picked coordinates."""

    n_particles: int
    mean_figure_of_merit: float
    nearest_neighbour_A: float | None = None  # median


class ExtractRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Extract the particles of one micrograph."""

    movie: str
    micrograph: str
    coordinates: str
    root: str  # outputs are <root>.mrcs and <root>_extract.star
    optics_group: int
    pixel_size_A: float
    box_px: int
    scaled_px: int
    background_radius_px: int
    invert: bool
    normalise: bool
    white_dust_sigma: float
    black_dust_sigma: float
    float16: bool
    minimum_figure_of_merit: float | None
    defocus_u_A: float
    defocus_v_A: float
    defocus_angle_deg: float
    phase_shift_deg: float
    ctf_max_resolution_A: float
    ctf_figure_of_merit: float
    ctf_correction: Literal["", "multiply", "flip"] = ""  # what the images are corrected by
    voltage_kV: float = 300.0  # these three only for that
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.1
    tilt_angle_deg: float = 0.0  # of the specimen; particles have the defocus of their place
    tilt_axis_deg: float = 0.0
    intact_first_peak: bool = False  # of the correction
    ctf_box_px: int = 0  # side of the windows that are corrected, 0: box_px
    ramp: bool = True  # the background is a plane
    min_edge_A: float = 0.0  # particles closer to the border are left out


class ReextractRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Extract the refined particles of one micrograph again; `coordinates` is their table."""

    extract: ExtractRequest
    recenter: bool
    reset_offsets: bool
    center_px: tuple[float, float, float]  # of the reference, that becomes the middle
    reference_pixel_A: float


class ExtractResult(msgspec.Struct, frozen=True, kw_only=True):
    """Extracted particles."""

    n_particles: int
    box_px: int
    pixel_size_A: float
