"""Euler angles, HEALPix directions and point groups."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from algorithms.formats import star
from algorithms.orientation import euler, healpix, symmetry
from tests.shared import shared

GROUPS = ["C1", "C2", "C7", "C12", "D2", "D5", "D8", "T", "O", "I1", "I2", "I3", "I4"]
SIZES = [1, 2, 7, 12, 4, 10, 16, 12, 24, 60, 60, 60, 60]
angle = st.floats(-180.0, 180.0)


@given(angle, st.floats(0.0, 180.0) | st.sampled_from([0.0, 180.0, 1e-12, 179.9999999]), angle)
@example(0.0, 180.0, 1.0)
def test_angles_and_matrices_belong_together(rot, tilt, psi):
    matrix = euler.matrices(torch.tensor([rot, tilt, psi]))
    again = euler.matrices(euler.angles(matrix))
    assert torch.allclose(matrix, again, atol=1e-6)
    assert torch.allclose(matrix @ matrix.T, torch.eye(3).double(), atol=1e-9)
    assert torch.linalg.det(matrix) == pytest.approx(1.0)
    view = euler.directions(torch.tensor(rot), torch.tensor(tilt))
    assert torch.allclose(matrix[2], view, atol=1e-6)


def test_a_matrix_is_relions():
    """psi turns in the plane, tilt about y, rot about z: values worked out by hand."""
    quarter = euler.matrices(torch.tensor([[90.0, 0.0, 0.0], [0.0, 90.0, 0.0], [0.0, 0.0, 90.0]]))
    assert quarter[0].round().tolist() == [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]
    assert quarter[1].round().tolist() == [[0, 0, -1], [0, 1, 0], [1, 0, 0]]
    assert quarter[2].round().tolist() == [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(("folder", "iteration", "order"), [("class3d", 1, 1), ("refine3d", 1, 2)])
def test_directions_are_those_of_relion_in_its_order(folder, iteration, order):
    path = shared(f"data/refinement/{folder}/run_it{iteration:03d}_sampling.star")
    theirs = star.load(path)["sampling_directions"]
    rot, tilt = healpix.pixels(order)
    assert rot.numpy() == pytest.approx(theirs.floats("rlnAngleRot"), abs=1e-5)
    assert tilt.numpy() == pytest.approx(theirs.floats("rlnAngleTilt"), abs=1e-5)


@pytest.mark.parametrize("order", [0, 1, 3, 5])
def test_pixels_cover_the_sphere_evenly(order):
    vectors = euler.directions(*healpix.pixels(order))
    assert vectors.mean(0).abs().max() < 1e-12
    # Pixels of equal area: second moments are those of a sphere, but for the size of a pixel.
    moments = vectors.T @ vectors / len(vectors)
    assert torch.allclose(moments, torch.eye(3).double() / 3.0, atol=0.1 / 4**order)
    if order < 5:
        cosines = vectors @ vectors.T - 2.0 * torch.eye(len(vectors))
        nearest = torch.rad2deg(torch.acos(cosines.amax(1).clamp(-1, 1)))
        step = healpix.step_deg(order)
        assert 0.6 * step < nearest.min()
        assert nearest.max() < 1.4 * step


def test_children_lie_around_their_parent():
    parents, children = (euler.directions(*healpix.pixels(order)) for order in (2, 3))
    middle = children.reshape(-1, 4, 3).mean(1)
    cosines = (middle / middle.norm(dim=1, keepdim=True) * parents).sum(1)
    assert torch.rad2deg(torch.acos(cosines.clamp(max=1.0))).max() < 3.0


def test_orders_fit_to_steps():
    assert [healpix.order_for(s) for s in (60.0, 30.0, 15.0, 10.0, 7.5, 3.7)] == [0, 1, 2, 3, 3, 5]
    with pytest.raises(ValueError, match="0 to 10, not 11"):
        healpix.pixels(11)


@pytest.mark.parametrize(("name", "size"), list(zip(GROUPS, SIZES, strict=True)))
def test_groups_are_groups_of_rotations(name, size):
    group = symmetry.operators(name)
    assert group.shape == (size, 3, 3)
    assert torch.allclose(group @ group.mT, torch.eye(3).double().expand(size, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(group), torch.ones(size).double())
    products = torch.einsum("aij,bjk->abik", group, group).reshape(-1, 1, 3, 3)
    assert (products - group).abs().amax((2, 3)).amin(1).max() < 1e-4  # closed


def test_names():
    assert symmetry.normalised(" i ") == "I2"
    assert symmetry.normalised("d2") == "D2"
    for wrong in ("", "C0", "X", "I5", "CS", "C100"):
        with pytest.raises(symmetry.SymmetryError, match="no point group"):
            symmetry.normalised(wrong)


@pytest.mark.parametrize("name", GROUPS)
def test_the_asymmetric_unit_and_its_mates_are_the_sphere(name):
    """Every direction has a mate near a kept one, and hardly any has two."""
    order = 3
    pixel, rot, tilt = symmetry.unit_directions(order, name)
    whole = healpix.count(order)
    assert len(pixel) == pytest.approx(whole / symmetry.order(name), rel=0.25)
    group = symmetry.operators(name)
    mates = torch.einsum("sij,dj->sdi", group, euler.directions(rot, tilt)).reshape(-1, 3)
    everything = euler.directions(*healpix.pixels(order))
    nearest = torch.rad2deg(torch.acos((everything @ mates.T).amax(1).clamp(max=1.0)))
    assert nearest.max() < healpix.step_deg(order)


def test_distance_is_the_angle_and_knows_symmetry():
    base = euler.matrices(torch.tensor([30.0, 50.0, -70.0]))
    turned = euler.matrices(torch.tensor([0.0, 0.0, 9.0])) @ base
    # Two of three axes turn by 9 degrees, the third stays.
    assert euler.distances(base, turned).item() == pytest.approx(6.0)
    group = symmetry.operators("D3")
    for operator in group:
        assert euler.distances(base, base @ operator, group).item() == pytest.approx(0.0, abs=1e-4)
    assert euler.distances(base, base @ group[1]).item() > 30.0


def test_random_rotations_are_uniform():
    found = euler.random_rotations(20_000, torch.Generator().manual_seed(1))
    assert found.mean(0).abs().max() < 4.0 / math.sqrt(3 * 20_000)
    assert torch.linalg.det(found).min() > 0.999
    trace = found.diagonal(dim1=1, dim2=2).sum(1)
    turn = torch.acos(((trace - 1.0) / 2.0).clamp(-1, 1))
    # The angle of a random rotation has the mean pi/2 + 2/pi.
    assert turn.mean().item() == pytest.approx(math.pi / 2 + 2 / math.pi, abs=0.02)
