"""Particles of several optics groups: what they have to have in common."""

from pathlib import Path

import numpy as np
import pytest

from algorithms.formats import mrc, star
from algorithms.refine import files
from algorithms.refine.types import RefineError

HALVES = (1, 1, 2, 2)


def table(folder: Path, boxes: tuple[int, int], pixels_A: tuple[float, float]) -> Path:
    """Write two particles of each of two optics groups; return their table."""
    for name, box in zip("ab", boxes, strict=True):
        mrc.write(folder / f"{name}.mrcs", np.ones((2, box, box), np.float32), 1.0, is_stack=True)
    optics = {
        "rlnOpticsGroupName": ["first", "second"], "rlnOpticsGroup": [1, 2],
        "rlnVoltage": [300.0, 200.0], "rlnSphericalAberration": [2.7, 2.7],
        "rlnAmplitudeContrast": [0.1, 0.1], "rlnImagePixelSize": list(pixels_A),
        "rlnImageSize": list(boxes),
    }  # fmt: skip
    particles = {
        "rlnImageName": ["1@a.mrcs", "2@a.mrcs", "1@b.mrcs", "2@b.mrcs"],
        "rlnOpticsGroup": HALVES,
    }
    path = folder / "particles.star"
    star.save(path, {"optics": star.Table.of(optics), "particles": star.Table.of(particles)})
    return path


def test_groups_of_one_box_and_pixel_are_read(tmp_path: Path) -> None:
    data = files.read_data(table(tmp_path, (16, 16), (2.0, 2.0)), tmp_path)
    assert data.particles.optics.tolist() == [0, 0, 1, 1] and data.pixel_A == 2.0
    assert data.images.read(np.arange(4)).shape == (4, 16, 16)


@pytest.mark.parametrize(
    ("boxes", "pixels_A", "message"),
    [
        ((16, 16), (2.0, 2.5), "particle 3 is of optics group second with rlnImagePixelSize 2.5"),
        ((16, 18), (2.0, 2.0), "particle 3 is of optics group second with rlnImageSize 18"),
    ],
)
def test_groups_of_another_box_or_pixel_are_refused_by_name(
    tmp_path: Path, boxes: tuple[int, int], pixels_A: tuple[float, float], message: str
) -> None:
    with pytest.raises(RefineError, match=message):
        files.read_data(table(tmp_path, boxes, pixels_A), tmp_path)


def test_a_stack_of_another_box_than_its_group_says_is_refused(tmp_path: Path) -> None:
    data = files.read_data(table(tmp_path, (16, 16), (2.0, 2.0)), tmp_path)
    mrc.write(tmp_path / "b.mrcs", np.ones((2, 18, 18), np.float32), 1.0, is_stack=True)
    with pytest.raises(RefineError, match=r"particle 3: .*b\.mrcs has images of 18 x 18 px"):
        data.images.read(np.arange(4))
