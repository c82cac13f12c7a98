"""Everything about a request that has to be looked up on disks, as one document.

The launcher has it made in a process of its own (`python -m mdcatch.launch.survey REQUEST`), so
that a share that hangs never stops the window; what follows from it is computed there, live.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from mdcatch.launch.checks import Surroundings
from mdcatch.launch.files import Files
from mdcatch.launch.known import Known, assemble, learn
from mdcatch.launch.look import Query, record_of
from mdcatch.launch.newest import Newest
from mdcatch.launch.opening import surroundings
from mdcatch.launch.request import OpenRequest
from services.kit import site as sites
from services.kit.errors import Misuse
from services.kit.sitetables import Site

SURVEY_S = 60.0


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; `problem` says why nothing was."""

    problem: str = ""
    metadata_path: str | None = None
    movie_path: str | None = None
    metadata: dict[str, Any] | None = None  # records as `mdcatch parse --json` prints them
    header: dict[str, Any] | None = None
    gain: str | None = None
    gain_rotation: int = 0
    gain_flip: int = 0
    defects: str | None = None
    mtf: str | None = None
    notes: tuple[str, ...] = ()  # of the files and of what could not be read
    missing: dict[str, str] = {}
    absent: tuple[str, ...] = ()
    project: str = ""


def survey(request: OpenRequest, site: Site) -> Survey:
    """Look everything up that a request needs."""
    around = surroundings(request, site)
    told = {
        "missing": around.missing,
        "absent": tuple(sorted(around.absent)),
        "project": around.project,
    }
    try:
        found = learn(request, site)
    except Misuse as error:
        return Survey(problem=str(error), **told)
    files = found.files
    of_flags = set(found.exposure.flags.values())
    return Survey(
        metadata_path=_text(found.newest.metadata),
        movie_path=_text(found.newest.movie),
        metadata=found.metadata.as_json() if found.metadata is not None else None,
        header=found.header.as_json() if found.header is not None else None,
        gain=_text(files.gain),
        gain_rotation=files.gain_rotation,
        gain_flip=files.gain_flip,
        defects=_text(files.defects),
        mtf=_text(files.mtf),
        notes=tuple(note for note in found.warnings if note not in of_flags),
        **told,
    )


def known_of(found: Survey, request: OpenRequest, site: Site) -> Known:
    """Return what is known of a session, with the overrides of a request. No look at a disk.

    Raises
    ------
    Misuse
        The document is another version's.
    """
    files = Files(
        _path(request.gain or found.gain),
        found.gain_rotation if request.gain_rotation is None else request.gain_rotation,
        found.gain_flip if request.gain_flip is None else request.gain_flip,
        _path(request.defects or found.defects),
        _path(request.mtf or found.mtf),
    )
    return assemble(
        request,
        site,
        Newest(_path(found.metadata_path), _path(found.movie_path)),
        record_of(found.metadata) if found.metadata is not None else None,
        record_of(found.header) if found.header is not None else None,
        found.notes,
        files,
    )


def around_of(found: Survey) -> Surroundings:
    """Return what this host said to the request."""
    return Surroundings(found.missing, frozenset(found.absent), found.project)


def query(request: OpenRequest, config: Path | None = None) -> Query:
    """Begin a survey in a process of its own."""
    text = msgspec.json.encode(request).decode()
    command = [sys.executable, "-m", "mdcatch.launch.survey", text]
    return Query([*command, str(config)] if config is not None else command, SURVEY_S)


def from_document(document: Any) -> Survey:
    """Return the survey that a query has printed.

    Raises
    ------
    Misuse
        It is none.
    """
    try:
        return msgspec.convert(document, Survey)
    except msgspec.ValidationError as error:
        raise Misuse(f"the survey cannot be read: {error}") from error


def main(argv: Sequence[str]) -> int:
    """Print the survey of a request; return the exit code."""
    try:
        request = msgspec.json.decode(argv[0].encode(), type=OpenRequest)
        config = Path(argv[1]) if len(argv) > 1 else None
        found = survey(request, sites.load(sites.locate(config)))
    except (IndexError, msgspec.MsgspecError, Misuse) as error:
        print(error, file=sys.stderr)
        return 2
    sys.stdout.buffer.write(msgspec.json.encode(found))
    return 0


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _path(path: str | None) -> Path | None:
    return None if path is None else Path(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
