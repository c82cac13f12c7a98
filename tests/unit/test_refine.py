"""The parts of the refinement engine: schedules, slices, the E-step against an explicit loop."""

import math

import numpy as np
import pytest
import torch

from algorithms import ctf
from algorithms.refine import coarse, maximisation, projector, schedule, start
from algorithms.refine.expectation import Work, _preparer, make_batch
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
    assert float(abs(left - right)) < 1e-12 * float(v.norm() * slicer.insert(x).norm())


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


@pytest.mark.parametrize("phase_plate", [0.0, 70.0])
def test_ctf_is_that_of_the_note(phase_plate: float) -> None:
    """Section 10, case 7: astigmatism, Cs, amplitude contrast; by another formula and program."""
    rows = particles(3)
    rows.phase_shift_deg[:] = phase_plate
    pixels = disc(64, 64)
    values = ctf_values(columns_of(rows), pixels, 2.0, torch.float64)
    wavelength = 12.2643247 / math.sqrt(3e5 * (1.0 + 0.978466e-6 * 3e5))
    kx, ky = pixels.jx.double() / 128.0, pixels.jy.double() / 128.0
    k2 = kx**2 + ky**2
    for i in range(3):
        u, v, angle = rows.defocus_u_A[i], rows.defocus_v_A[i], rows.defocus_angle_deg[i]
        azimuth = torch.atan2(ky, kx) - math.radians(angle)
        defocus = u * torch.cos(azimuth) ** 2 + v * torch.sin(azimuth) ** 2
        gamma = -math.pi * wavelength * defocus * k2
        gamma += 0.5 * math.pi * 2.7e7 * wavelength**3 * k2**2 - math.atan(0.1 / math.sqrt(0.99))
        gamma -= math.radians(phase_plate)
        assert torch.allclose(values[i], -torch.sin(gamma), atol=1e-6)
        second = ctf.Ctf(
            defocus_u_A=u, defocus_v_A=v, angle_deg=angle, voltage_kV=300.0,
            spherical_aberration_mm=2.7, amplitude_contrast=0.1, phase_shift_deg=phase_plate,
        )  # fmt: skip
        assert torch.allclose(values[i], -ctf.value(second, kx, ky), atol=1e-6)


def test_ctf_is_positive_near_the_origin_and_has_its_first_zero_where_it_should() -> None:
    rows = particles(1)
    rows.defocus_v_A[:] = rows.defocus_u_A
    pixels = disc(256, 256)
    line = pixels.take(pixels.jy == 0)
    values = ctf_values(columns_of(rows), line, 1.5)[0]
    assert float(values[0]) == pytest.approx(0.1, abs=1e-6)  # + Q0: protein is white
    frequency = line.jx.double() / (256 * 1.5)
    first = float(frequency[(values < 0.0).nonzero()[0, 0]])
    assert first == pytest.approx(1.0 / math.sqrt(0.0197 * rows.defocus_u_A[0]), rel=0.06)


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
