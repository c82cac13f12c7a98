"""The CTF task, carried out by workers: spectrum or micrograph to CTF.

Source: preprocessing.md sections 3.2, 3.6 and 3.7.
"""

import math
from pathlib import Path

import msgspec
import numpy as np
from torch import Tensor, from_numpy

from algorithms.ctffit import (
    CtfFit,
    CtfFitOptions,
    central_window,
    estimate_ctf,
    fit_ctf,
    needs_finer_box,
)
from algorithms.ctffit.textfiles import avrot_text, summary_text
from algorithms.formats import mrc
from algorithms.formats.errors import FormatError
from services.kit.errors import Code, Refused
from services.kit.work import Output
from services.prep.ctf import fitted_root
from services.prep.requests import CtfRequest, CtfResult

# RELION's 500 A is a compromise with CTFFIND's speed; the search here costs nothing at 50 A.
FINEST_STEP_A = 50.0


def ctffind(request: bytes, folder: Path, project: Path) -> Output:
    """Fit the CTF to a power spectrum, or to that of a micrograph."""
    ask = msgspec.msgpack.decode(request, type=CtfRequest)
    try:
        fit = _fit(ask, project)
    except FormatError as error:
        raise Refused(Code(error.code), str(error)) from error
    except ValueError as error:  # too few rings in the band: a spectrum this coarse has no fit
        raise Refused(Code.UNSUPPORTED, f"{project / ask.power_spectrum}: {error}") from error
    mrc.write(folder / "ctf.mrc", fit.diagnostic.cpu().numpy(), fit.pixel_size_A)
    (folder / "avrot.txt").write_text(avrot_text(fit, ask.power_spectrum))
    (folder / "fit.txt").write_text(summary_text(fit, ask.power_spectrum))
    root = fitted_root(ask)
    files = {"ctf.mrc": f"{root}.ctf", "fit.txt": f"{root}.txt", "avrot.txt": f"{root}_avrot.txt"}
    return Output(msgspec.msgpack.encode(_result(fit, _mean_intensity(ask, project))), files)


def fit_options(ask: CtfRequest) -> CtfFitOptions:
    """Return how to fit, as a request asks for."""
    return CtfFitOptions(
        voltage_kV=ask.voltage_kV,
        spherical_aberration_mm=ask.spherical_aberration_mm,
        amplitude_contrast=ask.amplitude_contrast,
        min_resolution_A=ask.resolution_min_A,
        max_resolution_A=ask.resolution_max_A,
        min_defocus_A=ask.defocus_min_A,
        max_defocus_A=ask.defocus_max_A,
        defocus_step_A=min(ask.defocus_step_A, FINEST_STEP_A),
        astigmatism_tolerance_A=ask.astigmatism_A,
        exhaustive_astigmatism=ask.slow_search,
        find_phase_shift=ask.phase_shift,
        min_phase_shift_deg=ask.phase_min_deg,
        max_phase_shift_deg=ask.phase_max_deg,
        phase_shift_step_deg=ask.phase_step_deg,
        find_thickness=ask.thickness,
        find_tilt=ask.tilt,
    )


def _fit(ask: CtfRequest, project: Path) -> CtfFit:
    path, options = project / ask.power_spectrum, fit_options(ask)
    if ask.image_pixel_A is not None:
        image = _image(path)
        if ask.window_px is not None:
            image = central_window(image, ask.window_px)
        return estimate_ctf(image, ask.image_pixel_A, options, box_px=ask.box_px)
    spectrum, pixel = _spectrum(path)
    fit = fit_ctf(spectrum, pixel, options)
    if ask.micrograph is None or ask.micrograph_pixel_A is None:
        return fit
    picture = project / ask.micrograph
    finer = needs_finer_box(fit, options) and picture.exists()
    if not finer and not (options.find_tilt and fit.reliable):
        return fit
    return estimate_ctf(_image(picture), ask.micrograph_pixel_A, options, first=fit)


def _image(path: Path) -> Tensor:
    """Return a micrograph `[ny, nx]`."""
    image = mrc.read(path)
    if image.ndim != 2 or not np.isfinite(image).all():
        raise Refused(Code.NOT_FINITE, f"{path} is no image, or holds values that are no numbers")
    return from_numpy(image.astype(np.float32))


def _spectrum(path: Path) -> tuple[np.ndarray, float]:
    """Return amplitudes `[n, n]` and their pixel in A."""
    pixel = mrc.read_header(path).pixel_size_A
    if pixel is None:
        raise Refused(Code.BAD_HEADER, f"{path} has no pixel size: remove it to make it anew")
    return mrc.read(path), pixel


def _mean_intensity(ask: CtfRequest, project: Path) -> float | None:
    """Return the mean of the micrograph, as its header tells it; None where there is none."""
    name = ask.power_spectrum if ask.image_pixel_A is not None else ask.micrograph
    if name is None or not (project / name).exists():
        return None
    header = mrc.read_header(project / name)
    # Programs that do not measure it write a minimum above the maximum, or nothing at all.
    known = header.minimum < header.maximum and math.isfinite(header.mean)
    return header.mean if known else None


def _result(fit: CtfFit, mean_intensity: float | None) -> CtfResult:
    return CtfResult(
        defocus_u_A=fit.defocus_u_A,
        defocus_v_A=fit.defocus_v_A,
        defocus_angle_deg=fit.angle_deg,
        phase_shift_deg=fit.phase_shift_deg,
        figure_of_merit=fit.score,
        max_resolution_A=fit.max_resolution_A,
        reliable=fit.reliable,
        doubts=fit.doubts,
        cross_validated_A=fit.cross_validated_A,
        aliasing_A=fit.aliasing_A,
        ice_ring_density=fit.ice.density,
        iciness=fit.ice.iciness,
        ice_peak_sigma=fit.ice.peak_sigma,
        thickness_A=fit.thickness_A,
        tilt_angle_deg=None if fit.tilt is None else fit.tilt.angle_deg,
        tilt_axis_deg=None if fit.tilt is None else fit.tilt.axis_deg,
        tilt_log_odds=None if fit.tilt is None else fit.tilt.log_odds,
        mean_intensity=mean_intensity,
    )
