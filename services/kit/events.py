"""Every event body: what happened, with units in the names and bounds in the types.

A body is a frozen Struct; its tag is the event's kind. The envelope (`Event`) is what the journal
stores and the bus carries. Adding an optional field is compatible; anything else needs a new
`schema` number. Source: architecture.md section 3.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

SCHEMA = 1

Name = Annotated[str, Meta(min_length=1, max_length=1024)]
Text = Annotated[str, Meta(max_length=4096)]
Count = Annotated[int, Meta(ge=0, le=2**40)]
PixelSizeA = Annotated[float, Meta(gt=0.05, le=100.0)]
VoltageKV = Annotated[float, Meta(ge=10.0, le=1500.0)]
SphericalAberrationMM = Annotated[float, Meta(ge=0.0, le=20.0)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
DoseEA2 = Annotated[float, Meta(gt=0.0, le=10_000.0)]
LengthA = Annotated[float, Meta(ge=-1e7, le=1e7)]
Seconds = Annotated[float, Meta(ge=0.0, le=1e9)]
Pixels = Annotated[int, Meta(ge=1, le=131_072)]
Frames = Annotated[int, Meta(ge=1, le=65_535)]


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """Base of all event bodies."""


class SessionOpened(Body, frozen=True, kw_only=True, tag="session.opened"):
    """A raw folder is being watched for a project."""

    name: Name
    raw: Name  # absolute path of the watched folder
    software: Name  # "EPU"


class SessionReopened(Body, frozen=True, kw_only=True, tag="session.reopened"):
    """Watching goes on after a stop or a close."""

    raw: Name


class SessionClosed(Body, frozen=True, kw_only=True, tag="session.closed"):
    """Nothing more is expected; the counts let a consumer prove that it has everything."""

    seen: Count
    settled: Count
    refused: Count
    waiting: Count


class MovieSeen(Body, frozen=True, kw_only=True, tag="movie.seen"):
    """An exposure was noticed: its movie, or its metadata, has appeared."""

    movie: Name  # identity: path below the raw root, without the movie suffix
    path: Name  # the file that was noticed, below the raw root


class MovieSettled(Body, frozen=True, kw_only=True, tag="movie.settled"):
    """A movie is complete on disk, paired with its metadata, and consistent."""

    movie: Name
    path: Name  # movie file, below the raw root
    metadata_path: Name | None
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


class WaitStarted(Body, frozen=True, kw_only=True, tag="wait.started"):
    """Something waits, and for what."""

    subject: Name  # a movie, or "session"
    code: Name
    detail: Text


class WaitEnded(Body, frozen=True, kw_only=True, tag="wait.ended"):
    """The wait of `subject` is over."""

    subject: Name
    code: Name


class JobStarted(Body, frozen=True, kw_only=True, tag="job.started"):
    """A Scheme's job node got its folder in the RELION project."""

    scheme: Name
    node: Name
    process: Name  # MotionCorr/job002/
    label: Name  # relion.motioncorr.own


class SettingsApplied(Body, frozen=True, kw_only=True, tag="settings.applied"):
    """A service has started, with these settings; what others made due again was put back."""

    digest: Name


class ResultsOutdated(Body, frozen=True, kw_only=True, tag="results.outdated"):
    """Settings changed: results of a stage, and all that follow from them, are due again."""

    stage: Name
    movies: Annotated[tuple[str, ...], Meta(max_length=1_000_000)]


class SchemeMoved(Body, frozen=True, kw_only=True, tag="scheme.moved"):
    """A Scheme took a step; `moves` is what `schemer.machine` needs to repeat it."""

    scheme: Name
    current_node: Name
    moves: Annotated[tuple[tuple[str, ...], ...], Meta(max_length=1000)]


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


class ParticlesPicked(Body, frozen=True, kw_only=True, tag="particles.picked"):
    """Coordinates were found in a micrograph."""

    movie: Name
    key: Name
    token: Count
    coordinates: Name
    n_particles: Count
    mean_figure_of_merit: float
    took_s: Seconds


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


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The envelope: one journal row."""

    schema: int
    producer: str
    epoch: bytes
    seq: int
    uid: bytes
    cause: bytes | None
    session: str
    at: float  # wall clock, information only
    subject: str
    body: Body
    prev: bytes
    hash: bytes


def _leaves(base: type[Body]) -> list[type[Body]]:
    return [leaf for kind in base.__subclasses__() for leaf in (_leaves(kind) or [kind])]


BODIES: tuple[type[Body], ...] = tuple(_leaves(Body))
_union = BODIES[0]
for _kind in BODIES[1:]:
    _union = _union | _kind
_decoder = msgspec.msgpack.Decoder(_union)
_encoder = msgspec.msgpack.Encoder()


def kind_of(body: Body) -> str:
    """Return the event kind, for example "movie.settled"."""
    return str(body.__struct_config__.tag)


def subject_of(body: Body) -> str:
    """Return what the event is about: a movie's identity, a wait's subject, or "session"."""
    return getattr(body, "movie", None) or getattr(body, "subject", None) or "session"


def encode(body: Body) -> bytes:
    """Return the MessagePack form of a body."""
    return _encoder.encode(body)


def decode(data: bytes) -> Body:
    """Return the body of `data`; unknown kinds, fields, or values out of bounds raise."""
    return _decoder.decode(data)
