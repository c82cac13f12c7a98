"""Micrographs and particles: what prep and proc make of movies."""

from typing import Annotated

from msgspec import Meta

from services.kit.events.base import (
    Body,
    Count,
    Fraction,
    LengthA,
    Name,
    Pixels,
    PixelSizeA,
    Seconds,
    SphericalAberrationMM,
    Text,
    VoltageKV,
)


class MicrographCorrected(Body, frozen=True, kw_only=True, tag="micrograph.corrected"):
    """A movie became an aligned, dose-weighted micrograph."""

    movie: Name
    key: Name  # content key of the result
    token: Count
    micrograph: Name  # paths are below the project
    micrograph_nodw: Name | None
    power_spectrum: Name
    metadata_star: Name
    width_px: Pixels
    height_px: Pixels
    pixel_size_A: PixelSizeA  # of the micrograph
    motion_total_px: float
    motion_early_px: float
    motion_late_px: float
    converged: bool
    hot_pixels: Count
    took_s: Seconds
    micrograph_even: Name | None = None  # sum of the even frames, and of the odd ones
    micrograph_odd: Name | None = None
    motion_plot: Name | None = None  # a picture of the tracks
    local_rmsd_px: float | None = None  # of the patches from the local model
    reference_note: Text = ""  # how the gain was made to fit, or why defects are not used


class MicrographCtf(Body, frozen=True, kw_only=True, tag="micrograph.ctf"):
    """The contrast transfer function of a micrograph was fitted."""

    movie: Name
    key: Name
    token: Count
    micrograph: Name
    micrograph_nodw: Name | None
    ctf_image: Name
    metadata_star: Name
    optics_group: Annotated[int, Meta(ge=1, le=100_000)]
    width_px: Pixels
    height_px: Pixels
    pixel_size_A: PixelSizeA
    voltage_kV: VoltageKV
    spherical_aberration_mm: SphericalAberrationMM
    amplitude_contrast: Fraction
    original_pixel_size_A: PixelSizeA
    acquired_at: Text
    defocus_u_A: LengthA
    defocus_v_A: LengthA
    defocus_angle_deg: float
    phase_shift_deg: float
    figure_of_merit: float
    max_resolution_A: float
    reliable: bool
    took_s: Seconds
    doubts: tuple[Text, ...] = ()  # against the fit: noise, score, range, overfocus
    cross_validated_A: float | None = None  # to where half of the spectrum tells the other half
    aliasing_A: float | None = None  # where the rings become too narrow for the box
    ice_ring_density: float | None = None  # RELION's, grows with the box
    iciness: float | None = None  # good below 1, bad above 1.5
    ice_peak_sigma: float | None = None  # of a ring of ice, above what is beside it
    thickness_A: float | None = None
    tilt_angle_deg: float | None = None
    tilt_axis_deg: float | None = None  # from +x towards +y; the defocus grows to its left
    tilt_log_odds: float | None = None  # over no tilt
    mean_intensity: float | None = None  # of the micrograph; thick ice makes it lower
    motion_total_px: float | None = None  # of the movie, so that a selection can look at it
    motion_early_px: float | None = None
    motion_late_px: float | None = None


class MicrographImported(Body, frozen=True, kw_only=True, tag="micrograph.imported"):
    """proc took a micrograph over."""

    movie: Name
    ctf: MicrographCtf


class MicrographRefused(Body, frozen=True, kw_only=True, tag="micrograph.refused"):
    """A movie or micrograph is set aside at a processing stage."""

    movie: Name
    stage: Name  # motioncorr, ctffind, select_mics, autopick, extract
    code: Name
    detail: Text
    attempts: Count = 1


class MicrographSelected(Body, frozen=True, kw_only=True, tag="micrograph.selected"):
    """A micrograph passed the selection of the proc Scheme."""

    movie: Name


class MicrographOverridden(Body, frozen=True, kw_only=True, tag="micrograph.overridden"):
    """A person decided about a micrograph, whatever the selection says of it."""

    movie: Name
    keep: bool | None  # None takes the decision back
    reason: Text = ""
    user: Text = ""
    command: Text = ""  # id of the command that asked for it


class PickingDrifted(Body, frozen=True, kw_only=True, tag="picking.drifted"):
    """The picks of the last micrographs differ from those of the session's beginning, or again not.

    Told once when an alarm begins and once when it ends.
    """

    movie: Name  # the micrograph that decided it
    measure: Name  # particles (per micrograph) or nearest_neighbour_A
    active: bool
    value: float  # moving average, in units of the measure
    low: float
    expected: float
    high: float


class ParticlesPicked(Body, frozen=True, kw_only=True, tag="particles.picked"):
    """Coordinates were found in a micrograph."""

    movie: Name
    key: Name
    token: Count
    coordinates: Name
    n_particles: Count
    mean_figure_of_merit: float
    took_s: Seconds
    nearest_neighbour_A: float | None = None  # median distance; None of fewer than two particles


class ParticlesExtracted(Body, frozen=True, kw_only=True, tag="particles.extracted"):
    """The particles of a micrograph were cut out, scaled and normalised."""

    movie: Name
    key: Name
    token: Count
    stack: Name | None  # None when the micrograph has no particles
    metadata_star: Name
    n_particles: Count
    box_px: Pixels
    pixel_size_A: PixelSizeA
    took_s: Seconds
