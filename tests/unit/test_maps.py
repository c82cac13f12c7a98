"""Correlation of half-maps, sharpening and masks against what can be known beforehand."""

import math

import numpy as np
import pytest
import torch

from algorithms.maps import correlation, sharpen, shells, solvent

BOX, PIXEL_A = 48, 2.0


def noise(seed: int, box: int = BOX) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn((box, box, box), generator=random, dtype=torch.float64)


def blob(box: int = BOX) -> torch.Tensor:
    """Return a few Gaussian balls near the centre."""
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    volume = torch.zeros((box, box, box), dtype=torch.float64)
    for z, y, x, width in ((0, 0, 0, 2.0), (5, -4, 3, 1.2), (-6, 2, 4, 1.0), (1, 7, -5, 1.0)):
        square = ((axis - z) ** 2)[:, None, None] + ((axis - y) ** 2)[:, None] + (axis - x) ** 2
        volume += torch.exp(-square / (2.0 * width**2))
    return volume


def test_a_map_correlates_with_itself_and_not_with_noise():
    volume = blob() + 0.01 * noise(1)
    assert torch.allclose(correlation.fsc(volume, volume), torch.ones(BOX // 2 + 1).double())
    independent = correlation.fsc(noise(2), noise(3))[1:]
    count = shells.sums(torch.ones(BOX, BOX, BOX // 2 + 1), BOX)[1:]
    # Each stored value has two components; three sigma, a little more for 24 shells.
    assert bool((independent.abs() < 4.0 / torch.sqrt(count)).all())


def test_known_signal_to_noise_gives_the_expected_correlation():
    signal, power = noise(4), 0.25
    halves = [signal + math.sqrt(power) * noise(seed) for seed in (5, 6)]
    found = correlation.fsc(halves[0], halves[1])[4:]
    assert found.mean().item() == pytest.approx(1.0 / (1.0 + power), abs=0.01)


def test_a_tight_mask_is_found_out():
    """Case 19: what a tight mask correlates by itself is taken away again."""
    particle = shells.from_fourier(
        shells.to_fourier(20.0 * blob()) * (shells.radii(BOX) < 7).double(), BOX
    )
    halves = [particle + noise(seed) for seed in (7, 8)]
    mask = torch.from_numpy(solvent.soft_mask(particle.numpy(), 2.0, 1.5, 0.0)).double()
    found = correlation.curves(halves[0], halves[1], mask)
    beyond = slice(found.randomised_from + correlation.GAP + 1, None)
    near = slice(beyond.start, beyond.start + 5)
    assert found.masked[near].mean() > 0.4
    assert found.corrected[near].mean() < 0.2
    assert abs(found.corrected[beyond].mean()) < 0.1
    assert found.resolved_shell <= 9


def test_the_same_map_twice_is_refused():
    with pytest.raises(ValueError, match="unfiltered half-maps"):
        correlation.curves(blob(), blob(), torch.ones(BOX, BOX, BOX))


@pytest.mark.parametrize("bfactor", [-100.0, -300.0, 150.0])
def test_an_imposed_bfactor_is_found(bfactor):
    """Case 19: a white map with a Gaussian fall-off gives its B-factor back, within 10 %."""
    inverse_A = shells.radii(BOX).double() / (BOX * PIXEL_A)
    damped = shells.from_fourier(
        shells.to_fourier(noise(9)) * torch.exp(bfactor / 4.0 * inverse_A**2), BOX
    )
    one = torch.ones(BOX // 2 + 1).double()
    out, found, guinier = sharpen.sharpened(damped, PIXEL_A, one, sharpen.Wish(fit_from_A=20.0))
    assert found == pytest.approx(bfactor, rel=0.1)
    flat = guinier.sharpened[5:-1]  # the circle of Nyquist cuts through the last shell
    assert flat.max() - flat.min() < 0.1
    assert out.shape == damped.shape


def test_a_detector_is_divided_out():
    table = sharpen.Detector(
        frequency=np.linspace(0.0, 0.5, 11), value=np.linspace(1.0, 0.2, 11), pixel_A=PIXEL_A
    )
    assert table.at(np.array([0.25 / PIXEL_A, 9.0])).tolist() == pytest.approx([0.6, 0.2])
    dimmed = shells.from_fourier(
        shells.to_fourier(noise(10))
        * shells.curve_on(
            torch.from_numpy(table.at(np.arange(BOX // 2 + 1) / (BOX * PIXEL_A))), BOX
        ),
        BOX,
    )
    one = torch.ones(BOX // 2 + 1).double()
    wish = sharpen.Wish(auto_bfactor=False, weight=False, detector=table)
    out, _, guinier = sharpen.sharpened(dimmed, PIXEL_A, one, wish)
    inside = (shells.radii(BOX) <= BOX / 2).double()
    wanted = shells.from_fourier(shells.to_fourier(noise(10)) * inside, BOX)
    # Beyond the last shell the filter above took everything; the corners are not given back.
    assert float((out - wanted).std() / wanted.std()) < 1e-6
    assert guinier.corrected is not None
    assert guinier.weighted is None


def test_nothing_is_left_beyond_the_first_shell_without_correlation():
    fsc = torch.tensor([1.0] * 10 + [0.5, -0.1] + [0.9] * (BOX // 2 + 1 - 12)).double()
    wish = sharpen.Wish(auto_bfactor=False)
    out, _, guinier = sharpen.sharpened(noise(11), PIXEL_A, fsc, wish)
    power = shells.means(shells.to_fourier(out).abs(), BOX)
    assert power[11:].max() < 1e-12
    assert guinier.weighted is not None
    assert (guinier.weighted[11:] == sharpen.NOTHING).all()


def test_a_line_needs_two_shells():
    with pytest.raises(ValueError, match="autob_lowres"):
        sharpen.fitted_line(np.array([0.0, 0.1, 0.2]), np.array([1.0, -99.0, -99.0]), 100.0, 0.0)


def test_a_mask_grows_shrinks_and_fades_as_said():
    axis = np.arange(BOX) - BOX // 2
    ball = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 <= 64).astype(np.float32)
    far = np.abs(axis)  # along a line through the centre
    line = (BOX // 2, BOX // 2)
    assert (solvent.soft_mask(ball, 0.5, 0, 0) == ball).all()
    assert (solvent.soft_mask(ball, 0.5, 3, 0)[line] == (far < 11)).all()
    assert (solvent.soft_mask(ball, 0.5, -3, 0)[line] == (far <= 5)).all()
    faded = solvent.soft_mask(ball, 0.5, 0, 4)[line]
    assert faded[BOX // 2 + 10] == pytest.approx(0.5)
    assert faded[BOX // 2 + 12] == 0.0
    for threshold in (2.0, -1.0):
        with pytest.raises(ValueError, match="densities of the map"):
            solvent.soft_mask(ball, threshold, 0, 0)
