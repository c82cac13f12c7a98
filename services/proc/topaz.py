"""Topaz, where it is installed: a program of its own, called with many micrographs at a time.

Topaz is GPL-3 and its models are Python pickles: neither is ever loaded into this process.
Source: preprocessing.md section 4.2.
"""

import hashlib
import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from algorithms.formats import mrc
from algorithms.picking.topaz import preprocess, topaz_sizes
from services.kit.errors import Code, Refused
from services.kit.work import Output
from services.proc.inputs import read_micrograph
from services.proc.picks import picked
from services.proc.topazask import BUNDLED, INSTALL, TopazRequest
from services.proc.topazlive import pick_streamed


class Found(NamedTuple):
    """Picks of one micrograph, px of it, with Topaz's log-likelihood ratio."""

    x_px: np.ndarray
    y_px: np.ndarray
    score: np.ndarray


NOTHING = Found(np.zeros(0), np.zeros(0), np.zeros(0))


def autopick(request: bytes, folder: Path, project: Path) -> Output:
    """Pick in one micrograph, or take what a call for many has found in it."""
    ask = msgspec.msgpack.decode(request, type=TopazRequest)
    if ask.found:
        found = read_found(project / ask.found).get(_key(ask))
        if found is None:
            raise Refused(Code.READ_ERROR, f"Topaz has said nothing of {ask.micrograph}")
    else:
        found = _pick_live(ask, project, folder)
    return picked(ask, folder, found.x_px, found.y_px, found.score)


def _pick_live(ask: TopazRequest, project: Path, folder: Path) -> Found:
    """Pick in one micrograph with a Topaz that stays for the next ones, where that is possible."""
    sizes = topaz_sizes(ask.pixel_size_A, ask.diameter_A)
    with tempfile.TemporaryDirectory(prefix=".topaz", dir=folder) as place:
        small = _small(ask, sizes.factor, project, Path(place))
        command = _command(ask, sizes.factor, sizes.pick_radius_px, project)
        lines = pick_streamed(command, ask.model_sha256, small)
    if lines is None:
        (found,) = pick_many([ask], project, folder)
        return found
    return _by_name(lines).get(_key(ask), NOTHING)


def pick_many(asks: Sequence[TopazRequest], project: Path, folder: Path) -> list[Found]:
    """Return the picks of micrographs of one pixel size, model and diameter, by one call.

    Parameters
    ----------
    asks
        At least one.
    project
        Root of the project.
    folder
        For the small micrographs and Topaz's table; they are removed.

    Raises
    ------
    Refused
        A micrograph cannot be scaled, or Topaz ended with an error; says what it said last.
    """
    first = asks[0]
    sizes = topaz_sizes(first.pixel_size_A, first.diameter_A)
    with tempfile.TemporaryDirectory(prefix=".topaz", dir=folder) as place:
        images = [str(_small(ask, sizes.factor, project, Path(place))) for ask in asks]
        table = Path(place) / "found.txt"
        command = _command(first, sizes.factor, sizes.pick_radius_px, project)
        _call([*command, "-o", str(table), *images])
        found = read_found(table)
    return [found.get(_key(ask), NOTHING) for ask in asks]


def _small(ask: TopazRequest, factor: int, project: Path, place: Path) -> Path:
    """Write a micrograph as Topaz wants it."""
    try:
        small = preprocess(read_micrograph(project, ask.micrograph), factor)
    except ValueError as error:
        raise Refused(Code.NOT_FINITE, f"{ask.micrograph}: {error}") from error
    path = place / f"{_key(ask)}.mrc"
    mrc.write(path, small.numpy(), ask.pixel_size_A * factor)
    return path


def write_found(path: Path, asks: Sequence[TopazRequest], found: Sequence[Found]) -> None:
    """Write picks in Topaz's own form; a micrograph without any has a line that says so."""
    lines = ["image_name\tx_coord\ty_coord\tscore"]
    for ask, picks in zip(asks, found, strict=True):
        name = _key(ask)
        rows = zip(picks.x_px, picks.y_px, picks.score, strict=True)
        lines += [f"{name}\t{x:.6g}\t{y:.6g}\t{score:.6g}" for x, y, score in rows]
        if not len(picks.x_px):
            lines.append(f"{name}\tnan\tnan\tnan")
    path.write_text("\n".join(lines) + "\n")


def read_found(path: Path) -> dict[str, Found]:
    """Return picks by image name from Topaz's table `image_name x_coord y_coord score`.

    Raises
    ------
    Refused
        It is no such table.
    """
    try:
        head, *lines = path.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise Refused(Code.READ_ERROR, f"{path.name} of Topaz cannot be read: {error}") from error
    if head.split("\t")[:4] != ["image_name", "x_coord", "y_coord", "score"]:
        raise Refused(Code.READ_ERROR, f"{path.name} of Topaz: its first line is {head[:80]!r}")
    return _by_name(lines)


def _by_name(lines: Sequence[str]) -> dict[str, Found]:
    """Return picks by image name, the best first."""
    rows: dict[str, list[tuple[float, float, float]]] = {}
    for line in lines:
        try:
            name, x, y, score = line.split("\t")[:4]
            rows.setdefault(name, []).append((float(x), float(y), float(score)))
        except ValueError as error:
            raise Refused(Code.READ_ERROR, f"Topaz said {line[:80]!r}: {error}") from error
    found = {}
    for name, values in rows.items():
        table = np.array(values)
        table = table[np.isfinite(table).all(1)]
        found[name] = Found(*table[np.argsort(-table[:, 2], kind="stable")].T)
    return found


def _key(ask: TopazRequest) -> str:
    """Return a name without folders and dots that no other micrograph has."""
    return "m" + hashlib.sha256(ask.micrograph.encode()).hexdigest()[:16]


def _command(ask: TopazRequest, factor: int, radius: int, project: Path) -> list[str]:
    command = [*shlex.split(ask.program), "extract", "-t", f"{ask.threshold:g}"]
    command += ["-r", str(radius), "-d", str(ask.device), "-x", str(factor)]
    if ask.model and ask.model != "None":
        model = ask.model if ask.model in BUNDLED else str(project / ask.model)
        command += ["-m", model]
    return [*command, *ask.arguments]


def _call(command: Sequence[str]) -> None:
    # PYTHONPATH of this environment is none of Topaz's.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=environment,
        )
    except OSError as error:
        why = f"{command[0]} cannot be run: {error.strerror}"
        raise Refused(Code.READ_ERROR, f"{why}; {INSTALL}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        last = said[-1][:300] if said else "it said nothing"
        raise Refused(Code.READ_ERROR, f"Topaz ended with exit code {done.returncode}: {last}")
