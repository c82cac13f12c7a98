"""RELION's recorded traces T1 to T3, run for real: the command line, processes, a project."""

import json
import shutil
import subprocess
import sys

import pytest

from algorithms.formats import star
from schemer import starfile
from schemer.jobs import JobFile
from tests import stub_jobs
from tests.shared import shared

TRACES, SCHEMES = "data/schemes/traces", "data/schemes/relion-5.0.1"


def run(project, *words, check=True):
    done = subprocess.run(
        [sys.executable, "-m", "schemer", *map(str, words), "--project", project],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def strictly(project, name, **more):
    done = run(
        project,
        *("run", "--scheme", name, "--strict", "--json"),
        *("--executor", f"command:{stub_jobs.program(project)}"),
        **more,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def install(project, name, movies, **floats):
    """Install RELION's own Scheme with other values; reset values stay, as in the traces."""
    folder = project / "Schemes" / name
    shutil.copytree(shared(f"{SCHEMES}/{name}"), folder)
    text = starfile.read(folder)
    for variable, value in floats.items():
        reset = text.floats[variable].reset
        text.floats[variable] = type(text.floats[variable])(value, reset)
    (folder / "scheme.star").write_text(starfile.dump(text))
    raw = project / "Micrographs"
    raw.mkdir(exist_ok=True)
    for number in range(1, movies + 1):
        (raw / f"m{number:02d}.tif").touch()


def tables(path):
    return {name: table.columns for name, table in star.load(path).items()}


def final(path):
    one = starfile.read(path)
    return (
        one.name,
        one.current_node,
        one.floats,
        one.bools,
        one.strings,
        one.operators,
        one.jobs,
        one.phantoms,
        one.edges,
    )


def assert_as_recorded(project, name, trace, report):
    expected = shared(f"{TRACES}/{trace}")
    assert report["visited"] == (expected / "nodes.txt").read_text().split()
    ours = final(project / "Schemes" / name)
    assert ours == final(expected / "scheme.final.star")
    assert tables(project / "default_pipeline.star") == tables(expected / "default_pipeline.star")
    nodes = {
        str(path.relative_to(project)) for path in (project / ".Nodes").rglob("*") if path.is_file()
    }
    assert nodes == set((expected / "Nodes.txt").read_text().split())
    for process in tables(project / "default_pipeline.star")["pipeline_processes"][
        "rlnPipeLineProcessName"
    ]:
        there = {path.name for path in (project / process).iterdir()}
        assert there >= {
            *("job.star", "job_pipeline.star", "default_pipeline.star", "note.txt"),
            *("run.out", "run.err", "RELION_JOB_EXIT_SUCCESS"),
        }
        assert not there & {"RELION_JOB_EXIT_FAILURE", "RELION_JOB_EXIT_ABORTED"}
    assert not list(project.glob(".relion_lock*"))


def continues(project, process):
    return JobFile.load(project / process / "job.star").is_continue


def rows(path, table):
    return len(star.load(path)[table])


def test_t1_prep_one_pass(tmp_path):
    install(tmp_path, "prep", 12, maxtime_hr=-1.0, wait_sec=0.0, do_at_most=5.0)
    code, report = strictly(tmp_path, "prep")
    assert (code, report["ended"]) == (0, "maxtime")
    assert_as_recorded(tmp_path, "prep", "T1-prep-one-pass", report)
    assert report["variables"] == {"do_at_most": 5.0, "maxtime_hr": -1.0, "wait_sec": 0.0}
    assert report["jobs"]["motioncorr"] == {
        "name": "MotionCorr/job002/",
        "mode": "continue",
        "has_started": True,
        "status": "Succeeded",
    }
    assert rows(tmp_path / "Import/job001/movies.star", "movies") == 12
    assert rows(tmp_path / "CtfFind/job003/micrographs_ctf.star", "micrographs") == 5
    assert not continues(tmp_path, "MotionCorr/job002/")
    asked = json.loads((tmp_path / "MotionCorr/job002/job.json").read_text())
    assert asked["type"] == "relion.motioncorr.own" and asked["continue"] is False
    assert asked["options"]["other_args"] == "--do_at_most 5"
    assert asked["inputs"] == ["Import/job001/movies.star"]
    assert (tmp_path / "Schemes/prep/RELION_JOB_EXIT_SUCCESS").exists()


def test_t2_three_passes_and_an_abort(tmp_path):
    install(tmp_path, "prep", 12, wait_sec=0.0, do_at_most=5.0)
    abort = "Schemes/prep/RELION_JOB_ABORT_NOW"
    touch_on = {"relion.ctffind.ctffind4": {"3": [abort]}}
    (tmp_path / "stub.json").write_text(json.dumps({"touch_on": touch_on}))
    code, report = strictly(tmp_path, "prep", check=False)
    assert (code, report["ended"], report["current_node"]) == (2, "aborted", "WAIT")
    assert_as_recorded(tmp_path, "prep", "T2-prep-three-passes-abort", report)
    assert rows(tmp_path / "CtfFind/job003/micrographs_ctf.star", "micrographs") == 12
    for process in ("Import/job001/", "MotionCorr/job002/", "CtfFind/job003/"):
        assert continues(tmp_path, process)
    assert (tmp_path / abort).exists()
    assert (tmp_path / "Schemes/prep/RELION_JOB_EXIT_ABORTED").exists()
    # A new run removes the signal and begins by executing WAIT, without waiting.
    run(tmp_path, "set", "--scheme", "prep", "maxtime_hr", "-1")
    code, report = strictly(tmp_path, "prep")
    assert code == 0 and not (tmp_path / abort).exists()
    assert report["visited"][:3] == ["WAIT", "EXIT_maxtime", "importmovies"]


def test_t3_proc_2d_only(tmp_path):
    install(tmp_path, "prep", 20, maxtime_hr=-1.0, wait_sec=0.0, do_at_most=50.0)
    assert strictly(tmp_path, "prep")[0] == 0
    install(tmp_path, "proc", 0, maxtime_hr=-1.0, wait_sec=0.0)
    path = tmp_path / "Schemes/proc/autopick/job.star"
    file = JobFile.load(path)
    options = {**file.options, "use_gpu": "No"}
    path.write_text(JobFile(file.label, options, file.is_continue).dumps())
    code, report = strictly(tmp_path, "proc")
    assert (code, report["ended"]) == (0, "maxtime")
    assert_as_recorded(tmp_path, "proc", "T3-proc-2d-only", report)
    assert report["jobs"]["train_topaz"]["name"] == ""
    asked = json.loads((tmp_path / "AutoPick/job005/job.json").read_text())
    assert asked["options"]["topaz_model"] == "model_epoch10.sav"


@pytest.mark.parametrize("status", ["Failed", "Aborted"])
def test_a_failed_job_is_told_in_safe_mode_and_hidden_in_strict(tmp_path, status):
    install(tmp_path, "prep", 3, maxtime_hr=-1.0, wait_sec=0.0)
    exit_on = {"relion.motioncorr.own": {"1": 2 if status == "Aborted" else 3}}
    (tmp_path / "stub.json").write_text(json.dumps({"exit_on": exit_on}))
    program = stub_jobs.program(tmp_path)
    done = run(
        *(tmp_path, "run", "--scheme", "prep", "--executor", f"command:{program}"), check=False
    )
    assert done.returncode == (2 if status == "Aborted" else 1)
    assert "MotionCorr/job002/" in done.stderr
    word = "ABORTED" if status == "Aborted" else "FAILURE"
    assert (tmp_path / f"Schemes/prep/RELION_JOB_EXIT_{word}").exists()
    assert (tmp_path / f"MotionCorr/job002/RELION_JOB_EXIT_{word}").exists()
    assert starfile.read(tmp_path / "Schemes/prep").current_node == "motioncorr"
    # The next run continues the same job; strict mode calls even a failure a success.
    exit_on["relion.motioncorr.own"]["2"] = 3
    (tmp_path / "stub.json").write_text(json.dumps({"exit_on": exit_on}))
    code, report = strictly(tmp_path, "prep")
    assert (code, report["ended"]) == (0, "job failed")
    assert report["jobs"]["motioncorr"]["name"] == "MotionCorr/job002/"
    assert (tmp_path / "Schemes/prep/RELION_JOB_EXIT_SUCCESS").exists()
