"""What is known of a session at the moment it is opened: from its newest exposure and the site."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from mdcatch.launch import files
from mdcatch.launch.files import Files
from mdcatch.launch.look import reader
from mdcatch.launch.newest import Newest, candidates, pattern_of, stem_of
from mdcatch.launch.request import OpenRequest
from mdcatch.parsers.record import Record
from mdcatch.reconcile import Exposure, reconcile
from services.kit.errors import Misuse
from services.kit.sitetables import Camera, Microscope, Site


class Known(NamedTuple):
    """The newest exposure, what its files say, what is true of it, and the files beside it."""

    exposure: Exposure
    newest: Newest = Newest()
    metadata: Record | None = None
    header: Record | None = None
    microscope: Microscope | None = None
    camera: Camera | None = None
    files: Files = Files()
    warnings: tuple[str, ...] = ()

    @property
    def detector(self) -> str:
        """Return the camera's commercial name, else what the software calls it, else ""."""
        said = [self.metadata.get(key) for key in _CAMERA_KEYS] if self.metadata else []
        by_site = self.camera.model if self.camera is not None else ""
        return next(filter(None, said[:1]), "") or by_site or next(filter(None, said[1:]), "")

    @property
    def is_eer(self) -> bool:
        """Tell whether the movies are EER: counted by the camera, grouped by the reader."""
        return self.newest.movie is not None and self.newest.movie.suffix.lower() == ".eer"

    def pattern(self, root: Path) -> str | None:
        """Return the movies' pattern below their folder, None where no movie is there yet."""
        movie = self.newest.movie
        if movie is None or not movie.is_relative_to(root):
            return None
        return pattern_of(movie.relative_to(root))


_CAMERA_KEYS = ("detector_model", "detector")


Read = Callable[[Path], Record]


def learn(request: OpenRequest, site: Site, read: Read | None = None) -> Known:
    """Return what is known of a session.

    Parameters
    ----------
    request
        Where it is, and the values a person gave.
    site
        Microscopes and cameras.
    read
        Parses a file, or raises Misuse; default: a child process with limits.

    Raises
    ------
    Misuse
        The folder cannot be read.
    """
    raw, movies = Path(request.raw), request.movie_root
    for folder in dict.fromkeys((raw, movies)):
        if not folder.is_dir():
            raise Misuse(f"{folder} is not a folder: give the session's folder")
    there = candidates(raw, movies)
    warnings: list[str] = []
    with nullcontext(read) if read is not None else reader(raw, movies) as parse:
        movie, header = _readable(there.movies, parse, warnings)
        mine = sorted(there.metadata, key=lambda path: not _is_of(path, movie))
        path, metadata = _readable(mine, parse, warnings)
    return assemble(request, site, Newest(path, movie), metadata, header, tuple(warnings))


def assemble(
    request: OpenRequest,
    site: Site,
    found: Newest,
    metadata: Record | None,
    header: Record | None,
    warnings: tuple[str, ...] = (),
    beside: Files | None = None,
) -> Known:
    """Return what follows from the newest exposure's records; see `learn`.

    Parameters
    ----------
    request, site
        As for `learn`.
    found, metadata, header
        The newest exposure.
    warnings
        To be told with the others.
    beside
        The files that go with it; None: they are looked for.
    """
    microscope = site.microscope(metadata.get("microscope_id")) if metadata else None
    camera = None
    if microscope is not None and metadata is not None:
        camera = microscope.camera(metadata.get("detector_model"), metadata.get("detector"))
    exposure = reconcile(
        metadata,
        header,
        microscope=microscope,
        camera=camera,
        operator=request.operator,
        dose_per_fraction_e_A2=request.dose_per_fraction_e_A2,
    )
    if beside is None:
        beside = files.find(request, exposure, metadata, found.movie, camera)
    told = (*warnings, *exposure.flags.values(), *beside.warnings)
    return Known(exposure, found, metadata, header, microscope, camera, beside, told)


def _readable(
    paths: list[Path], read: Read, warnings: list[str]
) -> tuple[Path | None, Record | None]:
    """Return the first file that is complete, with its record; else the first, and a warning."""
    problem = ""
    for path in paths:
        try:
            record = read(path)
        except Misuse as error:
            problem = problem or f"{path.name} cannot be read yet: {error}"
            continue
        if record.get("complete") is not False:
            return path, record
        problem = problem or f"{path.name} is not complete yet"
    if problem:
        warnings.append(problem)
    return next(iter(paths), None), None


def _is_of(metadata: Path, movie: Path | None) -> bool:
    """Tell whether a metadata file is that of a movie."""
    return movie is not None and stem_of(metadata) == stem_of(movie)
