"""One 3D iteration of ours from the files of RELION 5.0.1 gives the files of its next iteration."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from algorithms.orientation import euler
from algorithms.refine import files, iteration
from algorithms.refine.types import DataSet, Model, Options, Particles
from tests.shared import shared

# What the reference runs were made with; see their README.
COMMON = Options(
    n_classes=1,
    iterations=4,
    particle_diameter_A=300.0,
    tau2_fudge=4.0,
    seed=7,
    center_classes=False,
    ini_high_A=60.0,
)
RUNS = {
    "class3d": replace(COMMON, n_classes=2, first_cc=True),
    "skip3d": replace(COMMON, skip_align=True),
}


@dataclass
class Step:
    """What we made of an iteration, and what RELION did."""

    data: DataSet
    model: Model
    wanted_data: DataSet
    wanted: Model


def step(run: str, number: int) -> Step:
    folder, images = shared(f"data/refinement/{run}"), shared("data/refinement/sim32")
    before, after = (folder / f"run_it{n:03d}" for n in (number - 1, number))
    data = files.read_data(before.with_name(f"{before.name}_data.star"), images)
    wanted_data = files.read_data(after.with_name(f"{after.name}_data.star"), images)
    model, wanted = files.read_model(before), files.read_model(after)
    model.sampling = wanted.sampling
    only = None
    if number == 1:  # the first resolution comes from the filter of the references
        model.resolution_shell = round(model.box * model.pixel_A / 60.0)
        data.particles.classes[:] = 0
        only = np.zeros(len(data), np.int64)
    elif run == "class3d" and number == 2:  # each particle is compared with one class, by chance
        only = wanted_data.particles.classes
    iteration.iterate(data, model, RUNS[run], np.arange(len(data)), only_class=only)
    return Step(data, model, wanted_data, wanted)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the largest difference, relative to the value of the reference where it has one."""
    known = theirs.abs() > 1e-12
    return float(((ours - theirs).abs()[known] / theirs.abs()[known]).max())


def orientations(rows: Particles) -> torch.Tensor:
    columns = np.stack([rows.rot_deg, rows.tilt_deg, rows.psi_deg], axis=1)
    return euler.matrices(torch.as_tensor(columns))


@pytest.mark.parametrize(
    ("run", "number"),
    [
        ("skip3d", 2),
        *(
            pytest.param(run, number, marks=pytest.mark.slow)
            for run, number in (
                ("skip3d", 1), ("class3d", 1), ("class3d", 2), ("class3d", 3), ("class3d", 4),
            )
        ),
    ],
)  # fmt: skip
def test_an_iteration_is_that_of_relion(run: str, number: int) -> None:
    made = step(run, number)
    ours, theirs = made.model, made.wanted
    assert ours.current_size == theirs.current_size
    assert ours.resolution_shell == theirs.resolution_shell
    last = ours.current_size // 2
    assert relative(ours.tau2, theirs.tau2) < 1e-3
    # Voxels exactly on the sphere make some percent of the last shell: rounding decides there.
    assert relative(ours.ssnr[:, :last], theirs.ssnr[:, :last]) < 1e-3
    assert relative(ours.ssnr, theirs.ssnr) < 5e-2
    assert relative(ours.noise, theirs.noise) < 1e-3
    assert relative(ours.fractions, theirs.fractions) < 1e-4
    assert relative(ours.scales, theirs.scales) < 1e-3
    assert ours.sigma_offset_A == pytest.approx(theirs.sigma_offset_A, rel=1e-4)
    assert ours.mean_norm == pytest.approx(theirs.mean_norm, rel=1e-3)
    assert ours.mean_pmax == pytest.approx(theirs.mean_pmax, rel=1e-3)
    if not (run == "class3d" and number == 1):  # has no likelihood
        assert ours.log_likelihood == pytest.approx(theirs.log_likelihood, rel=1e-5)
    spread = theirs.references.std((1, 2, 3))
    apart = (ours.references - theirs.references).std((1, 2, 3)) / spread
    assert float(apart.max()) < 1e-3
    poses(made)
    if theirs.pdf_direction is not None and ours.pdf_direction is not None:
        shares, wanted = (one / one.sum() for one in (ours.pdf_direction, theirs.pdf_direction))
        assert torch.allclose(shares, wanted, atol=1e-4)


def poses(made: Step) -> None:
    """Compare what is said of each particle."""
    ours, theirs = made.data.particles, made.wanted_data.particles
    turned = (orientations(ours) - orientations(theirs)).abs().amax((1, 2)).numpy()
    assert (turned < 1e-3).mean() > 0.99
    assert (ours.classes == theirs.classes).mean() > 0.99
    assert (np.abs(ours.offset_A - theirs.offset_A) < 0.01).all(axis=1).mean() > 0.99
    assert (ours.significant == theirs.significant).mean() > 0.97
    assert np.abs(ours.pmax - theirs.pmax).max() < 5e-3
    assert np.abs(ours.norm / theirs.norm - 1.0).max() < 1e-2
