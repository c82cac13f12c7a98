"""The job relion.select.class2dauto: its files, what is kept between calls, what it refuses."""

import json

import numpy as np
import pytest
from PIL import Image

from algorithms.formats import mrc, star
from algorithms.ranker import inputs, scoring, tables, weights
from algorithms.ranker.constants import RELION
from algorithms.ranker.selection import Overrides, stack_digest
from algorithms.ranker.types import UNSCORED
from schemer.executors import JobRequest
from schemer.executors.native import NativeExecutor
from services.jobs.job import Failed, Job
from services.jobs.ranking import class2dauto
from services.kit.errors import Misuse
from services.report.ranking import COLOURS, contact_sheet
from tests.native import described, ran
from tests.ranker_data import CARD, OPTIMISER, averages, class_set, formula_arrays, write_job

FOLDER = "Select/job002/"
FILES = {
    "rank_model.star",
    "rank_data.star",
    "rank_optimiser.star",
    "backup_selection.star",
    "class_averages.star",
    "particles.star",
    "features.star",
    "features_normalized.star",
    "rank_decisions.star",
    "rank_images.mrcs",
    "rank_classes.png",
}
N = 6


@pytest.fixture
def project(tmp_path):
    """Six classes, the last too small, with weights whose scores differ."""
    fractions = np.array([0.3, 0.2, 0.2, 0.15, 0.13, 0.02])
    write_job(tmp_path, class_set(averages(N, 32), n_particles=300, fractions=fractions))
    arrays = formula_arrays()
    arrays["classifier_images_and_features.4.weight"] *= 20.0
    weights.write(tmp_path / "w.safetensors", arrays, RELION, CARD)
    return tmp_path


def wanted_scores(project):
    job = inputs.read(project, OPTIMISER)
    return scoring.score(job, weights.read(project / "w.safetensors")).scores


def options(threshold=0.0, arguments="--weights w.safetensors", **changes):
    return {
        "do_class_ranker": "Yes",
        "fn_model": OPTIMISER,
        "rank_threshold": f"{threshold}",
        "other_args": arguments,
    } | changes


def call(project, *args, **changes):
    described(project, FOLDER, "relion.select", options(*args, **changes))
    class2dauto(Job(project, FOLDER))


def table(project, name, block):
    return star.load(project / FOLDER / name)[block]


def between(scores):
    """Return a threshold in the middle of the scores there are."""
    known = np.sort(scores[scores != UNSCORED])
    return float((known[1] + known[2]) / 2.0)


def test_the_program_writes_all_files(project):
    scores = wanted_scores(project)
    low = between(scores)
    command = described(project, FOLDER, "relion.select", options(low))
    done = ran(command, project)
    assert "3 of 6 classes are kept" in done.stdout and not done.stderr.strip()
    assert {path.name for path in (project / FOLDER).iterdir() if path.is_file()} == FILES | {
        "job.json"
    }
    model = table(project, "rank_model.star", "model_classes")
    np.testing.assert_allclose(model.floats("rlnClassScore"), scores, atol=2e-5)
    assert model.floats("rlnClassScore")[5] == UNSCORED
    kept = np.flatnonzero((scores >= low) & (scores != UNSCORED)) + 1
    flags = table(project, "backup_selection.star", "").ints("rlnSelected")
    assert (np.flatnonzero(flags) + 1).tolist() == kept.tolist()
    chosen = table(project, "class_averages.star", "")
    assert [int(name[:6]) for name in chosen.strings("rlnReferenceImage")] == kept.tolist()
    rows, source = (
        table(project, "particles.star", "particles"),
        star.load(project / "Class2D/job001/run_it025_data.star")["particles"],
    )
    expected = [i for i, k in enumerate(source.ints("rlnClassNumber")) if k in kept]
    assert rows.strings("rlnColdstreamMark") == [f"p{i}" for i in expected]
    assert list(rows.columns) == list(source.columns)
    optimiser = table(project, "rank_optimiser.star", "optimiser_general")
    assert optimiser.strings("rlnModelStarFile") == [f"{FOLDER}rank_model.star"]
    assert len(table(project, "rank_data.star", "particles")) == 300
    assert mrc.read(project / FOLDER / "rank_images.mrcs").shape == (5, 64, 64)


def test_what_was_decided_and_by_what_is_written_down(project):
    scores = wanted_scores(project)
    low, ask = between(scores), float(np.sort(scores)[1]) - 1e-3
    call(project, low, f"--weights w.safetensors --ask_score {ask}")
    about = table(project, "rank_decisions.star", "class_selection").row(0)
    assert float(about["rlnColdstreamThreshold"]) == pytest.approx(low, abs=1e-5)
    read = weights.read(project / "w.safetensors")
    assert about["rlnColdstreamWeightsDigest"] == read.digest
    assert about["rlnColdstreamRankerMode"] == "relion"
    decided = table(project, "rank_decisions.star", "class_decisions")
    outcomes = decided.strings("rlnColdstreamOutcome")
    assert sorted(outcomes) == ["ask", "ask", "drop", "keep", "keep", "keep"]
    # Those that a person is asked about are not among the particles.
    numbers = set(table(project, "particles.star", "particles").ints("rlnClassNumber"))
    assert numbers == {i + 1 for i, outcome in enumerate(outcomes) if outcome == "keep"}


def test_another_threshold_computes_no_features_again(project, monkeypatch, capsys):
    scores = wanted_scores(project)
    call(project, -5.0)
    before = (project / FOLDER / "features.star").read_text()
    counted = []
    real = scoring.features_of

    def counting(*args, **how):
        counted.append(1)
        return real(*args, **how)

    monkeypatch.setattr(scoring, "features_of", counting)
    call(project, between(scores))
    assert not counted and "are there already" in capsys.readouterr().out
    after = table(project, "features.star", "class_features")
    assert after.ints("rlnIsSelected").sum() == 3
    assert before.count("\n") == (project / FOLDER / "features.star").read_text().count("\n")
    # Averages of another iteration are looked at anew, and so is a spoilt store.
    write_job(project, class_set(averages(N, 32, seed=8), n_particles=300))
    call(project, -5.0)
    assert len(counted) == 1
    for kept in (project / ".coldstream/ranker").glob("*.npz"):
        kept.write_bytes(kept.read_bytes()[:1000])
    call(project, -5.0)
    assert len(counted) == 2


def test_a_call_without_and_with_kept_features_writes_the_same(project):
    def contents():
        return {name: (project / FOLDER / name).read_bytes() for name in FILES}

    low = between(wanted_scores(project))
    call(project, low)
    first = contents()
    call(project, low)
    assert contents() == first
    for kept in (project / ".coldstream/ranker").glob("*.npz"):
        kept.unlink()
    call(project, low)
    assert contents() == first


def test_a_person_is_heard_as_long_as_the_averages_are_the_same(project, capsys):
    scores = wanted_scores(project)
    best = int(scores.argmax()) + 1
    stack = stack_digest(inputs.read(project, OPTIMISER).classes)
    overrides = Overrides(stack=stack, kept={best: False, 6: True})
    (project / FOLDER).mkdir(parents=True)
    star.save(project / FOLDER / "overrides.star", tables.overrides_blocks(overrides))
    call(project, between(scores))
    flags = table(project, "backup_selection.star", "").ints("rlnSelected")
    assert flags[best - 1] == 0 and flags[5] == 1
    assert "2 classes are decided by a person" in capsys.readouterr().out
    reasons = table(project, "rank_decisions.star", "class_decisions").strings(
        "rlnColdstreamReason"
    )
    assert reasons.count("person") == 2
    # The next iteration has other averages; the word is given by name this time.
    (project / FOLDER / "overrides.star").rename(project / "word.star")
    write_job(project, class_set(averages(N, 32, seed=8), n_particles=300))
    call(project, -5.0, "--weights w.safetensors --overrides word.star")
    assert "2 decisions in word.star are of other averages" in capsys.readouterr().out
    assert table(project, "backup_selection.star", "").ints("rlnSelected").sum() == N


def test_minima_and_adaptive_thresholds_are_options(project, capsys):
    call(project, 9.0, select_nr_parts="150")
    assert table(project, "particles.star", "particles").columns
    assert "150" not in capsys.readouterr().err
    call(project, 9.0, select_nr_classes="2")
    assert len(table(project, "class_averages.star", "")) == 2
    # RELION's window passes one of the two; by its argument both can be asked for.
    call(project, 9.0, select_nr_parts="10", select_nr_classes="4")
    assert len(table(project, "class_averages.star", "")) == 1
    both = "--weights w.safetensors --select_min_nr_classes 4"
    call(project, 9.0, both, select_nr_parts="10")
    assert len(table(project, "class_averages.star", "")) == 4
    capsys.readouterr()
    call(project, 9.0, "--weights w.safetensors --adaptive_quantile 0.5")
    scores = wanted_scores(project)
    low = float(np.clip(np.median(scores[:5]), 0.05, 0.5))
    assert f"threshold {low:.3g}: the quantile 0.5" in capsys.readouterr().out
    about = table(project, "rank_decisions.star", "class_selection").row(0)
    assert float(about["rlnColdstreamThreshold"]) == pytest.approx(low, abs=1e-5)
    assert "quantile" in about["rlnColdstreamThresholdNote"]
    call(project, 0.9, "--weights w.safetensors --relative_thresholds Yes --max_score 1")
    about = table(project, "rank_decisions.star", "class_selection").row(0)
    assert float(about["rlnColdstreamThreshold"]) == pytest.approx(0.9 * scores.max(), abs=1e-5)


def test_nothing_selected_ends_the_job_with_its_files_written(project, capsys):
    with pytest.raises(Failed, match="nothing is selected"):
        call(project, 9.0)
    assert "no class is selected of 5" in capsys.readouterr().err
    assert len(table(project, "rank_model.star", "model_classes")) == N
    assert (project / FOLDER / "rank_classes.png").exists()
    tables_there = star.load(project / FOLDER / "particles.star")
    assert not len(tables_there.get("particles", star.Table()))


def test_without_weights_the_job_says_what_to_give(project, monkeypatch):
    monkeypatch.setattr(weights, "DEFAULT", project / "none.safetensors")
    with pytest.raises(Misuse) as error:
        call(project, 0.0, "")
    for words in ("other_args", "--weights FILE", ".safetensors", "classranker_v1.0.ckpt"):
        assert words in str(error.value)
    assert not (project / FOLDER / "particles.star").exists()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"arguments": "--weights none.ckpt"}, Misuse, "cannot be read"),
        ({"arguments": "--weights w.safetensors --sigma 3"}, Misuse, "'--sigma'.*--weights FILE"),
        ({"arguments": "--weights w.safetensors --ask_score 5"}, Failed, "ask <= low"),
        ({"arguments": "--weights w.safetensors --ask_score x"}, Misuse, "--ask_score .* a number"),
        ({"arguments": "--weights w.safetensors --overrides w.star"}, OSError, "w.star"),
        ({"fn_model": "none_optimiser.star"}, Misuse, "none_optimiser.star"),
        ({"fn_model": "Class2D/job001/run_it025_model.star"}, Failed, "run_itNNN_optimiser"),
        ({"do_regroup": "Yes", "nr_groups": "100"}, Failed, "nr_groups 100 of 250 .* groups of 2"),
        ({"threshold": "much"}, Misuse, "rank_threshold .* a number"),
    ],
)
def test_what_it_cannot_do_is_refused(project, changes, error, words):
    with pytest.raises(error, match=words):
        call(project, **changes)


def test_particles_without_classes_are_refused(project):
    write_job(project, class_set(averages(N, 32), n_particles=300), drop=("rlnClassNumber",))
    with pytest.raises(Failed, match=r"run_it025_data\.star: no column rlnClassNumber"):
        call(project, -5.0)


def test_the_contact_sheet_is_sorted_and_framed_by_the_outcome(project):
    call(project, between(wanted_scores(project)))
    sheet = np.asarray(Image.open(project / FOLDER / "rank_classes.png"))
    # The best class is first and kept, the one without a score last and dropped.
    assert tuple(sheet[6, 6]) == COLOURS["keep"]
    decided = table(project, "rank_decisions.star", "class_decisions").strings(
        "rlnColdstreamOutcome"
    )
    n = {colour: (sheet == np.array(COLOURS[colour])).all(-1).sum() for colour in COLOURS}
    assert n["keep"] > n["drop"] * 0.8 and decided.count("keep") == decided.count("drop") == 3
    assert n["ask"] == 0


def test_a_class_that_is_not_finite_is_drawn_too():
    images = averages(2, 32)
    images[1] = np.nan
    picture = contact_sheet(
        images,
        np.array([0.5, UNSCORED]),
        np.array([100.0, 50.0]),
        np.array([8.0, 999.0]),
        ["keep", "drop"],
        ["minimum", "unscored"],
    )
    assert picture.size[0] > 200


def test_the_job_is_known_to_the_executor(project):
    command = described(project, FOLDER, "relion.select", options())
    request = json.loads((project / FOLDER / "job.json").read_text())
    assert request["type"] == "relion.select.class2dauto" and request["inputs"] == [OPTIMISER]
    asked = JobRequest(process=FOLDER, label=request["type"], options=request["options"])
    assert NativeExecutor().commands(asked) == [command]
