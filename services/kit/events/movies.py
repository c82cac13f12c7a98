"""Movies and optics groups: what mdcatch finds, and prep takes over."""

from typing import Annotated

from msgspec import Meta

from services.kit.events.base import (
    AngleDeg,
    Body,
    Count,
    DoseEA2,
    Fraction,
    Frames,
    Name,
    Pixels,
    PixelSizeA,
    Seconds,
    SphericalAberrationMM,
    Text,
    VoltageKV,
)


class MovieSeen(Body, frozen=True, kw_only=True, tag="movie.seen"):
    """An exposure was noticed: its movie, or its metadata, has appeared."""

    movie: Name  # identity: path below the raw root, without the movie suffix
    path: Name  # the file that was noticed, below the raw root, or absolute on another root
    session: Text = ""  # of the acquisition software: the name of its folder


class MovieSettled(Body, frozen=True, kw_only=True, tag="movie.settled", omit_defaults=True):
    """A movie is complete on disk, paired with its metadata, and consistent."""

    movie: Name
    path: Name  # movie file, below the raw root, or below the root of `link`
    metadata_path: Name | None  # absolute when it lies on another root
    format: Name  # tiff, mrc or eer
    size_bytes: Count
    mtime_ns: int  # of the movie file; information only, for latency figures
    digest: Name  # SHA-256 over size, first and last 64 KiB
    width_px: Pixels
    height_px: Pixels
    n_frames: Frames
    voltage_kV: VoltageKV
    spherical_aberration_mm: SphericalAberrationMM
    amplitude_contrast: Fraction
    pixel_size_A: PixelSizeA  # of the movie file
    dose_e_A2: DoseEA2  # whole exposure
    dose_per_frame_e_A2: DoseEA2
    exposure_time_s: Seconds | None = None
    applied_defocus_um: Annotated[float, Meta(ge=-50.0, le=50.0)] | None = None
    magnification: Annotated[float, Meta(gt=0.0, le=1e8)] | None = None
    detector: Text = ""
    counting: bool | None = None
    super_resolution_factor: Annotated[int, Meta(ge=1, le=4)] = 1
    binning: Annotated[int, Meta(ge=1, le=16)] = 1
    grid_square: Text = ""
    foil_hole: Text = ""
    acquisition_area: Text = ""
    beam_shift: tuple[float, float] | None = None
    stage_um: tuple[float, float, float] | None = None
    acquired_at: Text = ""  # ISO 8601 as the microscope wrote it
    gain_path: Name | None = None  # absolute, or below the raw root
    optics_group: Annotated[int, Meta(ge=1, le=100_000)]
    sources: dict[str, str] = {}  # field -> xml, header, site, user, inherited, estimate
    flags: tuple[str, ...] = ()
    link: Name | None = None  # the root of `path` in the project, when it is not "Movies"
    session: Text = ""  # of the acquisition software: the name of its folder
    software: Text = ""
    metadata: Text = ""  # own, inherited (of the exposure before), operator (none but a person's)
    complete_by: Text = ""  # structure, witness or timeout: what told that the file is complete
    compression: Text = ""
    exposure_name: Text = ""  # stem of the movie's file
    beam_tilt: tuple[float, float] | None = None
    image_shift: tuple[float, float] | None = None
    tilt_angle_deg: AngleDeg | None = None  # of the stage
    tilt_axis_deg: AngleDeg | None = None
    tilt_series: Text = ""  # metadata file of the series the movie belongs to
    tilt_index: Annotated[int, Meta(ge=0, le=100_000)] | None = None
    slit_inserted: bool | None = None
    slit_width_eV: Annotated[float, Meta(ge=0.0, le=1e4)] | None = None
    phase_plate: bool | None = None
    frame_doses: tuple[tuple[float, int], ...] | None = None  # e/A^2 and how many such frames
    pre_exposure_e_A2: Annotated[float, Meta(ge=0.0, le=1e6)] | None = None
    processing_pixel_size_A: PixelSizeA | None = None  # of the micrograph to be made
    bin_factor: Annotated[int, Meta(ge=1, le=16)] | None = None  # in motion correction
    frames_per_fraction: Annotated[int, Meta(ge=1, le=65_535)] | None = None  # EER grouping
    defects_path: Name | None = None
    gain_rotation: Annotated[int, Meta(ge=0, le=3)] | None = None  # quarter turns, before the flip
    gain_flip: Annotated[int, Meta(ge=0, le=2)] | None = None  # 0 none, 1 upside down, 2 left-right
    notes: dict[str, str] = {}  # flag -> a sentence with the values behind it
    mtf_path: Name | None = None  # absolute, as the site has it for camera, mode and voltage
    group_frames: Annotated[int, Meta(ge=1, le=65_535)] | None = None  # faint frames, as one
    optics_provisional: bool | None = None  # too few exposures so far to trust the grouping


class MovieChanged(Body, frozen=True, kw_only=True, tag="movie.changed"):
    """A settled movie is another file now, or its gain has come: it is published again."""

    movie: Name
    detail: Text


class MovieMoved(Body, frozen=True, kw_only=True, tag="movie.moved"):
    """A settled movie lies in another folder now, for instance as its session was renamed."""

    movie: Name
    path: Name  # below the raw root, or absolute on another root
    link: Name | None = None  # the root in the project, when it is not "Movies"
    below: Text = ""  # path below the root of `link`


class MovieUpdated(Body, frozen=True, kw_only=True, tag="movie.updated"):
    """A movie that was published with inherited values has got metadata of its own.

    Where a value that processing needs differs, `movie.settled` follows once more.
    """

    movie: Name
    metadata_path: Name
    changed: tuple[str, ...] = ()  # fields of `movie.settled` that differ from what was inherited


class MovieOverridden(Body, frozen=True, kw_only=True, tag="movie.overridden"):
    """A person decided about one exposure; None leaves a thing as it is."""

    movie: Name
    choose: Name | None = None  # the movie file that counts, of several
    metadata_path: Name | None = None  # the metadata file that counts
    accept: bool | None = None  # publish it although it waits: without metadata, or too short
    ignore: bool | None = None  # never publish it


class SettingsChanged(Body, frozen=True, kw_only=True, tag="settings.changed"):
    """The microscope works with other settings than in the exposure before."""

    session: Text
    movie: Name  # the first with the new settings
    before: dict[str, str]
    after: dict[str, str]


class MovieImported(Body, frozen=True, kw_only=True, tag="movie.imported"):
    """prep took a settled movie over; what it needs of it is now in its own journal."""

    movie: Name
    settled: MovieSettled


class MovieRefused(Body, frozen=True, kw_only=True, tag="movie.refused"):
    """An exposure is set aside; if its files change it is looked at again."""

    movie: Name
    code: Name
    detail: Text


class OpticsGrouped(Body, frozen=True, kw_only=True, tag="optics.grouped"):
    """A new optics group was opened; numbers are never reused or changed."""

    optics_group: Annotated[int, Meta(ge=1, le=100_000)]
    name: Name  # letters, digits, hyphen
    voltage_kV: VoltageKV
    spherical_aberration_mm: SphericalAberrationMM
    amplitude_contrast: Fraction
    pixel_size_A: PixelSizeA
    session: Text = ""
    acquisition_area: Text = ""
    provisional: bool | None = None  # too few exposures so far to trust the grouping
    mtf_path: Name | None = None  # of the camera, for the optics table


class OpticsLearned(Body, frozen=True, kw_only=True, tag="optics.learned"):
    """How far apart beam shifts of one group may be, as the exposures so far tell."""

    session: Text = ""
    threshold: Annotated[float, Meta(gt=0.0, le=1e6)]  # in the unit of the beam shift
    exposures: Count  # so far
    provisional: bool


class OpticsRegrouped(Body, frozen=True, kw_only=True, tag="optics.regrouped"):
    """An offer: the grouping by all exposures of the session; nothing is changed by it.

    Groups keep the number of the live group most of them are in. A long table comes in parts.
    """

    part: Annotated[int, Meta(ge=1, le=100_000)]  # of `parts`, in order
    parts: Annotated[int, Meta(ge=1, le=100_000)]
    groups: Count  # in the whole table
    differing: Count  # movies of the whole table whose group is another one than now
    movies: Annotated[tuple[str, ...], Meta(max_length=10_000)]
    optics_groups: Annotated[tuple[int, ...], Meta(max_length=10_000)]  # of these movies
