"""Bad pixels: found, filled from good neighbours, the same at every run."""

import numpy as np
import pytest
import torch

from algorithms.motion.defects import find_hot_pixels, find_outliers, mean_deviation, plan_repair


def numbered(shape: tuple[int, int]) -> torch.Tensor:
    """A frame whose values name their pixels."""
    return torch.arange(shape[0] * shape[1], dtype=torch.float32).view(shape)


def plan(bad: np.ndarray, *, mean: float = 0.0, deviation: float = 0.0, seed: int = 7):
    return plan_repair(bad, 2, mean=mean, deviation=deviation, seed=seed)


def filled(frame: torch.Tensor, repair, index: int) -> torch.Tensor:
    """The frame, number `index`, with its bad pixels filled."""
    found = repair.pixels(frame[None], torch.ones_like(frame), index)
    out = frame.clone()
    out[found.y, found.x] = torch.from_numpy(found.values[0])
    return out


def test_filled_from_good_pixels_of_the_window() -> None:
    shape = (20, 30)
    bad = np.zeros(shape, bool)
    for y, x in ((0, 0), (10, 15), (10, 16), (19, 29), (5, 0)):
        bad[y, x] = True
    repair = plan(bad)
    seen = set()
    for index in range(60):
        frame = filled(numbered(shape), repair, index)
        changed = frame != numbered(shape)
        assert np.array_equal(changed.numpy(), bad)
        for y, x in np.argwhere(bad):
            source_y, source_x = divmod(int(frame[y, x]), shape[1])
            assert abs(source_y - y) <= 2 and abs(source_x - x) <= 2
            assert not bad[source_y, source_x]
        seen.add(int(frame[10, 15]))
    assert len(seen) > 12  # of 23 good neighbours: the choice is random over the whole window


def test_stand_ins_are_corrected_and_listed_by_row() -> None:
    bad = np.zeros((8, 8), bool)
    bad[2, 5] = bad[2, 1] = bad[6, 0] = True
    gain = torch.full((8, 8), 0.5)
    found = plan(bad).pixels(torch.full((3, 8, 8), 4, dtype=torch.uint8), gain, 0)
    assert (found.y.tolist(), found.x.tolist()) == ([2, 2, 6], [1, 5, 0])
    assert found.row_start.tolist() == [0, 0, 0, 2, 2, 2, 2, 3, 3]
    assert found.values.dtype == np.float32 and (found.values == 2.0).all()
    assert found.values.shape == (3, 3)


def test_reproducible_in_any_order() -> None:
    bad = np.zeros((16, 16), bool)
    bad[3:5, 6] = True
    bad[8:15, 8:15] = True

    def fill(index: int, seed: int) -> np.ndarray:
        repair = plan(bad, mean=100.0, deviation=5.0, seed=seed)
        return filled(numbered((16, 16)), repair, index).numpy()

    forward = [fill(i, 3) for i in range(4)]
    backward = [fill(i, 3) for i in reversed(range(4))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert not np.array_equal(forward[0], forward[1])
    assert not np.array_equal(forward[0], fill(0, 4))


def test_inside_of_a_large_defect_is_drawn() -> None:
    bad = np.zeros((60, 60), bool)
    bad[10:50, 10:50] = True
    frame = filled(torch.zeros(60, 60), plan(bad, mean=20.0, deviation=3.0), 0)
    inside = frame[12:48, 12:48].numpy()
    assert inside.mean() == pytest.approx(20.0, abs=0.4)
    assert inside.std() == pytest.approx(3.0, abs=0.3)
    assert float(frame[10, 10]) == 0.0  # the corner has 16 good neighbours: copied


def test_outliers_are_single_pixels_whatever_the_specimen() -> None:
    rng = np.random.default_rng(3)
    mean = np.full((256, 320), 100.0)
    mean[:, 200:260] = 8.0  # the bar of a foil
    mean[30:60, 20:60] = 400.0  # a crystal
    total = torch.from_numpy(rng.poisson(mean).astype(np.float32))
    wanted = {(5, 100): 700.0, (6, 100): 650.0, (300, 40): 0.0, (150, 200): 20.0, (230, 90): 900.0}
    for (x, y), value in wanted.items():
        total[y, x] = value
    none = torch.zeros(total.shape, dtype=torch.bool)
    found = set(map(tuple, find_outliers(total, none, 6.0).tolist()))
    assert found == set(wanted)
    known = none.clone()
    known[100, 5] = True
    assert (5, 100) not in set(map(tuple, find_outliers(total, known, 6.0).tolist()))


def test_empty_pixels_of_a_faint_movie_are_no_defects() -> None:
    rng = np.random.default_rng(4)
    total = torch.from_numpy(rng.poisson(3.0, (256, 256)).astype(np.float32))
    none = torch.zeros(total.shape, dtype=torch.bool)
    assert len(find_outliers(total, none, 6.0)) <= 2  # of 65,536: what is left is chance
    assert len(find_outliers(torch.zeros(64, 64), none[:64, :64], 6.0)) == 0


def test_hot_pixels_are_those_six_deviations_up() -> None:
    generator = torch.Generator().manual_seed(5)
    total = torch.randn(128, 96, generator=generator) * 2.0 + 50.0
    bad = torch.zeros(128, 96, dtype=torch.bool)
    for y, x in ((3, 90), (70, 5), (100, 40)):
        total[y, x] = 90.0
    bad[100, 40] = True
    assert find_hot_pixels(total, bad, 6.0).tolist() == [[90, 3], [5, 70]]
    mean, deviation = mean_deviation(total)
    assert mean == pytest.approx(float(total.double().mean()))
    assert deviation == pytest.approx(float(total.double().std(correction=0)), rel=1e-6)
