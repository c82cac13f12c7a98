"""A threshold that nobody has chosen: between solvent and particle, without specks."""

import numpy as np
import pytest

from algorithms.maps import threshold

BOX, RADIUS = 32, 8.0


def ball(noise: float, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return a ball of density 1 in noise, and where the ball is."""
    axis = np.arange(BOX) - BOX // 2
    inside = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 < RADIUS**2
    random = np.random.default_rng(5)
    return inside + offset + noise * random.normal(size=inside.shape), inside


@pytest.mark.parametrize(("noise", "offset", "factor"), [(0.02, 0.0, 1.0), (0.1, -3.0, 40.0)])
def test_it_parts_the_particle_from_the_solvent_on_any_grey_scale(noise, offset, factor):
    density, inside = ball(noise, offset)
    limit, cleaned = threshold.automatic(factor * density)
    assert factor * (offset + 0.1) < limit < factor * (offset + 0.6)
    assert ((cleaned >= limit) == inside).mean() > 0.999


def test_small_pieces_are_solvent_and_the_particle_is_untouched():
    density, inside = ball(0.02)
    density[1:3, 1:3, 1:3] = 5.0  # a speck, denser than the particle
    limit, cleaned = threshold.automatic(density)
    assert cleaned[1:3, 1:3, 1:3].max() < limit
    assert np.array_equal(cleaned[inside], density[inside])


def test_a_flat_map_has_no_particle():
    with pytest.raises(ValueError, match="flat"):
        threshold.automatic(np.zeros((8, 8, 8)))
