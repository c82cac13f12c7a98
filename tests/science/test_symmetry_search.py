"""The point group of made molecules, turned at random, with noise, and of none."""

import math

import pytest
import torch

from algorithms.maps import solvent, symmetry_search
from algorithms.maps.selfrotation import SelfRotation
from algorithms.orientation import euler, symmetry

BOX, PIXEL_A, RESOLUTION_A = 64, 4.0, 20.0


def molecule(group: str, seed: int, noise: float) -> tuple[torch.Tensor, float, torch.Tensor]:
    """Return a map of a chain of balls and its mates, its diameter and how it is turned."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    operators = symmetry.operators(group)
    chain = torch.cumsum(7.0 * normal(max(4, 160 // len(operators)), 3), 0)
    chain = chain - chain.mean(0)
    if len(operators) > 1:
        away = normal(3)
        chain = chain + 36.0 * away / away.norm()
    rotation = euler.random_rotations(1, random)[0]
    atoms = torch.einsum("sij,nj->sni", operators, chain).reshape(-1, 3) @ rotation.T
    axis = (torch.arange(BOX, dtype=torch.float64) - BOX // 2) * PIXEL_A
    x, y, z = (torch.exp(-0.5 * ((axis - a[:, None]) / 6.7) ** 2) for a in atoms.T)
    volume = torch.einsum("pz,py,px->zyx", z, y, x)
    diameter = min(240.0, 2.0 * float(atoms.norm(dim=1).max()) + RESOLUTION_A)
    if noise:
        ice = solvent.low_passed(normal(BOX, BOX, BOX), PIXEL_A, RESOLUTION_A)
        dense = volume[volume > 0.05 * volume.max()]
        volume = volume + noise * dense.std() * ice / ice.std()
    return volume.float(), diameter, rotation


def found(group: str, seed: int, noise: float) -> symmetry_search.Answer:
    volume, diameter, _ = molecule(group, seed, noise)
    return symmetry_search.search(SelfRotation(volume, PIXEL_A, RESOLUTION_A, diameter))


@pytest.mark.slow
def test_a_group_is_laid_where_it_is():
    volume, diameter, rotation = molecule("D3", 1, 0.1)
    fit = symmetry_search.fit(SelfRotation(volume, PIXEL_A, RESOLUTION_A, diameter), "d3")
    assert fit.worst > 0.8
    # The axes of the group are those of the molecule, up to a turn that the group allows.
    true = rotation @ symmetry.operators("D3") @ rotation.T
    ours = fit.rotation @ symmetry.operators("D3") @ fit.rotation.T
    apart = (true[:, None] - ours[None]).abs().amax((2, 3)).amin(1).max()
    assert apart < math.radians(3.0)


def test_a_map_without_details_is_refused():
    with pytest.raises(ValueError, match="third of the diameter"):
        SelfRotation(torch.ones(32, 32, 32), 4.0, 40.0, 100.0)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("group", ["C2", "C3", "C5", "C12", "D2", "D4", "D7", "T", "O", "I2"])
def test_groups_are_found(group, noise):
    answer = found(group, seed=11, noise=noise)
    assert (answer.group, answer.sure) == (group, True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_no_group_is_seen_where_there_is_none(seed):
    assert found("C1", seed, noise=0.2 * (seed % 3)).group == "C1"
