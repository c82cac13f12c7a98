"""Halves of the particles: who is in which, what is joined, and what their agreement says."""

import numpy as np
import pytest
import torch

from algorithms.formats import star
from algorithms.maps import correlation, shells
from algorithms.refine.auto import halves, solvent
from algorithms.refine.space import firstmap
from algorithms.refine.space.volume import Space
from algorithms.refine.types import RefineError
from tests.shared import shared
from tests.volume_data import blob_map


def grid(radius: int, box: int = 32) -> Space:
    return Space(box, radius)


def coordinates(space: Space) -> list[torch.Tensor]:
    """Return signed (x, y, z) of every voxel."""
    axes = [axis.expand(space.shape).reshape(-1) for axis in space.axes()]
    return axes[::-1]


def sums(space: Space, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    n = space.n
    data = torch.randn((n, 2), generator=random, dtype=torch.float64)
    return torch.view_as_complex(data), torch.rand(n, generator=random, dtype=torch.float64) + 0.1


# ---- who is in which


def test_halves_are_drawn_once_and_by_the_seed() -> None:
    drawn = halves.assigned(None, 101, 5, "t.star")
    assert sorted(np.bincount(drawn)[1:]) == [50, 51]
    assert np.array_equal(drawn, halves.assigned(None, 101, 5, "t.star"))
    assert not np.array_equal(drawn, halves.assigned(None, 101, 6, "t.star"))


def test_halves_of_the_table_are_kept() -> None:
    given = np.array([1, 2] * 20 + [2] * 5)
    assert np.array_equal(halves.assigned(given, 45, 5, "t.star"), given)


@pytest.mark.parametrize(
    ("given", "n", "words"),
    [
        (None, 19, ("t.star", "19 particles", "9 and 10", "by chance", "at least 10")),
        (np.array([1] * 50), 50, ("50 and 0", "by rlnRandomSubset", "remove the column")),
        (np.array([1, 2, 0, 3] * 20), 80, ("particle 3 is 0", "39 others", "remove the column")),
    ],
)
def test_what_makes_no_halves_is_refused(given, n, words) -> None:
    with pytest.raises(RefineError) as error:
        halves.assigned(given, n, 1, "t.star")
    for word in words:
        assert word in str(error.value)


# ---- what is joined


def test_low_resolution_is_joined_and_nothing_else() -> None:
    space = grid(10)
    first, second = sums(space, 1)[0], sums(space, 2)[0]
    was = first.clone(), second.clone()
    halves.joined(first, second, space, 3)
    square = sum(axis**2 for axis in coordinates(space))
    low = square <= 36
    assert torch.equal(first[low], second[low])
    assert torch.allclose(first[low], ((was[0] + was[1]) / 2.0)[low])
    for now, before in zip((first, second), was, strict=True):
        assert torch.equal(now[~low], before[~low])
    halves.joined(first, second, space, -1)
    assert torch.equal(first[~low], was[0][~low])


@pytest.mark.parametrize(
    ("limit", "shell", "wanted"), [(40.0, 6, 6), (40.0, 7, 7), (40.0, 9, 9), (40.0, 16, 10)]
)
def test_joining_ends_at_the_limit_or_the_resolution(limit, shell, wanted) -> None:
    assert halves.joins_to(limit, shell / 384.0, 384.0) == wanted
    assert halves.joins_to(-1.0, shell / 384.0, 384.0) == -1


# ---- what their agreement says


def test_correlation_is_that_of_the_averages_of_eight_neighbours() -> None:
    space = grid(6, 16)
    (a, v), (b, w) = sums(space, 3), sums(space, 4)
    b = b + 1.5 * a
    curve = halves.fsc((a, b), (v, w), space)
    place: dict[tuple[int, ...], list[complex]] = {}
    for n, xyz in enumerate(zip(*(axis.tolist() for axis in coordinates(space)), strict=True)):
        down = tuple(int(np.sign(c)) * int(abs(c) / 2.0 + 0.5) for c in xyz)
        place.setdefault(down, [0.0, 0.0, 0.0, 0.0])
        for slot, value in enumerate((a[n], v[n], b[n], w[n])):
            place[down][slot] += complex(value)
    rows = np.zeros((9, 3))
    for down, (data, weight, other, second) in place.items():
        r = np.sqrt(sum(c**2 for c in down))
        if r <= 3.0:
            one, two = data / weight, other / second
            rows[int(r + 0.5)] += (one.conjugate() * two).real, abs(one) ** 2, abs(two) ** 2
    wanted = rows[1:4, 0] / np.sqrt(rows[1:4, 1] * rows[1:4, 2])
    assert curve[0] == 1.0
    assert curve[1:4].numpy() == pytest.approx(wanted, rel=1e-12)
    assert not curve[4:].any()


def test_halves_that_are_joined_agree_fully_and_noise_does_not() -> None:
    space = grid(20)
    (a, v), (b, w) = sums(space, 5), sums(space, 6)
    halves.joined(a, b, space, 4)
    halves.joined(v, w, space, 4)
    curve = halves.fsc((a, b), (v, w), space)
    assert curve[:4].numpy() == pytest.approx(1.0)
    assert curve[6:11].abs().max() < 0.15


def test_prior_of_every_iteration_of_the_reference_run() -> None:
    folder = shared("data/refinement/refine3d")
    # Not the first one, which RELION filters afterwards.
    names = [f"run_it{n:03d}_half{half}" for n in (2, 3, 4) for half in (1, 2)]
    for name in [*names, "run"]:
        table = star.load(folder / f"{name}_model.star")["model_class_1"]
        curve, sigma2, ssnr, tau2 = (
            torch.as_tensor(table.floats(label))
            for label in (
                "rlnGoldStandardFsc",
                "rlnReferenceSigma2",
                "rlnSsnrMap",
                "rlnReferenceTau2",
            )
        )
        found = halves.prior(curve, sigma2, 1.0, whole=name == "run")
        assert found.ssnr.numpy() == pytest.approx(ssnr.numpy(), rel=1e-3)
        assert found.tau2.numpy() == pytest.approx(tau2.numpy(), rel=1e-3)


# ---- in a mask


def noisy_halves(box: int, noise: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(2)
    volume = blob_map(box, 3)
    both = [
        volume + noise * torch.randn((box, box, box), generator=random, dtype=torch.float64)
        for _ in range(2)
    ]
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    r = torch.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    return both[0], both[1], (0.36 * box - r).clamp(0.0, 3.0) / 3.0


def test_a_mask_takes_the_noise_around_a_particle_away() -> None:
    first, second, mask = noisy_halves(32, 0.3)
    plain = correlation.fsc(first, second)
    found = solvent.corrected(first, second, mask, 24)
    assert float((found - plain)[3:9].mean()) > 0.02
    assert not found[13:].any()
    assert float(found[:13].abs().sum()) > 3.0


def test_what_the_mask_itself_correlates_does_not_count() -> None:
    random = torch.Generator().manual_seed(5)
    noise = [torch.randn((32, 32, 32), generator=random, dtype=torch.float64) for _ in range(2)]
    tight = (blob_map(32, 3) > 0.4).double()
    found = solvent.corrected(noise[0], noise[1], tight, 32)
    assert float(found[4:].abs().mean()) < 0.1


def test_halves_that_are_one_map_need_no_correction() -> None:
    first, _, mask = noisy_halves(32, 0.1)
    assert solvent.corrected(first, first, mask, 32)[1:].numpy() == pytest.approx(1.0)


# ---- a reference that has to be made to fit


@pytest.mark.parametrize(("box", "pixel"), [(48, 2.0), (20, 4.0), (24, 3.0)])
def test_a_map_of_another_box_and_pixel_size_fits(box: int, pixel: float) -> None:
    volume = blob_map(32, 3)
    volume = volume * (volume > 0.05)  # nothing near the edge of the box
    there = firstmap.resized(volume, 3.0, box, pixel)
    assert there.shape == (box, box, box)
    back = firstmap.resized(there, pixel, 32, 3.0)
    coarse = min(1.0, 3.0 / pixel)
    both = [shells.to_fourier(one) for one in (volume, back)]
    curve = correlation.fsc_of_spectra(both[0], both[1], 32)
    inner = int(16 * coarse * min(1.0, box * pixel / 96.0)) - 2
    assert float(curve[:inner].min()) > 0.9
    assert float(volume.mean()) * 96.0**3 == pytest.approx(
        float(there.mean()) * (box * pixel) ** 3, rel=0.1
    )
