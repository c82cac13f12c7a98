"""Whole runs from RELION 5.0.1's first files end in the classes that its own runs end in."""

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


def at_the_start(run: str) -> tuple[DataSet, Model]:
    """Return the particles and the model that RELION's run began with."""
    folder = shared(f"data/refinement/{run}")
    data = files.read_data(folder / "run_it000_data.star", shared("data/particles/sim_30S"))
    model, first = files.read_model(folder / "run_it000"), files.read_model(folder / "run_it001")
    model.sampling = replace(first.sampling, perturbation=0.0)
    model.resolution_shell = first.current_size // 2 - 10
    return data, model


def at_the_end(run: str) -> tuple[np.ndarray, torch.Tensor]:
    """Return RELION's classes of the particles, and its averages."""
    root = shared(f"data/refinement/{run}") / f"run_it{LAST[run]:03d}"
    data = files.read_data(Path(f"{root}_data.star"), shared("data/particles/sim_30S"))
    return data.particles.classes, files.read_model(root).references


def whole_run(data: DataSet, model: Model, options: Options, relion: Path | None = None) -> None:
    """Do all iterations, with the grids of RELION's iterations or with draws of our own."""
    for number in range(1, options.iterations + 1):
        random = np.random.default_rng((options.seed, number))
        if relion is None:
            model.sampling = model.sampling.perturbed(random)
        else:
            model.sampling = files.read_model(relion / f"run_it{number:03d}").sampling
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


def test_em_ends_as_that_of_relion() -> None:
    """Six iterations on RELION's grids: nothing that is drawn is left."""
    data, model = at_the_start("em2d")
    whole_run(data, model, RUNS["em2d"], shared("data/refinement/em2d"))
    classes, averages = at_the_end("em2d")
    assert matched(model.references, averages).min() > 0.95
    assert adjusted_rand(data.particles.classes, classes) > 0.9


@pytest.mark.slow
def test_vdam_ends_as_that_of_relion() -> None:
    """From iteration 10 on all particles take part: only the grids of 12 to 18 are drawn."""
    folder, images = shared("data/refinement/vdam2d"), shared("data/particles/sim_30S")
    classes, averages = at_the_end("vdam2d")
    found = []
    for seed in (7, 8):
        data = files.read_data(folder / "run_it010_data.star", images)
        model = files.read_model(folder / "run_it010")
        options = replace(RUNS["vdam2d"], seed=seed)
        for number in range(11, 21):
            known = folder / f"run_it{number:03d}"
            if Path(f"{known}_sampling.star").exists():
                model.sampling = files.read_model(known).sampling
            else:
                model.sampling = model.sampling.perturbed(np.random.default_rng((seed, number)))
            iteration.iterate(data, model, options, np.arange(len(data)))
        assert matched(model.references, averages).min() > 0.99
        found.append(data.particles.classes)
    between_ours = adjusted_rand(*found)
    for one in found:
        assert adjusted_rand(one, classes) > between_ours - 0.15


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
