"""Sessions, their roots and Schemes: what is watched, and how far a service has got."""

from typing import Annotated

from msgspec import Meta

from services.kit.events.base import (
    AngleDeg,
    Body,
    Count,
    DoseEA2,
    LengthA,
    Name,
    Pixels,
    PixelSizeA,
    Text,
)


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
