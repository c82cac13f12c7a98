"""Averages that are moved to their middle, and particles that are put into other groups."""

import numpy as np
import pytest

from algorithms.formats.star import Table
from algorithms.ranker.poststeps import recentred, regrouped
from algorithms.ranker.types import RankerError


@pytest.mark.parametrize("box", [32, 33])
def test_the_mass_of_positive_pixels_comes_to_the_origin(box):
    y, x = np.mgrid[0:box, 0:box] - box // 2
    blob = 2.0 * np.exp(-((x - 3.4) ** 2 + (y + 2.7) ** 2) / 8.0) - 0.1
    flat, empty = np.full((box, box), -1.0), np.full((box, box), np.nan)
    images = np.stack([blob, flat, empty]).astype(np.float32)
    moved = recentred(images)
    mass = np.maximum(moved[0], 0.0)
    assert abs((mass * x).sum() / mass.sum()) < 0.05 and abs((mass * y).sum() / mass.sum()) < 0.05
    assert moved[0].sum() == pytest.approx(images[0].sum(), rel=1e-5)  # it is turned over
    np.testing.assert_array_equal(moved[1:], images[1:])


def particles(sizes, scales, optics=None) -> Table:
    n = sum(sizes)
    group = np.repeat(np.arange(len(sizes)), sizes)
    optics = np.ones(len(sizes), int) if optics is None else np.array(optics)
    return Table.of(
        {
            "rlnImageName": [f"{i}@a" for i in range(n)],
            "rlnGroupNumber": group + 1,
            "rlnOpticsGroup": optics[group],
            "rlnGroupScaleCorrection": np.array(scales)[group],
        }
    )


def test_groups_of_near_scales_are_joined_until_one_is_full():
    rows = particles([10, 10, 10, 10, 20], [1.2, 0.8, 1.1, 0.9, 1.0])
    found = regrouped(rows, 3)  # 20 in a group
    assert "rlnGroupNumber" not in found.columns
    # In the order of scale 10, 10, 20, 10, 10: the one that overflows begins the next, from 0.
    names = np.array(found.strings("rlnGroupName")).reshape(-1, 10)[:, 0].tolist()
    assert names == ["group_002", "group_001", "group_002", "group_001", "group_002", "group_002"]
    assert found.strings("rlnImageName") == rows.strings("rlnImageName")


def test_optics_groups_are_never_joined():
    found = regrouped(particles([10, 10, 10, 10], [1.0] * 4, [1, 2, 1, 2]), 1)
    names = np.array(found.strings("rlnGroupName"))[::10].tolist()
    assert names == ["group_001", "group_002", "group_001", "group_002"]


def test_what_cannot_be_grouped_is_told():
    with pytest.raises(RankerError, match="nr_groups 5 of 40 particles makes groups of 8"):
        regrouped(particles([40], [1.0]), 5)
    with pytest.raises(RankerError, match="rlnMicrographName"):
        regrouped(Table.of({"rlnImageName": ["1@a"] * 20}), 1)
