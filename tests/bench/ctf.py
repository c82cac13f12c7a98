"""The CTF fit of one 512 x 512 spectrum on one thread."""

import time

import torch

from algorithms.ctffit import CtfFitOptions, fit_ctf
from algorithms.formats import mrc
from services.prep.tasks import FINEST_STEP_A
from tests.bench import data
from tests.bench.figures import Bench, median

REPEATS = 3
# Trials of astigmatism around three candidates, climbs, steps of each, bins of the polar plane.
COARSE, CLIMBS, STEPS, BINS = 3 * 57, 4, 12, 10_000


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
    bench.floor(
        f"fit of a {size} spectrum, median",
        1e3 * median(took),
        "ms",
        1e3 * _floor(size, options),
        "cosines of the models",
    )
    bench.note(
        "Floor: the cosines of the models that such a search compares: one scan of the rotational "
        "average, a coarse grid of astigmatism, and the steps of four climbs, on the polar bins. "
        "No peer: CTFFIND is not installed."
    )


def _floor(size: int, options: CtfFitOptions) -> float:
    """Return the seconds of evaluating the models of one search."""
    span_A = options.max_defocus_A - options.min_defocus_A
    scan = torch.rand(round(span_A / options.defocus_step_A), size // 2)
    plane = torch.rand(COARSE + CLIMBS * STEPS, BINS)
    took = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        torch.cos(scan)
        torch.cos(plane)
        took.append(time.perf_counter() - begun)
    return median(took)
