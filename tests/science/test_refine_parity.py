"""One iteration of ours from the files of RELION 5.0.1 gives the files of its next iteration."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from algorithms.refine import files, iteration
from algorithms.refine.types import DataSet, Model, Options
from tests.shared import shared

# What the reference runs were made with; see their README.
COMMON = {"n_classes": 4, "particle_diameter_A": 300.0, "tau2_fudge": 2.0, "seed": 7}
RUNS = {
    "em2d": Options(iterations=6, **COMMON),
    "vdam2d": Options(iterations=20, gradient=True, **COMMON),
}


@dataclass
class Step:
    """What we made of an iteration, and what RELION did."""

    data: DataSet
    model: Model
    wanted_data: DataSet
    wanted: Model
    subset: np.ndarray


def step(run: str, number: int) -> Step:
    folder = shared(f"data/refinement/{run}")
    images = shared("data/particles/sim_30S")
    before, after = (folder / f"run_it{n:03d}" for n in (number - 1, number))
    data = files.read_data(before.with_name(f"{before.name}_data.star"), images)
    wanted_data = files.read_data(after.with_name(f"{after.name}_data.star"), images)
    model, wanted = files.read_model(before), files.read_model(after)
    model.sampling = wanted.sampling
    if number == 1:  # the first resolution comes from the filter of the references
        model.resolution_shell = wanted.current_size // 2 - 10
    old, new = data.particles.log_likelihood, wanted_data.particles.log_likelihood
    subset = np.flatnonzero(new != (0.0 if number == 1 else old))
    iteration.iterate(data, model, RUNS[run], subset)
    return Step(data, model, wanted_data, wanted, subset)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the largest difference, relative to the value of the reference where it has one."""
    known = theirs.abs() > 1e-12
    return float(((ours - theirs).abs()[known] / theirs.abs()[known]).max())


@pytest.mark.parametrize(
    ("run", "number"),
    [
        *(("em2d", number) for number in (1, 2, 5, 6)),
        *(("vdam2d", number) for number in (1, 2, 11, 20)),
    ],
)
def test_an_iteration_is_that_of_relion(run: str, number: int) -> None:
    made = step(run, number)
    ours, theirs = made.model, made.wanted
    assert ours.current_size == theirs.current_size
    assert ours.resolution_shell == theirs.resolution_shell
    last = ours.current_size // 2
    assert relative(ours.tau2, theirs.tau2) < 1e-3
    # Voxels exactly on the circle make some percent of the last shell: rounding decides there.
    assert relative(ours.ssnr[:, :last], theirs.ssnr[:, :last]) < 1e-3
    assert relative(ours.ssnr, theirs.ssnr) < 5e-2
    assert relative(ours.noise, theirs.noise) < 1e-5
    assert relative(ours.fractions, theirs.fractions) < 1e-4
    assert relative(ours.scales, theirs.scales) < 1e-4
    assert torch.allclose(ours.prior_offset_A, theirs.prior_offset_A, atol=1e-3)
    assert ours.sigma_offset_A == pytest.approx(theirs.sigma_offset_A, rel=1e-4)
    assert ours.mean_norm == pytest.approx(theirs.mean_norm, rel=1e-4)
    assert ours.mean_pmax == pytest.approx(theirs.mean_pmax, rel=1e-3)
    assert ours.log_likelihood == pytest.approx(theirs.log_likelihood, rel=1e-5)
    spread = theirs.references.std((1, 2))
    apart = (ours.references - theirs.references).std((1, 2)) / spread
    assert float(apart.max()) < (1.5e-3 if run == "vdam2d" else 1e-3)


@pytest.mark.parametrize(("run", "number"), [("em2d", 3), ("vdam2d", 11)])
def test_particles_are_those_of_relion(run: str, number: int) -> None:
    made = step(run, number)
    ours, theirs = made.data.particles, made.wanted_data.particles
    turned = np.abs((ours.psi_deg - theirs.psi_deg + 180.0) % 360.0 - 180.0)
    assert (ours.classes == theirs.classes).mean() > 0.99
    assert (turned < 0.01).mean() > 0.99
    assert (np.abs(ours.offset_A - theirs.offset_A) < 0.01).all(axis=1).mean() > 0.99
    assert (ours.significant == theirs.significant).mean() > 0.99
    assert np.abs(ours.pmax - theirs.pmax).max() < 1e-3
    assert np.abs(ours.norm / theirs.norm - 1.0).max() < 1e-4
    assert np.abs(ours.log_likelihood - theirs.log_likelihood).max() < 0.05


def test_moments_are_those_of_relion() -> None:
    made = step("vdam2d", 11)
    ours, theirs = made.model.moments, made.wanted.moments
    assert ours is not None and theirs is not None
    apart = (ours.first - theirs.first).abs().pow(2).mean((-1, -2)).sqrt()
    assert float((apart / theirs.first.abs().pow(2).mean((-1, -2)).sqrt()).max()) < 2e-2
    assert float((ours.second - theirs.second).abs().mean()) < 1e-3
