"""The CTF fit on one thread: from a spectrum in memory, from micrographs, and its options."""

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from algorithms import fourier
from algorithms.ctffit import CtfFitOptions, estimate_ctf, fit_ctf, spectrum_of_image
from algorithms.formats import mrc
from services.prep.ctftask import FINEST_STEP_A
from tests.bench import data
from tests.bench.figures import Bench, median
from tests.ctf_images import MICROSCOPE, micrograph, optics

REPEATS = 5
# Cosines that such a search cannot do without: two by defocus and ring, two by astigmatism tried
# and bin of the polar plane, two by bin in each step of four climbs and one look for overfocus.
RINGS, PAIRS, BINS, STEPS = 120, 61, 7_200, 5 * 8
GOALS_S = {2048: 1.0, 4096: 2.0}


def run(bench: Bench) -> None:
    """Measure milliseconds of processor time per spectrum and per micrograph."""
    values = data.recipe(1)
    options = CtfFitOptions(
        voltage_kV=values.voltage_kV,
        spherical_aberration_mm=values.spherical_aberration_mm,
        amplitude_contrast=values.amplitude_contrast,
        defocus_step_A=FINEST_STEP_A,
    )
    search = _floor(options)
    took = []
    for path in sorted(data.micrographs(bench).glob("*_PS.mrc")):
        spectrum, pixel = mrc.read(path), mrc.read_header(path).pixel_size_A
        assert pixel is not None
        took.append(_took(lambda s=spectrum, p=pixel: fit_ctf(s, p, options)))
    what = "fit of a 512 px spectrum, median"
    bench.floor(what, 1e3 * median(took), "ms", 1e3 * search, "cosines of the models")
    for size, goal in GOALS_S.items():
        bench.say(f"micrographs of {size} px")
        _micrograph(bench, size, goal, search)
    _options(bench)
    bench.note(
        "Processor time of one thread, median of some runs. Floor of a fit: the cosines of the "
        "models that such a search compares; of a micrograph also one transform forth and, to "
        "smooth the spectrum, one back. No peer: CTFFIND is not installed."
    )


def _micrograph(bench: Bench, size: int, goal_s: float, search_s: float) -> None:
    image = micrograph(0, optics(16000, 14500, 35), snr=0.05, b_A2=60, size=size)
    spectrum, pixel = spectrum_of_image(image, 1.0)
    in_memory = _took(lambda: fit_ctf(spectrum, pixel, MICROSCOPE))
    whole = _took(lambda: estimate_ctf(image, 1.0, MICROSCOPE))
    half = fourier.rfft2(image)
    transforms = _took(lambda: fourier.rfft2(image)) + _took(
        lambda: fourier.irfft2(half, (size, size))
    )
    name = f"{size} x {size} micrograph"
    bench.goal(f"{name}, from its spectrum in memory", in_memory, "s", goal_s, "goal")
    bench.goal(f"{name}, with its spectrum", whole, "s", goal_s, "goal")
    bench.floor(
        f"{name}, with its spectrum", whole, "s", transforms + search_s, "transforms and cosines"
    )


def _options(bench: Bench) -> None:
    """Measure what the options add, on a micrograph of 2048 px."""
    image = micrograph(0, optics(16000, 14500, 35), snr=0.05, b_A2=60)
    spectrum, pixel = spectrum_of_image(image, 1.0)
    for what, options in {
        "phase shift": replace(MICROSCOPE, find_phase_shift=True),
        "exhaustive astigmatism": replace(MICROSCOPE, exhaustive_astigmatism=True),
        "thickness": replace(MICROSCOPE, find_thickness=True),
    }.items():
        took = _took(lambda o=options: fit_ctf(spectrum, pixel, o))
        bench.add(f"fit of a 512 px spectrum with {what}", 1e3 * took, "ms")
    tilt = replace(MICROSCOPE, find_tilt=True)
    took = _took(lambda: estimate_ctf(image, 1.0, tilt))
    bench.add("2048 x 2048 micrograph with tilt", took, "s")


def _took(work: Callable[[], object]) -> float:
    """Return the seconds of processor time of one of several runs, after one that loads code."""
    work()
    took = []
    for _ in range(REPEATS):
        begun = time.process_time()
        work()
        took.append(time.process_time() - begun)
    return median(took)


def _floor(options: CtfFitOptions) -> float:
    """Return the seconds of the cosines of one search."""
    span_A = options.max_defocus_A - options.min_defocus_A
    scan = torch.rand(2, round(span_A / options.defocus_step_A), RINGS)
    plane = torch.rand(2, PAIRS + STEPS, BINS)
    return _took(lambda: (torch.cos(scan), torch.cos(plane)))
