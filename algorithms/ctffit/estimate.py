"""One call from a micrograph to a fitted CTF: finer box where rings alias, tilt where asked for.

Source: preprocessing.md sections 3.2, 3.6 and 3.9.
"""

import dataclasses

from torch import Tensor

from algorithms.ctffit.fit import fit_ctf
from algorithms.ctffit.spectrum import spectrum_of_image
from algorithms.ctffit.tiles import levelled_spectrum, tile_edge_px
from algorithms.ctffit.tilt import fit_tilt
from algorithms.ctffit.types import CtfFit, CtfFitOptions, Tilt

# Box of the second fit where the rings are too narrow for the first one.
FINE_BOX_PX = 1024
# Log of the odds that make a tilt worth taking out.
PROVEN_LOG_ODDS = 10.0


def estimate_ctf(
    image: Tensor,
    pixel_size_A: float,
    options: CtfFitOptions,
    *,
    box_px: int = 512,
    first: CtfFit | None = None,
    device: str = "cpu",
) -> CtfFit:
    """Fit the CTF of a micrograph.

    Parameters
    ----------
    image
        `[ny, nx]`.
    pixel_size_A
        Of the micrograph.
    options
        Microscope, search range, and whether to fit thickness and tilt.
    box_px
        Of the spectrum.
    first
        Fit to a spectrum that there is already (of the movie's frames, say): the image is used
        only where that does not suffice.
    device
        For the work on whole planes.

    Raises
    ------
    ValueError
        The spectrum does not reach into the band, or the image is smaller than a tile and a tilt
        was asked for.
    """
    image = image.to(device)
    fit = first
    if fit is None:
        fit = fit_ctf(*spectrum_of_image(image, pixel_size_A, box_px), options, device)
    if needs_finer_box(fit, options):
        again = fit_ctf(*spectrum_of_image(image, pixel_size_A, FINE_BOX_PX), options, device)
        if again.reliable or not fit.reliable:
            # Selections compare scores, and those of a finer box are lower.
            fit = dataclasses.replace(again, score=fit.score)
    if options.find_tilt and fit.reliable:
        tilt = fit_tilt(image, pixel_size_A, fit, options)
        if tilt.log_odds > PROVEN_LOG_ODDS:
            fit = _levelled(image, pixel_size_A, fit, tilt, options, device)
        fit = dataclasses.replace(fit, tilt=tilt)
    return fit


def _levelled(
    image: Tensor,
    pixel_size_A: float,
    fit: CtfFit,
    tilt: Tilt,
    options: CtfFitOptions,
    device: str,
) -> CtfFit:
    """Fit to the spectrum with the tilt taken out, where that has the better rings."""
    size = fit.diagnostic.shape[-1]
    if tile_edge_px(size, pixel_size_A) > min(image.shape[-2:]):
        return fit
    defocus_A = 0.5 * (fit.defocus_u_A + fit.defocus_v_A)
    level = levelled_spectrum(image, pixel_size_A, defocus_A, tilt.change_from_middle_A, size)
    again = fit_ctf(*level, options, device)
    if not again.reliable or again.max_resolution_A >= fit.max_resolution_A:
        return fit
    return dataclasses.replace(again, score=fit.score)


def needs_finer_box(fit: CtfFit, options: CtfFitOptions) -> bool:
    """Whether rings inside the fitted band are too narrow for the box, and a finer one helps."""
    aliased = fit.aliasing_A is not None and fit.aliasing_A > options.max_resolution_A
    return aliased and fit.diagnostic.shape[-1] < FINE_BOX_PX


def central_window(image: Tensor, edge_px: int) -> Tensor:
    """Square of `edge_px` in the middle of an image `[ny, nx]`; the image where it is smaller."""
    ny, nx = (min(edge_px, int(length)) for length in image.shape[-2:])
    top, left = (int(image.shape[-2]) - ny) // 2, (int(image.shape[-1]) - nx) // 2
    return image[..., top : top + ny, left : left + nx]
