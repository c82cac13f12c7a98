"""CTF estimation: an amplitude spectrum in, defocus, astigmatism and fit resolution out."""

from algorithms.ctffit.fit import fit_ctf
from algorithms.ctffit.spectrum import spectrum_of_image
from algorithms.ctffit.types import CtfFit, CtfFitOptions

__all__ = ["CtfFit", "CtfFitOptions", "fit_ctf", "spectrum_of_image"]
