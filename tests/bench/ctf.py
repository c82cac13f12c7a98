"""The CTF fit of one 512 x 512 spectrum on one thread."""

import time

import torch

from algorithms.ctffit import CtfFitOptions, fit_ctf
from algorithms.formats import mrc
from services.prep.tasks import FINEST_STEP_A
from tests.bench import data
from tests.bench.figures import Bench, median

REPEATS = 3


def run(bench: Bench) -> None:
    """Measure milliseconds per spectrum."""
    values = data.recipe(1)
    options = CtfFitOptions(
        voltage_kV=values.voltage_kV,
        spherical_aberration_mm=values.spherical_aberration_mm,
        amplitude_contrast=values.amplitude_contrast,
        defocus_step_A=FINEST_STEP_A,
    )
    took, size = [], 0
    for path in sorted(data.micrographs(bench).glob("*_PS.mrc")):
        spectrum, pixel = mrc.read(path), mrc.read_header(path).pixel_size_A
        assert pixel is not None
        size = spectrum.shape[0]
        fit_ctf(spectrum, pixel, options)  # the first one also loads code
        for _ in range(REPEATS):
            begun = time.perf_counter()
            fit_ctf(spectrum, pixel, options)
            took.append(time.perf_counter() - begun)
    floor = _floor(size, options)
    bench.compare(f"fit of a {size} spectrum, median", 1e3 * median(took), "ms", "floor",
                  "models of the scan and of one gradient", 1e3 * floor)  # fmt: skip
    bench.note(
        "Floor: the cosines of one scan of the rotational average over the defocus range, and of "
        "the model and its three derivatives over the plane, once. No peer: CTFFIND is not "
        "installed."
    )


def _floor(size: int, options: CtfFitOptions) -> float:
    """Return the seconds of evaluating the model as often as any search has to."""
    rings = torch.linspace(0.03, 0.2, size // 2)
    span_A = options.max_defocus_A - options.min_defocus_A
    defocus = torch.arange(0.0, span_A, options.defocus_step_A)
    plane = torch.rand(4, size, size // 2 + 1)
    took = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        torch.cos(defocus[:, None] * rings.square())
        torch.cos(plane)
        took.append(time.perf_counter() - begun)
    return median(took)
