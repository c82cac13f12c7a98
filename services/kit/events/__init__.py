"""Every event body: what happened, with units in the names and bounds in the types.

A body is a frozen Struct; its tag is the event's kind. The envelope (`Event`) is what the journal
stores and the bus carries. Adding an optional field is compatible; anything else needs a new
`schema` number. Source: architecture.md section 3.
"""

import msgspec

from services.kit.events.base import (
    AngleDeg,
    Body,
    Count,
    DoseEA2,
    Fraction,
    Frames,
    LengthA,
    Name,
    Pixels,
    PixelSizeA,
    Seconds,
    SphericalAberrationMM,
    Text,
    VoltageKV,
)
from services.kit.events.classes import (
    ClassesAveraged,
    ClassesBegun,
    ClassesDue,
    ClassesFailed,
    ClassesIterated,
)
from services.kit.events.maps import (
    MapBegun,
    MapFailed,
    MapIterated,
    MapRefined,
    ParticlesTaken,
)
from services.kit.events.micrographs import (
    MicrographCorrected,
    MicrographCtf,
    MicrographImported,
    MicrographOverridden,
    MicrographRefused,
    MicrographSelected,
    ParticlesExtracted,
    ParticlesPicked,
    PickingDrifted,
)
from services.kit.events.movies import (
    MovieChanged,
    MovieImported,
    MovieMoved,
    MovieOverridden,
    MovieRefused,
    MovieSeen,
    MovieSettled,
    MovieUpdated,
    OpticsGrouped,
    OpticsLearned,
    OpticsRegrouped,
    SettingsChanged,
)
from services.kit.events.rankings import (
    ClassesRanked,
    ClassOverridden,
    RankingDue,
    RankingRefused,
    SelectionAnswered,
    SelectionDue,
)
from services.kit.events.session import (
    JobStarted,
    ResultsOutdated,
    RootAdded,
    SchemeMoved,
    SessionClosed,
    SessionDescribed,
    SessionFound,
    SessionOpened,
    SessionPlanned,
    SessionReopened,
    SettingsApplied,
    WaitEnded,
    WaitStarted,
)

__all__ = [
    "BODIES",
    "SCHEMA",
    "AngleDeg",
    "Body",
    "ClassOverridden",
    "ClassesAveraged",
    "ClassesBegun",
    "ClassesDue",
    "ClassesFailed",
    "ClassesIterated",
    "ClassesRanked",
    "Count",
    "DoseEA2",
    "Event",
    "Fraction",
    "Frames",
    "JobStarted",
    "LengthA",
    "MapBegun",
    "MapFailed",
    "MapIterated",
    "MapRefined",
    "MicrographCorrected",
    "MicrographCtf",
    "MicrographImported",
    "MicrographOverridden",
    "MicrographRefused",
    "MicrographSelected",
    "MovieChanged",
    "MovieImported",
    "MovieMoved",
    "MovieOverridden",
    "MovieRefused",
    "MovieSeen",
    "MovieSettled",
    "MovieUpdated",
    "Name",
    "OpticsGrouped",
    "OpticsLearned",
    "OpticsRegrouped",
    "ParticlesExtracted",
    "ParticlesPicked",
    "ParticlesTaken",
    "PickingDrifted",
    "PixelSizeA",
    "Pixels",
    "RankingDue",
    "RankingRefused",
    "ResultsOutdated",
    "RootAdded",
    "SchemeMoved",
    "Seconds",
    "SelectionAnswered",
    "SelectionDue",
    "SessionClosed",
    "SessionDescribed",
    "SessionFound",
    "SessionOpened",
    "SessionPlanned",
    "SessionReopened",
    "SettingsApplied",
    "SettingsChanged",
    "SphericalAberrationMM",
    "Text",
    "VoltageKV",
    "WaitEnded",
    "WaitStarted",
    "decode",
    "encode",
    "kind_of",
    "subject_of",
]

SCHEMA = 1


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
