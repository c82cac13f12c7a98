"""Selection in a session of real processes: what prep measures is what proc's limits look at."""

from pathlib import Path

import pytest

from algorithms.formats import star
from tests.system import sessions

# Of the fields that prep sends with each fit, those that spectra of 4 A per px do not have.
OUT_OF_REACH = {"rlnCtfIceRingDensity", "rlnColdstreamIciness", "rlnColdstreamIceRing"}


def table(project: Path, pattern: str, block: str) -> star.Table:
    (path,) = project.glob(pattern)
    return star.load(path)[block]


@pytest.mark.slow
def test_limits_look_at_what_was_measured(tmp_path: Path) -> None:
    raw = sessions.simulate(tmp_path / "Simulated3", n_exposures=3)
    project = tmp_path / "project"
    assert sessions.process(raw, project, "--workers", "1").returncode == 0
    quality = table(project, "Select/job*/quality.star", "micrographs")
    corrected = table(project, "MotionCorr/job*/corrected_micrographs.star", "micrographs")
    assert not OUT_OF_REACH & set(quality.columns)
    names = corrected.strings("rlnMicrographName")
    assert quality.strings("rlnMicrographName") == names
    # What the tables of the jobs before say; `quality.star` has them by way of the bus.
    for label in ("rlnAccumMotionTotal", "rlnAccumMotionEarly", "rlnAccumMotionLate"):
        found = [round(v, 4) for v in quality.floats(label).tolist()]
        assert found == [round(v, 4) for v in corrected.floats(label).tolist()], label
    intensity = quality.floats("rlnColdstreamMeanIntensity")
    assert intensity.min() > 0.0 and intensity.max() < 1.2 * intensity.min()
    assert quality.floats("rlnColdstreamAstigmatismShare").max() < 0.2
    squares = table(project, "Select/job*/quality.star", "squares")
    assert squares.ints("rlnColdstreamMicrographs").sum() == 3

    motion = quality.floats("rlnAccumMotionTotal")
    assert motion.min() > 0.0
    limit = (sorted(motion)[1] + sorted(motion)[2]) / 2.0
    words = f"--limit rlnAccumMotionTotal:0:{limit:.4f} --limit rlnColdstreamMeanIntensity:0:1e9"
    option = ("--set", f"proc__select_mics__other_args={words}")
    assert sessions.process(raw, project, "--workers", "1", *option).returncode == 0
    kept = [name for name, moved in zip(names, motion, strict=True) if moved < limit]
    assert len(kept) == 2
    selected = table(project, "Select/job*/micrographs.star", "micrographs")
    assert selected.strings("rlnMicrographName") == kept
    ledger = sessions.status(project)["stages"]["proc"]
    assert (ledger["done"], ledger["refused"]) == (2, 1)
    told = sessions.coldstream("status", "--project", project).stdout
    assert "rlnAccumMotionTotal is" in told and "--limit of select_mics" in " ".join(told.split())
