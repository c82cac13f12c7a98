"""The fast ways of the E-step against the plain ones: products, sums, selection, precision."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.refine import coarse, cudakernels, kernels, loops, start
from algorithms.refine.expectation import Work, _preparer, expectation, make_batch
from algorithms.refine.geometry import disc
from algorithms.refine.kernels import Turned
from algorithms.refine.sampling import Sampling, Turns, phases
from algorithms.refine.tables import tables
from algorithms.refine.types import DataSet, Options
from tests.refine_data import Truth, particle_set

SAMPLING = Sampling(psi_step_deg=12.0, offset_range_A=8.0, offset_step_A=4.0)
N, Q, ROWS, PAIRS, CLASSES = 5, 37, 11, 60, 3
N_PARTICLES = 60


@pytest.mark.parametrize("order", [0, 1])
def test_mirrored_shifts_make_the_sums_of_all_shifts(order: int) -> None:
    sampling = Sampling(
        psi_step_deg=12.0, offset_range_A=15.0, offset_step_A=6.0, order=order, perturbation=0.3
    )
    shifts, pixels = sampling.fine().shifts_A / 3.0, disc(32, 20)
    turns = Turns.of(pixels.jx, pixels.jy, shifts, 32, torch.float64)
    rows = phases(pixels.jx, pixels.jy, shifts, 32, torch.float64)
    turned = torch.view_as_complex(rows.reshape(len(shifts), -1, 2))
    random = torch.Generator().manual_seed(2)
    z = torch.randn((4, pixels.n), generator=random, dtype=torch.complex128)
    wanted = (z @ turned.conj().T).real
    moved = z * turns.centre.conj()
    assert torch.allclose(turns.sums(moved.real, moved.imag), wanted, atol=1e-10)
    w = torch.rand((4, len(shifts)), generator=random, dtype=torch.float64)
    real, imaginary = turns.weighted(w)
    found = torch.complex(real, imaginary) * turns.centre
    assert torch.allclose(found, w.to(turned.dtype) @ turned, atol=1e-10)


def test_shifts_without_a_centre_are_refused() -> None:
    pixels = disc(32, 20)
    shifts = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="symmetrically"):
        Turns.of(pixels.jx, pixels.jy, shifts, 32)


def made_up(device: str = "cpu") -> dict[str, Tensor]:
    """Return particles, slices and pairs of random numbers."""
    random = torch.Generator().manual_seed(4)

    def complex_(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.complex64).to(device)

    def real(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random).to(device)

    def index(high: int) -> Tensor:
        return torch.randint(0, high, (PAIRS,), generator=random).to(device)

    return {
        "y": complex_(N, Q), "plain": complex_(N, Q), "slices": complex_(ROWS, Q),
        "e": real(N, Q), "counts": (real(CLASSES, Q) > 0.5).float(),
        "real": real(PAIRS, Q), "imaginary": real(PAIRS, Q), "amount": real(PAIRS),
        "particle": torch.sort(index(N)).values, "row": index(ROWS), "klass": index(CLASSES),
    }  # fmt: skip


def results(given: dict[str, Tensor]) -> list[Tensor]:
    """Return what the three kernels make of pairs."""
    like = given["e"]
    products = [like.new_empty((PAIRS, Q)), like.new_empty((PAIRS, Q)), like.new_empty(PAIRS)]
    particle, row = given["particle"], given["row"]
    kernels.multiply(given["y"], given["e"], given["slices"], particle, row, *products)
    turned = Turned(given["real"], given["imaginary"], given["amount"], particle)
    data, weight = torch.zeros_like(given["slices"]), like.new_zeros((ROWS, Q))
    kernels.insert(given["plain"], given["e"], turned, row, data, weight)
    both = like.new_zeros((N, 4, Q))
    kernels.compare(given["y"], given["slices"], given["counts"], turned, given["klass"], row, both)
    return [*products, data.real, data.imag, weight, both]


def by_torch(monkeypatch: pytest.MonkeyPatch, given: dict[str, Tensor]) -> list[Tensor]:
    """Return the same without machine code."""

    def none(function: Callable[..., None], like: Tensor) -> None:
        return None

    with monkeypatch.context() as patch:
        patch.setattr(kernels, "_loop", none)
        return results(given)


def test_loops_do_what_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loops as they are written, so that it also holds where Numba is not installed."""

    def plain(function: Callable[..., None], like: Tensor) -> Callable[..., None]:
        return lambda *tensors: function(*(kernels._array(tensor) for tensor in tensors))

    given = made_up()
    wanted = by_torch(monkeypatch, given)
    monkeypatch.setattr(kernels, "_loop", plain)
    for ours, theirs in zip(results(given), wanted, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_machine_code_does_what_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    given = made_up()
    if kernels._loop(loops.multiply, given["e"]) is None:
        pytest.skip("Numba is not installed")
    for ours, theirs in zip(results(given), by_torch(monkeypatch, given), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_kernels_of_a_gpu_do_what_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    given = made_up("cuda")
    if not cudakernels.usable(given["e"]):
        pytest.skip("CuPy is not installed")
    found = results(given)
    with monkeypatch.context() as patch:
        patch.setattr(cudakernels, "usable", lambda like: False)
        wanted = results(given)
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(found, results(given), strict=True))


@pytest.mark.parametrize("spread", [0.01, 1.0, 12.0, 40.0])
@pytest.mark.parametrize("cap", [0, 1, 7, 50])
def test_bins_choose_what_a_sort_chooses(spread: float, cap: int) -> None:
    random = np.random.default_rng(int(10 * spread) + cap)
    rows = [np.exp(-spread * random.random(random.integers(1, 300))) for _ in range(30)]
    rows += [np.ceil(row * 8.0) / 8.0 for row in rows[:5]]  # with equals
    rows = [row / row.max() for row in rows]
    particle = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(r) for r in rows]))
    weight, total = (
        torch.as_tensor(np.concatenate(rows)),
        torch.tensor([r.sum() for r in rows], dtype=torch.float64),
    )
    for fraction in (0.4997, 0.999):  # no sum of equals is exactly that
        chosen, count = coarse.heaviest(particle, weight, total, fraction, cap)
        for number, row in enumerate(rows):
            order = np.sort(row)[::-1]
            before = np.cumsum(order) - order
            n = int((before <= fraction * row.sum()).sum())
            n = min(n, cap) if cap else n
            assert int(count[number]) == n
            assert chosen[particle == number].tolist() == (row >= order[n - 1]).tolist()


@cache
def made() -> tuple[DataSet, Truth]:
    return particle_set(N_PARTICLES, snr=0.1)


def started(**changes: object) -> Work:
    data, truth = deepcopy(made())
    options = Options(n_classes=3, iterations=5, particle_diameter_A=100.0, seed=3, **changes)  # type: ignore[arg-type]
    model = start.start(data, options, SAMPLING, ["group"])
    model.references = truth.references.clone()
    return Work(data, model, options, tables(model, options))


@pytest.mark.parametrize("changes", [{}, {"gradient": True}])
def test_a_few_particles_at_a_time_find_what_all_at_once_find(
    changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = started(**changes)
    batch, _ = make_batch(work, _preparer(work), np.arange(20))
    table = work.tables.coarse
    transfer = batch.transfer[:, table.take]
    shell = work.tables.fine.pixels.shell[table.take]
    given = (
        transfer * batch.precision[shell] * batch.masked[:, table.take],
        transfer**2 * batch.precision[shell],
        batch.log_prior,
        table,
        work.options,
    )
    whole = coarse.search(*given)
    monkeypatch.setattr(coarse, "CACHE_BYTES", 4 * len(table.phases) * 30 * 3 * 3)
    parts = coarse.search(*given)
    for field in fields(whole):
        assert torch.equal(getattr(whole, field.name), getattr(parts, field.name)), field.name


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_a_less_precise_first_pass_finds_the_same_classes(precision: str) -> None:
    """Section 10, case 21: TF32 or bfloat16 factors in the first pass."""
    exact, less = started(), started(coarse_precision=precision)
    for work in (exact, less):
        expectation(work, np.arange(N_PARTICLES))
    ours, theirs = exact.data.particles, less.data.particles
    assert (ours.classes == theirs.classes).mean() > 0.99
    assert (ours.psi_deg == theirs.psi_deg).mean() > 0.97
    # What the second pass sees of the weight, as a change of the likelihood's logarithm.
    assert np.abs(ours.log_likelihood - theirs.log_likelihood).mean() < 0.01
    assert torch.get_float32_matmul_precision() == "highest"
