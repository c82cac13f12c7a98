"""What a site and a person may set for the watcher; unknown keys are errors."""

from typing import Annotated

import msgspec
from msgspec import Meta

from mdcatch.roots import Holds, RootConfig
from services.kit.events import (
    DoseEA2,
    Fraction,
    Name,
    PixelSizeA,
    SphericalAberrationMM,
    VoltageKV,
)
from services.kit.sitetables import Site

Interval = Annotated[float, Meta(gt=0.0, le=86_400.0)]
Patience = Annotated[float, Meta(ge=0.0, le=1e6)]
Distance = Annotated[float, Meta(gt=0.0, le=1e6)]


class Overrides(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Values a person knows better than the metadata; None leaves the metadata's value."""

    pixel_size_A: PixelSizeA | None = None  # of the movie file
    voltage_kV: VoltageKV | None = None
    spherical_aberration_mm: SphericalAberrationMM | None = None
    amplitude_contrast: Fraction | None = None
    dose_e_A2: DoseEA2 | None = None  # whole exposure


class MdcatchConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of one watched session."""

    raw: Name  # absolute path of the folder to watch; only ever read
    role: Holds = "both"  # what `raw` holds
    roots: tuple[RootConfig, ...] = ()  # other folders of the session: metadata or movies apart
    name: str = ""  # of the session; default: the last component of `raw`
    gain: str | None = None  # absolute or below `raw`; default: found beside the movies
    gain_folders: tuple[str, ...] = ()  # absolute; where gains are that EPU does not copy (EER)
    overrides: Overrides = Overrides()
    site: Site = Site()
    # Instrument id, as the metadata states it, to Cs in mm; the files never say it.
    spherical_aberrations_mm: dict[str, SphericalAberrationMM] = {}
    default_spherical_aberration_mm: SphericalAberrationMM = (
        2.7  # all current TFS Krios and Glacios
    )
    default_amplitude_contrast: Fraction = 0.1  # the field's convention for vitreous ice
    dose_per_fraction_e_A2: DoseEA2 = 1.0  # wanted for EER
    particle_diameter_A: Distance | None = None  # for the boxes that are suggested
    beam_shift_threshold: Distance | None = None  # None: learned from the exposures
    beam_shift_groups: Annotated[int, Meta(ge=1, le=10_000)] | None = None  # per area, if known

    poll_s: Interval = 0.5  # local disk; 5 to 15 s suit a network share
    idle_poll_s: Interval = 60.0  # longest pause when nothing has happened for long
    settle_s: Patience = 2.0  # local disk
    network_settle_s: Patience = 20.0  # at least, on a share, whose clients cache sizes and times
    stuck_s: Patience = 900.0  # an incomplete file that does not change is refused after this
    meta_wait_s: Patience = 60.0  # a partner may be this late before the exposure counts as waiting
    short_wait_s: Patience = 300.0  # a movie with too few frames is given this time to grow
    full_walk_s: Interval = 60.0  # folder times are not reliable on SMB
    inherit: bool = True  # publish a movie without metadata with values of the exposure before
    backlog: bool = False  # files there at the first scan need no settling beyond two polls
    newest_first: bool = False  # look at the files of a back-log from its end
    close_when_idle: bool = False  # close the session once everything found is decided
    inotify: bool = True
