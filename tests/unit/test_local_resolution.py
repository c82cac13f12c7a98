"""Local resolution of half-maps whose left and right parts agree to different shells."""

import functools

import pytest
import torch

from algorithms.maps import correlation, local, sharpen, shells

BOX, PIXEL_A = 56, 2.5
WISH = local.Wish()


def noise(random, fall_off_A2=0.0):
    spectrum = shells.to_fourier(
        torch.randn((BOX, BOX, BOX), generator=random, dtype=torch.float64)
    )
    inverse_A = shells.radii(BOX).double() / (BOX * PIXEL_A)
    return shells.from_fourier(spectrum * torch.exp(-fall_off_A2 / 4.0 * inverse_A**2), BOX)


@functools.cache
def halves():
    """Return two half-maps, four times noisier on the right, the mask, and how far is right."""
    random = torch.Generator().manual_seed(5)
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    far = torch.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    mask = ((22.0 - far) / 3.0).clamp(0.0, 1.0)
    signal = mask * noise(random, 400.0)
    right = torch.sigmoid(axis / 1.5).expand(BOX, BOX, BOX)
    level = 0.4 * float(signal[mask == 1.0].std())
    pair = [(signal + level * (1.0 + 3.0 * right) * noise(random)).float() for _ in range(2)]
    return *pair, mask.float(), right.float()


@functools.cache
def found():
    first, second, mask, _ = halves()
    return local.resolution(first, second, PIXEL_A, WISH, mask)


def known_A(part):
    first, second, mask, _ = halves()
    curve = correlation.fsc(first * mask * part, second * mask * part)
    return BOX * PIXEL_A / correlation.resolved_shell(curve)


def test_each_side_has_the_resolution_of_its_own_halves():
    _, _, mask, right = halves()
    inside = (mask > 0.5) & (found().resolution_A > 0.0)
    for part in (right, 1.0 - right):
        here = found().resolution_A[inside & (part > 0.999)]
        # The soft sphere is wide, so it sees some of the other side.
        assert float(here.median()) == pytest.approx(known_A(part), rel=0.2)
    assert known_A(right) > 1.25 * known_A(1.0 - right)


def test_each_side_is_filtered_by_its_own():
    first, second, mask, right = halves()
    mean = (first + second) / 2.0
    out = local.filtered(mean, PIXEL_A, found(), sharpen.Wish(bfactor_A2=0.0))
    fine = shells.radii(BOX) > BOX * PIXEL_A / (0.8 * known_A(right))

    def detail(volume, part):
        spectrum = shells.to_fourier(volume * mask * part)
        return float((spectrum * fine).abs().square().sum())

    kept = [detail(out, part) / detail(mean, part) for part in (1.0 - right, right)]
    assert kept[1] < 0.2 * kept[0]
    assert float(out[found().resolution_A == 0.0].abs().max()) == 0.0


def test_a_stricter_threshold_gives_a_lower_resolution():
    first, second, mask, _ = halves()
    strict = local.resolution(first, second, PIXEL_A, local.Wish(threshold=0.5), mask)
    assert bool((strict.finest <= found().finest + 1e-9).all())
    assert float(strict.finest.mean()) < float(found().finest.mean())


def test_what_cannot_be_measured_is_said():
    first, second, mask, _ = halves()
    with pytest.raises(ValueError, match="does not fit into a box"):
        local.resolution(first, second, PIXEL_A, local.Wish(step_A=200.0), mask)
    with pytest.raises(ValueError, match="mask holds nothing"):
        local.resolution(first, second, PIXEL_A, WISH, 0.0 * mask)
