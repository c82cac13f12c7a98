"""The prep tasks, carried out by workers: movie to micrograph, spectrum to CTF.

Source: preprocessing.md sections 2.2, 2.11, 2.12, 3.7.
"""

import zlib
from pathlib import Path

import msgspec
import numpy as np
from torch import Tensor, from_numpy

from algorithms.ctffit import CtfFitOptions, fit_ctf, spectrum_of_image
from algorithms.ctffit.textfiles import avrot_text, summary_text
from algorithms.formats import mrc, star
from algorithms.formats.errors import FormatError
from algorithms.formats.gain import load_gain
from algorithms.formats.movie import open_movie
from algorithms.motion import CorrectedMovie, MotionError, MotionOptions, correct_movie
from algorithms.motion.starfile import motion_star
from services.kit.errors import Code, Refused
from services.kit.work import CODE_VERSION, Output
from services.prep.requests import CtfRequest, CtfResult, MotionRequest, MotionResult

# RELION's 500 A is a compromise with CTFFIND's speed; the search here costs nothing at 50 A.
FINEST_STEP_A = 50.0


def seed_of(movie: str) -> int:
    """Return the seed of a movie's random numbers: same movie, same result, on every run."""
    return zlib.crc32(movie.encode())


def motioncorr(request: bytes, folder: Path, project: Path) -> Output:
    """Align, dose-weight and sum one movie."""
    ask = msgspec.msgpack.decode(request, type=MotionRequest)
    options = _options(ask)
    try:
        corrected = _correct(ask, options, project)
    except FormatError as error:
        raise Refused(Code(error.code), str(error)) from error
    except MotionError as error:
        raise Refused(Code(error.code), f"{ask.movie_path}: {error}") from error
    files = _write_motion(ask, options, corrected, folder)
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
    )
    return Output(msgspec.msgpack.encode(result), files)


def _options(ask: MotionRequest) -> MotionOptions:
    return MotionOptions(
        pixel_size_A=ask.pixel_size_A,
        voltage_kV=ask.voltage_kV,
        dose_per_frame=ask.dose_per_frame_e_A2,
        pre_exposure=ask.pre_exposure_e_A2,
        first_frame=ask.first_frame,
        last_frame=ask.last_frame,
        bin_factor=ask.bin_factor,
        bfactor_px2=ask.bfactor_px2,
        dose_weighting=ask.dose_weighting,
        save_nodw=ask.save_nodw,
        dose_per_ps=ask.dose_per_ps_e_A2,
    )


def _correct(ask: MotionRequest, options: MotionOptions, project: Path) -> CorrectedMovie:
    with open_movie(project / ask.movie_path) as movie:
        found = (movie.nx, movie.ny, movie.n_frames)
        expected = (ask.width_px, ask.height_px, ask.n_frames)
        if any(e is not None and e != f for e, f in zip(expected, found, strict=True)):
            raise Refused(
                Code.GEOMETRY_MISMATCH,
                f"{ask.movie_path} is {found[0]} x {found[1]} x {found[2]} now and was "
                f"{expected[0]} x {expected[1]} x {expected[2]} when it settled: it was replaced",
            )
        gain = None if ask.gain_path is None else _gain(ask, project, (movie.ny, movie.nx))
        return correct_movie(movie, gain, options, seed=seed_of(ask.movie))


def _gain(ask: MotionRequest, project: Path, shape: tuple[int, int]) -> np.ndarray:
    path = project / (ask.gain_path or "")
    try:
        return load_gain(path, shape, rotation=ask.gain_rotation, flip=ask.gain_flip)
    except (FormatError, OSError) as error:
        raise Refused(Code.GAIN_MISMATCH, f"the gain reference {path} does not fit: {error}") from (
            error
        )


def _write_motion(
    ask: MotionRequest, options: MotionOptions, corrected: CorrectedMovie, folder: Path
) -> dict[str, str]:
    pixel = corrected.pixel_size_A
    files = {"m.mrc": f"{ask.root}.mrc"}
    mrc.write(folder / "m.mrc", corrected.image.numpy(), pixel, float16=ask.float16)
    if corrected.image_nodw is not None:
        nodw = corrected.image_nodw.numpy()
        mrc.write(folder / "nodw.mrc", nodw, pixel, float16=ask.float16)
        files["nodw.mrc"] = f"{ask.root}_noDW.mrc"
    if ask.save_ps:
        spectrum = corrected.power_spectrum.numpy()
        mrc.write(folder / "ps.mrc", spectrum, corrected.ps_pixel_size_A)
        files["ps.mrc"] = f"{ask.root}_PS.mrc"
    tables = motion_star(
        corrected,
        options,
        movie_name=ask.movie_path,
        version=CODE_VERSION,
        gain_name=ask.gain_name,
    )
    star.save(folder / "m.star", tables, durable=False)
    files["m.star"] = f"{ask.root}.star"  # last: its presence says that the movie is complete
    return files


def ctffind(request: bytes, folder: Path, project: Path) -> Output:
    """Fit the CTF to a power spectrum, or to that of a micrograph."""
    ask = msgspec.msgpack.decode(request, type=CtfRequest)
    path = project / ask.power_spectrum
    try:
        spectrum, pixel = _spectrum(path, ask)
    except FormatError as error:
        raise Refused(Code(error.code), str(error)) from error
    options = CtfFitOptions(
        voltage_kV=ask.voltage_kV,
        spherical_aberration_mm=ask.spherical_aberration_mm,
        amplitude_contrast=ask.amplitude_contrast,
        min_resolution_A=ask.resolution_min_A,
        max_resolution_A=ask.resolution_max_A,
        min_defocus_A=ask.defocus_min_A,
        max_defocus_A=ask.defocus_max_A,
        defocus_step_A=min(ask.defocus_step_A, FINEST_STEP_A),
        astigmatism_tolerance_A=ask.astigmatism_A,
        find_phase_shift=ask.phase_shift,
        min_phase_shift_deg=ask.phase_min_deg,
        max_phase_shift_deg=ask.phase_max_deg,
        phase_shift_step_deg=ask.phase_step_deg,
    )
    try:
        fit = fit_ctf(spectrum, pixel, options)
    except ValueError as error:  # too few rings in the band: a spectrum this coarse has no fit
        raise Refused(Code.UNSUPPORTED, f"{path}: {error}") from error
    mrc.write(folder / "ctf.mrc", fit.diagnostic.numpy(), pixel)
    (folder / "avrot.txt").write_text(avrot_text(fit, ask.power_spectrum))
    (folder / "fit.txt").write_text(summary_text(fit, ask.power_spectrum, pixel))
    result = CtfResult(
        defocus_u_A=fit.defocus_u_A,
        defocus_v_A=fit.defocus_v_A,
        defocus_angle_deg=fit.angle_deg,
        phase_shift_deg=fit.phase_shift_deg,
        figure_of_merit=fit.score,
        max_resolution_A=fit.max_resolution_A,
        reliable=fit.reliable,
    )
    root = f"{ask.root}_PS" if ask.image_pixel_A is None else ask.root
    files = {"ctf.mrc": f"{root}.ctf", "fit.txt": f"{root}.txt", "avrot.txt": f"{root}_avrot.txt"}
    return Output(msgspec.msgpack.encode(result), files)


def _spectrum(path: Path, ask: CtfRequest) -> tuple[np.ndarray | Tensor, float]:
    """Return amplitudes `[n, n]` and their pixel in A."""
    image = mrc.read(path)
    if ask.image_pixel_A is not None:
        if image.ndim != 2 or not np.isfinite(image).all():
            raise Refused(
                Code.NOT_FINITE, f"{path} is no image, or holds values that are no numbers"
            )
        pixels = from_numpy(image.astype(np.float32))
        return spectrum_of_image(pixels, ask.image_pixel_A, ask.box_px)
    pixel = mrc.read_header(path).pixel_size_A
    if pixel is None:
        raise Refused(Code.BAD_HEADER, f"{path} has no pixel size: remove it to make it anew")
    return image, pixel
