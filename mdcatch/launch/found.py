"""Sessions that were found on the microscopes' disks: what `mdcatch sessions --json` prints."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from mdcatch.launch.look import Query, mdcatch_command
from services.kit.errors import Misuse

# A first look at a share with many sessions takes a while.
LIST_S = 120.0


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One session; what is not known is empty."""

    name: str
    raw: str  # absolute path of its folder
    key: str = ""  # what it keeps when its folder is renamed; default: the path
    movies: str = ""  # absolute path of its movies, if they are in another tree
    software: str = ""
    state: str = ""  # empty, aborted, renamed or acquired
    started: str = ""  # ISO 8601
    exposures: int = 0
    metadata: str = ""  # newest exposure: its XML or mdoc
    movie: str = ""  # and its movie
    project: str = ""  # where it is processed, if it is

    @property
    def identity(self) -> str:
        """Return what tells the session from all others."""
        return self.key or self.raw


class Sessions(Protocol):
    """Where a list of sessions comes from."""

    def start(self) -> Query:
        """Begin to look; the document is a list of sessions, or an object that has one."""
        ...


class Scanner:
    """Lists sessions with `mdcatch sessions --json`.

    Parameters
    ----------
    arguments
        Further words: roots, `--config FILE`.
    """

    def __init__(self, arguments: Iterable[str] = ()):
        self._arguments = tuple(arguments)

    def start(self) -> Query:
        """Begin to look."""
        return Query(mdcatch_command("sessions", "--json", *self._arguments), LIST_S)


def from_document(document: Any) -> list[Found]:
    """Return the sessions of a document, the newest first.

    Raises
    ------
    Misuse
        It is no list of sessions.
    """
    rows = document.get("sessions") if isinstance(document, Mapping) else document
    try:
        found = msgspec.convert([_row(row) for row in rows or ()], list[Found])
    except (msgspec.ValidationError, TypeError, AttributeError) as error:
        raise Misuse(f"`mdcatch sessions --json` printed no list of sessions: {error}") from error
    return sorted(found, key=lambda one: (one.started, one.name), reverse=True)


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return one session with null as unknown, and a name."""
    plain = {key: value for key, value in row.items() if value is not None}
    return {"name": Path(str(plain.get("raw", ""))).name, **plain}
