"""The parts of the refinement engine: schedules, slices, the E-step against an explicit loop."""

import math

import numpy as np
import pytest
import torch

from algorithms.refine import coarse, maximisation, projector, schedule, sizes, start
from algorithms.refine.expectation import Work, _preparer, expectation, make_batch
from algorithms.refine.geometry import disc, from_fourier, shell_counts, to_fourier
from algorithms.refine.images import ctf_values, moved, soft_mask
from algorithms.refine.projector import Plane, Slicer
from algorithms.refine.sampling import Sampling
from algorithms.refine.tables import tables
from algorithms.refine.types import Options
from tests.refine_data import columns_of, particle_set, particles

SAMPLING = Sampling(psi_step_deg=12.0, offset_range_A=8.0, offset_step_A=4.0)


@pytest.mark.parametrize(
    ("iteration", "batch", "step", "fudge"),
    [
        (1, 500, 0.9, 1.0),
        (60, 500, 0.894, 1.01),
        (85, 1625, 0.6, 1.99),
        (110, 2750, 0.306, 2.0),
        (160, 5000, 0.3, 2.0),
        (200, 100_000, 0.3, 2.0),
    ],
)
def test_schedules_of_vdam(iteration: int, batch: int, step: float, fudge: float) -> None:
    assert schedule.batch_size(iteration, 200, 100_000, 50) == batch
    assert schedule.step_size(iteration, 200) == pytest.approx(step, abs=1e-3)
    assert schedule.fudge(iteration, 200, 2.0) == pytest.approx(fudge, abs=6e-3)


def test_one_class_ends_with_a_mini_batch_and_few_particles_are_all_taken() -> None:
    assert schedule.batch_size(200, 200, 100_000, 1) == 5000
    assert schedule.batch_size(1, 200, 150, 4) == 150


def test_the_coarse_pixels_are_as_many_as_the_note_says() -> None:
    pixels = disc(80, 44)
    assert int((pixels.shell > 0).sum()) == 794
    assert float(shell_counts(80).sum()) == disc(80, 80).n


def test_transforms_undo_each_other_and_have_their_origin_in_the_middle() -> None:
    images = torch.zeros((1, 16, 16), dtype=torch.float64)
    images[0, 8, 8] = 256.0
    spectrum = to_fourier(images)
    assert torch.allclose(spectrum, torch.ones_like(spectrum))
    assert torch.allclose(from_fourier(spectrum, 16), images, atol=1e-9)


@pytest.mark.parametrize("size", [12, 20, 32])
def test_taking_slices_and_putting_back_are_adjoint(size: int) -> None:
    random = torch.Generator().manual_seed(3)
    pixels = disc(32, size).inner()
    plane = Plane(32, size)
    psi = torch.rand(7, generator=random, dtype=torch.float64) * 360.0
    psi[:2] = torch.tensor([0.0, 90.0])
    slicer = Slicer(pixels, psi, plane, dtype=torch.float64)
    v = torch.randn((2, plane.n), generator=random, dtype=torch.complex128)
    x = torch.randn((2, 7, pixels.n), generator=random, dtype=torch.complex128)
    left = (slicer.slices(v).conj() * x).real.sum()
    right = (v.conj() * slicer.insert(x)).real.sum()
    assert float(abs(left - right)) < 1e-12 * float(abs(left).clamp(min=1.0)) * 100


def test_a_slice_turned_by_180_degrees_is_the_conjugate() -> None:
    pixels, plane = disc(32, 20).inner(), Plane(32, 20)
    values = torch.randn((1, plane.n), dtype=torch.complex128)
    values = projector.repaired(values, plane)
    values[:, plane.distance() == 0.0] = 1.0  # of a real image
    slicer = Slicer(pixels, torch.tensor([17.0, 197.0]), plane, dtype=torch.float64)
    first, second = slicer.slices(values)[0]
    assert torch.allclose(first.conj(), second, atol=1e-12)


def test_sampling_has_the_poses_of_relion() -> None:
    sampling = Sampling(psi_step_deg=12.0, offset_range_A=15.0, offset_step_A=6.0)
    coarse_grid, fine_grid = sampling.coarse(), sampling.fine()
    assert len(coarse_grid.psi_deg) == 30 and len(coarse_grid.shifts_A) == 21
    assert len(fine_grid.psi_deg) == 60 and len(fine_grid.shifts_A) == 84
    assert fine_grid.psi_deg[:2].tolist() == [-3.0, 3.0]
    assert Sampling(psi_step_deg=7.0, offset_range_A=1.0, offset_step_A=1.0).n_psi == 52
    steps = [sampling]
    for number in range(50):
        steps.append(steps[-1].perturbed(np.random.default_rng(number)))
    assert max(abs(one.perturbation) for one in steps) <= 0.5
    assert len({round(one.perturbation, 6) for one in steps}) == 51


def test_ctf_is_that_of_the_note() -> None:
    rows = particles(3)
    pixels = disc(64, 64)
    values = ctf_values(columns_of(rows), pixels, 2.0)
    assert values[:, 0].tolist() == pytest.approx([0.1] * 3, abs=1e-6)  # + Q0: protein is white
    wavelength = 12.2643247 / math.sqrt(3e5 * (1.0 + 0.978466e-6 * 3e5))
    for i in range(3):
        kx, ky = pixels.jx.double() / 128.0, pixels.jy.double() / 128.0
        azimuth = torch.atan2(ky, kx) - math.radians(rows.defocus_angle_deg[i])
        defocus = rows.defocus_u_A[i] * torch.cos(azimuth) ** 2
        defocus = defocus + rows.defocus_v_A[i] * torch.sin(azimuth) ** 2
        k2 = kx**2 + ky**2
        gamma = -math.pi * wavelength * defocus * k2
        gamma += 0.5 * math.pi * 2.7e7 * wavelength**3 * k2**2 - math.atan(0.1 / math.sqrt(0.99))
        assert torch.allclose(values[i], -torch.sin(gamma).float(), atol=2e-4)


def test_whole_shifts_bring_in_zeros() -> None:
    image = torch.arange(16.0).reshape(1, 4, 4) + 1.0
    out = moved(image, torch.tensor([1.0]), torch.tensor([-2.0]))[0]
    assert out[:2].tolist() == [[0.0, 9.0, 10.0, 11.0], [0.0, 13.0, 14.0, 15.0]]
    assert float(out[2:].sum()) == 0.0


def test_a_mask_is_soft_over_five_pixels() -> None:
    mask = soft_mask(64, 20.0)
    assert float(mask[32, 32 + 19]) == 0.0 and float(mask[32, 32 + 26]) == 1.0
    assert float(mask[32, 32 + 22]) == pytest.approx(
        0.5 - 0.5 * math.cos(math.pi * 2 / 5), abs=1e-6
    )


def started(n: int = 60, snr: float = 0.2, **changes):
    data, truth = particle_set(n, snr=snr)
    options = Options(n_classes=3, iterations=5, particle_diameter_A=100.0, seed=3, **changes)
    model = start.start(data, options, SAMPLING, ["group"])
    model.references = truth.references.clone()
    return data, truth, options, model


def test_weights_are_those_of_an_explicit_loop() -> None:
    data, _, options, model = started(6)
    work = Work(data, model, options, tables(model, options))
    batch, _ = make_batch(work, _preparer(work), np.arange(6))
    table = work.tables.coarse
    shell = work.tables.fine.pixels.shell[table.take]
    transfer = batch.transfer[:, table.take]
    y = transfer * batch.precision[shell] * batch.masked[:, table.take]
    e = transfer**2 * batch.precision[shell]
    logs = coarse.log_weights(y, e, batch.log_prior, table, 3)
    slicer = Slicer(table.pixels, table.grid.psi_deg, work.tables.reference.plane, torch.float64)
    slices = slicer.slices(work.tables.reference.values)
    for i in range(6):
        x = batch.masked[i, table.take].to(torch.complex128)
        precision = batch.precision[shell].double()
        wanted = torch.empty(logs.shape[1:], dtype=torch.float64)
        power = float((x.abs() ** 2 * precision).sum()) / 2.0
        for t, turn in enumerate(table.phases.to(torch.complex128)):
            for k in range(3):
                for p in range(30):
                    apart = x * turn - transfer[i].double() * slices[k, p]
                    d2 = float((apart.abs() ** 2 * precision).sum()) / 2.0
                    wanted[t, p // 15, k, p % 15] = float(batch.log_prior[i, t, k]) - d2 + power
        assert float((logs[i].double() - wanted).abs().max()) < 2e-3


def test_two_passes_find_what_an_exhaustive_search_finds() -> None:
    data, truth, options, model = started(80)
    expectation(Work(data, model, options, tables(model, options)), np.arange(80))
    near = np.abs((data.particles.psi_deg - truth.psi_deg + 180.0) % 360.0 - 180.0)
    assert (data.particles.classes == truth.classes).mean() > 0.95
    assert (near <= 15.0).mean() > 0.9
    # The same with every coarse pose looked at in the second pass.
    again, _, options, model = started(80, adaptive_fraction=1.0)
    expectation(Work(again, model, options, tables(model, options)), np.arange(80))
    assert (again.particles.classes == data.particles.classes).mean() > 0.98
    assert (np.abs(again.particles.psi_deg - data.particles.psi_deg) < 6.1).mean() > 0.97


def test_the_residual_is_the_gradient_of_the_likelihood() -> None:
    """Section 10, case 2: along random directions, at fixed noise."""
    data, _, options, model = started(
        10,
        snr=0.05,
        gradient=True,
        zero_mask=True,
        norm=False,
        adaptive_fraction=1.0,
        max_significants=10**6,
    )
    # With the particle filling the box nothing is masked: both kinds of images are the same.
    options = Options(**(vars(options) | {"particle_diameter_A": 1000.0}))
    lookup = tables(model, options)
    sums = expectation(Work(data, model, options, lookup), np.arange(10))
    halves = maximisation.accumulated(sums, lookup, residual=True)
    slicer, plane = lookup.fine.slicer, lookup.reference.plane
    shape = sums.data.shape[1:]
    slices = lookup.fine.slices.reshape(shape)
    gradient = sum(
        slicer.insert(d - w * slices) for d, w in zip(sums.data, sums.weight, strict=True)
    )
    random = torch.Generator().manual_seed(5)
    assert len(halves) == 2
    found_numeric, found_analytic = [], []
    for _ in range(5):
        direction = torch.randn((3, plane.n), generator=random, dtype=torch.complex128)
        direction *= float(lookup.reference.values.abs().max()) * 1e-3
        direction[:, plane.distance() < 0.5] = 0.0  # the origin is not in the likelihood
        values = []
        for sign in (-1.0, 1.0):
            moved_values = lookup.reference.values + sign * direction
            data.particles.offset_A[:] = 0.0
            table = _with_values(model, options, lookup, moved_values)
            found = expectation(Work(data, model, options, table), np.arange(10))
            values.append(float(found.log_likelihood))
        found_numeric.append((values[1] - values[0]) / 2.0)
        found_analytic.append(float((gradient.conj() * direction).real.sum()))
    numeric, analytic = np.array(found_numeric), np.array(found_analytic)
    # Single precision: the likelihood of ten particles is known to some 1e-4.
    assert np.linalg.norm(numeric - analytic) < 0.02 * np.linalg.norm(analytic)


def _with_values(model, options, lookup, values):
    """Return tables whose slices are cut from other values."""
    from dataclasses import replace

    from algorithms.refine.tables import Reference, _coarse, _fine

    reference = Reference(lookup.reference.plane, values, lookup.reference.tau2)
    pixels = lookup.fine.pixels
    size = sizes.coarse_size(model, options, lookup.size)
    return replace(
        lookup,
        reference=reference,
        fine=_fine(model, reference, pixels, "cpu"),
        coarse=_coarse(model, reference, pixels, size, "cpu"),
    )


def test_an_inactive_class_is_replaced_by_the_most_energetic() -> None:
    fractions = torch.tensor([0.5, 0.49, 0.01], dtype=torch.float64)
    energy = torch.tensor([1.0, 3.0, 9.0], dtype=torch.float64)
    assert maximisation.replacement(fractions, energy, 0.1) == (2, 1)
    assert maximisation.replacement(torch.full((3,), 1 / 3).double(), energy, 0.1) is None
    assert [schedule.replaces(it, 200) for it in (30, 60, 61, 70, 159, 160, 170)] == [
        False, False, True, True, True, False, False,
    ]  # fmt: skip


def test_heaviest_takes_the_weight_that_crosses_and_its_equals() -> None:
    particle = torch.tensor([0, 0, 0, 0, 1, 1])
    weight = torch.tensor([0.5, 0.3, 0.2, 0.2, 0.9, 0.1], dtype=torch.float64)
    total = torch.tensor([1.2, 1.0], dtype=torch.float64)
    chosen, count = coarse.heaviest(particle, weight, total, 0.8, 0)
    assert chosen.tolist() == [True, True, True, True, True, False]
    assert count.tolist() == [3, 1]
    chosen, count = coarse.heaviest(particle, weight, total, 0.999, 1)
    assert chosen.tolist() == [True, False, False, False, True, False] and count.tolist() == [1, 1]
