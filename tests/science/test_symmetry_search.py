"""The point group of made molecules, turned at random, with noise, and of none."""

import pytest
import torch
from typer.testing import CliRunner

from algorithms.maps import extent, shells, solvent, symmetry_align, symmetry_search
from algorithms.maps.selfrotation import SelfRotation
from algorithms.orientation import euler, symmetry
from services.cli import app

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


def as_first_model(volume: torch.Tensor, resolution_A: float, seed: int) -> torch.Tensor:
    """Return a map with as much noise as signal at its resolution, and nothing beyond."""
    random = torch.Generator().manual_seed(seed)
    power = shells.means(shells.to_fourier(volume.double()).abs().square(), BOX)
    noise = torch.randn((BOX, BOX, BOX), generator=random, dtype=torch.float64)
    level = torch.sqrt(power[round(BOX * PIXEL_A / resolution_A)] * BOX**3)
    return solvent.low_passed(volume.double() + level * noise, PIXEL_A, resolution_A).float()


def apart_deg(group: str, first: torch.Tensor, second: torch.Tensor) -> float:
    """Return how far the operators of a group, turned in two ways, are from each other."""
    ours, theirs = (r @ symmetry.operators(group) @ r.T for r in (first, second))
    cosine = (torch.einsum("aij,bij->ab", ours, theirs) - 1.0) / 2.0
    return float(torch.rad2deg(torch.acos(cosine.clamp(-1.0, 1.0))).amin(1).max())


@pytest.mark.slow
@pytest.mark.parametrize("group", ["C4", "D2", "D7", "O", "I1"])
def test_a_map_is_laid_along_the_axes(group):
    volume, diameter, rotation = molecule(group, 3, 0.2)
    prepared = SelfRotation(volume, PIXEL_A, RESOLUTION_A, diameter, with_shape=True)
    found = symmetry_align.aligned(volume, PIXEL_A, group, prepared, average=False)
    # An axis that is 2 degrees off moves the end of half a turn by twice as much.
    assert apart_deg(group, found.rotation, rotation) < 4.0
    # The map is now the same after the group's operators where RELION has them.
    own = symmetry.operators(group)
    mean = symmetry_align.mean_of_views(found.volume, own, torch.zeros(3))
    both = symmetry_align.aligned(volume, PIXEL_A, group, prepared).volume
    assert torch.corrcoef(torch.stack([mean.flatten(), both.flatten()]))[0, 1] > 0.98
    alike = torch.corrcoef(torch.stack([mean.flatten(), found.volume.flatten()]))[0, 1]
    assert alike > 0.8


def test_a_map_of_no_symmetry_is_left_as_it_is():
    volume, diameter, _ = molecule("C1", 3, 0.2)
    prepared = SelfRotation(volume, PIXEL_A, RESOLUTION_A, diameter, with_shape=True)
    assert symmetry_align.aligned(volume, PIXEL_A, "c1", prepared).volume is volume


def test_views_are_turned_and_moved_as_said():
    volume, _, rotation = molecule("C1", 5, 0.0)
    centre = torch.tensor([3.0, -2.0, 4.0]).double()
    there = symmetry_align.mean_of_views(volume, rotation[None], centre)
    back = symmetry_align.mean_of_views(there, rotation.T[None], -(rotation.T @ centre))
    inside = volume > 0.1 * volume.max()
    assert torch.corrcoef(torch.stack([volume[inside], back[inside]]))[0, 1] > 0.985
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).double()
    quarter = symmetry_align.mean_of_views(volume, turn[None], torch.zeros(3))
    # At voxel (z, y, x) now is what was at (x, y) -> (-y, x).
    assert torch.allclose(quarter[:, 1:, 1:].flip(1).mT, volume[:, 1:, 1:], atol=0.02)


def test_size_and_resolution_of_a_map_are_seen():
    volume, diameter, _ = molecule("D3", 1, 0.2)
    assert extent.diameter_A(volume, PIXEL_A) == pytest.approx(diameter, rel=0.25)
    shown = solvent.low_passed(volume.double(), PIXEL_A, 25.0)
    assert extent.resolution_A(shown, PIXEL_A) == pytest.approx(25.0, rel=0.15)


def test_a_map_without_details_is_refused():
    with pytest.raises(ValueError, match="third of the diameter"):
        SelfRotation(torch.ones(32, 32, 32), 4.0, 40.0, 100.0)


@pytest.mark.parametrize("words", [("--json",), ("--picture", "p.png")])
def test_what_shows_a_search_is_refused_when_a_map_is_laid(words):
    given = ["symmetry", "m.mrc", "--align", "C2", "--out", "o.mrc", *words]
    refused = CliRunner().invoke(app, given, catch_exceptions=False)
    assert refused.exit_code == 2 and "not with --align" in refused.output


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


@pytest.mark.slow
def test_groups_of_first_models_are_found_in_19_of_20():
    names = "C2 C3 C4 C5 C6 C7 C8 C11 C12 D2 D3 D4 D5 D6 D7 D8 T O I2 C2".split()
    wrong = []
    for seed, group in enumerate(names, start=100):
        resolution = (15.0, 20.0, 25.0)[seed % 3]
        volume, diameter, _ = molecule(group, seed, 0.0)
        noisy = as_first_model(volume, resolution, seed)
        answer = symmetry_search.search(SelfRotation(noisy, PIXEL_A, resolution, diameter))
        if (answer.group, answer.sure) != (group, True):
            wrong.append((group, seed, answer.group, answer.sure))
    assert len(wrong) <= 1, wrong


@pytest.mark.slow
def test_no_group_is_seen_in_20_first_models_without_one():
    for seed in range(200, 220):
        resolution = (15.0, 20.0, 25.0)[seed % 3]
        volume, diameter, _ = molecule("C1", seed, 0.0)
        noisy = as_first_model(volume, resolution, seed)
        answer = symmetry_search.search(SelfRotation(noisy, PIXEL_A, resolution, diameter))
        assert answer.group == "C1", (seed, answer.group)
