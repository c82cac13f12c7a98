"""What the formulas of refinement.md promise, in double precision: cases 2 to 13 of section 10."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.refine import (
    coarse,
    iteration,
    masks,
    maximisation,
    projector,
    scalars,
    start,
)
from algorithms.refine.expectation import Work, _preparer, expectation, make_batch
from algorithms.refine.geometry import disc, from_fourier, to_fourier
from algorithms.refine.images import ctf_values
from algorithms.refine.maximisation import Accumulated
from algorithms.refine.projector import Plane, Slicer
from algorithms.refine.sampling import Sampling
from algorithms.refine.sums import Sums
from algorithms.refine.tables import Tables, tables
from algorithms.refine.types import DataSet, Model, Options
from tests.refine_data import OPTICS, Kept, Truth, columns_of, particle_set, particles

PIXEL_A, BOX = 4.0, 32
STEPS = Sampling(psi_step_deg=12.0, offset_range_A=8.0, offset_step_A=4.0, factor=0.0)
WIDE = Sampling(psi_step_deg=30.0, offset_range_A=4.0, offset_step_A=4.0, factor=0.0)
# Rotations by which pixels come to lie on voxels: nothing is interpolated.
EXACT = Sampling(psi_step_deg=90.0, offset_range_A=1.0, offset_step_A=4.0, order=0, factor=0.0)
# The mask is wider than the box: images with and without it are the same.
NO_MASK_A = 1000.0


def begun(
    n: int, sampling: Sampling = STEPS, k: int = 3, snr: float = 0.1, **changes: object
) -> tuple[DataSet, Truth, Options, Model]:
    """Return particles and a model with their true references, in double precision."""
    data, truth = particle_set(n, k=k, snr=snr)
    settings: dict[str, object] = {
        "n_classes": k, "iterations": 5, "particle_diameter_A": NO_MASK_A, "seed": 3,
        "double": True, "norm": False, "scale": False, "center_classes": False,
        "flatten_solvent": False, "adaptive_fraction": 1.0, "exact_offset_prior": True,
    }  # fmt: skip
    options = Options(**(settings | changes))  # type: ignore[arg-type]
    model = start.start(data, options, sampling, ["group"])
    model.references = truth.references.double()
    return data, truth, options, model


def expected(data: DataSet, model: Model, options: Options, lookup: Tables) -> Sums:
    """Do the E-step for all particles, poses searched around no offset."""
    data.particles.offset_A[:] = 0.0
    return expectation(Work(data, model, options, lookup), np.arange(len(data)))


def with_values(lookup: Tables, values: Tensor) -> Tables:
    """Return tables whose fine slices are cut from other values."""
    slices = lookup.fine.slicer.slices(values).reshape(lookup.fine.slices.shape)
    return replace(lookup, fine=replace(lookup.fine, slices=slices))


# ---- the likelihood: cases 2 to 4


def test_the_residual_is_the_gradient_of_the_likelihood() -> None:
    data, _, options, model = begun(10, WIDE, snr=0.05, gradient=True, max_significants=10**6)
    lookup = tables(model, options)
    sums = expected(data, model, options, lookup)
    slicer, plane = lookup.fine.slicer, lookup.reference.plane
    slices = lookup.fine.slices.reshape(sums.data.shape[1:])
    gradient = sum(
        slicer.insert(d - w * slices) for d, w in zip(sums.data, sums.weight, strict=True)
    )
    random = torch.Generator().manual_seed(5)
    numeric, analytic = [], []
    for _ in range(20):
        direction = torch.randn((3, plane.n), generator=random, dtype=torch.complex128)
        direction *= float(lookup.reference.values.abs().max()) * 1e-5
        direction[:, plane.distance() < 0.5] = 0.0  # the origin is not in the likelihood
        values = []
        for sign in (-1.0, 1.0):
            moved = lookup.reference.values + sign * direction
            found = expected(data, model, options, with_values(lookup, moved))
            values.append(float(found.log_likelihood))
        numeric.append((values[1] - values[0]) / 2.0)
        analytic.append(float((gradient.conj() * direction).real.sum()))
    apart = np.linalg.norm(np.subtract(numeric, analytic))
    assert apart < 1e-6 * np.linalg.norm(analytic)


def posterior(work: Work, n: int) -> tuple[Tensor, Tensor]:
    """Return posterior weights `[n, t, K, psi]` and residuals' squares, by explicit loops."""
    batch, _ = make_batch(work, _preparer(work), np.arange(n))
    table = work.tables.fine
    shell = table.pixels.shell[table.inner]
    precision = torch.where(shell == 0, 0.0, batch.precision[shell])
    slices = table.slices.reshape(work.model.n_classes, -1, len(table.inner))
    turns = torch.view_as_complex(table.phases.reshape(len(table.phases), -1, 2))
    shape = (n, len(turns), *slices.shape[:2])
    logs = torch.empty(shape, dtype=torch.float64)
    for i in range(n):
        x, ctf = batch.masked[i, table.inner], batch.transfer[i, table.inner]
        for t, turn in enumerate(turns):
            for k in range(shape[2]):
                for psi in range(shape[3]):
                    apart = (x * turn - ctf * slices[k, psi]).abs() ** 2
                    logs[i, t, k, psi] = batch.log_prior[i, t, k] - 0.5 * (apart @ precision)
    flat = logs.flatten(1)
    return torch.softmax(flat, 1).reshape(shape), flat.logsumexp(1)


def test_weights_are_those_of_an_explicit_loop() -> None:
    sampling = replace(STEPS, order=0, psi_step_deg=30.0)
    data, _, options, model = begun(8, sampling, snr=0.02)
    work = Work(data, model, options, tables(model, options))
    weights, _ = posterior(work, 8)
    sums = expected(data, model, options, work.tables)
    assert torch.allclose(sums.classes, weights.sum((0, 1, 3)), atol=1e-6)
    best = weights.flatten(1).amax(1)
    assert np.allclose(data.particles.pmax, best, atol=1e-6)
    # The images as they are put back hold the weights of every pose.
    batch, _ = make_batch(work, _preparer(work), np.arange(8))
    inner = work.tables.fine.inner
    shell = work.tables.fine.pixels.shell[inner]
    e = batch.transfer[:, inner] ** 2 * batch.precision[shell]
    wanted = torch.einsum("itkp,iq->kpq", weights, e)
    assert torch.allclose(sums.weight[0], wanted, rtol=1e-6, atol=1e-6 * float(wanted.max()))


def test_the_weight_is_the_curvature_at_fixed_posterior() -> None:
    data, _, options, model = begun(12, EXACT, k=1, snr=0.02)
    work = Work(data, model, options, tables(model, options))
    weights, _ = posterior(work, 12)
    sums = expected(data, model, options, work.tables)
    slicer, plane = work.tables.fine.slicer, work.tables.reference.plane
    weight = slicer.insert(sums.weight[0])
    batch, _ = make_batch(work, _preparer(work), np.arange(12))
    inner = work.tables.fine.inner
    shell = work.tables.fine.pixels.shell[inner]
    random = torch.Generator().manual_seed(2)
    direction = torch.randn((1, plane.n), generator=random, dtype=torch.complex128)
    slices = slicer.slices(direction)[0]

    def likelihood(step: float) -> float:
        """Return the sum of weights times squares, of what is explained and of the step."""
        total = 0.0
        values = work.tables.fine.slices + step * slices
        for i in range(12):
            x, ctf = batch.masked[i, inner], batch.transfer[i, inner]
            for psi in range(4):
                apart = (x - ctf * values[psi]).abs() ** 2 * batch.precision[shell]
                total -= 0.5 * float(weights[i, 0, 0, psi] * apart.sum())
        return total

    second = likelihood(1.0) - 2.0 * likelihood(0.0) + likelihood(-1.0)
    assert second == pytest.approx(-float((weight * direction.abs() ** 2).sum()), rel=1e-9)


def test_two_passes_find_what_an_exhaustive_search_finds() -> None:
    data, _, options, model = begun(110, snr=0.1, double=False)
    lookup = tables(model, options)
    expected(data, model, options, lookup)
    exhaustive = replace(data.particles, psi_deg=data.particles.psi_deg.copy(),
                         classes=data.particles.classes.copy())  # fmt: skip
    expected(data, model, replace(options, adaptive_fraction=0.999), lookup)
    ours = data.particles
    turned = np.abs((ours.psi_deg - exhaustive.psi_deg + 180.0) % 360.0 - 180.0)
    assert ((ours.classes == exhaustive.classes) & (turned < 3.0)).mean() > 0.99


def test_rounded_products_find_the_same_poses() -> None:
    """Case 21: a first pass in TF32 or bfloat16 changes hardly any of the significant weight."""
    data, _, options, model = begun(64, snr=0.1, double=False, adaptive_fraction=0.999)
    work = Work(data, model, options, tables(model, options))
    batch, _ = make_batch(work, _preparer(work), np.arange(64))
    table = work.tables.coarse
    shell = work.tables.fine.pixels.shell[table.take]
    transfer = batch.transfer[:, table.take]
    y = transfer * batch.precision[shell] * batch.masked[:, table.take]
    e = transfer**2 * batch.precision[shell]
    exact = coarse.log_weights(y, e, batch.log_prior, table, 3)
    weights = torch.softmax(exact.flatten(1).double(), 1)
    for bits, most in ((10, 0.001), (7, 0.01)):
        narrow = replace(
            table, real=rounded(table.real, bits), imaginary=rounded(table.imaginary, bits)
        )
        logs = coarse.log_weights(rounded(y, bits), e, batch.log_prior, narrow, 3)
        found = coarse.significant(logs, 0.999, 0)
        turns, k, h = logs.shape[2:]
        turn, psi = found.psi // h, found.psi % h
        pose = ((found.shift * turns + turn) * k + found.klass) * h + psi
        kept = torch.zeros(64, dtype=torch.float64)
        kept.index_add_(0, found.particle, weights[found.particle, pose])
        assert float(kept.min()) > 0.999 - most, bits


def rounded(values: Tensor, bits: int) -> Tensor:
    """Return single-precision values, or complex ones, with so many bits of mantissa."""
    if values.is_complex():
        return torch.complex(rounded(values.real, bits), rounded(values.imag, bits))
    drop = 23 - bits
    whole = values.contiguous().view(torch.int32)
    return ((whole + (1 << (drop - 1))) >> drop << drop).view(torch.float32)


# ---- reconstruction: cases 5, 11, 13


def turned_blobs(n: int, seed: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Return a map, rotations that are multiples of 10 degrees, and exact images of it."""
    random = np.random.default_rng(seed)
    whole, centres = disc(BOX, BOX).inner(), random.uniform(-5.0, 5.0, (8, 2))
    envelope = torch.exp(-2.0 * (math.pi * 0.5 / BOX) ** 2 * (whole.jx**2 + whole.jy**2).double())

    def image(angle: float) -> Tensor:
        c, s = math.cos(angle), math.sin(angle)
        out = torch.zeros(whole.n, dtype=torch.complex128)
        for x, y in centres:
            u, v = c * x + s * y, -s * x + c * y
            phase = -2.0 * math.pi / BOX * (u * whole.jx.double() + v * whole.jy.double())
            out += torch.polar(envelope, phase)
        return from_fourier(filled(out), BOX)

    degrees = random.integers(0, 36, n) * 10.0
    images = torch.stack([image(math.radians(psi)) for psi in degrees])
    return image(0.0), torch.as_tensor(degrees), images


def filled(values: Tensor) -> Tensor:
    """Return flat half spectra of values within the circle."""
    whole = disc(BOX, BOX).inner()
    out = torch.zeros((*values.shape[:-1], BOX * (BOX // 2 + 1)), dtype=torch.complex128)
    column = whole.jx == 0
    mirror = torch.remainder(-whole.jy[column], BOX) * (BOX // 2 + 1)
    out[..., mirror] = values[..., column].conj()
    out[..., whole.flat] = values
    return out


def test_images_without_noise_give_the_map_back() -> None:
    """Case 5: one class, poses on the grid; the images are made without the projector."""
    truth, degrees, clean = turned_blobs(300)
    rows = particles(300)
    whole = disc(BOX, BOX).inner()
    ctf = ctf_values(columns_of(rows), whole, PIXEL_A, torch.float64)
    spectra = filled(to_fourier(clean)[:, whole.flat] * ctf)
    data = DataSet(
        particles=rows, images=Kept(from_fourier(spectra, BOX)), optics=[OPTICS], pixel_A=PIXEL_A
    )
    sampling = replace(EXACT, psi_step_deg=10.0)
    _, _, options, model = begun(20, sampling, k=1, tau2_fudge=1e9)
    model.references = truth[None].clone()
    model.noise[:] = 1e-7
    model.resolution_shell = BOX // 2
    iteration.iterate(data, model, options, np.arange(300))
    wrapped = (degrees + 180.0) % 360.0 - 180.0
    apart = (torch.as_tensor(data.particles.psi_deg) - wrapped + 180.0) % 360.0 - 180.0
    assert float(apart.abs().max()) < 1e-6
    found = model.references[0].double()
    a, b = (to_fourier(one)[whole.flat] for one in (found, truth))
    cross = whole.sums((a * b.conj()).real)
    curve = cross / (whole.sums(a.abs() ** 2) * whole.sums(b.abs() ** 2)).sqrt()
    # On shell 1 the edge of the box and the CTF's low values show.
    assert float(curve[: round(0.9 * BOX / 2) + 1].min()) > 0.998
    assert float(curve[2 : round(0.9 * BOX / 2) + 1].min()) > 0.999
    assert float((found * truth).sum() / truth.pow(2).sum()) == pytest.approx(1.0, abs=0.01)


def counted(n: int = 64) -> tuple[Accumulated, Plane, Tensor]:
    """Return sums of images that are 1 / sigma^2 everywhere, at many rotations."""
    pixels, plane = disc(BOX, 24).inner(), Plane(BOX, 24)
    psi = torch.arange(n, dtype=torch.float64) * 360.0 / n
    slicer = Slicer(pixels, psi, plane, torch.float64)
    weight = projector.repaired(slicer.insert(torch.full((1, n, pixels.n), 0.3).double()), plane)
    random = torch.Generator().manual_seed(1)
    maps = torch.randn((1, BOX, BOX), generator=random, dtype=torch.float64)
    values = projector.on_plane(projector.padded_transform(maps), plane)
    return Accumulated(values * weight, weight), plane, values


def test_the_prior_weighs_as_much_as_it_is_told() -> None:
    """Case 11: T large is data over weight, T small leaves nothing beyond shell 5."""
    sums, plane, values = counted()
    tau2 = torch.full((1, BOX // 2 + 1), 2.0, dtype=torch.float64)
    size = 2 * BOX
    padded = values.new_zeros((1, size * (size // 2 + 1)))
    plain = projector.map_of(projector.off_plane(values, plane, padded), BOX)
    wanted = masks.edge_masked(plain) / projector.gridding(BOX)
    found = maximisation.reconstructed(sums, tau2, 1e12, plane)
    reached = sums.weight > 0.0
    kept = torch.where(reached, values, torch.zeros((), dtype=values.dtype))
    assert torch.allclose(kept, values, atol=1e-12)  # every voxel was reached
    assert float((found - wanted).std() / wanted.std()) < 1e-6
    none = maximisation.reconstructed(sums, tau2, 1e-12, plane)
    whole = disc(BOX, BOX)
    powers = [
        whole.sums(to_fourier(one)[0, whole.flat].abs() ** 2)[8:12].sum() for one in (none, found)
    ]
    assert float(powers[0]) < 1e-2 * float(powers[1])


def test_data_over_prior_counts_the_images() -> None:
    """Case 11: data_vs_prior = N C^2 T tau2 / sigma2 for white data."""
    n = 64
    sums, plane, _ = counted(n)
    tau2 = torch.full((1, BOX // 2 + 1), 2.0, dtype=torch.float64)
    found = maximisation.spectra(sums.weight, tau2, 1.5, plane, BOX // 2 + 1)
    wanted = n * 0.3 * 1.5 * 2.0
    assert found.ssnr[0, 3:12].numpy() == pytest.approx(np.full(9, wanted), rel=0.05)
    assert float(found.ssnr[0, 13:].abs().sum()) == 0.0
    assert found.sigma2[0, 3:12].numpy() == pytest.approx(np.full(9, 1 / (n * 0.3)), rel=0.05)


def gradients(data: DataSet, model: Model, options: Options) -> tuple[Tensor, list[Accumulated]]:
    """Return the gradient of each half over its weight, and the sums."""
    lookup = tables(model, options)
    sums = expected(data, model, options, lookup)
    halves = maximisation.accumulated(sums, lookup, residual=True)
    return torch.stack([half.data / half.weight.clamp(min=1.0) for half in halves]), halves


def test_a_batch_twice_as_large_steps_as_far() -> None:
    """Case 13: where the weight is above 1 the gradient does not depend on the batch."""
    data, _, options, model = begun(60, snr=0.3, gradient=True)
    model.references *= 0.7
    once, halves = gradients(data, model, options)
    images = data.images.read(np.arange(60))
    rows = replace(data.particles, **{
        name: np.concatenate([values, values]) for name, values in vars(data.particles).items()
    })  # fmt: skip
    twice, _ = gradients(
        replace(data, particles=rows, images=Kept(torch.cat([images, images]))), model, options
    )
    heavy = torch.stack([half.weight > 1.0 for half in halves])
    assert float(heavy.double().mean()) > 0.1
    assert torch.allclose(once[heavy], twice[heavy], rtol=1e-9, atol=1e-12)


def test_a_whole_step_is_the_update_of_em() -> None:
    """Case 13: step 1, all shells trusted, all particles in both halves: Newton's step."""
    data, _, options, model = begun(400, WIDE, k=1, snr=1.0, gradient=True, iterations=200)
    model.references *= 0.5
    lookup = tables(model, options)
    sums = expected(data, model, options, lookup)
    both = sums.data.sum(0, keepdim=True), sums.weight.sum(0, keepdim=True)
    sums.data, sums.weight = (torch.cat([one, one]) for one in both)
    halves = maximisation.accumulated(sums, lookup, residual=True)
    assert model.moments is not None
    found = maximisation.gradient(halves, model.moments, torch.tensor([True]), lookup)
    assert float(found.noise.abs().max()) == 0.0  # both halves say the same
    trusted = replace(found, noise=torch.full_like(found.noise, 1e-30))
    one = torch.ones(1, dtype=torch.float64)
    stepped = maximisation.stepped(model, trusted, lookup, 1e6, one)
    single = maximisation.accumulated(sums, lookup, residual=False)[0]
    tau2 = torch.full((1, BOX // 2 + 1), 1.0, dtype=torch.float64)
    maximised = maximisation.reconstructed(single, tau2, 1e12, lookup.reference.plane)
    inside = 1.0 - masks.soft_mask(BOX, 10.0)
    apart = ((stepped - maximised) * inside).std() / (maximised * inside).std()
    far = ((model.references - maximised) * inside).std() / (maximised * inside).std()
    # Linear interpolation there and back costs some percent of the step.
    assert float(apart) < 0.15 * float(far)
    assert float(far) > 0.4


# ---- the model's other parameters: cases 8 to 10


def test_noise_of_a_known_spectrum_is_found() -> None:
    """Case 8: pure noise, a slope over the shells; from the E-step and for the start."""
    n, whole = 4000, disc(BOX, BOX).inner()
    variance = 2e-4 * torch.exp(-whole.shell.double() / 6.0) + 1e-5
    random = np.random.default_rng(11)
    drawn = torch.as_tensor(random.standard_normal((2, n, whole.n)))
    values = torch.complex(drawn[0], drawn[1]) * variance.sqrt()
    values[:, whole.shell == 0] = 0.0
    images = Kept(from_fourier(filled(values), BOX).float())
    data = DataSet(particles=particles(n), images=images, optics=[OPTICS], pixel_A=PIXEL_A)
    _, _, options, model = begun(20, EXACT, k=1)
    model.resolution_shell = BOX // 2  # a smaller window leaves pixels of its last shell out
    model.references[:] = 0.0
    model.noise[:] = 1e-4
    sums = expected(data, model, options, tables(model, options))
    scalars.update(model, sums, options, 0.0)
    last = BOX // 2 - 1
    wanted = torch.stack([variance[whole.shell == shell][0] for shell in range(last + 1)])
    assert model.noise[0, 1 : last + 1].numpy() == pytest.approx(wanted[1:].numpy(), rel=0.02)
    begun_with = start.start(data, options, EXACT, ["group"]).noise
    assert begun_with[0, 1 : last + 1].numpy() == pytest.approx(wanted[1:].numpy(), rel=0.08)


def test_a_stronger_group_has_a_larger_scale() -> None:
    """Case 9: one group's images times 1.5; five iterations find it within 2 %."""
    data, _, options, model = begun(
        300, snr=1.0, scale=True, double=False, particle_diameter_A=120.0
    )
    data.particles.group[:] = np.arange(300) % 3
    images = data.images.read(np.arange(300))
    images[data.particles.group == 1] *= 1.5
    data = replace(data, images=Kept(images))
    model.scales, model.group_names = torch.ones(3).double(), ["a", "b", "c"]
    options = replace(options, adaptive_fraction=0.999)
    for _ in range(5):
        iteration.iterate(data, model, options, np.arange(300))
    scales = model.scales.numpy()
    assert scales[1] / scales[[0, 2]].mean() == pytest.approx(1.5, rel=0.02)
    assert scales.mean() == pytest.approx(1.0, abs=1e-6)


def test_the_priors_are_those_of_the_particles() -> None:
    """Case 10: class fractions 0.7 and 0.3; normal offsets of 1.5 px."""
    _, truth, options, model = begun(20, k=2)
    random = np.random.default_rng(8)
    n, sigma_px = 300, 1.5
    classes = (random.random(n) < 0.3).astype(int)
    shifts = torch.as_tensor(random.normal(0.0, sigma_px, (n, 2)))
    rows = particles(n, seed=5)
    whole = disc(BOX, BOX).inner()
    plane = Plane(BOX, 2 * BOX // 2)
    values = projector.on_plane(
        projector.padded_transform(truth.references.double() / projector.gridding(BOX)), plane
    )
    psi = torch.as_tensor(random.uniform(-180.0, 180.0, n))
    ctf = ctf_values(columns_of(rows), whole, PIXEL_A, torch.float64)
    angle = 2.0 * math.pi / BOX * (shifts[:, :1] * whole.jx + shifts[:, 1:] * whole.jy)
    cuts = [
        Slicer(whole, psi[i : i + 1], plane, torch.float64).slices(values[[classes[i]]])[0, 0]
        for i in range(n)
    ]
    seen = torch.stack(cuts) * ctf * torch.polar(torch.ones_like(angle), angle)
    images = from_fourier(filled(seen), BOX)
    noise = float(images.std()) / math.sqrt(0.5)
    images += noise * torch.as_tensor(random.standard_normal(images.shape))
    data = DataSet(particles=rows, images=Kept(images), optics=[OPTICS], pixel_A=PIXEL_A)
    sampling = replace(STEPS, psi_step_deg=24.0, offset_range_A=20.0, offset_step_A=8.0)
    options = replace(options, double=False, adaptive_fraction=0.999, particle_diameter_A=120.0)
    model.sampling, model.scales = sampling, torch.ones(1).double()
    model.noise[:] = 0.5 * noise**2 / BOX**2
    for _ in range(3):
        iteration.iterate(data, model, options, np.arange(n))
    wanted = np.bincount(classes) / n
    assert model.fractions.numpy() == pytest.approx(wanted, abs=0.02)
    spread = float(shifts.pow(2).mean().sqrt()) * PIXEL_A
    assert model.sigma_offset_A == pytest.approx(spread, rel=0.05)


# ---- expectation maximisation: case 12


def test_em_never_loses_likelihood() -> None:
    """Case 12: fixed prior, window, noise and grid; class fractions are free."""
    data, _, options, model = begun(60, WIDE, snr=0.05)
    random = torch.Generator().manual_seed(9)
    model.references *= 0.3
    model.references += 0.05 * torch.randn(model.references.shape, generator=random).double()
    size = 2 * (model.resolution_shell + 10)
    prior = torch.full((3, BOX // 2 + 1), 1e-4, dtype=torch.float64)
    objective = []
    for _ in range(8):
        lookup = tables(model, options)
        assert lookup.size == size
        plane = lookup.reference.plane
        sums = expected(data, model, options, lookup)
        objective.append(float(sums.log_likelihood) - penalty(lookup.reference.values, plane))
        whole = maximisation.accumulated(sums, lookup, residual=False)[0]
        model.references = maximisation.reconstructed(whole, prior, 1.0, plane)
        model.fractions = sums.classes / sums.classes.sum()
    assert (np.diff(objective) > -1e-6 * abs(objective[-1])).all(), objective
    assert objective[-1] - objective[0] > 100.0


def penalty(values: Tensor, plane: Plane) -> float:
    """Return what the prior of `test_em_never_loses_likelihood` takes off."""
    x, _ = plane.coordinates()
    shell = (plane.distance() / projector.PAD + 0.5).floor()
    counts = torch.where(x == 0, 0.5, 1.0) * ((shell >= 5) & (shell <= BOX // 2))
    return float((values.abs() ** 2 * counts).sum()) / (2.0 * plane.pd * 1e-4)
