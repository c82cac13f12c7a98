"""What the source tells the service: observations, not yet decisions.

Paths are below the raw folder, or absolute on another root.
"""

import msgspec

from services.kit.errors import Code


class Stimulus(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all stimuli."""


class Opened(Stimulus, frozen=True, kw_only=True):
    """Watching begins, for the first time or again."""

    name: str
    raw: str
    software: str = "EPU"


class RootSeen(Stimulus, frozen=True, kw_only=True):
    """A folder is watched."""

    path: str
    role: str
    file_system: str
    observer: str


class RootLost(Stimulus, frozen=True, kw_only=True):
    """A watched folder cannot be seen."""

    detail: str
    root: str = "session"  # the raw folder; else the path of another root


class RootFound(Stimulus, frozen=True, kw_only=True):
    """A watched folder is there again."""

    root: str = "session"


class SessionMet(Stimulus, frozen=True, kw_only=True):
    """Files of a session have appeared."""

    session: str
    path: str
    software: str


class Described(Stimulus, frozen=True, kw_only=True):
    """A session file was read: the record, encoded."""

    session: str
    record: bytes


class Noticed(Stimulus, frozen=True, kw_only=True):
    """A file shows that there is an exposure."""

    movie: str
    path: str
    session: str = ""


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


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What the header of a movie says; `record` is all of it, encoded."""

    format: str
    width_px: int
    height_px: int
    n_frames: int
    compression: str
    record: bytes
    digest: str = ""


class Ready(Stimulus, frozen=True, kw_only=True):
    """Movie and metadata of an exposure are complete, each by itself."""

    movie: str
    path: str
    size_bytes: int
    mtime_ns: int
    header: Header
    metadata_path: str | None = None  # None: published without metadata of its own
    record: bytes | None = None  # of the metadata, encoded
    series: str = ""  # metadata file that speaks for several movies
    section: int | None = None
    gain_path: str | None = None
    defects_path: str | None = None
    complete_by: str = "structure"
    acquired_at: str = ""
    flags: tuple[str, ...] = ()


class MetadataCame(Stimulus, frozen=True, kw_only=True):
    """Metadata of a movie that was published without have come."""

    movie: str
    metadata_path: str
    record: bytes
    series: str = ""  # metadata file that speaks for several movies
    section: int | None = None


class Replaced(Stimulus, frozen=True, kw_only=True):
    """A settled movie is another file now."""

    movie: str
    detail: str


class Moved(Stimulus, frozen=True, kw_only=True):
    """A settled movie lies elsewhere now."""

    movie: str
    path: str


class Override(Stimulus, frozen=True, kw_only=True):
    """A person decides about one exposure; None leaves a thing as it is."""

    movie: str
    choose: str | None = None  # the movie file that counts, of several
    metadata_path: str | None = None  # the metadata file that counts
    accept: bool | None = None  # publish it although it waits
    ignore: bool | None = None  # never publish it


class Quiet(Stimulus, frozen=True, kw_only=True):
    """Everything that was found is decided, and nothing changed for two polls."""
