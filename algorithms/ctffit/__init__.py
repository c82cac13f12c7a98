"""CTF estimation: an amplitude spectrum or a micrograph in, defocus and resolution out."""

from algorithms.ctffit.estimate import central_window, estimate_ctf, needs_finer_box
from algorithms.ctffit.fit import fit_ctf
from algorithms.ctffit.ice import Ice
from algorithms.ctffit.spectrum import spectrum_of_image
from algorithms.ctffit.tiles import spectrum_of_tiles
from algorithms.ctffit.types import CtfFit, CtfFitOptions, Tilt

__all__ = [
    "CtfFit",
    "CtfFitOptions",
    "Ice",
    "Tilt",
    "central_window",
    "estimate_ctf",
    "fit_ctf",
    "needs_finer_box",
    "spectrum_of_image",
    "spectrum_of_tiles",
]
