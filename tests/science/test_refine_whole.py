"""Whole runs from RELION 5.0.1's first files end in the classes that its own runs end in.

What RELION draws is known: `rand()` of the C library, begun anew in each iteration with the seed
plus the iteration's number. Its first value moves the grid, all of its values shuffle the particles
(each is swapped with one before it, or itself), from the order of the iteration before. Found from
the recorded grids and from which particles have changed.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from algorithms.refine import files, iteration, schedule, start
from algorithms.refine.types import DataSet, Model, Options
from tests.science.refine_quality import adjusted_rand
from tests.science.test_refine_parity import RUNS
from tests.shared import shared

LAST = {"em2d": 6, "vdam2d": 20}
RAND_MAX = 2**31 - 1


def at_the_start(run: str) -> tuple[DataSet, Model]:
    """Return the particles and the model that RELION's run began with."""
    folder = shared(f"data/refinement/{run}")
    data = files.read_data(folder / "run_it000_data.star", shared("data/particles/sim_30S"))
    model, first = files.read_model(folder / "run_it000"), files.read_model(folder / "run_it001")
    model.sampling = first.sampling
    model.resolution_shell = first.current_size // 2 - 10
    return data, model


def at_the_end(run: str) -> tuple[np.ndarray, torch.Tensor]:
    """Return RELION's classes of the particles, and its averages."""
    root = shared(f"data/refinement/{run}") / f"run_it{LAST[run]:03d}"
    data = files.read_data(Path(f"{root}_data.star"), shared("data/particles/sim_30S"))
    return data.particles.classes, files.read_model(root).references


def drawn(seed: int) -> Iterator[int]:
    """Yield what `rand()` of the GNU C library gives after `srand(seed)`; seed > 0."""
    state = [seed]
    for _ in range(30):
        state.append(16807 * state[-1] % RAND_MAX)
    state += state[:3]
    while True:
        state.append((state[-3] + state[-31]) % 2**32)
        if len(state) > 344:
            state.pop(0)
            yield state[-1] >> 1


def shuffled(order: list[int], seed: int) -> list[int]:
    """Return particles in the order that RELION brings them into, from another."""
    order, draws = list(order), drawn(seed)
    for i in range(1, len(order)):
        j = next(draws) % (i + 1)
        order[i], order[j] = order[j], order[i]
    return order


def moved_on(perturbation: float, seed: int) -> float:
    """Return the perturbation of RELION's next iteration, whose draws begin with a seed."""
    value = perturbation + 0.25 + 0.25 * next(drawn(seed)) / RAND_MAX
    return value - 1.0 if value >= 0.5 else value


def as_relion_runs(data: DataSet, model: Model, options: Options) -> None:
    """Do all iterations with RELION's grids and mini-batches; the model has the first grid."""
    n, order, first = len(data), list(range(len(data))), model.sampling
    for number in range(1, options.iterations + 1):
        seed = options.seed + number
        delta = moved_on(model.sampling.perturbation, seed) if number > 1 else first.perturbation
        model.sampling = replace(first, perturbation=delta)
        order = shuffled(order, seed)
        size = schedule.batch_size(number, options.iterations, n, options.n_classes)
        iteration.iterate(data, model, options, np.sort(order[: size if options.gradient else n]))


def whole_run(data: DataSet, model: Model, options: Options) -> None:
    """Do all iterations with draws of our own."""
    for number in range(1, options.iterations + 1):
        random = np.random.default_rng((options.seed, number))
        model.sampling = model.sampling.perturbed(random)
        n = len(data)
        size = schedule.batch_size(number, options.iterations, n, options.n_classes)
        subset = np.sort(random.permutation(n)[: size if options.gradient else n])
        iteration.iterate(data, model, options, subset)


def matched(ours: torch.Tensor, theirs: torch.Tensor) -> np.ndarray:
    """Return the correlation of each of their averages with the one of ours that it is."""
    table = np.corrcoef(ours.flatten(1), theirs.flatten(1))[len(ours) :, : len(ours)]
    return table[linear_sum_assignment(-table)]


def started_elsewhere(run: str, seed: int) -> np.ndarray:
    """Return the classes of a run with other first references and other draws."""
    data, first = at_the_start(run)
    options = replace(RUNS[run], seed=seed)
    model = start.start(data, options, first.sampling, first.group_names)
    whole_run(data, model, options)
    return data.particles.classes


@pytest.fixture
def centred_as_by_relion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quirk 4: where a class is centred, the second half's moment becomes that of the first."""
    ours = iteration._shift_moments

    def theirs(model: Model, shifts: torch.Tensor) -> None:
        ours(model, shifts)
        if model.moments is not None:
            moved = torch.nonzero(shifts.abs().sum(1))[:, 0]
            model.moments.first[1, moved] = model.moments.first[0, moved]

    monkeypatch.setattr(iteration, "_shift_moments", theirs)


@pytest.mark.parametrize(("run", "known"), [("em2d", range(2, 7)), ("vdam2d", (2, 11, 20))])
def test_the_grids_of_relion_are_known_from_its_seed(run: str, known: range) -> None:
    folder = shared(f"data/refinement/{run}")
    seed = RUNS[run].seed
    for number in known:
        before, after = (folder / f"run_it{one:03d}" for one in (number - 1, number))
        was, wanted = (files.read_model(one).sampling.perturbation for one in (before, after))
        assert moved_on(was, seed + number) == pytest.approx(wanted, abs=1e-5)


def test_the_mini_batches_of_relion_are_known_from_its_seed() -> None:
    folder, images = shared("data/refinement/vdam2d"), shared("data/particles/sim_30S")
    likelihood = [
        files.read_data(folder / f"run_it{number:03d}_data.star", images).particles.log_likelihood
        for number in range(3)
    ]
    order, seed = list(range(len(likelihood[0]))), RUNS["vdam2d"].seed
    for number, before in ((1, np.zeros(len(order))), (2, likelihood[1])):
        order = shuffled(order, seed + number)
        assert np.array_equal(np.sort(order[:200]), np.flatnonzero(likelihood[number] != before))


def test_em_ends_as_that_of_relion() -> None:
    """Six iterations on RELION's grids."""
    data, model = at_the_start("em2d")
    as_relion_runs(data, model, RUNS["em2d"])
    classes, averages = at_the_end("em2d")
    assert matched(model.references, averages).min() > 0.999
    assert adjusted_rand(data.particles.classes, classes) > 0.95


@pytest.mark.usefixtures("centred_as_by_relion")
def test_vdam_ends_as_that_of_relion() -> None:
    """Twenty mini-batches, RELION's; rounding decides on some of the particles by then."""
    data, model = at_the_start("vdam2d")
    as_relion_runs(data, model, RUNS["vdam2d"])
    classes, averages = at_the_end("vdam2d")
    assert matched(model.references, averages).min() > 0.995
    assert np.mean(data.particles.classes == classes) > 0.88
    assert adjusted_rand(data.particles.classes, classes) > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("run", ["em2d", "vdam2d"])
def test_a_run_with_other_draws_is_closer_to_that_of_relion_than_one_from_elsewhere(
    run: str,
) -> None:
    """500 particles hardly tell four classes: the draws decide on some, but less than the start."""
    classes, averages = at_the_end(run)
    data, model = at_the_start(run)
    whole_run(data, model, RUNS[run])
    far = [adjusted_rand(started_elsewhere(run, seed), classes) for seed in (9, 10)]
    assert adjusted_rand(data.particles.classes, classes) > max(far)
    assert matched(model.references, averages).mean() > 0.8
