"""The gain, defects and MTF files that go with a session.

A name that metadata state is only ever looked for, by its last part, in folders that the site or
the person named. Source: acquisition.md sections 1.10, 2.2, 3.3 and 6.
"""

import os
from pathlib import Path
from typing import NamedTuple

from mdcatch import gainfiles, names
from mdcatch.launch.request import OpenRequest
from mdcatch.mtf import choose_mtf
from mdcatch.names import Role
from mdcatch.parsers.place import base_name
from mdcatch.parsers.record import Record
from mdcatch.reconcile import Exposure
from services.kit.sitetables import Camera

_DIGITAL = (".dm3", ".dm4")  # DigitalMicrograph
_FORMATS = {".tif": "tiff", ".tiff": "tiff", ".eer": "eer"}


class Files(NamedTuple):
    """What is copied into a project; absolute paths, None where there is nothing."""

    gain: Path | None = None
    gain_rotation: int = 0
    gain_flip: int = 0
    defects: Path | None = None
    mtf: Path | None = None
    warnings: tuple[str, ...] = ()


def find(
    request: OpenRequest,
    exposure: Exposure,
    metadata: Record | None,
    movie: Path | None,
    camera: Camera | None,
) -> Files:
    """Return the files of a session: those of the person, else those of the site and the folder.

    Parameters
    ----------
    request
        What the person gave.
    exposure, metadata
        What is known of the newest exposure.
    movie
        Its movie; gains are looked for beside it and in the folders above.
    camera
        Of the site.
    """
    warnings: list[str] = []
    gain = _given(request.gain)
    if gain is None and request.gain is None:
        gain = _gain(metadata, movie, request.movie_root, camera, warnings)
    if gain is not None and request.pipeline != "native" and gain.suffix.lower() in _DIGITAL:
        warnings.append(f"gain {gain.name}: RELION and Scipion need it as MRC or TIFF; convert it")
    defects = _given(request.defects) or _defects(metadata, movie)
    mtf = _given(request.mtf) or _mtf(exposure, metadata, camera, warnings)
    rotation, flip = request.gain_rotation, request.gain_flip
    if camera is not None:
        rotation = camera.gain_rotation if rotation is None else rotation
        flip = camera.gain_flip if flip is None else flip
    return Files(gain, rotation or 0, flip or 0, defects, mtf, tuple(warnings))


def needs_gain(metadata: Record | None, movie: Path | None) -> bool:
    """Tell whether the movies are written without their gain."""
    if movie is None:
        return False
    detector, corrected = (
        (metadata.get("detector"), metadata.get("gain_corrected")) if metadata else (None, None)
    )
    return gainfiles.needs_gain(_FORMATS.get(movie.suffix.lower(), "mrc"), detector, corrected)


def _given(path: str | None) -> Path | None:
    """Return a file that a person gave, if it is there; `checks` says so if it is not."""
    return Path(path) if path is not None and os.path.isfile(path) else None


def _gain(
    metadata: Record | None,
    movie: Path | None,
    root: Path,
    camera: Camera | None,
    warnings: list[str],
) -> Path | None:
    if movie is None or not needs_gain(metadata, movie):
        return None
    stated = metadata.get("gain_reference") if metadata is not None else None
    beside = [path for folder in _upwards(movie, root) for path in _listed(folder)]
    configured = camera.gain_folder if camera is not None else None
    choice = gainfiles.choose_gain(
        str(movie),
        base_name(stated) if stated else None,
        camera,
        beside,
        _listed(Path(configured)) if configured else (),
        metadata.get("acquisition_time") if metadata is not None else None,
    )
    if choice.path is None:  # by its name alone, the nearest; EPU repeats one beside many movies
        plain = [path for path in beside if names.classify(path).role is Role.GAIN]
        if plain and not stated:
            return Path(plain[0])
        warnings.append(
            f"no gain reference was found ({choice.reason}): give one, or the micrographs show the "
            "camera's pattern"
        )
        return None
    if choice.flag:
        warnings.append(f"gain {Path(choice.path).name}: {choice.reason}")
    return Path(choice.path)


def _defects(metadata: Record | None, movie: Path | None) -> Path | None:
    """Return the defects file that the metadata name, beside the movie."""
    stated = metadata.get("defects_file") if metadata is not None else None
    name = base_name(stated) if stated else ""
    if movie is None or not name or name in (".", "..") or names.is_temporary(name):
        return None
    path = movie.parent / name
    return path if path.is_file() else None


def _listed(folder: Path) -> list[str]:
    """Return the paths of a folder's files, in order; a folder that cannot be read has none."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.path for entry in entries if entry.is_file())
    except OSError:
        return []


def _upwards(movie: Path, root: Path) -> list[Path]:
    """Return the folder of a movie and those above it, up to the root of the movies."""
    parents = [one for one in movie.parents if one == root or one.is_relative_to(root)]
    return parents or [movie.parent]


def _mtf(
    exposure: Exposure, metadata: Record | None, camera: Camera | None, warnings: list[str]
) -> Path | None:
    counting = metadata.get("counting") if metadata is not None else None
    choice = choose_mtf(camera, exposure.voltage_kV, counting, exposure.bin_factor > 1)
    if choice.path is None or choice.path.is_file():
        return choice.path
    warnings.append(f"the site's MTF file {choice.path} is not there; it is left out")
    return None
