"""The motion correction task, carried out by workers: movie to micrograph.

Source: preprocessing.md sections 2.2, 2.11, 2.12.
"""

import zlib
from pathlib import Path

import msgspec
import numpy as np

from algorithms.formats import mrc, star
from algorithms.formats.defects import load_defects
from algorithms.formats.errors import FormatError
from algorithms.formats.movie import EerMovie, EerOptions, Movie, open_movie
from algorithms.motion import CorrectedMovie, MotionError, MotionOptions, correct_movie
from algorithms.motion.starfile import motion_star
from services.kit.errors import Code, Refused
from services.kit.work import CODE_VERSION, Output
from services.prep.gains import gain_of_movie, size_note
from services.prep.motionlog import write_log
from services.prep.requests import MotionRequest, MotionResult
from services.prep.shiftplot import shift_plot

EER_DEFECT_WINDOW_PX = 4  # as RELION has it


def seed_of(movie: str) -> int:
    """Return the seed of a movie's random numbers: same movie, same result, on every run."""
    return zlib.crc32(movie.encode())


def motioncorr(request: bytes, folder: Path, project: Path) -> Output:
    """Align, dose-weight and sum one movie."""
    ask = msgspec.msgpack.decode(request, type=MotionRequest)
    options = _options(ask)
    try:
        corrected, note = _correct(ask, options, project)
    except FormatError as error:
        raise Refused(Code(error.code), str(error)) from error
    except MotionError as error:
        raise Refused(Code(error.code), f"{ask.movie_path}: {error}") from error
    write_log(folder / "m.log", ask, options, corrected, note)
    files = {"m.log": f"{ask.root}.log"} | _write_motion(ask, options, corrected, folder)
    height, width = corrected.image.shape
    result = MotionResult(
        width_px=width,
        height_px=height,
        pixel_size_A=corrected.pixel_size_A,
        motion_total_px=corrected.motion.total_px,
        motion_early_px=corrected.motion.early_px,
        motion_late_px=corrected.motion.late_px,
        converged=corrected.converged,
        hot_pixels=len(corrected.hot_pixels),
        local_rmsd_px=corrected.local_rmsd_px,
        reference_note=note,
    )
    return Output(msgspec.msgpack.encode(result), files)


def _options(ask: MotionRequest) -> MotionOptions:
    return MotionOptions(
        pixel_size_A=ask.pixel_size_A,
        voltage_kV=ask.voltage_kV,
        dose_per_frame=ask.dose_per_frame_e_A2,
        frame_doses=_each(ask.frame_doses),
        pre_exposure=ask.pre_exposure_e_A2,
        first_frame=ask.first_frame,
        last_frame=ask.last_frame,
        bin_factor=ask.bin_factor,
        bfactor_px2=ask.bfactor_px2,
        dose_weighting=ask.dose_weighting,
        save_nodw=ask.save_nodw,
        even_odd=ask.even_odd,
        save_ps=ask.save_ps,
        patches=ask.patches,
        group_frames=ask.group_frames,
        max_iter=ask.max_iter,
        dose_per_ps=ask.dose_per_ps_e_A2,
        ps_size=ask.ps_size,
        early_dose=ask.early_dose_e_A2,
        skip_defects=ask.skip_defects,
        # An electron in forty pixels: more neighbours are needed to copy from.
        defect_window_px=2 if ask.eer_grouping is None else EER_DEFECT_WINDOW_PX,
    )


def _each(doses: tuple[tuple[float, int], ...] | None) -> tuple[float, ...] | None:
    """Return the dose of every frame."""
    return None if doses is None else tuple(dose for dose, count in doses for _ in range(count))


def _correct(
    ask: MotionRequest, options: MotionOptions, project: Path
) -> tuple[CorrectedMovie, str]:
    eer = EerOptions(upsampling=ask.eer_upsampling or 1, grouping=ask.eer_grouping)
    with open_movie(project / ask.movie_path, eer=eer) as movie:
        found = (movie.nx, movie.ny, movie.n_frames)
        if isinstance(movie, EerMovie):
            found = movie.raw_size
        expected = (ask.width_px, ask.height_px, ask.n_frames)
        if any(e is not None and e != f for e, f in zip(expected, found, strict=True)):
            raise Refused(
                Code.GEOMETRY_MISMATCH,
                f"{ask.movie_path} is {found[0]} x {found[1]} x {found[2]} now and was "
                f"{expected[0]} x {expected[1]} x {expected[2]} when it settled: it was replaced",
            )
        gain, note = gain_of_movie(ask, project, movie), size_note(ask, project, movie)
        defects, problem = _defects(ask, project, movie)
        seed = seed_of(ask.movie)
        corrected = correct_movie(movie, gain, options, seed=seed, defects=defects)
        return corrected, "; ".join(filter(None, (note, problem)))


def _defects(ask: MotionRequest, project: Path, movie: Movie) -> tuple[np.ndarray | None, str]:
    """Return the map of defects, and why there is none where one was found and cannot be read."""
    if ask.defect_path is None:
        return None, ""
    path = project / ask.defect_path
    try:
        return load_defects(path, (movie.ny, movie.nx)), ""
    except (FormatError, OSError) as error:
        detail = f"the defect file {path} does not fit: {error}"
        if ask.defects_found:
            return None, f"defects are found by their brightness only: {detail}"
        raise Refused(Code.GEOMETRY_MISMATCH, detail) from error


def _write_motion(
    ask: MotionRequest, options: MotionOptions, corrected: CorrectedMovie, folder: Path
) -> dict[str, str]:
    pixel = corrected.pixel_size_A
    images = {
        "": corrected.image,
        "_noDW": corrected.image_nodw,
        "_EVN": corrected.image_even,
        "_ODD": corrected.image_odd,
    }
    files: dict[str, str] = {}
    for kind, image in images.items():
        if image is not None:
            name = f"m{kind}.mrc"
            mrc.write(folder / name, image.cpu().numpy(), pixel, float16=ask.float16)
            files[name] = f"{ask.root}{kind}.mrc"
    if corrected.power_spectrum is not None:
        spectrum = corrected.power_spectrum.cpu().numpy()
        mrc.write(folder / "ps.mrc", spectrum, corrected.ps_pixel_size_A)
        files["ps.mrc"] = f"{ask.root}_PS.mrc"
    shift_plot(folder / "shifts.png", corrected)
    files["shifts.png"] = f"{ask.root}_shifts.png"
    tables = motion_star(
        corrected,
        options,
        movie_name=ask.movie_path,
        version=CODE_VERSION,
        gain_name=ask.gain_name,
        defect_name=ask.defect_path,
        eer=None if ask.eer_grouping is None else (ask.eer_upsampling or 1, ask.eer_grouping),
    )
    star.save(folder / "m.star", tables, durable=False)
    files["m.star"] = f"{ask.root}.star"  # last: its presence says that the movie is complete
    return files
