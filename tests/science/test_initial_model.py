"""Initial models: iterations of RELION 5.0.1, the start from nothing, and quality against truth."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from algorithms.maps import symmetry_align
from algorithms.orientation import symmetry
from algorithms.refine import files, iteration, kept
from algorithms.refine.space import firstmodel
from algorithms.refine.space.firstmodel import FirstModelRun, first_sampling
from algorithms.refine.types import Model, Options
from services.jobs.symmetry import largest_class
from tests.map_fit import agreed_A
from tests.shared import shared
from tests.space_data import written
from tests.volume_data import blob_map, write_particles

BOX, PIXEL_A = 32, 5.0
OPTIONS = Options(
    n_classes=1,
    iterations=20,
    gradient=True,
    particle_diameter_A=300.0,
    tau2_fudge=4.0,
    norm=False,
    scale=False,
    center_classes=False,
    inactivity=0.0,
    max_significants=100,
    pad=1,
    seed=7,
)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    known = theirs.abs() > 1e-12
    return float(((ours - theirs).abs()[known] / theirs.abs()[known]).max())


def spread(values: torch.Tensor) -> float:
    return float(values.abs().square().mean().sqrt())


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 3, 11, 20])
def test_an_iteration_is_that_of_relion(number: int) -> None:
    folder, images = shared("data/refinement/ini3d"), shared("data/refinement/sim32")
    before, after = (folder / f"run_it{n:03d}" for n in (number - 1, number))
    data = files.read_data(before.with_name(f"{before.name}_data.star"), images)
    wanted = files.read_data(after.with_name(f"{after.name}_data.star"), images).particles
    ours, theirs = files.read_model(before), files.read_model(after)
    ours.sampling = theirs.sampling
    if number == 1:  # the first resolution comes from the filter of the references
        ours.resolution_shell = theirs.current_size // 2 - 10
    old = 0.0 if number == 1 else data.particles.log_likelihood
    subset = np.flatnonzero(wanted.log_likelihood != old)
    iteration.iterate(data, ours, OPTIONS, subset)
    _compare(ours, theirs)
    mine = data.particles
    same = np.abs((mine.psi_deg - wanted.psi_deg + 180.0) % 360.0 - 180.0) < 0.01
    same &= np.abs(mine.tilt_deg - wanted.tilt_deg) < 0.01
    same &= (np.abs(mine.offset_A - wanted.offset_A) < 0.01).all(axis=1)
    assert same.mean() > 0.97


def _compare(ours: Model, theirs: Model) -> None:
    assert ours.current_size == theirs.current_size
    assert ours.resolution_shell == theirs.resolution_shell
    # At iteration 20 the window is the whole box, and its last shells hold next to nothing.
    is_whole = ours.current_size == ours.box
    assert relative(ours.tau2, theirs.tau2) < (3e-3 if is_whole else 1e-3)
    # Voxels exactly on the circle make some percent of the last shells: rounding decides there.
    assert relative(ours.ssnr[:, :7], theirs.ssnr[:, :7]) < 6e-3
    assert relative(ours.noise, theirs.noise) < 1e-4
    assert ours.sigma_offset_A == pytest.approx(theirs.sigma_offset_A, rel=1e-4)
    assert ours.mean_pmax == pytest.approx(theirs.mean_pmax, rel=1e-3)
    apart = (ours.references - theirs.references).std() / theirs.references.std()
    assert float(apart) < (2.5e-3 if is_whole else 1e-3)
    assert ours.moments is not None
    assert theirs.moments is not None
    for half in range(2):
        first, second = ours.moments.first[half], theirs.moments.first[half]
        assert spread(first - second) < 2e-2 * spread(second)
    # A ratio with a heavy tail: single voxels may be far apart.
    second = (ours.moments.second - theirs.moments.second).abs()
    assert float(second.median()) < 1e-4
    assert float(second.mean()) < 5e-2


def test_what_is_saved_knows_what_the_iteration_changed(tmp_path, monkeypatch) -> None:
    """Once, and with the counters: a run that is killed at any time goes on the same."""
    written(tmp_path, 10, snr=1.0)
    run = FirstModelRun(
        tmp_path / "p.star", tmp_path / "run", "run", tmp_path,
        replace(OPTIONS, particle_diameter_A=100.0), first_sampling(6.0, "C1"),
    )  # fmt: skip
    saved, save = [], kept.save

    def spied(path: Path, state: kept.Kept) -> None:
        saved.append(state.model.moved_A)
        save(path, state)

    monkeypatch.setattr(kept, "save", spied)
    run.step()
    assert saved == [run.model.moved_A]
    assert 0.0 < run.model.moved_A < 999.0


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(("group", "seed"), [("C1", 1), ("D2", 2)])
def test_a_model_of_simulated_particles_is_that_of_the_truth(
    group, seed, tmp_path, monkeypatch
) -> None:
    """FSC 0.5 against the truth better than 25 A, by the symmetric map of the largest class."""
    monkeypatch.setattr(firstmodel, "FINEST_ORDER", 2)  # 7.5 degrees tell nothing more at 20 A
    volume = blob_map(BOX, seed)
    if group != "C1":
        volume = symmetry_align.mean_of_views(volume, symmetry.operators(group), torch.zeros(3))
    truth = write_particles(
        tmp_path, volume, 1000, box=BOX, pixel_A=PIXEL_A, snr=0.3, seed=seed
    ).volume
    diameter_A = 0.72 * BOX * PIXEL_A
    options = replace(OPTIONS, iterations=60, particle_diameter_A=diameter_A, seed=seed + 7)
    run = FirstModelRun(
        tmp_path / "particles.star", tmp_path / "run", "run", tmp_path, options,
        first_sampling(PIXEL_A, "C1"),
    )  # fmt: skip
    chosen = largest_class(run.run(), group, diameter_A)
    radius_px = diameter_A / PIXEL_A / 2.0
    assert agreed_A(chosen.volume, truth, PIXEL_A, radius_px) < 25.0
