"""One call from a micrograph to a fitted CTF: finer box where rings alias, tilt where asked for.

Source: preprocessing.md sections 3.2, 3.6 and 3.9.
"""

import dataclasses

from torch import Tensor

from algorithms.ctffit.fit import fit_ctf
from algorithms.ctffit.spectrum import spectrum_of_image
from algorithms.ctffit.tilt import fit_tilt
from algorithms.ctffit.types import CtfFit, CtfFitOptions

# Box of the second fit where the rings are too narrow for the first one.
FINE_BOX_PX = 1024


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
        fit = dataclasses.replace(fit, tilt=fit_tilt(image, pixel_size_A, fit, options))
    return fit


def needs_finer_box(fit: CtfFit, options: CtfFitOptions) -> bool:
    """Whether rings inside the fitted band are too narrow for the box, and a finer one helps."""
    aliased = fit.aliasing_A is not None and fit.aliasing_A > options.max_resolution_A
    return aliased and fit.diagnostic.shape[-1] < FINE_BOX_PX


def central_window(image: Tensor, edge_px: int) -> Tensor:
    """Square of `edge_px` in the middle of an image `[ny, nx]`; the image where it is smaller."""
    ny, nx = (min(edge_px, int(length)) for length in image.shape[-2:])
    top, left = (int(image.shape[-2]) - ny) // 2, (int(image.shape[-1]) - nx) // 2
    return image[..., top : top + ny, left : left + nx]
