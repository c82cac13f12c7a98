"""Bad pixels: found, filled from good neighbours, the same at every run."""

import numpy as np
import pytest
import torch

from algorithms.motion.defects import defect_mask, find_hot_pixels, mean_deviation, plan_repair


def numbered(shape: tuple[int, int]) -> torch.Tensor:
    """A frame whose values name their pixels."""
    return torch.arange(shape[0] * shape[1], dtype=torch.float32).view(shape)


def test_filled_from_good_pixels_of_the_window() -> None:
    shape = (20, 30)
    bad = np.zeros(shape, bool)
    for y, x in ((0, 0), (10, 15), (10, 16), (19, 29), (5, 0)):
        bad[y, x] = True
    repair = plan_repair(bad, 2, 0.0, 0.0, seed=7, device="cpu")
    seen = set()
    for index in range(60):
        frame = numbered(shape)
        repair.apply(frame, index)
        changed = frame != numbered(shape)
        assert np.array_equal(changed.numpy(), bad)
        for y, x in np.argwhere(bad):
            source_y, source_x = divmod(int(frame[y, x]), shape[1])
            assert abs(source_y - y) <= 2 and abs(source_x - x) <= 2
            assert not bad[source_y, source_x]
        seen.add(int(frame[10, 15]))
    assert len(seen) > 12  # of 23 good neighbours: the choice is random over the whole window


def test_reproducible_in_any_order() -> None:
    bad = np.zeros((16, 16), bool)
    bad[3:5, 6] = True
    bad[8:15, 8:15] = True

    def fill(index: int, seed: int) -> np.ndarray:
        frame = numbered((16, 16))
        plan_repair(bad, 2, 100.0, 5.0, seed=seed, device="cpu").apply(frame, index)
        return frame.numpy()

    forward = [fill(i, 3) for i in range(4)]
    backward = [fill(i, 3) for i in reversed(range(4))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert not np.array_equal(forward[0], forward[1])
    assert not np.array_equal(forward[0], fill(0, 4))


def test_inside_of_a_large_defect_is_drawn() -> None:
    bad = np.zeros((60, 60), bool)
    bad[10:50, 10:50] = True
    frame = torch.zeros(60, 60)
    plan_repair(bad, 2, 20.0, 3.0, seed=1, device="cpu").apply(frame, 0)
    inside = frame[12:48, 12:48].numpy()
    assert inside.mean() == pytest.approx(20.0, abs=0.4)
    assert inside.std() == pytest.approx(3.0, abs=0.3)
    assert float(frame[10, 10]) == 0.0  # the corner has 16 good neighbours: copied


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


def test_defect_text() -> None:
    mask = defect_mask("1 2 3 1\n\n 8 0 5 2\n-2 5 3 1\n", (6, 10))
    expected = np.zeros((6, 10), bool)
    expected[2, 1:4] = True
    expected[0:2, 8:10] = True
    expected[5, 0] = True
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize("text", ["CameraSize 100 200\n", "1 2 3\n", "1 2 3.5 4\n"])
def test_other_defect_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"SerialEM|line 1"):
        defect_mask(text, (10, 10))
