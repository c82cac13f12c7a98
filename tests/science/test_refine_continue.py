"""Going on from the files of an iteration: RELION 5's, ours, and ours by RELION 3.1."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from algorithms.formats import mrc, star
from algorithms.refine import continued, files
from algorithms.refine.run import Run
from algorithms.refine.sampling import Sampling
from algorithms.refine.types import Model, Options, RefineError
from tests.shared import shared

OPTIONS = {
    "em2d": Options(n_classes=4, iterations=4, particle_diameter_A=300.0, seed=7),
    "vdam2d": Options(n_classes=4, iterations=20, particle_diameter_A=300.0, seed=7, gradient=True),
}
SAMPLING = Sampling(psi_step_deg=12.0, offset_range_A=30.0, offset_step_A=12.0)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with RELION's runs and their particles."""
    images = shared("data/particles/sim_30S")
    for name in OPTIONS:
        (tmp_path / name).symlink_to(shared(f"data/refinement/{name}"))
    (tmp_path / "particles.mrcs").symlink_to(images / "particles.mrcs")
    return tmp_path


def gone_on(project: Path, optimiser: str, name: str, options: Options) -> Run:
    """Go on from an optimiser file, in a folder of its own."""
    (project / name).mkdir(exist_ok=True)
    return Run(
        project / optimiser, project / name / "run", f"{name}/run", project, options, SAMPLING
    )


def assert_same(a: Model, b: Model) -> None:
    """Compare to what the digits of a file hold."""
    assert float((a.references - b.references).abs().max() / a.references.std()) < 1e-4
    for name in ("noise", "fractions", "scales"):
        assert torch.allclose(getattr(a, name), getattr(b, name), rtol=1e-5, atol=1e-12), name
    assert a.sampling.perturbation == pytest.approx(b.sampling.perturbation, abs=1e-8)
    assert a.log_likelihood == pytest.approx(b.log_likelihood, rel=1e-7)
    assert (a.iteration, a.current_size) == (b.iteration, b.current_size)


@pytest.mark.parametrize(("name", "number"), [("em2d", 2), ("vdam2d", 10)])
def test_a_run_of_relion_goes_on_and_ours_gives_the_same_next_iteration(
    project: Path, name: str, number: int
) -> None:
    run = gone_on(project, f"{name}/run_it{number:03d}_optimiser.star", "a", OPTIONS[name])
    assert (run.model.iteration, run.model.n_classes) == (number, 4)
    begun = run.model.references.clone()
    run.step()
    run.step()
    assert not torch.equal(run.model.references, begun)
    again = gone_on(project, f"a/run_it{number + 1:03d}_optimiser.star", "b", OPTIONS[name])
    again.step()
    assert_same(again.model, run.model)
    ours, theirs = again.data.particles, run.data.particles
    assert (ours.classes == theirs.classes).mean() > 0.995
    read = files.read_model(project / "b" / f"run_it{number + 2:03d}")
    assert_same(read, run.model)


def test_killed_after_it_went_on_it_goes_on_from_there(project: Path) -> None:
    optimiser = "em2d/run_it002_optimiser.star"
    run = gone_on(project, optimiser, "a", OPTIONS["em2d"])
    run.step()
    resumed = gone_on(project, optimiser, "a", OPTIONS["em2d"])
    assert resumed.model.iteration == 3
    assert torch.equal(resumed.model.references, run.model.references)
    # From another iteration, or with other options, it begins where it is told to.
    assert (
        gone_on(project, "em2d/run_it001_optimiser.star", "a", OPTIONS["em2d"]).model.iteration == 1
    )
    other = replace(OPTIONS["em2d"], tau2_fudge=3.0)
    assert gone_on(project, optimiser, "a", other).model.iteration == 2


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("em2d/run_it000_optimiser.star", "not the state before the first"),
        ("em2d/run_it002_model.star", "no optimiser file"),
        ("em2d/run_it009_optimiser.star", "run_it009_optimiser.star is not there"),
        ("vdam2d/run_it005_optimiser.star", "is not there"),
    ],
)
def test_what_cannot_be_continued_is_said(project: Path, path: str, words: str) -> None:
    with pytest.raises(RefineError, match=words):
        continued.read(project / path)


@pytest.mark.relion
def test_relion_goes_on_from_our_files(project: Path) -> None:
    """RELION 3.1 keeps the noise by group, in blocks of other names: the test renames them."""
    program = shutil.which("relion_refine")
    if program is None:
        pytest.skip("RELION is not installed")
    run = gone_on(project, "em2d/run_it002_optimiser.star", "a", OPTIONS["em2d"])
    run.step()
    model = project / "a" / "run_it003_model.star"
    blocks = star.load(model)
    noise = blocks["model_optics_group_1"]
    numbers = range(1, len(blocks["model_groups"]) + 1)
    star.save(model, blocks | {f"model_group_{number}": noise for number in numbers})
    run.step()
    (project / "c").mkdir()
    command = [program, "--continue", "a/run_it003_optimiser.star", "--o", "c/run", "--iter", "4"]
    told = subprocess.run(
        [*command, "--j", "1"], cwd=project, capture_output=True, text=True, timeout=250
    )
    assert told.returncode == 0, told.stderr[-2000:]
    found = mrc.read(project / "c" / "run_it004_classes.mrcs")
    for ours, theirs in zip(run.model.references.numpy(), found, strict=True):
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99
    general = star.load(project / "c" / "run_it004_model.star")["model_general"]
    assert float(general.floats("rlnLogLikelihood")[0]) == pytest.approx(
        run.model.log_likelihood, rel=1e-4
    )
