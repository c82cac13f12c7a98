"""The live ranker: what it answers to iterations, to other options, to people, and to bad input."""

import errno
import pickle
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from algorithms.formats import mrc, star
from algorithms.ranker import inputs, scoring, weights
from algorithms.ranker.architecture import Widths
from algorithms.ranker.constants import RELION
from algorithms.ranker.trainingset import records
from algorithms.ranker.types import UNSCORED
from schemer import starfile, templates
from schemer.jobs import JobFile
from schemer.project import Project
from services.kit.errors import Misuse
from services.kit.events import (
    ClassesFailed,
    ClassesRanked,
    ClassOverridden,
    RankingDue,
    RankingRefused,
)
from services.kit.host import Arrived, Finished
from services.kit.journal import Draft
from services.kit.ledger import Ledger
from services.ranker import overriding
from services.ranker.service import Ruling
from services.ranker.state import RankerState
from services.setup import set_up
from services.stories import status_lines
from tests.ranker_data import CARD, OPTIMISER, averages, class_set, formula_arrays, write_job
from tests.ranking import CLASSES, JOB, Following, averaged, due, iterated

N = 6


@pytest.fixture
def live(tmp_path):
    """Six classes, the last too small, with weights whose scores differ."""
    write_classes(tmp_path)
    arrays = formula_arrays()
    arrays["classifier_images_and_features.4.weight"] *= 20.0
    weights.write(tmp_path / "w.safetensors", arrays, RELION, CARD)
    read = weights.read(tmp_path / "w.safetensors")
    scores = np.sort(scoring.score(inputs.read(tmp_path, OPTIMISER), read).scores[:5])
    thresholds = {"default": scores[2] - 1e-4, "drop": scores[1] - 1e-4, "keep": 9.0}
    for status in ("experimental", "released"):
        card = CARD | {"status": status, "thresholds": thresholds}
        weights.write(tmp_path / f"{status}.safetensors", arrays, RELION, card)
    following = Following(tmp_path)
    yield following
    following.close()


def write_classes(project, seed=1, **changes):
    fractions = np.array([0.3, 0.2, 0.2, 0.15, 0.13, 0.02])
    classes = class_set(averages(N, 32, seed), n_particles=300, fractions=fractions)
    write_job(project, classes, **changes)


def ranked(told) -> list[ClassesRanked]:
    return [body for body in told if isinstance(body, ClassesRanked)]


def refused(told) -> RankingRefused:
    (found,) = [body for body in told if isinstance(body, RankingRefused)]
    return found


def kept(one: ClassesRanked) -> list[int]:
    return [n + 1 for n, outcome in enumerate(one.outcomes) if outcome == "keep"]


def middle(one: ClassesRanked) -> float:
    scores = sorted(score for score in one.scores if score != UNSCORED)
    return (scores[1] + scores[2]) / 2.0


def contents(live, job=JOB):
    folder = live.project / job
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def counting(monkeypatch) -> list[str]:
    """Count how often features are computed."""
    calls, real = [], scoring.features_of

    def features_of(job, mode, **how):
        calls.append(mode)
        return real(job, mode, **how)

    monkeypatch.setattr(scoring, "features_of", features_of)
    return calls


def test_every_iteration_with_files_is_answered_and_the_last_one_decides(live):
    assert live.come(due(-5.0)) == [due(-5.0)]  # nothing to look at yet
    assert not live.come(iterated(24, optimiser=None))
    (first,) = ranked(live.come(iterated()))
    assert not first.is_final and live.status() == "Running"
    (last,) = ranked(live.come(averaged()))
    assert last.is_final and last.order == 2 and last.adopted
    assert (last.job, last.process, last.total) == (JOB, CLASSES, 300)
    assert kept(last) == [1, 2, 3, 4, 5] and last.scores[5] == UNSCORED
    project = live.project
    rows = star.load(project / JOB / "particles.star")["particles"]
    assert last.particles == len(rows) == 250
    model = star.load(project / JOB / "rank_model.star")["model_classes"]
    np.testing.assert_allclose(model.floats("rlnClassScore"), last.scores, atol=2e-5)
    optimiser = star.load(project / JOB / "rank_optimiser.star")["optimiser_general"]
    assert optimiser.strings("rlnModelStarFile") == [f"{JOB}rank_model.star"]
    assert live.status() == "Succeeded"
    assert Project(project).pipeline().inputs(JOB) == [OPTIMISER]
    assert JobFile.load(project / JOB / "job.star").options["fn_model"] == OPTIMISER
    assert (project / last.sheet).stat().st_size > 1000
    assert "5 of 6 classes are kept" in (project / JOB / "run.out").read_text()
    # One more stretch of the classification is one more selection.
    (again,) = ranked(live.come(due(-5.0, visit=2), averaged()))
    assert again.job == "Select/job003/" and again.visit == 2


def test_another_threshold_computes_no_features_and_other_averages_do(live, monkeypatch):
    calls = counting(monkeypatch)
    (first,) = ranked(live.come(due(-5.0), averaged()))
    low = middle(first)
    asked = due(low, optimiser=first.optimiser, iteration=25, is_final=True)
    (second,) = ranked(live.come(asked))
    assert calls == ["relion"] and second.adopted and second.job == JOB
    assert len(kept(second)) == 3 and second.scores == first.scores
    assert second.threshold == low and second.particles < first.particles
    write_classes(live.project, seed=8)
    (third,) = ranked(live.come(iterated()))
    assert len(calls) == 2 and third.stack != first.stack


def test_a_person_decides_of_these_averages_and_no_others(live):
    (first,) = ranked(live.come(due(-5.0), averaged()))
    assert live.decide(2, False, first.stack) == f"class 2 of {JOB} is dropped"
    assert "is kept" in live.decide(6, True, first.stack)
    second = ranked(live.events())[-1]
    assert kept(second) == [1, 3, 4, 5, 6] and second.overrides == 2 and second.is_final
    (one,) = records.listing(live.project / ".coldstream/labels")
    labelled = records.read(one)
    assert labelled.source == "override" and len(labelled) == 5
    assert labelled.label.tolist() == [-1, 0, -1, -1, -1]
    np.testing.assert_array_equal(labelled.y, [np.nan, 0.0, np.nan, np.nan, np.nan])
    live.end()  # killed: what people said is in the journal
    live.start()
    assert live.driver.state.decided() == {first.stack: {2: False, 6: True}}
    assert "left to its score" in live.decide(2, None, first.stack)
    assert kept(ranked(live.events())[-1]) == [1, 2, 3, 4, 5, 6]
    assert len([e for e in live.events() if isinstance(e, ClassOverridden)]) == 3
    # The averages of the next iteration are others.
    write_classes(live.project, seed=8)
    (later,) = ranked(live.come(iterated()))
    assert later.overrides == 0 and 6 not in kept(later)
    assert "others since" in live.decide(1, True, first.stack)
    assert "classes 1 to 6" in live.decide(7, True, later.stack)
    assert "in this session" in live.decide(1, True, later.stack, of="job099")


def test_weights_that_are_experimental_select_nothing_by_themselves(live):
    arguments = "--weights experimental.safetensors"
    (one,) = ranked(live.come(due(-5.0, arguments=arguments), averaged()))
    assert not one.automatic and one.outcomes.count("ask") == 5 and one.particles == 0
    assert len(one.scores) == N and live.status() == "Running"
    assert "wait for a person" in (live.project / JOB / "run.out").read_text()
    live.decide(3, True, one.stack)
    person = ranked(live.events())[-1]
    assert kept(person) == [3] and person.outcomes.count("ask") == 4
    assert live.status() == "Succeeded"
    asked = due(-5.0, arguments=f"{arguments} --auto_select Yes", optimiser=one.optimiser)
    (on,) = ranked(live.come(asked))
    assert on.automatic and kept(on) == [1, 2, 3, 4, 5]


def test_thresholds_come_from_the_card_where_the_options_have_none(live):
    (one,) = ranked(live.come(due("", arguments="--weights released.safetensors"), averaged()))
    scores = sorted(one.scores[:5])
    assert one.threshold == pytest.approx(scores[2], abs=1e-3) and one.automatic
    assert "the default of the weights" in one.threshold_note
    by_score = [one.outcomes[one.scores.index(score)] for score in scores]
    assert by_score == ["drop", "ask", "keep", "keep", "keep"]


def test_an_adaptive_threshold_follows_the_session(live):
    arguments = "--weights w.safetensors --adaptive_quantile 0.5"
    (first,) = ranked(live.come(due(arguments=arguments), averaged()))
    assert "scores of these classes" in first.threshold_note
    write_classes(live.project, seed=8)
    (second,) = ranked(live.come(due(arguments=arguments, visit=2), averaged()))
    assert "this session's classes" in second.threshold_note
    scores = [s for s in (*first.scores, *second.scores) if s != UNSCORED]
    assert second.threshold == pytest.approx(np.clip(np.median(scores), 0.05, 0.5))


def test_without_weights_it_says_so_and_tries_again_when_there_are(live, monkeypatch):
    monkeypatch.setattr(weights, "DEFAULT", live.project / "none.safetensors")
    told = refused(live.come(due(arguments=""), averaged()))
    assert told.reason == "no_model" and "--weights FILE" in told.detail
    assert live.status() == "Failed"
    assert not (live.project / JOB / "particles.star").exists()
    live.end()
    live.start()  # still none
    assert len(live.events()) == 4
    live.end()
    (live.project / "none.safetensors").hardlink_to(live.project / "w.safetensors")
    live.start()
    live.act()
    (one,) = ranked(live.events())
    assert one.is_final and live.status() == "Succeeded"


def spoil_nan(project):
    images = averages(N, 32)
    images[1] = np.nan
    write_job(project, class_set(images, n_particles=300))


def spoil_box(project):
    mrc.write(
        project / "Class2D/job001/run_it025_classes.mrcs", averages(N, 48), 4.0, is_stack=True
    )


def spoil_widths(project):
    arrays = formula_arrays(Widths(convolution=8))
    arrays["feature_extractor.0.weight"] = formula_arrays()["feature_extractor.0.weight"]
    from safetensors.numpy import load_file, save_file

    good = project / "w.safetensors"
    from safetensors import safe_open

    with safe_open(good, "numpy") as file:
        about = file.metadata()
    assert load_file(good)
    save_file(arrays, good, about)


class Spiteful:
    def __reduce__(self):
        return exec, ("open('executed', 'w').close()",)


def spoil_pickle(project):
    (project / "w.safetensors").write_bytes(pickle.dumps({"model_state_dict": Spiteful()}))


SPOILT = {
    "a column is missing": (
        lambda project: write_classes(project, drop=("rlnClassDistribution",)),
        "rlnClassDistribution",
    ),
    "no class numbers": (
        lambda project: write_classes(project, drop=("rlnClassNumber",)),
        "rlnClassNumber",
    ),
    "averages of another box": (spoil_box, "48 x 48 px, but the model says 32"),
    "weights of another shape": (spoil_widths, "has the shape"),
    "a pickle": (spoil_pickle, "no weights file"),
    "no model file": (
        lambda project: (project / "Class2D/job001/run_it025_model.star").unlink(),
        "run_it025_model.star: No such file",
    ),
    "a torn STAR file": (
        lambda project: (project / "Class2D/job001/run_it025_model.star").write_bytes(b"\0\xff"),
        "not UTF-8 text",
    ),
    "other arguments": (lambda project: None, "--sigma"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_bad_input_is_told_and_the_next_iteration_is_answered(live, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    spoil, words = SPOILT[name]
    spoil(live.project)
    arguments = "--weights w.safetensors" + (" --sigma 3" if name == "other arguments" else "")
    told = refused(live.come(due(-5.0, arguments=arguments), averaged()))
    assert told.reason == "unusable" and words in told.detail
    assert words in (live.project / JOB / "run.err").read_text()
    assert live.status() == "Failed" and not (tmp_path / "executed").exists()
    write_classes(live.project)
    arguments = "--weights released.safetensors"
    asked = due(-5.0, arguments=arguments, optimiser=averaged().optimiser, is_final=True)
    (one,) = ranked(live.come(asked))
    assert one.is_final and live.status() == "Succeeded"


def test_classes_that_are_no_numbers_or_empty_are_left_out_alone(live):
    spoil_nan(live.project)
    (one,) = ranked(live.come(due(-5.0), averaged()))
    assert one.scores[1] == UNSCORED and kept(one) == [1, 3, 4, 5, 6]
    assert any("not finite" in line for line in one.remarks)
    empty = class_set(averages(N, 32), n_particles=300, fractions=np.zeros(N))
    write_job(live.project, empty)
    (none,) = ranked(live.come(iterated()))
    assert set(none.scores) == {UNSCORED} and none.particles == 0
    assert any("no class is selected of 0" in line for line in none.remarks)


def test_files_of_an_old_relion_are_ranked(live):
    path = live.project / "Class2D/job001/run_it025_data.star"
    rows = star.load(path)["particles"]
    old = {
        "rlnVoltage": [300.0] * 300,
        "rlnSphericalAberration": [2.7] * 300,
        "rlnAmplitudeContrast": [0.1] * 300,
        "rlnDetectorPixelSize": [10.0] * 300,
        "rlnMagnification": [25_000.0] * 300,
    }
    kept = {k: v for k, v in rows.columns.items() if k != "rlnOpticsGroup"}
    star.save(path, {"images": star.Table.of(kept | old)})
    (one,) = ranked(live.come(due(-5.0), averaged()))
    written = star.load(live.project / one.job / "particles.star")
    assert len(written["particles"]) == 250
    assert written["optics"].floats("rlnImagePixelSize") == [4.0]


def test_its_state_can_be_kept_in_a_snapshot(live):
    (one,) = ranked(live.come(due(-5.0), averaged()))
    live.decide(2, False, one.stack)
    state = live.driver.state
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=RankerState) == state


def test_a_selection_of_a_classification_that_failed_is_shown_as_aborted(live):
    live.come(due(-5.0), iterated())
    assert live.status() == "Running"
    live.come(ClassesFailed(process="Class2D/job099/", reason="failed", detail="not asked about"))
    assert live.status() == "Running"
    live.come(ClassesFailed(process=CLASSES, reason="failed", detail="no"))
    assert live.status() == "Aborted"
    live.end()
    live.start()
    live.act()
    assert live.status() == "Aborted"
    live.come(due(-4.0, optimiser=averaged().optimiser, iteration=25))  # other options
    assert live.status() == "Aborted"
    live.come(due(-5.0, visit=2), averaged())
    assert live.status("Select/job003/") == "Succeeded"
    live.come(ClassesFailed(process=CLASSES, reason="outdated", detail="other options"))
    assert live.status("Select/job003/") == "Succeeded"


def test_a_decision_on_averages_that_have_changed_since_is_not_noted(live):
    (first,) = ranked(live.come(due(-5.0), iterated()))
    ruling = Ruling(of=f"{CLASSES} 1", job=JOB, stack="other", number=1, keep=True)
    before = len(live.events())
    live.driver.handle([ruling])
    live.driver.commit()
    assert len(live.events()) == before
    live.driver.handle([msgspec.structs.replace(ruling, stack=first.stack)])
    live.driver.commit()
    assert len(live.events()) == before + 2


def test_faults_of_the_machine_are_no_fault_of_the_files(live, monkeypatch):
    def broken(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "read_bytes", broken)
    with pytest.raises(OSError, match="Too many"):
        weights.read(live.project / "w.safetensors")
    monkeypatch.setattr(star, "load", broken)
    with pytest.raises(OSError, match="Too many"):
        inputs.read(live.project, OPTIMISER)


def test_files_that_are_gone_are_told(live):
    (live.project / averaged().optimiser).unlink()
    told = refused(live.come(due(-5.0), averaged()))
    assert told.reason == "vanished" and "not there any more" in told.detail


def test_the_ledger_counts_the_rankers_word(live):
    live.come(due(-5.0), averaged())
    ledger = Ledger(live.layout)
    ledger.update()
    assert (ledger.selection.keep, ledger.selection.drop) == (5, 1)
    assert ledger.selection.status == "due" and not ledger.at_rest()  # proc has not taken it over
    lines = "\n".join(status_lines(ledger))
    assert "the ranker is at work" in lines and "5 classes kept, 0 asked, 1 dropped" in lines
    ledger.close()


def test_what_was_asked_before_never_overwrites_what_was_asked_later(live):
    (first,) = ranked(live.come(due(-5.0), averaged()))
    late = live.service._task(live.driver.state, live.driver.state.last[f"{CLASSES} 1"])
    asked = due(middle(first), optimiser=first.optimiser, iteration=25, is_final=True)
    live.come(asked)
    before = contents(live)
    live.answer(late)  # of a worker that was left alone with its first task
    assert contents(live) == before


def test_a_selection_done_again_writes_the_same_bytes(live):
    live.come(due(-5.0), averaged())
    before = contents(live)
    task = live.service._task(live.driver.state, live.driver.state.last[f"{CLASSES} 1"])
    live.answer(task)
    assert contents(live) == before
    for path in (live.project / ".coldstream/ranker").glob("*.npz"):
        path.unlink()
    live.answer(task)
    after = contents(live)
    assert after == before


def test_the_service_is_small_and_has_no_torch():
    code = (
        "import sys, services.kit.main, services.kit.runner, services.ranker.build;"
        "status = dict(line.split(':') for line in open('/proc/self/status'));"
        "print(status['VmHWM'].split()[0], 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], timeout=60, check=True, capture_output=True, text=True
    )
    size_kB, has_torch = done.stdout.split()
    assert int(size_kB) < 300_000 and has_torch == "False"


def test_recentred_and_regrouped_as_the_options_say(live):
    asked = due(-5.0, do_recenter="Yes", do_regroup="Yes", nr_groups="3")
    (one,) = ranked(live.come(asked, averaged()))
    folder = live.project / one.job
    table = star.load(folder / "class_averages.star")[""]
    names = table.strings("rlnReferenceImage")
    assert names == [f"{n:06d}@{one.job}class_averages.mrcs" for n in range(1, 6)]
    assert mrc.read(folder / "class_averages.mrcs").shape == (5, 32, 32)
    rows = star.load(folder / "particles.star")["particles"]
    assert set(rows.strings("rlnGroupName")) == {"group_001"}  # all are of one micrograph
    assert len(rows) == one.particles == 250


def test_killed_between_any_two_steps_it_goes_on(live):
    """What is on disk is what was committed; all that was done besides is done again."""

    def killed():
        live.end()
        live.start()
        return live.driver

    live.proc.commit([Draft(body, 1.0) for body in (due(-5.0), averaged())])
    for event in live.proc.read():
        killed().handle([Arrived(event)])
    (made,) = live.service.perform(live.driver.state)  # a folder, and no word of it
    driver = killed()
    assert list(live.service.perform(driver.state)) == [made]
    driver.handle([made])
    (task,) = live.service.want(killed().state, 4, ())
    live.answer(task)  # files, and no word of them
    before = contents(live)
    (again,) = live.service.want(killed().state, 4, ())
    assert again == task and not live.service.want(live.driver.state, 4, {task.id})
    driver = live.driver
    driver.handle([Finished(task, 1, live.answer(again))])
    driver = killed()
    driver.handle([Finished(task, 1, live.answer(again))])  # of an attempt that came late
    live.act()
    after = contents(live)
    own = {name for name in before if name.startswith(("rank_", "run.", "features", "particles"))}
    assert len(own) == 11 and {n: after[n] for n in own} == {n: before[n] for n in own}
    kinds = [type(body).__name__ for body in live.events()]
    assert kinds == ["SelectionDue", "RankingDue", "JobStarted", "ClassesRanked"]
    assert live.status() == "Succeeded"


def test_a_new_session_begins_with_the_threshold_of_the_model(live, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "DEFAULT", live.project / "released.safetensors")
    wanted = weights.read(weights.DEFAULT).threshold
    (tmp_path / "raw").mkdir()

    def threshold(name: str, **settings: str) -> str:
        given = {f"proc__select_parts__{key}": value for key, value in settings.items()}
        set_up(tmp_path / name, tmp_path / "raw", {}, given)
        file = JobFile.load(tmp_path / name / "Schemes/proc/select_parts/job.star")
        return file.options["rank_threshold"]

    assert float(threshold("P")) == pytest.approx(wanted, rel=1e-3)
    assert threshold("Q", rank_threshold="0.3") == "0.3"
    monkeypatch.setattr(weights, "DEFAULT", live.project / "none.safetensors")
    assert float(threshold("P")) == pytest.approx(wanted, rel=1e-3)  # a session keeps its own
    assert threshold("R") == "0.15"
    monkeypatch.setattr(weights, "DEFAULT", live.project / "released.safetensors")
    other = starfile.load(tmp_path / "R/Schemes/prep")
    folder = tmp_path / "S/Schemes/proc"  # of a person, who selects no classes
    templates.write(
        folder, templates.Definition(other, templates.read(tmp_path / "R/Schemes/prep").jobs)
    )
    set_up(tmp_path / "S", tmp_path / "raw", {}, {})
    assert not (folder / "select_parts").exists()


def test_what_is_decided_while_nothing_runs_is_carried_out_later(live, capsys):
    (one,) = ranked(live.come(due(-5.0), averaged()))
    assert overriding.show("job002", live.project) == 0
    lines = capsys.readouterr().out.splitlines()
    best = int(np.argmax(one.scores)) + 1
    assert lines[0].startswith("threshold -5.0") and lines[2].split()[0] == f"{best}"
    assert lines[-1].split()[:2] == ["6", "-"] and "(unscored)" in lines[-1]
    live.end()
    assert overriding.drop(JOB, [best, best], live.project, reason="ice") == 0
    assert "when the session runs again" in capsys.readouterr().out
    with pytest.raises(Misuse, match="classes 1 to 6"):
        overriding.keep(JOB, [7], live.project)
    with pytest.raises(Misuse, match="has no rank_decisions"):
        overriding.auto("job099", [1], live.project)
    live.start()
    stimuli, _ = live.source.poll(0.0, live.driver.state)
    live.driver.handle(stimuli)
    live.act()
    told = live.events()[-2:]
    assert isinstance(told[0], RankingDue) and told[0].because == "person"
    assert best not in kept(ranked(told)[0]) and ranked(told)[0].overrides == 1
    (said,) = [body for body in live.events() if isinstance(body, ClassOverridden)]
    assert (said.number, said.keep, said.reason) == (best, False, "ice")
