"""Whole auto-refinements against the truth: resolution that is there, and none that is not."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from algorithms.formats import mrc
from algorithms.maps import correlation
from algorithms.refine.auto.rules import Rules
from algorithms.refine.auto.run import AutoRun
from algorithms.refine.auto.settings import Settings
from algorithms.refine.space.sampling import Sampling3D
from algorithms.refine.types import Options
from tests.volume_data import Truth, blob_map, write_map, write_particles

pytestmark = pytest.mark.slow

BOX, PIXEL_A, DIAMETER_A = 32, 4.0, 100.0
EDGE_A = BOX * PIXEL_A


def refinement(
    folder: Path, volume: torch.Tensor, *, group: str = "C1", ini_high_A: float = 30.0
) -> AutoRun:
    """Return a run in a folder that holds particles."""
    settings = Settings(
        reference=write_map(folder / "reference.mrc", volume, PIXEL_A),
        rules=Rules(particle_diameter_A=DIAMETER_A),
        sampling=Sampling3D(
            healpix_order=1,
            psi_step_deg=30.0,
            symmetry=group,
            offset_range_A=3.0 * PIXEL_A,
            offset_step_A=2.0 * PIXEL_A,
        ),
    )
    options = Options(
        n_classes=1,
        iterations=30,
        particle_diameter_A=DIAMETER_A,
        tau2_fudge=1.0,
        ini_high_A=ini_high_A,
        first_cc=True,
        center_classes=False,
        symmetry=group,
        seed=4,
    )
    out = folder / "refine"
    out.mkdir()
    return AutoRun(folder / "particles.star", out / "run", "refine/run", folder, options, settings)


def maps(run: AutoRun) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the final map and both unfiltered half-maps."""
    names = ("class001", "half1_class001_unfil", "half2_class001_unfil")
    paths = (run.root.with_name(f"run_{name}.mrc") for name in names)
    final, first, second = (torch.from_numpy(np.array(mrc.read(path))).double() for path in paths)
    return final, first, second


@pytest.fixture(scope="module")
def refined(tmp_path_factory: pytest.TempPathFactory) -> tuple[AutoRun, Truth]:
    folder = tmp_path_factory.mktemp("blobs")
    truth = write_particles(folder, blob_map(BOX, 3), 300, pixel_A=PIXEL_A, snr=0.2)
    run = refinement(folder, truth.volume)
    run.run()
    return run, truth


def test_the_resolution_is_honest(refined: tuple[AutoRun, Truth]) -> None:
    run, truth = refined
    final, first, second = maps(run)
    gold = correlation.fsc(first, second)
    shell = correlation.resolved_shell(gold)
    assert shell >= 7  # 18 A; the reference had 30 A
    against = correlation.fsc(final, truth.volume)
    # Rosenthal and Henderson (2003): 0.143 of the halves is 0.5 of the whole against the truth.
    assert float(against[shell]) > 0.5 - 0.1
    assert float(against[2:6].min()) > 0.9


def test_it_converged_by_the_rules(refined: tuple[AutoRun, Truth]) -> None:
    run, _ = refined
    course = run.course
    assert run.finished and run.iteration < 30
    assert course.sampling.healpix_order >= 2
    assert course.state.fine_enough
    assert len(course.curves) == len(course.resolutions_A) == run.iteration
    assert run.model.current_size == BOX


def test_noise_alone_has_no_resolution(tmp_path: Path) -> None:
    write_particles(tmp_path, None, 200, pixel_A=PIXEL_A, seed=9)
    run = refinement(tmp_path, blob_map(BOX, 3), ini_high_A=40.0)
    run.run()
    _, first, second = maps(run)
    gold = correlation.fsc(first, second)
    # What was in the reference, 40 A, is found again in any images; nothing beyond it is.
    reference_shell = int(np.ceil(EDGE_A / 40.0))
    assert float(gold[reference_shell + 3 :].max()) < 0.3
    assert float(gold[reference_shell + 3 :].mean()) < 0.08
    assert run.course.resolutions_A[-1] >= EDGE_A / 6.0


def test_a_symmetric_map_stays_so(tmp_path: Path) -> None:
    volume = blob_map(BOX, 6)
    whole, inner = torch.zeros_like(volume), slice(1, None)  # voxel N/2 is the middle of these
    cut = volume[inner, inner, inner]
    for turn in range(4):
        whole[inner, inner, inner] += torch.rot90(cut, turn, (1, 2))
    truth = write_particles(tmp_path, whole, 150, pixel_A=PIXEL_A, snr=0.2, seed=3)
    run = refinement(tmp_path, truth.volume, group="C4")
    run.run()
    final, first, second = maps(run)
    cut = final[inner, inner, inner]
    turned = torch.rot90(cut, 1, (1, 2))
    apart = (cut - turned).std() / cut.std()
    assert float(apart) < 0.05
    assert correlation.resolved_shell(correlation.fsc(first, second)) >= 7


@pytest.mark.skipif(shutil.which("relion_refine_mpi") is None, reason="needs RELION")
def test_relion_reads_the_model(refined: tuple[AutoRun, Truth]) -> None:
    """RELION's own program for models prints the resolution that ours says."""
    run, _ = refined
    folder = run.root.parent
    done = subprocess.run(
        ["relion_star_printtable", str(folder / "run_model.star"), "data_model_class_1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()]
    assert len(rows) == BOX // 2 + 1
