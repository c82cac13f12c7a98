import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from algorithms.formats import star
from algorithms.ranker import weights
from algorithms.ranker.learning import archive, retraining
from algorithms.ranker.trainingset import records
from algorithms.ranker.types import RankerError
from services.cli import app
from tests import learning_data
from tests.ranker_data import averages, class_set, write_job
from tests.shared import shared

RECIPE = {"epochs": 5, "rate": 3e-3, "width": 4, "batch": 8, "grey": "job", "cosine": True}


RULES = {"constant", "class size", "distribution / resolution", "ridge on features"}


def called(*words: object):
    return CliRunner().invoke(app, ["ranker", *map(str, words)], catch_exceptions=False)


def written_set(folder: Path) -> Path:
    for jobs in learning_data.jobs_of(4, 2).values():
        for job in jobs:
            records.write(folder / f"{job.job}.npz", job)
    return folder


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a set and a run on it that was trained, judged and exported."""
    place = tmp_path_factory.mktemp("learning")
    recipe = place / "recipe.json"
    recipe.write_text(json.dumps(RECIPE))
    folder, run = written_set(place / "set"), place / "run"
    lean = ("--no-curve", "--no-ablations")
    assert called("train", folder, "--run", run, "--recipe", recipe, *lean).exit_code == 0
    called("evaluate", folder, "--run", run)
    out = ("--out", run / "out.safetensors", "--page", run / "model.md")
    assert called("export", "--run", run, *out).exit_code == 0
    return folder, run


def test_a_run_from_set_to_card(released: tuple[Path, Path]) -> None:
    _, run = released
    html = (run / "evaluation.html").read_text()
    assert "test0" in html and "ridge on features" in html and "data:image/png" in html
    result = json.loads((run / "evaluation.json").read_text())
    assert set(result["baselines"]) == RULES
    found = weights.read(run / "out.safetensors")
    assert found.card["thresholds"] == result["thresholds"]
    assert found.card["splits"]["test"]["jobs"] == ["test0", "test1"]
    assert found.card["status"] == "experimental"  # there are no real data among the bars
    assert set(weights.CARD) <= set(found.card)
    page = (run / "model.md").read_text()
    assert found.digest in page and "Status: experimental" in page
    model = weights.read(run / "model.safetensors")
    images = averages(2, 64)
    z = np.zeros((2, 24), np.float32)
    np.testing.assert_array_equal(found.network(images, z), model.network(images, z))


@pytest.mark.slow
def test_ablations_and_learning_curve(released: tuple[Path, Path], tmp_path: Path) -> None:
    folder, _ = released
    recipe, run = tmp_path / "recipe.json", tmp_path / "run"
    recipe.write_text(json.dumps(RECIPE))
    made = called("train", folder, "--run", run, "--recipe", recipe)
    assert "images only:" in made.output and "2 jobs:" in made.output
    called("evaluate", folder, "--run", run)
    result = json.loads((run / "evaluation.json").read_text())
    assert set(result["baselines"]) == RULES | {"images only", "features only"}
    training = json.loads((run / "training.json").read_text())
    assert [point["jobs"] for point in training["curve"]] == [1, 2, 4]


def test_a_run_that_is_done_is_not_done_again(released: tuple[Path, Path], tmp_path: Path) -> None:
    folder, run = released
    before = (run / "model.safetensors").read_bytes()
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(RECIPE))
    lean = ("--no-curve", "--no-ablations")
    again = called("train", folder, "--run", run, "--recipe", recipe, *lean)
    assert again.exit_code == 0 and (run / "model.safetensors").read_bytes() == before
    recipe.write_text(json.dumps(RECIPE | {"epochs": 2}))
    refused = called("train", folder, "--run", run, "--recipe", recipe)
    assert refused.exit_code == 2 and "another recipe" in refused.output


def test_what_is_missing_is_told(released: tuple[Path, Path], tmp_path: Path) -> None:
    folder, run = released
    for words, told in (
        (("evaluate", folder, "--run", tmp_path), "train first"),
        (("export", "--run", tmp_path, "--out", tmp_path / "w"), "train first"),
        (("train", tmp_path, "--run", run), "holds no records"),
        (("train", folder, "--run", run, "--recipe", "best"), "--recipe must be relion"),
        (("import", tmp_path, folder, "--part", "all"), "one of train"),
        (("import", tmp_path, folder), "has no folder with run_model.star"),
    ):
        refused = called(*words)
        assert refused.exit_code == 2 and told in refused.output, refused.output


def own_job(name: str, seed: int, *, inverted: bool = False) -> records.ClassRecords:
    """Return decisions on half of the classes of a job."""
    job = learning_data.job(name, "real", seed=seed, source="override", n=12)
    kept = (job.label > 0) != inverted
    y, label = np.where(kept, 0.75, 0.0), kept.astype(np.int64)
    y[::2], label[::2] = np.nan, records.UNKNOWN_LABEL
    return replace(job, y=y, label=label)


def test_retraining_is_accepted_or_refused(released: tuple[Path, Path], tmp_path: Path) -> None:
    folder, run = released
    out, base = tmp_path / "new.safetensors", run / "out.safetensors"
    own = tmp_path / "own"
    own.mkdir()
    for i in range(3):
        records.write(own / f"{i}.npz", own_job(f"o{i}", 50 + i))
    words = ("retrain", folder, "--own", own, "--out", out, "--weights", base)
    good = called(*words, "--epochs", 1)
    assert good.exit_code == 0, good.output
    assert weights.read(out).card["retrained"]["from"] == weights.read(base).digest
    out.unlink()
    for i in range(3):
        records.write(own / f"{i}.npz", own_job(f"o{i}", 50 + i, inverted=True))
    opposite = replace(retraining.RECIPE, epochs=10, rate=5e-3)
    set_of = {
        "train": [],
        "test": [learning_data.job(f"test{i}", "test", seed=200 + i) for i in (0, 1)],
    }
    mine = [records.read(path) for path in records.listing(own)]
    outcome = retraining.retrain(weights.read(base), set_of, mine, recipe=opposite)
    assert not outcome.accepted and outcome.reasons[0].startswith("mse")
    with pytest.raises(RankerError, match="lacks test job test0"):
        retraining.retrain(weights.read(base), {"train": [], "test": []}, mine)
    assert not out.exists()


def archive_job(root: Path, name: str, *, seed: int = 1, missing: tuple[str, ...] = ()) -> Path:
    """Write one folder as EMPIAR-10812 has them."""
    images = averages(6, 32, seed)
    classes = class_set(images, accuracy_deg=np.array([1.0, 2.0, 3.0, 999.0, 4.0, 2.0]))
    write_job(root / "project", classes)
    folder = root / "data" / name
    folder.mkdir(parents=True)
    for path in (root / "project/Class2D/job001").iterdir():
        path.rename(folder / path.name.replace("run_it025", "run"))
    table = star.Table.of({"rlnSelected": [1, 5, 2, 3, 0, 6]})
    star.save(folder / "backup_selection.star", {"": table})
    (folder / "job_score.txt").write_text("0.8\n")
    for file in missing:
        (folder / file).unlink()
    return folder


def test_an_archive_is_read_and_what_cannot_be_is_named(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    archive_job(root, "ab12ab12ab12")
    lean = archive_job(
        root, "cd34cd34cd34", seed=2, missing=("run_optimiser.star", "run_data.star")
    )
    model = star.load(lean / "run_model.star")
    model["model_groups"] = star.Table.of({"rlnGroupNrParticles": [200, 400]})
    star.save(lean / "run_model.star", model)
    archive_job(root, "ef56ef56ef56", missing=("job_score.txt",))
    short = archive_job(root, "gh78gh78gh78")
    star.save(short / "backup_selection.star", {"": star.Table.of({"rlnSelected": [1, 0]})})
    found = called("import", root, tmp_path / "set")
    assert found.exit_code == 1 and "2 jobs, 12 classes" in found.output
    assert "job_score.txt is missing" in found.output and "2 labels for 6 classes" in found.output
    assert "no particle diameter" in found.output and "no accuracies of 1" in found.output
    full, small = (records.read(path) for path in records.listing(tmp_path / "set"))
    assert (full.part, full.source, full.job_score) == ("real", "empiar10812", 0.8)
    w = (full.resolution_A[0] / full.resolution_A) ** 2
    base = np.array([0.75, 0.5, 0.25, 0.0])
    np.testing.assert_allclose(full.y[:4], 0.8 * (base + 0.25 * w[:4]))
    assert (full.y[4:] == 0.0).all() and full.label.tolist() == [1, 5, 2, 3, 0, 6]
    assert full.features.columns["AccuracyRotations"][3] == 5.0
    assert small.size.sum() == pytest.approx(600.0, abs=0.01)
    again = called("import", root, tmp_path / "set")
    assert again.exit_code == 2 and "ab12ab12ab12.npz is there already" in again.output


def test_folders_of_the_same_name_become_two_jobs(tmp_path: Path) -> None:
    for above in ("one", "two"):
        archive_job(tmp_path / "archive" / above, "job001", seed=len(above))
    found = called("import", tmp_path / "archive", tmp_path / "set")
    assert found.exit_code == 0 and "2 jobs, 12 classes" in found.output
    names = [path.stem for path in records.listing(tmp_path / "set")]
    assert names == ["one_data_job001", "two_data_job001"]


def test_a_large_archive_is_divided_by_name() -> None:
    names = [f"job{i:04d}" for i in range(400)]
    parts = [archive._divided(name) for name in names]
    assert 0.62 < parts.count("train") / 400 < 0.78 and 0.08 < parts.count("test") / 400 < 0.22
    assert parts == [archive._divided(name) for name in names]


def test_real_data_is_found_and_read() -> None:
    root = shared("data/class2d/bgal_it025")
    ((project, optimiser),) = archive.labelled_projects(root)
    job = archive.read_project(project, optimiser)
    assert (job.label == 1).sum() == 7 and len(job) == 8 and np.isnan(job.y).all()
