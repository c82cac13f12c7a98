"""What the source tells the service: observations, not yet decisions."""

import msgspec

from mdcatch.parsers.epuxml import EpuImage
from services.kit.errors import Code


class Stimulus(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all stimuli."""


class Opened(Stimulus, frozen=True, kw_only=True):
    """Watching begins, for the first time or again."""

    name: str
    raw: str


class RootLost(Stimulus, frozen=True, kw_only=True):
    """The raw folder cannot be seen."""

    detail: str


class RootFound(Stimulus, frozen=True, kw_only=True):
    """The raw folder is there again."""


class Noticed(Stimulus, frozen=True, kw_only=True):
    """A file shows that there is an exposure."""

    movie: str
    path: str


class Waits(Stimulus, frozen=True, kw_only=True):
    """An exposure lacks something."""

    movie: str
    code: Code
    detail: str


class Rejected(Stimulus, frozen=True, kw_only=True):
    """A file of an exposure cannot be used."""

    movie: str
    code: Code
    detail: str


class Ready(Stimulus, frozen=True, kw_only=True):
    """Movie and metadata of an exposure are complete, each by itself."""

    movie: str
    path: str
    metadata_path: str | None
    format: str
    size_bytes: int
    mtime_ns: int
    digest: str
    width_px: int
    height_px: int
    n_frames: int
    header_pixel_size_A: float | None
    image: EpuImage
    gain_path: str | None


class Quiet(Stimulus, frozen=True, kw_only=True):
    """Everything that was found is decided, and nothing changed for two polls."""
