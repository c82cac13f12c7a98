"""Every event body: what happened, with units in the names and bounds in the types.

A body is a frozen Struct; its tag is the event's kind. The envelope (`Event`) is what the journal
stores and the bus carries. Adding an optional field is compatible; anything else needs a new
`schema` number. Source: architecture.md section 3.
"""

from typing import Annotated, Literal

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
AngleDeg = Annotated[float, Meta(ge=-360.0, le=360.0)]


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """Base of all event bodies."""


class SessionOpened(Body, frozen=True, kw_only=True, tag="session.opened"):
    """A raw folder is being watched for a project."""

    name: Name
    raw: Name  # absolute path of the watched folder
    software: Name  # EPU, SerialEM, flat, or unknown as long as the folder is empty


class SessionReopened(Body, frozen=True, kw_only=True, tag="session.reopened"):
    """Watching goes on after a stop or a close."""

    raw: Name


class SessionClosed(Body, frozen=True, kw_only=True, tag="session.closed"):
    """Nothing more is expected; the counts let a consumer prove that it has everything."""

    seen: Count
    settled: Count
    refused: Count
    waiting: Count


class RootAdded(Body, frozen=True, kw_only=True, tag="root.added"):
    """A folder is watched for the session: the raw folder, or another one that belongs to it."""

    path: Name  # absolute
    role: Name  # metadata, movies or both
    link: Name  # its name in the project, "Movies" for the raw folder
    file_system: Text = ""  # as the host calls it: ext4, nfs4, cifs ...
    observer: Text = ""  # inotify and polling, or polling alone


class SessionFound(Body, frozen=True, kw_only=True, tag="session.found"):
    """A session of the acquisition software has appeared below a watched folder."""

    session: Name  # its folder's name
    path: Name  # of its folder, below the raw root, or absolute on another root
    software: Name


class SessionDescribed(Body, frozen=True, kw_only=True, tag="session.described"):
    """What the acquisition software says of a session before any exposure; told again on change."""

    session: Name
    software: Name
    software_version: Text = ""
    started_at: Text = ""  # ISO 8601 as the microscope wrote it
    beam_shift_clustering: bool | None = None  # several holes from one stage position (AFIS)
    movie_format: Text = ""  # in the software's words
    autoloader_slot: Text = ""
    grid_type: Text = ""
    grid_geometry: Text = ""
    hole_size_um: Annotated[float, Meta(ge=0.0, le=1e5)] | None = None
    hole_spacing_um: Annotated[float, Meta(ge=0.0, le=1e5)] | None = None
    tilt_angle_deg: AngleDeg | None = None
    phase_plate: bool | None = None


class SessionPlanned(Body, frozen=True, kw_only=True, tag="session.planned"):
    """How the movies of a session are best processed; told with its first, and on a change."""

    session: Text
    movie: Name  # that it follows from
    processing_pixel_size_A: PixelSizeA  # of the micrographs
    bin_factor: Annotated[int, Meta(ge=1, le=16)]  # in motion correction
    group_frames: Annotated[int, Meta(ge=1, le=65_535)] | None = None  # faint frames, as one
    frames_per_fraction: Annotated[int, Meta(ge=1, le=65_535)] | None = None  # EER
    fractions: Count | None = None
    leftover_frames: Count | None = None  # at the end, which RELION drops
    dose_per_fraction_e_A2: DoseEA2 | None = None
    particle_diameter_A: LengthA | None = None
    mask_diameter_A: LengthA | None = None
    box_px: Pixels | None = None  # of the micrographs
    small_box_px: Pixels | None = None  # after scaling down


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


class WaitStarted(Body, frozen=True, kw_only=True, tag="wait.started"):
    """Something waits, and for what."""

    subject: Name  # a movie, "session" for the raw folder, or the path of another root
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


class ClassesDue(Body, frozen=True, kw_only=True, tag="classes.due"):
    """The particles there are go to 2D classification: to a new job, or on with one that grows."""

    node: Name
    key: Name  # content key of the options: others make a new job
    is_new: bool
    streaming: bool
    micrographs: Count
    particles: Count


class ClassesBegun(Body, frozen=True, kw_only=True, tag="classes.begun"):
    """A process is about to be started for a classification, or once more."""

    process: Name  # Class2D/job007/
    attempt: Count  # since its last iteration


class ClassesIterated(Body, frozen=True, kw_only=True, tag="classes.iterated"):
    """An iteration of a classification is done."""

    process: Name
    iteration: Count
    iterations: Count  # at which the schedule ends
    place: Annotated[float, Meta(ge=0.0, le=1e6)]  # on the schedule; less where particles joined
    particles: Count  # in this iteration
    total: Count  # in the set
    particles_per_s: Annotated[float, Meta(ge=0.0)]
    log_likelihood: float
    resolution_A: float
    classes: Count  # with more than half of the mean of particles
    optimiser: Name | None = None  # where the iteration's files are written


class ClassesAveraged(Body, frozen=True, kw_only=True, tag="classes.averaged"):
    """A classification has looked at all its particles: its classes can be ranked."""

    process: Name
    iteration: Count
    particles: Count
    optimiser: Name  # run_itNNN_optimiser.star; the other files of the iteration are beside it
    montage: Name  # a picture of the classes


class ClassesFailed(Body, frozen=True, kw_only=True, tag="classes.failed"):
    """A classification ended without a result; more micrographs begin another one."""

    process: Name | None
    reason: Literal["failed", "aborted", "poison", "outdated"]
    detail: Text


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
