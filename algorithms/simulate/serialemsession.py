"""A SerialEM session on disk as the camera's computer writes it; see `serialem` for the names.

Source: simulation.md section 7; acquisition.md section 3.1.
"""

import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tifffile

from algorithms.formats import mrc
from algorithms.simulate import truth as truths
from algorithms.simulate.epu import Exposure, plan_session
from algorithms.simulate.faults import spoil_movie
from algorithms.simulate.movie import session_detector
from algorithms.simulate.recipe import Recipe, RecipeError, as_table
from algorithms.simulate.serialem import (
    FRAMES,
    encode_movie,
    frame_mdoc,
    gain_name,
    shot_stem,
    spoil_mdoc,
)
from algorithms.simulate.session import Progress, _movie, _pause, _Writer
from algorithms.simulate.truth import MovieTruth


def simulate_serialem_session(
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    dialect: str = "modern",
    realtime: bool = True,
    progress: Progress | None = None,
    threads: int = 1,
) -> None:
    """Write a simulated SerialEM session into the folder `out` and the truth into `<out>_truth`.

    Parameters
    ----------
    recipe, seed
        What to write; the same pair gives the same bytes. Faults of XML befall the mdoc.
    out
        The session folder. If an earlier run was interrupted, the movies not yet there follow.
    dialect
        Of the mdoc files; one of `DIALECTS`.
    realtime, progress, threads
        As for `simulate_session`.

    Raises
    ------
    RecipeError
        `out` holds the start of another session.
    """
    folder = truths.truth_folder(out)
    gain = _open_session(recipe, out, folder, seed, dialect)
    writer = _SerialEmWriter(
        recipe=recipe, out=out, folder=folder, seed=seed, realtime=realtime, dialect=dialect
    )
    plan = plan_session(recipe, seed)
    found: dict[str, MovieTruth] = {}
    due = time.monotonic()
    for exposure in plan:
        stem = shot_stem(recipe, exposure)
        if not (folder / f"{stem}.json").exists():
            movie, known = _movie(recipe, folder, seed, exposure.movie_index, threads)
            frames = tifffile.imread(io.BytesIO(movie)).reshape(-1, recipe.ny, recipe.nx)
            movie = encode_movie(frames[:, ::-1], recipe.pixel_size_A, gain)
            if realtime:
                time.sleep(max(0.0, due - time.monotonic()))
            due = time.monotonic() + _pause(recipe, exposure, seed)
            writer.write(exposure, movie, known)
        found[f"{FRAMES}/{stem}"] = truths.read_movie_truth(folder / stem)
        if progress is not None:
            progress(exposure.index + 1, len(plan), f"{FRAMES}/{stem}")
    truths.write_particles_star(folder / "particles_truth.star", found)


def _open_session(recipe: Recipe, out: Path, folder: Path, seed: int, dialect: str) -> str:
    """Start a session, or make sure that the one in `out` is this one; returns the gain's name."""
    gain = gain_name(recipe, seed)
    path = folder / "session_truth.json"
    table = {"recipe": as_table(recipe), "seed": seed, "dialect": dialect, "gain": gain}
    # Through JSON and back: tuples become lists, as in the file.
    described: dict[str, Any] = json.loads(json.dumps(table))
    if path.exists():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if any(earlier.get(key) != value for key, value in described.items()):
            raise RecipeError(
                f"{out} holds a session of another recipe, seed or dialect (see {path}); "
                "give another folder, or what it was started with"
            )
        return gain
    (out / FRAMES).mkdir(parents=True, exist_ok=True)
    mrc.write(out / FRAMES / gain, session_detector(recipe, seed).gain, recipe.pixel_size_A)
    truths.write_json(path, {**described, "conventions": truths.CONVENTIONS})
    return gain


@dataclass(frozen=True, kw_only=True)
class _SerialEmWriter(_Writer):
    """Puts movies and their mdoc files on the disk, spoilt where the plan says so."""

    dialect: str

    def write(self, exposure: Exposure, movie: bytes, known: MovieTruth) -> None:
        """Write the files of one exposure, then its truth."""
        stem = shot_stem(self.recipe, exposure)
        place = self.out / FRAMES / f"{stem}.tif"
        gain = gain_name(self.recipe, self.seed)
        if exposure.fault == "wrong_size":
            frames = tifffile.imread(io.BytesIO(movie)).reshape(-1, self.recipe.ny, self.recipe.nx)
            half = frames[:, ::-1][:, : self.recipe.ny // 2, : self.recipe.nx // 2]
            movie = encode_movie(half, self.recipe.pixel_size_A, gain)
        text = frame_mdoc(
            self.recipe,
            exposure,
            known.nominal_defocus_A,
            gain=gain,
            dialect=self.dialect,
            session=self.out.name,
        )
        content, mdoc = spoil_movie(exposure.fault, movie), spoil_mdoc(exposure.fault, text)
        first = self._xml_first(exposure)
        if mdoc is not None and first:
            place.with_name(f"{stem}.tif.mdoc").write_bytes(mdoc)
        if content is not None:
            self._grow(place, content)
        if mdoc is not None and not first:
            place.with_name(f"{stem}.tif.mdoc").write_bytes(mdoc)
        header = {
            "movie": f"{FRAMES}/{stem}",
            "exposure": exposure.index,
            "fault": exposure.fault,
            "movie_index": exposure.movie_index,
            "acquired_at": exposure.acquired_at.isoformat(),
            "beam_shift": list(exposure.beam_shift),
            "beam_shift_group": exposure.beam_shift_group,
            "mdoc_first": first,
        }
        truths.write_movie_truth(self.folder / stem, header, known)
