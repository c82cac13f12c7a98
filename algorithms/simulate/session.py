"""A session on disk as the microscope writes it: at a pace, in pieces, now and then wrongly.

Source: simulation.md section 7, acquisition.md section 2.9.
"""

import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from algorithms.formats import mrc
from algorithms.formats.atomic import atomic_write
from algorithms.simulate import truth as truths
from algorithms.simulate.eer import encode_eer
from algorithms.simulate.epu import Exposure, exposure_xml, plan_session
from algorithms.simulate.faults import spoil_movie, spoil_xml
from algorithms.simulate.movie import render_movie, session_detector
from algorithms.simulate.recipe import Recipe, RecipeError, as_table, random_stream
from algorithms.simulate.truth import MovieTruth

EER_GAIN = "EER_GainReference.gain"
Progress = Callable[[int, int, str], None]
"""Called after every exposure with (exposures written, exposures in all, movie)."""


def simulate_session(
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    realtime: bool = True,
    progress: Progress | None = None,
    threads: int = 1,
) -> None:
    """Write a simulated EPU session into the folder `out` and the truth into `<out>_truth`.

    Parameters
    ----------
    recipe, seed
        What to write; the same pair gives the same bytes.
    out
        The session folder: `Images-Disc1` and `gain.mrc` (`EER_GainReference.gain` for EER
        movies) appear in it. If an earlier run was
        interrupted, the exposures not yet complete are written.
    realtime
        Keep the recipe's pace and growth; otherwise write as fast as possible.
    progress
        See `Progress`; exposures found complete are reported as well.
    threads
        Of the rendering.

    Raises
    ------
    RecipeError
        `out` holds the start of another session: other recipe or other seed.
    """
    folder = truths.truth_folder(out)
    plan = plan_session(recipe, seed)
    _open_session(recipe, out, folder, seed)
    writer = _Writer(recipe=recipe, out=out, folder=folder, seed=seed, realtime=realtime)
    due = time.monotonic()
    for exposure in plan:
        if not (folder / f"{exposure.stem}.json").exists():
            movie, known = _movie(recipe, folder, seed, exposure.movie_index, threads)
            if realtime:
                time.sleep(max(0.0, due - time.monotonic()))
            due = time.monotonic() + _pause(recipe, exposure, seed)
            writer.write(exposure, movie, known)
        if progress is not None:
            progress(exposure.index + 1, len(plan), exposure.movie)
    found = {e.movie: truths.read_movie_truth(folder / e.stem) for e in plan}
    truths.write_particles_star(folder / "particles_truth.star", found)


def _open_session(recipe: Recipe, out: Path, folder: Path, seed: int) -> None:
    """Start a session, or make sure that the one in `out` is this one."""
    path = folder / "session_truth.json"
    # Through JSON and back: tuples become lists, as in the file.
    described: dict[str, Any] = json.loads(json.dumps({"recipe": as_table(recipe), "seed": seed}))
    if path.exists():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if any(earlier.get(key) != value for key, value in described.items()):
            raise RecipeError(
                f"{out} holds a session of another recipe or seed (see {path}); "
                "give another folder, or the recipe and seed it was started with"
            )
        return
    detector = session_detector(recipe, seed)
    out.mkdir(parents=True, exist_ok=True)
    if recipe.eer_raw_frames:
        # As it is stored: the one kind of TIFF that nobody turns upside down.
        tifffile.imwrite(out / EER_GAIN, detector.gain, software=False, metadata=None)
    else:
        mrc.write(out / "gain.mrc", detector.gain, recipe.pixel_size_A)
    truths.write_json(
        path,
        {
            **described,
            "conventions": truths.CONVENTIONS,
            "hot_px": detector.hot_px.tolist(),
            "hot_counts": detector.hot_counts.tolist(),
            "dead_px": detector.dead_px.tolist(),
            "dead_columns": list(detector.dead_columns),
        },
    )


def _pause(recipe: Recipe, exposure: Exposure, seed: int) -> float:
    """Seconds from this exposure to the next one."""
    spread = recipe.pace_jitter * random_stream(seed, "pace", exposure.index).uniform(-1.0, 1.0)
    pause = recipe.pace_s * (1.0 + float(spread))
    last_of_square = (exposure.index + 1) % recipe.exposures_per_square == 0
    return pause + (recipe.square_pause_s if last_of_square else 0.0)


def _movie(
    recipe: Recipe, folder: Path, seed: int, index: int, threads: int
) -> tuple[bytes, MovieTruth]:
    """A movie's file and truth: rendered, or read from the pool if it was rendered before."""
    stem = folder / "pool" / f"movie_{index:04d}"
    file = stem.with_suffix(".eer" if recipe.eer_raw_frames else ".tiff")
    # The truth is written last: where it is, the movie is whole.
    if stem.with_suffix(".json").exists():
        return file.read_bytes(), truths.read_movie_truth(stem)
    movie = render_movie(recipe, seed, index=index, threads=threads)
    if recipe.eer_raw_frames:
        rng = random_stream(seed, "raw frames", index)
        content = encode_eer(movie.frames, recipe.eer_raw_frames, rng)
    else:
        content = encode_tiff(movie.frames, recipe.pixel_size_A)
    if recipe.n_rendered < recipe.n_exposures:
        atomic_write(file, content, durable=False)
        truths.write_movie_truth(stem, {}, movie.truth)
    return content, movie.truth


def encode_tiff(frames: NDArray[np.uint8], pixel_size_A: float) -> bytes:
    """LZW TIFF of frames `[F, ny, nx]` in MRC orientation: rows are stored upside down."""
    buffer = io.BytesIO()
    per_cm = 1e8 / pixel_size_A
    with tifffile.TiffWriter(buffer) as tiff:
        for frame in frames:
            tiff.write(
                np.ascontiguousarray(frame[::-1]),
                compression="lzw",
                photometric="minisblack",
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                metadata=None,
                software=False,
            )
    return buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class _Writer:
    """Puts exposures on the disk, spoilt where the plan says so."""

    recipe: Recipe
    out: Path
    folder: Path
    seed: int
    realtime: bool

    def write(self, exposure: Exposure, movie: bytes, known: MovieTruth) -> None:
        """Write the files of one exposure, then its truth."""
        place = self.out / exposure.movie
        place.parent.mkdir(parents=True, exist_ok=True)
        if exposure.fault == "wrong_size":
            movie = _half_size(movie, self.recipe.pixel_size_A)
        content = spoil_movie(exposure.fault, movie)
        text = exposure_xml(self.recipe, exposure, known.nominal_defocus_A, self.seed)
        xml = spoil_xml(exposure.fault, text)
        first = self._xml_first(exposure)
        if xml is not None and first:
            place.with_name(f"{exposure.stem}.xml").write_bytes(xml)
        if content is not None:
            suffix = "_EER.eer" if self.recipe.eer_raw_frames else "_fractions.tiff"
            self._grow(place.with_name(f"{exposure.stem}{suffix}"), content)
        if xml is not None and not first:
            place.with_name(f"{exposure.stem}.xml").write_bytes(xml)
        header = {
            "movie": exposure.movie,
            "exposure": exposure.index,
            "fault": exposure.fault,
            "movie_index": exposure.movie_index,
            "acquired_at": exposure.acquired_at.isoformat(),
            "beam_shift": list(exposure.beam_shift),
            "beam_shift_group": exposure.beam_shift_group,
            "xml_first": first,
        }
        truths.write_movie_truth(self.folder / exposure.stem, header, known)

    def _xml_first(self, exposure: Exposure) -> bool:
        if self.recipe.order == "random":
            return bool(random_stream(self.seed, "order", exposure.index).random() < 0.5)
        return self.recipe.order == "xml-first"

    def _grow(self, path: Path, content: bytes) -> None:
        """Write a movie in place, in pieces, as a camera computer does over a share."""
        pieces = self.recipe.growth_chunks
        step = max(1, -(-len(content) // pieces))
        with open(path, "wb", buffering=0) as file:
            for start in range(0, len(content), step):
                if start and self.realtime:
                    time.sleep(self.recipe.growth_s / pieces)
                file.write(content[start : start + step])


def _half_size(movie: bytes, pixel_size_A: float) -> bytes:
    """The same movie with half the width and height."""
    frames = tifffile.imread(io.BytesIO(movie))[:, ::-1]
    return encode_tiff(frames[:, : frames.shape[1] // 2, : frames.shape[2] // 2], pixel_size_A)
