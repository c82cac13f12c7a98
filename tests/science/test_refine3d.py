"""Refinement in three dimensions: slices and their adjoint, grids, searches, runs and files."""

from copy import deepcopy
from dataclasses import make_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from algorithms.formats import mrc, star
from algorithms.orientation import euler, symmetry
from algorithms.refine import files, iteration, kept, kernels, sizes
from algorithms.refine.geometry import disc, to_fourier
from algorithms.refine.images import soft_mask
from algorithms.refine.lookups import Reference
from algorithms.refine.projector import on_plane
from algorithms.refine.run import verify
from algorithms.refine.sampling import Turns
from algorithms.refine.space import slicing
from algorithms.refine.space.begin import begun
from algorithms.refine.space.filters import low_passed
from algorithms.refine.space.run import Maps, SpaceRun
from algorithms.refine.space.sampling import Sampling3D
from algorithms.refine.space.slots import Slots
from algorithms.refine.space.volume import Space
from algorithms.refine.types import DataSet, Model, Options, RefineError
from tests.space_data import BOX, PIXEL_A, blob_map, projections, written

STEPS = Sampling3D(
    healpix_order=1, psi_step_deg=30.0, offset_range_A=2 * PIXEL_A, offset_step_A=2 * PIXEL_A
)
OPTIONS = Options(
    n_classes=1,
    iterations=3,
    particle_diameter_A=0.8 * BOX * PIXEL_A,
    tau2_fudge=4.0,
    seed=3,
    center_classes=False,
    ini_high_A=30.0,
)


def random_parts(n: int = 9) -> tuple[Space, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a space, values on it, orientations (some along the axes) and points."""
    space = Space(16, 14, 2)
    random = torch.Generator().manual_seed(4)
    values = torch.randn(space.n, generator=random, dtype=torch.complex128)
    values[space.distance() > space.radius] = 0.0
    matrices = torch.cat([euler.random_rotations(n, random), symmetry.operators("O")[:6]])
    return space, values, matrices, slicing.points_of(disc(16, 14).inner(), space)


# ---- case 1: slices and their adjoint


@pytest.mark.parametrize("is_compiled", [True, False])
def test_putting_back_is_the_adjoint_of_slicing(
    is_compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_compiled:
        monkeypatch.setattr(slicing, "compiled", lambda function: None)
    space, values, matrices, points = random_parts()
    random = torch.Generator().manual_seed(5)
    shape = (len(matrices), points.shape[1])
    images = torch.randn(shape, generator=random, dtype=torch.complex128)
    slices = slicing.sample(values, space, matrices, points)
    data, weight = torch.zeros_like(values), torch.zeros(space.n, dtype=torch.float64)
    slicing.spread(images, images.real.contiguous(), space, matrices, points, data, weight)
    there, back = ((slices.conj() * images).real.sum(), (values.conj() * data).real.sum())
    assert float(there) == pytest.approx(float(back), rel=1e-12)
    assert float(weight.sum()) == pytest.approx(float(images.real.sum()), rel=1e-9)


def test_loops_and_steps_of_torch_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    space, values, matrices, points = random_parts()
    compiled = slicing.sample(values, space, matrices, points)
    monkeypatch.setattr(slicing, "compiled", lambda function: None)
    assert torch.allclose(slicing.sample(values, space, matrices, points), compiled, atol=1e-12)


def test_a_slice_is_the_transform_of_a_projection() -> None:
    """Along the axes nothing is interpolated: it is exact."""
    volume, space, pixels = blob_map(1), Space(BOX, BOX, 2), disc(BOX, 16).inner()
    values = on_plane(space.transform(volume[None]), space)[0]
    identity = torch.eye(3, dtype=torch.float64)[None]
    found = slicing.sample(values, space, identity, slicing.points_of(pixels, space))[0]
    wanted = to_fourier(volume.sum(0)[None])[0, pixels.flat]
    assert torch.allclose(found, wanted, atol=1e-12)


def test_mates_are_added_up() -> None:
    space, values, _, _ = random_parts()
    data, weight = values[None].clone(), values.abs()[None].clone()
    data, weight = space.repaired(data), space.repaired(weight)
    total = weight.sum()
    slicing.symmetrised(data, weight, space, symmetry.operators("D2"))
    shaped = weight.reshape(space.shape)  # turned by 180 degrees about z: (x, y, z) -> (-x, -y, z)
    # V(x, y, z) = V(-x, -y, z), and V(-q) = conj V(q): so mirrored along z.
    assert torch.allclose(shaped, shaped.flip(0), atol=1e-9)
    assert float(weight.sum()) == pytest.approx(4.0 * float(total), rel=0.05)


# ---- grids


def test_children_lie_around_their_parents_and_half_of_the_grid_is_mirrored() -> None:
    sampling = replace(STEPS, perturbation=0.3)
    coarse, fine = sampling.coarse(), sampling.fine()
    assert (coarse.n, fine.n, fine.children) == (48 * 12, 48 * 12 * 8, 8)
    parents, children = (
        grid.matrices(torch.arange(grid.n)).repeat_interleave(times, 0)
        for grid, times in ((coarse, 8), (fine, 1))
    )
    assert float(euler.distances(parents, children).max()) < 30.0
    assert torch.equal(fine.direction(torch.arange(fine.n)), coarse.direction(
        torch.arange(coarse.n)).repeat_interleave(8))  # fmt: skip
    turned = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
    whole = coarse.matrices(torch.arange(coarse.n))
    assert coarse.mirrored
    assert torch.allclose(turned @ whole[: coarse.n // 2], whole[coarse.n // 2 :], atol=1e-12)


def test_slices_are_cut_again_when_the_room_was_full() -> None:
    space, values, matrices, points = random_parts(40)
    reference = Reference(space, values[None], torch.zeros((1, 9)))
    like = torch.empty(0, dtype=torch.float64)
    slots = Slots(reference, points, lambda r: matrices[r], len(matrices), like, 0)
    slots._room = 10
    for first in (0, 5, 3, 30, 0):
        rotation = torch.arange(first, first + 8).flip(0)
        rows = slots.rows(torch.zeros_like(rotation), rotation)
        wanted = slicing.sample(values, space, matrices[rotation], points)
        assert torch.equal(slots.slices[rows], wanted)


@pytest.mark.parametrize("n", [4, 5])
def test_few_shifts_are_summed_like_all(n: int) -> None:
    """Both halves of the shifts and the middle, rows longer than a vector and not a multiple."""
    pixels, random = disc(16, 12).inner(), torch.Generator().manual_seed(3)
    axis = torch.linspace(-2.0, 2.0, n, dtype=torch.float64)
    shifts = torch.stack([axis + 0.3, -axis + 0.1], dim=1)
    turns = Turns.of(pixels.jx, pixels.jy, shifts, 16)
    real, imaginary = (torch.randn((6, pixels.n), generator=random) for _ in range(2))
    parents = torch.rand((6, n), generator=random) > 0.5
    found = kernels.score(turns, real, imaginary, parents)
    assert torch.allclose(found[parents], turns.sums(real, imaginary)[parents], atol=1e-4)
    weights = torch.rand((6, n), generator=random) * parents
    for ours, dense in zip(kernels.weigh(turns, weights), turns.weighted(weights), strict=True):
        assert torch.allclose(ours, dense, atol=1e-5)


# ---- iterations


def start(n: int, *, snr: float, place: Path, **changes: object) -> tuple[DataSet, Model, Options]:
    """Return particles, the model that begins with their true map, and options."""
    written(place, 2, snr=1.0)
    options = replace(OPTIONS, **changes)  # type: ignore[arg-type]
    data = projections(blob_map(), n, snr=snr)
    return data, begun(data, options, STEPS, ["group"], place / "reference.mrc"), options


def alike(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the correlation of two maps."""
    a, b = (one.double() - one.double().mean() for one in (first, second))
    return float((a * b).sum() / torch.sqrt((a * a).sum() * (b * b).sum()))


def test_known_poses_give_the_map_back(tmp_path: Path) -> None:
    """Case 5: no search, hardly any noise."""
    data, model, options = start(300, snr=50.0, place=tmp_path, skip_align=True)
    model.references *= 0.0
    model.references[0, BOX // 2, BOX // 2, BOX // 2] = 1e4  # hardly a prior
    model.resolution_shell = 12
    before = deepcopy(data.particles)
    verify(model, iteration.iterate(data, model, options, np.arange(300)), 300)
    inside = blob_map()
    assert alike(model.references[0], inside) > 0.995
    assert np.array_equal(before.psi_deg, data.particles.psi_deg)


def test_a_small_room_changes_nothing_but_rounding(tmp_path: Path) -> None:
    made = []
    for memory in (1 << 28, 1 << 12):
        data, model, options = start(40, snr=0.5, place=tmp_path, memory_bytes=memory)
        iteration.iterate(data, model, options, np.arange(40))
        made.append((data, model))
    (first, one), (second, other) = made
    spread = float(one.references.std())
    assert float((one.references - other.references).abs().max()) < 1e-3 * spread
    assert np.allclose(first.particles.rot_deg, second.particles.rot_deg)


def test_a_local_search_finds_what_a_whole_one_finds(tmp_path: Path) -> None:
    data, model, options = start(40, snr=1.0, place=tmp_path)
    iteration.iterate(data, model, options, np.arange(40))  # poses on the grid
    whole, near = (deepcopy((data, model)) for _ in range(2))
    iteration.iterate(*whole, options, np.arange(40))
    near[1].sampling = replace(STEPS, sigma_deg=20.0)
    iteration.iterate(*near, options, np.arange(40))
    matrices = [
        euler.matrices(torch.as_tensor(np.stack([p.rot_deg, p.tilt_deg, p.psi_deg], 1)))
        for p in (whole[0].particles, near[0].particles)
    ]
    assert (euler.distances(*matrices) < 16.0).double().mean() > 0.9
    assert alike(whole[1].references[0], near[1].references[0]) > 0.98


def test_a_local_search_by_correlation_does_not_see_the_grey_scale(tmp_path: Path) -> None:
    found = []
    for scale in (1.0, 100.0):
        data, model, options = start(20, snr=1.0, place=tmp_path, first_cc=True)
        model.sampling = replace(STEPS, sigma_deg=20.0)
        model.references *= scale
        iteration.iterate(data, model, options, np.arange(20))
        assert (data.particles.significant == 1).all()
        found.append(data.particles)
    for name in ("rot_deg", "tilt_deg", "psi_deg", "offset_A"):
        first, second = (getattr(one, name) for one in found)
        assert np.allclose(first, second, atol=1e-6), name


@pytest.mark.parametrize("limit_A", [0.0, 24.0])  # of the latter shell 6 is the last
def test_nothing_beyond_the_highest_resolution_is_compared(limit_A: float, tmp_path: Path) -> None:
    likelihoods = []
    for noise in (0.0, 0.3):
        data, model, options = start(20, snr=1.0, place=tmp_path, strict_highres_A=limit_A)
        model.window = BOX
        random = torch.randn(BOX, BOX, BOX, generator=torch.Generator().manual_seed(1))
        random -= low_passed(random[None].double(), PIXEL_A, BOX * PIXEL_A / 10)[0].float()
        model.references += noise * float(model.references.std()) * random
        iteration.iterate(data, model, options, np.arange(20))
        assert float(model.ssnr[0, 7]) > 0.0  # the map has all shells
        likelihoods.append(data.particles.log_likelihood)
    apart = np.abs(likelihoods[1] - likelihoods[0]).max()
    # A little of the noise is below the limit: volumes are padded.
    assert apart < 0.6 if limit_A else apart > 2.5


def test_the_first_iteration_by_correlation_keeps_the_resolution(tmp_path: Path) -> None:
    data, model, options = start(20, snr=1.0, place=tmp_path, first_cc=True, ini_high_A=18.0)
    iteration.iterate(data, model, options, np.arange(20))
    assert model.resolution_shell == 8  # 24 px of 6 A at 18 A
    iteration.iterate(data, model, options, np.arange(20))
    assert model.resolution_shell == sizes.resolution_shell(model.ssnr)


def test_symmetry_is_imposed(tmp_path: Path) -> None:
    data, model, options = start(40, snr=1.0, place=tmp_path, symmetry="C2", ini_high_A=0.0)
    model.sampling = replace(STEPS, symmetry="C2")
    model.resolution_shell = 5
    iteration.iterate(data, model, options, np.arange(40))
    volume = model.references[0, 1:, 1:, 1:]  # centred on pixel N/2
    assert alike(volume, volume.flip((1, 2))) > 0.999


# ---- runs


def a_run(table: Path, out: Path, **changes: object) -> SpaceRun:
    out.mkdir(exist_ok=True)
    options = replace(OPTIONS, first_cc=True, **changes)  # type: ignore[arg-type]
    maps = Maps(table.with_name("reference.mrc"))
    return SpaceRun(table, out / "run", "run", table.parent, options, (STEPS, maps))


def test_a_run_goes_on_as_if_it_had_not_been_stopped_and_its_files_hold_it(tmp_path: Path) -> None:
    table = written(tmp_path, 60, snr=0.5)
    whole = a_run(table, tmp_path / "a", n_classes=2)
    whole.run()
    for _ in range(3):
        part = a_run(table, tmp_path / "b", n_classes=2)
        part.step()
    names = sorted(path.name for path in (tmp_path / "a").glob("run_it*"))
    assert {"run_it003_class001.mrc", "run_it003_class002.mrc", "run_it003_data.star",
            "run_it003_model.star", "run_it003_sampling.star"} <= set(names)  # fmt: skip
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    model = files.read_model(tmp_path / "a" / "run_it003")
    assert torch.equal(model.references, whole.model.references)
    assert isinstance(model.sampling, Sampling3D) and model.sampling.healpix_order == 1
    assert model.pdf_direction is not None and model.pdf_direction.shape == (2, 48)
    assert float(model.pdf_direction.sum()) == pytest.approx(1.0, abs=1e-6)
    data = files.read_data(tmp_path / "a" / "run_it003_data.star", tmp_path)
    assert np.allclose(data.particles.tilt_deg, whole.data.particles.tilt_deg, atol=1e-5)


def test_a_run_does_not_go_on_with_other_maps_or_steps(tmp_path: Path) -> None:
    table, out = written(tmp_path, 12, snr=0.5), tmp_path / "a"
    a_run(table, out).step()
    reference, other, mask = (tmp_path / f"{name}.mrc" for name in ("reference", "other", "mask"))
    other.write_bytes(reference.read_bytes())
    mrc.write(mask, np.zeros((BOX, BOX, BOX), np.float32), PIXEL_A)
    options = replace(OPTIONS, first_cc=True)
    for maps, steps in (
        (Maps(other), STEPS),
        (Maps(reference, mask), STEPS),
        (Maps(reference), replace(STEPS, psi_step_deg=15.0)),
    ):
        with pytest.raises(RefineError, match="other particles or options"):
            SpaceRun(table, out / "run", "run", tmp_path, options, (steps, maps))
    assert a_run(table, out).model.iteration == 1


def test_the_mask_has_its_name_in_the_project(tmp_path: Path) -> None:
    table = written(tmp_path, 12, snr=0.5)
    out, mask = tmp_path / "Class3D" / "job001", tmp_path / "masks" / "m.mrc"
    out.mkdir(parents=True)
    mask.parent.mkdir()
    mrc.write(mask, soft_mask(BOX, 8.0, 3.0, 3).neg().add(1.0).numpy().astype("f4"), PIXEL_A)
    maps = Maps(tmp_path / "reference.mrc", mask)
    SpaceRun(table, out / "run", "Class3D/job001/run", tmp_path, OPTIONS, (STEPS, maps))
    told = star.load(out / "run_it000_optimiser.star")["optimiser_general"]
    assert told.columns["rlnSolventMaskName"] == ["masks/m.mrc"]


def test_a_later_option_does_not_end_a_run() -> None:
    fields = [("n", int), ("fudge", float, 2.0)]
    before = make_dataclass("Options", fields)
    after = make_dataclass("Options", [("n", int), ("added", bool, False), fields[1]])
    assert kept.told(before(3, 4.0)) == kept.told(after(3, fudge=4.0))
    assert kept.told(before(3, 4.0)) != kept.told(after(3, True, 4.0))
    assert kept.told(before(3)) != kept.told(before(3, 4.0))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    table = written(tmp_path, 12, snr=0.5)
    mrc.write(tmp_path / "reference.mrc", np.zeros((16, 16, 16), np.float32), PIXEL_A)
    with pytest.raises(RefineError, match="16 px wide, the particles 24 px"):
        a_run(table, tmp_path / "c")
