"""The pieces of the CTF fit against what they say they compute, written out."""

import math

import numpy as np
import pytest
import torch

from algorithms.ctffit.bank import Bank
from algorithms.ctffit.plane import plane
from algorithms.ctffit.polar import PolarSpectrum, polar_grid, to_polar
from algorithms.ctffit.resolution import aliasing_bin, fit_resolution_bin, sliding_correlation
from algorithms.ctffit.search import climb
from algorithms.ctffit.spectrum import subtract_background
from algorithms.ctffit.thon import DM, GX, GY, SHIFT, THICKNESS, Fade, Matcher, P, Q, Thon
from algorithms.ctffit.tiles import place_tiles, tile_spectra
from algorithms.ctffit.types import Tilt
from tests.ctf_images import MICROSCOPE

SIZE, PIXEL = 128, 2.0
THON = Thon.of(MICROSCOPE)
FADE = Fade(80.0, 5.0)


def noise(seed: int, size: int = SIZE) -> torch.Tensor:
    return 1.0 + 0.1 * torch.rand(size, size, generator=torch.Generator().manual_seed(seed))


def parameters(**places: float) -> torch.Tensor:
    x = torch.zeros(7, dtype=torch.float64)
    x[[DM, P, Q]] = torch.tensor([15000.0, 300.0, -500.0], dtype=torch.float64)
    for name, number in places.items():
        x[{"shift": SHIFT, "thickness": THICKNESS, "gx": GX, "gy": GY}[name]] = number
    return x


def test_background_is_the_average_of_the_box() -> None:
    spectrum = noise(0)
    flat = subtract_background(spectrum, PIXEL, MICROSCOPE).double()
    here = plane(SIZE, spectrum.device)
    r_min = SIZE * PIXEL / MICROSCOPE.min_resolution_A
    half = int(math.sqrt(2.0) * r_min) // 2
    outside = (here.r > r_min) & (here.x.abs() > 12) & (here.y.abs() > 12)
    scaled = (spectrum / spectrum[outside].std()).double()
    for row, column in ((20, 100), (3, 3), (64, 90), (127, 0)):
        rows = torch.arange(row - half, row + half + 1) % SIZE
        columns = torch.arange(column - half, column + half + 1) % SIZE
        valid = (here.x[0, columns].abs() > 1)[None] & (here.y[rows, 0].abs() > 1)[:, None]
        box = scaled[rows][:, columns]
        # Single values minus an average of some hundred: single accuracy.
        expected = float(scaled[row, column] - box[valid].mean())
        assert float(flat[row, column]) == pytest.approx(expected, abs=2e-5)
    assert float(flat[here.r <= r_min].abs().max()) == 0.0


def tiled(seed: int) -> PolarSpectrum:
    """Two tiles, 500 A apart along x and 300 A along y."""
    grid = polar_grid(SIZE, PIXEL, 30.0, 6.0, 12, 3)
    data = torch.cat([grid.bin(noise(seed + k)) for k in (0, 1)])
    x_A, y_A = torch.tensor([0.0, 500.0]), torch.tensor([0.0, 300.0])
    return PolarSpectrum(grid=grid.tiled(x_A, y_A), data=data)


def test_gradient_is_that_of_the_correlation() -> None:
    matcher = Matcher(tiled(3), THON, FADE)
    x = parameters(shift=0.2, thickness=900.0, gx=0.3, gy=-0.2)
    free = [DM, P, Q, SHIFT, THICKNESS, GX, GY]
    match = matcher.match(x, free)
    assert match.value == pytest.approx(matcher.value(x), abs=1e-6)
    # Steps that turn the rings by much the same angle.
    steps = torch.tensor([40.0, 40.0, 40.0, 0.05, 40.0, 0.1, 0.1], dtype=torch.float64)
    for place, which in enumerate(free):
        ahead, behind = x.clone(), x.clone()
        ahead[which] += steps[place]
        behind[which] -= steps[place]
        change = (matcher.value(ahead) - matcher.value(behind)) / 2.0
        expected = float(match.gradient[place] * steps[place])
        assert change == pytest.approx(expected, abs=0.02 * float(match.gradient.abs() @ steps))


def test_bank_compares_as_the_matcher_does() -> None:
    grid = polar_grid(256, PIXEL, 30.0, 6.0)
    truth = parameters(shift=0.7)
    model = Matcher(to_polar(noise(5, 256), PIXEL, 30.0, 6.0), THON, FADE).model(truth)
    polar = PolarSpectrum(grid=grid, data=model)
    defocus = torch.tensor([9000.0, 14700.0, 15000.0])
    bank = Bank(grid, THON, defocus)
    pairs, shifts = torch.tensor([[0.0, 0.0], [300.0, -500.0]]), torch.tensor([0.0, 0.7])
    turned = bank.turned(polar.data[None], pairs)
    scores = bank.scores(turned, FADE.at(bank.s2), shifts) / polar.data.norm()
    assert float(scores[1, 1, 2]) == float(scores.max()) > 0.97
    matcher = Matcher(polar, THON, FADE)
    for i, shift in enumerate(shifts.tolist()):
        for j, (p, q) in enumerate(pairs.tolist()):
            for k, dm in enumerate(defocus.tolist()):
                x = torch.tensor([dm, p, q, shift, 0, 0, 0], dtype=torch.float64)
                # The bank takes all bins of a ring for one radius.
                assert float(scores[i, j, k]) == pytest.approx(matcher.value(x), abs=0.03)


def test_a_climb_finds_the_parameters_of_a_model() -> None:
    polar, truth = tiled(0), parameters(shift=0.3, gx=0.3, gy=-0.2)
    exact = PolarSpectrum(grid=polar.grid, data=Matcher(polar, THON, FADE).model(truth))
    start = parameters()
    start[DM] += 150.0
    free = [DM, P, Q, SHIFT, GX, GY]
    found, correlation = climb(Matcher(exact, THON, FADE), start, free, math.inf)
    assert correlation == pytest.approx(1.0, abs=1e-5)
    assert found[[DM, P, Q]].tolist() == pytest.approx(truth[[DM, P, Q]].tolist(), abs=1.0)
    assert float(found[SHIFT]) == pytest.approx(0.3, abs=1e-3)


def test_sliding_correlation_is_pearsons() -> None:
    generator = np.random.default_rng(0)
    curve, model = generator.random(200), generator.random(200)
    extrema = np.repeat(np.arange(20), 10)
    frc, sigma = sliding_correlation(curve, model, extrema, 3)
    assert list(frc[:3]) == [1.0, 1.0, 1.0]
    for k in (3, 50, 120, 199):
        half = min(max(5, int((1.0 + 0.1 * extrema[k]) * 11)), 99)
        start = min(max(k - half, 0), 200 - 2 * half - 1)
        window = slice(start, start + 2 * half + 1)
        assert frc[k] == pytest.approx(np.corrcoef(curve[window], model[window])[0, 1])
        assert sigma[k] == pytest.approx(2.0 / math.sqrt(2 * half + 1))


def test_fit_resolution_rule() -> None:
    # Where the correlation falls straight and once: CTFFIND's bin, the first one below 0.5.
    falling = np.clip(np.linspace(1.3, -0.3, 100), 0.0, 1.0)
    below = int(np.flatnonzero(falling < 0.5)[0])
    assert fit_resolution_bin(falling, 5) == pytest.approx(below, abs=0.6)
    lost = np.array([1.0] * 40 + [0.1] * 60)
    assert fit_resolution_bin(lost, 5) == 40
    assert fit_resolution_bin(np.full(100, 0.8), 5) == 100
    assert fit_resolution_bin(np.full(100, 0.05), 5) == 5
    assert fit_resolution_bin(np.full(5, 1.0), 5) == 5


def test_a_dip_near_the_limit_moves_the_fit_resolution_little() -> None:
    found = []
    for depth in np.linspace(0.3, 0.7, 81):
        dip = np.array([0.95] * 40 + [depth] * 15 + [0.8] * 40 + [0.0] * 60)
        found.append(fit_resolution_bin(dip, 5))
    # CTFFIND's rule jumps from bin 40 to bin 95 where the dip's depth passes 0.5.
    assert np.abs(np.diff(found)).max() < 3.0
    assert found[-1] == 95.0 and found[0] > 80.0
    # What comes back is not believed where more is missing than comes back.
    assert fit_resolution_bin(np.array([0.95] * 40 + [0.0] * 60 + [0.7] * 20), 5) == 40.0


def test_a_small_astigmatism_is_pulled_to_none_and_a_large_one_is_not() -> None:
    polar, narrow = tiled(0), 50.0
    for p, q, pulled in ((30.0, 0.0, True), (700.0, -300.0, False)):
        truth = parameters()
        truth[P], truth[Q] = p, q
        rings = Matcher(polar, THON, FADE).model(truth)
        noise_of = torch.randn(rings.shape, generator=torch.Generator().manual_seed(1))
        seen = rings + 1.0 * rings.std() * noise_of * (polar.grid.root > 0)
        matcher = Matcher(PolarSpectrum(grid=polar.grid, data=seen), THON, FADE)
        free, _ = climb(matcher, truth, [DM, P, Q], math.inf)
        tied, _ = climb(matcher, truth, [DM, P, Q], narrow)
        lengths = [math.hypot(float(x[P]), float(x[Q])) for x in (free, tied)]
        if pulled:
            assert lengths[1] < 0.7 * lengths[0]
        else:
            assert lengths[1] == pytest.approx(lengths[0], rel=0.05)


def test_aliasing_is_where_maxima_come_near() -> None:
    extrema = np.zeros(60, int)
    for place in (20, 30, 37, 40, 42):
        extrema[place:] += 1
    assert aliasing_bin(extrema) == 37
    assert aliasing_bin(np.arange(60) // 10) is None


def test_tiles_cover_a_micrograph() -> None:
    tiles = place_tiles((1000, 1300), 1.4, 256)
    assert tiles.edge_px == 256 and tiles.pixel_size_A == pytest.approx(1.4)
    assert min(tiles.left) == min(tiles.bottom) == 0
    assert max(tiles.left) == 1300 - 256 and max(tiles.bottom) == 1000 - 256
    steps = np.diff(sorted(set(tiles.left)))
    assert steps.max() <= 128
    assert float(tiles.x_A.mean()) == pytest.approx(0.0, abs=1.0)
    # In the middle of a tile the two halves weigh the same; at an edge the outer one weighs more.
    first, second = sorted(set(tiles.x_A.tolist()))[:2]
    left = sorted(set(tiles.left))[1]
    assert second == pytest.approx((left + 128 - 650) * 1.4)
    assert (128 - 45 - 650) * 1.4 < first < (128 - 10 - 650) * 1.4


def test_tile_spectra_are_centred_planes() -> None:
    # A wave of 20 px along x and 40 px along y: two spots, each the other's mirror.
    y, x = torch.meshgrid(torch.arange(512.0), torch.arange(512.0), indexing="ij")
    wave = torch.cos(2.0 * math.pi * (x / 20.0 + y / 40.0))
    tiles = place_tiles((512, 512), 2.0, 256)
    for spectrum in tile_spectra(wave, tiles):
        place = int(spectrum.argmax())
        spot = (place // 256 - 128, place % 256 - 128)
        assert spot in ((6, 13), (-6, -13))
        assert float(spectrum[128 + 6, 128 + 13]) == float(spectrum[128 - 6, 128 - 13])


@pytest.mark.parametrize(
    ("gradient", "axis"), [((0.0, 1.0), 0.0), ((-1.0, 0.0), 90.0), ((1.0, 0.0), 270.0)]
)
def test_defocus_grows_to_the_left_of_the_axis(gradient: tuple[float, float], axis: float) -> None:
    tilt = Tilt(
        gradient_x=gradient[0],
        gradient_y=gradient[1],
        width_A=4000.0,
        height_A=3000.0,
        log_odds=20.0,
    )
    assert tilt.angle_deg == pytest.approx(45.0)
    assert tilt.axis_deg == pytest.approx(axis)
    assert tilt.defocus_change_A(2000.0, 1500.0) == 0.0
    ahead = tilt.defocus_change_A(2000.0 + 10 * gradient[0], 1500.0 + 10 * gradient[1])
    assert ahead == pytest.approx(10.0)
