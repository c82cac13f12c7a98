"""What a site and a person may set for the watcher; unknown keys are errors."""

from typing import Annotated

import msgspec
from msgspec import Meta

from services.kit.events import (
    DoseEA2,
    Fraction,
    Name,
    PixelSizeA,
    SphericalAberrationMM,
    VoltageKV,
)

Interval = Annotated[float, Meta(gt=0.0, le=86_400.0)]
Patience = Annotated[float, Meta(ge=0.0, le=1e6)]


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
    name: str = ""  # of the session; default: the last component of `raw`
    gain: str | None = None  # absolute or below `raw`; default: found beside the movies
    overrides: Overrides = Overrides()
    # Instrument id, as the metadata states it, to Cs in mm; the files never say it.
    spherical_aberrations_mm: dict[str, SphericalAberrationMM] = {}
    default_spherical_aberration_mm: SphericalAberrationMM = (
        2.7  # all current TFS Krios and Glacios
    )
    default_amplitude_contrast: Fraction = 0.1  # the field's convention for vitreous ice
    beam_shift_threshold: Annotated[float, Meta(gt=0.0)] | None = None  # None: by acquisition area

    poll_s: Interval = 0.5  # local disk; 5 to 15 s suit a network share
    settle_s: Patience = 2.0  # local disk; 20 s for a network share, whose clients cache sizes
    stuck_s: Patience = 900.0  # an incomplete file that does not change is refused after this
    meta_wait_s: Patience = 60.0  # a partner may be this late before the exposure counts as waiting
    full_walk_s: Interval = 60.0  # folder times are not reliable on SMB
    backlog: bool = False  # files there at the first scan need no settling beyond two polls
    close_when_idle: bool = False  # close the session once everything found is decided
    inotify: bool = True
