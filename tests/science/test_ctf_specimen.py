"""What a CTF fit tells about the specimen: tilt, thickness, ice; and fits that need more."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from algorithms import fourier
from algorithms.ctffit import (
    CtfFit,
    CtfFitOptions,
    estimate_ctf,
    fit_ctf,
    needs_finer_box,
    spectrum_of_image,
    spectrum_of_tiles,
)
from tests.ctf_images import MICROSCOPE, micrograph, optics, slab, tilted

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = MICROSCOPE
ALL = pytest.mark.slow


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute as workers do: threads that wait for each other on a busy machine cost ten times."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fit_image(image: torch.Tensor, options: CtfFitOptions, pixel: float = 1.0) -> CtfFit:
    return fit_ctf(*spectrum_of_image(image, pixel), options)


def between(a_deg: float, b_deg: float) -> float:
    return abs((a_deg - b_deg + 180.0) % 360.0 - 180.0)


@pytest.mark.parametrize(
    ("seed", "angle", "axis"),
    [
        (0, 30.0, 40.0),
        *(pytest.param(s, 30.0, 40.0, marks=ALL) for s in range(1, 10)),
        *(pytest.param(s, 50.0, 250.0, marks=ALL) for s in range(3)),
    ],
)
def test_tilt(seed: int, angle: float, axis: float) -> None:
    # 2048 px of 1.4 A: half the field of a usual micrograph.
    ctf = optics(15400, 14600, 20)
    image = tilted(seed, ctf, angle, axis, snr=0.1, b_A2=60, pixel=1.4)
    fit = estimate_ctf(image, 1.4, replace(OPTIONS, find_tilt=True))
    tilt = fit.tilt
    assert fit.reliable and tilt is not None
    assert abs(tilt.angle_deg - angle) < 3.0
    assert between(tilt.axis_deg, axis) < 5.0
    assert tilt.log_odds > 100.0
    # The defocus in the middle is that of the fit, and grows to the left of the axis.
    assert abs(0.5 * (fit.defocus_u_A + fit.defocus_v_A) - 15000) < 150
    middle = 1024 * 1.4
    assert tilt.defocus_change_A(middle, middle) == pytest.approx(0.0)
    left = -math.sin(math.radians(axis)), math.cos(math.radians(axis))
    change = tilt.defocus_change_A(middle + 1000.0 * left[0], middle + 1000.0 * left[1])
    assert change == pytest.approx(1000.0 * math.tan(math.radians(angle)), rel=0.2)


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=ALL) for s in range(1, 20))])
def test_tilt_of_a_small_noisy_field(seed: int) -> None:
    # The other images of section 9.4: 2048 px of 1.0 A, signal-to-noise ratio 0.05.
    image = tilted(seed, optics(16000, 15500, 20), 30.0, 40.0, snr=0.05, b_A2=60)
    fit = estimate_ctf(image, 1.0, replace(OPTIONS, find_tilt=True))
    tilt = fit.tilt
    assert tilt is not None and tilt.log_odds > 50.0
    assert abs(tilt.angle_deg - 30.0) < 3.0
    assert between(tilt.axis_deg, 40.0) < 5.0
    # With the tilt taken out, the rings go on beyond where they end in the sum of all places.
    blurred = estimate_ctf(image, 1.0, OPTIONS)
    assert fit.max_resolution_A < 0.95 * blurred.max_resolution_A
    assert fit.cross_validated_A < 0.95 * blurred.cross_validated_A
    assert abs(fit.defocus_u_A - 16000) < 80 and abs(fit.defocus_v_A - 15500) < 80


def test_a_flat_specimen_is_flat() -> None:
    image = micrograph(1, optics(15400, 14600, 20), snr=0.1, b_A2=60)
    tilt = estimate_ctf(image, 1.0, replace(OPTIONS, find_tilt=True)).tilt
    assert tilt is not None and tilt.angle_deg < 5.0
    assert tilt.log_odds < 10.0


@pytest.mark.parametrize(
    ("seed", "thickness"),
    [
        (0, 1000.0),
        *(pytest.param(s, t, marks=ALL) for s in range(1, 8) for t in (1000.0, 2000.0)),
    ],
)
def test_thickness(seed: int, thickness: float) -> None:
    image = slab(seed, optics(12250, 11750, 30), thickness, snr=0.3, b_A2=20)
    thin = fit_image(image, OPTIONS)
    fit = fit_image(image, replace(OPTIONS, find_thickness=True))
    assert fit.thickness_A is not None and abs(fit.thickness_A / thickness - 1.0) < 0.1
    assert abs(fit.defocus_u_A - 12250) < 60 and abs(fit.defocus_v_A - 11750) < 60
    assert thin.thickness_A is None
    # Rings beyond the first node have the other sign: only the slab follows them.
    assert fit.max_resolution_A < thin.max_resolution_A


def test_a_thin_specimen_has_no_thickness() -> None:
    image = micrograph(0, optics(12250, 11750, 30), snr=0.2, b_A2=20)
    assert fit_image(image, replace(OPTIONS, find_thickness=True)).thickness_A is None


def test_rings_of_ice_stand_out() -> None:
    image = micrograph(3, optics(12250, 11750, 30), snr=0.05, b_A2=60)
    sy, sx = fourier.frequencies((2048, 2048))
    s = torch.sqrt(sx * sx + sy * sy)
    ring = 1.0 + 0.4 * torch.exp(-0.5 * ((s - 1 / 3.67) / 0.003) ** 2)
    icy = fourier.irfft2(fourier.rfft2(image) * ring, (2048, 2048))
    clean, frozen = (fit_image(i, OPTIONS).ice for i in (image, icy))
    assert clean.peak_sigma is not None and clean.peak_sigma < 5.0
    assert frozen.peak_sigma is not None and frozen.peak_sigma > 10.0
    assert clean.density is not None and frozen.density is not None
    assert frozen.density > 1.5 * clean.density
    assert clean.iciness is not None and frozen.iciness is not None
    assert frozen.iciness > clean.iciness


def test_a_spectrum_that_ends_before_the_ice_says_nothing_of_it() -> None:
    ice = fit_image(micrograph(3, optics(15000, 15000, 0), snr=0.05, b_A2=60), OPTIONS, 2.5).ice
    assert (ice.density, ice.iciness, ice.peak_sigma) == (None, None, None)


def test_narrow_rings_are_fitted_in_a_finer_box() -> None:
    image = micrograph(0, optics(45000, 44500, 20), snr=0.05, b_A2=60)
    coarse, fine = fit_image(image, OPTIONS), estimate_ctf(image, 1.0, OPTIONS)
    assert coarse.aliasing_A is not None and coarse.aliasing_A > 5.0
    assert needs_finer_box(coarse, OPTIONS) and not needs_finer_box(fine, OPTIONS)
    assert fine.diagnostic.shape == (1024, 1024)
    assert fine.aliasing_A is not None and fine.aliasing_A < 5.0
    assert abs(fine.defocus_u_A - 45000) < 100 and abs(fine.defocus_v_A - 44500) < 100
    # Selections compare scores, and those of a finer box are lower.
    assert fine.score == coarse.score
    wide = micrograph(0, optics(15000, 14500, 20), snr=0.05, b_A2=60)
    assert estimate_ctf(wide, 1.0, OPTIONS).diagnostic.shape == (512, 512)


def test_strong_astigmatism_needs_the_exhaustive_search() -> None:
    image = micrograph(0, optics(24000, 15000, 65), snr=0.05, b_A2=60)
    fit = fit_image(image, replace(OPTIONS, exhaustive_astigmatism=True))
    assert abs(fit.defocus_u_A - 24000) < 150 and abs(fit.defocus_v_A - 15000) < 150
    assert abs(fit.angle_deg - 65) < 3.0 and fit.reliable


def test_other_microscope() -> None:
    # Those of RELION's tutorial: 200 kV, Cs 1.4 mm, 0.885 A.
    options = replace(OPTIONS, voltage_kV=200.0, spherical_aberration_mm=1.4)
    ctf = optics(10863, 10575, 78, microscope=options)
    fit = fit_image(micrograph(0, ctf, snr=0.05, b_A2=60, pixel=0.885), options, 0.885)
    assert abs(fit.defocus_u_A - 10863) < 100 and abs(fit.defocus_v_A - 10575) < 100
    assert fit.reliable


def test_averaged_tiles_serve_as_well() -> None:
    image = micrograph(0, optics(16000, 14500, 35), snr=0.05, b_A2=60)
    fit = fit_ctf(*spectrum_of_tiles(image, 1.0), OPTIONS)
    assert abs(fit.defocus_u_A - 16000) < 60 and abs(fit.defocus_v_A - 14500) < 60
    assert fit.reliable
    with pytest.raises(ValueError, match="no room for a tile"):
        spectrum_of_tiles(image[:300], 1.0)
