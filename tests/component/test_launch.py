"""Sessions are opened for real: projects on disk, programs started, commands that are killed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from algorithms.formats import star
from mdcatch.launch import folder
from mdcatch.launch import programs as running
from mdcatch.launch.opening import HOW_TO, Opener
from mdcatch.launch.policy import Policy
from mdcatch.launch.request import KIND, to_arguments
from schemer import relionit, starfile, templates
from schemer.jobs import JobFile
from schemer.project import Project
from services.kit import commands
from services.kit import session as sessions
from services.kit.commands import Command, Mailbox, new_id
from services.kit.errors import Misuse
from services.kit.paths import Layout
from services.kit.sitetables import Defaults, Programs, Site
from tests.launching import SITE, on_path, program, request, session, tree, wait_for
from tests.shared import shared

# It says what it was asked to do, and goes on until it is stopped.
SCHEMER = 'echo "run $$: $*"; echo "words" >&2; exec sleep 600'
POINTS = (*commands.POINTS, *folder.POINTS, *running.POINTS)


@pytest.fixture
def raw(tmp_path):
    return session(tmp_path / "raw" / "20261120_apo")


@pytest.fixture
def here(tmp_path, monkeypatch, raw):
    """Return a folder for projects; relion_schemer is on the PATH; what was started is ended."""
    on_path(monkeypatch, tmp_path / "bin")
    program(tmp_path / "bin", "relion_schemer", SCHEMER)
    monkeypatch.delenv("RELION_CTFFIND_EXECUTABLE", raising=False)
    place = tmp_path / "projects"
    place.mkdir()
    yield place
    end_all(place)


@pytest.fixture
def opener():
    one = Opener(SITE)
    yield one
    one.let_go()


def end_all(place: Path) -> None:
    """End every process that works in a folder, with its group, and wait for those of ours."""
    for process in of(place):
        try:
            os.killpg(os.getpgid(process.pid), signal.SIGKILL)
        except ProcessLookupError:
            continue
    wait_for(lambda: not of(place))
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def of(place: Path) -> list[psutil.Process]:
    """Return the living processes whose working folder or command line lies in a folder."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline", "status"]):
        words = [process.info["cwd"] or "", *(process.info["cmdline"] or ())]
        is_there = any(word.startswith(str(place)) for word in words)
        lives = process.info["status"] != psutil.STATUS_ZOMBIE
        if is_there and lives and process.pid != os.getpid():
            found.append(process)
    return found


def asked(raw, project, **fields):
    usual = {"raw": str(raw), "project": str(project), "particle_diameter_A": 20.0}
    return request(**usual | fields)


def opened(opener, wanted, command_id="c1"):
    return opener.open(command_id, wanted)


def refused(opener, wanted, words):
    """Check that a request is refused, and that its folder of projects stays as it was."""
    place = Path(wanted.project).parent
    before = tree(place)
    with pytest.raises(Misuse, match=words):
        opener.open(new_id(), wanted)
    assert tree(place) == before


# ---- native


def test_the_native_pipeline_makes_a_project_like_up(here, raw, opener):
    project = here / "apo"
    reply = opened(opener, asked(raw, project, start=False, symmetry="D2", workers=2))
    assert "nothing was started" in reply.text and reply.facts["project"] == str(project)
    found = sessions.load(Layout(project))
    assert (found.raw, found.particle_diameter_A, found.workers) == (str(raw), 20.0, 2)
    assert found.gain is not None and found.gain.endswith("_gain.tiff")
    assert os.readlink(project / "Movies") == str(raw)
    job = JobFile.load(project / "Schemes/proc/refine3d/job.star")
    assert job.options["sym_name"] == "D2"
    assert (project / ".gui_projectdir").exists()
    assert [path.name for path in here.iterdir()] == ["apo"]  # no hidden folder is left
    record = folder.opened(project)
    assert record is not None and record.command_id == "c1" and record.is_new


def test_a_native_session_is_opened_again_and_goes_on(here, raw, opener):
    project = here / "apo"
    opened(opener, asked(raw, project, start=False))
    reply = opened(opener, asked(raw, project, start=False, particle_diameter_A=25.0), "c2")
    assert sessions.load(Layout(project)).particle_diameter_A == 25.0
    assert reply.facts["project"] == str(project)
    record = folder.opened(project)
    assert record is not None and not record.is_new
    other = session(here.parent / "raw" / "other")
    with pytest.raises(Misuse, match="take another project folder"):
        opened(opener, asked(other, project, start=False), "c3")
    assert sessions.load(Layout(project)).raw == str(raw)


def test_the_native_pipeline_may_begin_before_the_first_exposure(here, opener):
    empty = here.parent / "raw" / "empty"
    empty.mkdir(parents=True)
    reply = opened(opener, asked(empty, here / "p", start=False))
    assert any("first one" in text for text in reply.facts["warnings"])


@pytest.mark.slow
def test_the_native_pipeline_processes_the_session(here, raw, opener):
    """The services of a session that was opened by command take its movie up, and go on alone."""
    project = here / "apo"
    reply = opened(opener, asked(raw, project, workers=1))
    assert "coldstream runs (process" in reply.text
    opener.let_go()
    out = project / ".coldstream" / "run.out"
    wait_for(lambda: "movie.settled" in out.read_text(), 90)
    assert "coldstream runs" in opened(opener, asked(raw, project, workers=1)).text
    assert len([one for one in of(project) if "up" in one.cmdline()]) == 1


# ---- RELION


def test_a_relion_project_has_everything(here, raw, opener):
    project = here / "apo"
    wanted = asked(raw, project, pipeline="relion", start=False, gain_rotation=1)
    opened(opener, wanted)
    assert os.readlink(project / "Movies") == str(raw)
    assert len(Project(project).pipeline().processes) == 0
    options = {
        job: JobFile.load(project / "Schemes" / "prep" / job / "job.star").options
        for job in ("importmovies", "motioncorr", "ctffind")
    }
    assert options["importmovies"]["fn_in_raw"] == (
        "Movies/Images-Disc*/GridSquare_*/Data/FoilHole_*_Data_*_fractions.tiff"
    )
    matches = list(project.glob(options["importmovies"]["fn_in_raw"]))
    assert len(matches) == 1
    assert options["importmovies"]["angpix"] == "1" and options["importmovies"]["kV"] == "300"
    gain = options["motioncorr"]["fn_gain_ref"]
    assert (project / gain).is_file() and not (project / gain).is_symlink()
    assert options["motioncorr"]["gain_rot"] == "90 degrees (1)"
    assert options["motioncorr"]["dose_per_frame"] == "10"
    assert JobFile.load(project / "Schemes/proc/extract/job.star").options["extract_size"] == "30"
    given = relionit.optionfile.read(project / relionit.OPTIONS_FILE)
    assert given["prep__importmovies__angpix"] == "1" and len(given) > 25
    assert "Movies dir:" in (project / "EPU_session_params").read_text()
    picks = JobFile.load(project / ".gui_manualpickjob.star")
    assert picks.label == "relion.manualpick" and picks.options["diameter"] == "20"
    for name in ("prep", "proc"):
        assert starfile.load(project / "Schemes" / name).current_node == "WAIT"


def test_relion_schemer_is_started_for_both_schemes_once(here, raw, opener):
    project = here / "apo"
    reply = opened(opener, asked(raw, project, pipeline="relion"))
    assert "prep runs (process" in reply.text and "proc runs (process" in reply.text
    for name in ("prep", "proc"):
        output = project / "Schemes" / name / "run.out"
        wait_for(output.read_text)
        words = f"--scheme {name} --run --pipeline_control Schemes/{name}/"
        assert words in output.read_text()
        assert (project / "Schemes" / name / "run.err").read_text() == "words\n"
        assert running.is_running(project, name)
    assert len(of(project)) == 2
    for process in of(project):
        assert os.getsid(process.pid) == process.pid  # Ctrl-C at the terminal does not reach it
        assert process.cwd() == str(project)
    again = opened(opener, asked(raw, project, pipeline="relion"))  # the same id
    assert "prep runs, proc runs" in again.text
    assert len(of(project)) == 2
    with pytest.raises(Misuse, match="not empty"):
        opened(opener, asked(raw, project, pipeline="relion"), "another id")


def test_a_program_that_ends_at_once_takes_the_project_back(here, raw, opener):
    script = (
        'case "$2" in prep) exec sleep 600;; *) echo "cannot open libmpi.so" >&2; exit 127;; esac'
    )
    program(here.parent / "bin", "relion_schemer", script)
    wanted = asked(raw, here / "apo", pipeline="relion")
    refused(opener, wanted, "proc ended at once with exit code 127: cannot open libmpi.so")
    wait_for(lambda: not of(here))  # prep, which had been started, is gone


def test_work_is_never_taken_back(here, raw, opener):
    project = here / "apo"
    opened(opener, asked(raw, project, pipeline="relion", start=False))
    (project / "Import" / "job001").mkdir(parents=True)
    program(here.parent / "bin", "relion_schemer", "exit 1")
    record = folder.opened(project)
    assert record is not None
    with pytest.raises(Misuse, match="ended at once"):
        opener.open("c1", asked(raw, project, pipeline="relion"))
    assert (project / "Import" / "job001").is_dir()


def test_nothing_is_left_of_what_is_refused(here, raw, opener, monkeypatch):
    project = here / "apo"
    good = to_arguments(asked(raw, project, pipeline="relion"))
    for fields, words in (
        ({"raw": "/no/such"}, "/no/such is not a folder"),
        ({"particle_diameter_A": 200.0}, "larger than the micrograph"),
        ({"gain": "/no/gain.mrc"}, "/no/gain.mrc is not a file"),
        ({"picker": "cryolo"}, "general model"),
        ({"picker": "topaz"}, "topaz is not installed"),
        ({"project": str(here / "no" / "folder")}, "no is not a folder: make it first"),
        ({"settings": {"prep__motioncorr__bin_factr": "2"}}, "bin_factr.*did you mean"),
        ({"settings": {"prep__motioncorr__bin_factor": "two"}}, "not a number"),
        ({"settings": {"prep__nonsense": "1"}}, "prep__nonsense"),
        ({"schemes": str(here.parent)}, "has no Schemes prep and"),
    ):
        refused(opener, request(**good | fields), words)
    (here / "apo").mkdir()
    (here / "apo" / "thesis.tex").write_text("do not lose me")
    refused(opener, request(**good), "is not empty")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    refused(opener, request(**good | {"project": str(here / "b")}), "relion_schemer is not inst")


def test_an_empty_folder_may_become_the_project(here, raw, opener):
    (here / "apo").mkdir()
    opened(opener, asked(raw, here / "apo", pipeline="relion", start=False))
    assert (here / "apo" / "default_pipeline.star").is_file()


def test_what_a_killed_opening_left_is_swept_and_a_living_one_is_not(here, raw, opener):
    dead, living = here / ".apo.opening-1-a", here / ".apo.opening-2-b"
    for one in (dead, living):
        (one / "Schemes").mkdir(parents=True)
    with folder._held(living):
        opened(opener, asked(raw, here / "apo", start=False))
    assert sorted(path.name for path in here.iterdir()) == [living.name, "apo"]


def test_all_that_stands_against_it_is_said_at_once(here, raw, opener):
    wanted = asked(raw, here / "x" / "y", pipeline="relion", picker="topaz", gain="/no")
    with pytest.raises(Misuse) as raised:
        opened(opener, wanted)
    for words in ("make it first", "topaz is not installed", "/no is not a file"):
        assert words in str(raised.value)


def test_a_disk_that_fills_up_leaves_nothing(here, raw, opener, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    wanted = asked(raw, here / "apo", pipeline="relion")
    refused(opener, wanted, "No space left on device; no project was made")


@pytest.mark.parametrize(
    ("source", "picker", "names"),
    [
        ("mdcatch-2.5", "topaz", ["prep", "proc-topaz"]),
        ("mdcatch-2.5", "log", ["prep", "proc-topaz"]),
        ("mdcatch-2.5", "cryolo", ["prep", "proc-cryolo"]),
        ("relion-5.0.1", "log", ["prep", "proc"]),
        ("relion-4.0", "topaz", ["prep", "proc"]),
    ],
)
def test_a_sites_schemes_are_taken(here, raw, opener, source, picker, names):
    schemes = shared(f"data/schemes/{source}")
    model = here.parent / ("m.h5" if picker == "cryolo" else "m.sav")
    model.touch()
    given = {"picker_model": str(model)} if picker != "log" else {}
    for name in ("topaz", "cryolo_predict.py"):
        program(here.parent / "bin", name, "exit 0")
    project = here / "apo"
    wanted = asked(raw, project, pipeline="relion", picker=picker, schemes=str(schemes), **given)
    opened(opener, request(**to_arguments(wanted) | {"start": False}))
    assert sorted(path.name for path in (project / "Schemes").iterdir()) == names
    proc = starfile.load(project / "Schemes" / names[1])
    extract = JobFile.load(project / "Schemes" / names[1] / "extract" / "job.star")
    assert extract.options["extract_size"] == "30"
    assert proc.jobs["extract"].current_name == "extract"
    if picker == "cryolo":
        assert proc.strings["cryolo_model"].value == str(model)
    elif picker == "topaz":
        assert proc.strings["topaz_model"].value == str(model)
        assert proc.bools["do_log"].value is False
    else:
        assert proc.bools["do_log"].value is True
    prep = JobFile.load(project / "Schemes/prep/importmovies/job.star")
    assert prep.options["angpix"] == "1"
    given = relionit.optionfile.read(project / relionit.OPTIONS_FILE)
    assert f"{names[1]}__extract__extract_size" in given
    assert (schemes / names[1] / "scheme.star").is_file()  # the site's own are untouched


def test_a_sites_scheme_of_the_other_kind_is_refused(here, raw, opener):
    schemes = shared("data/schemes/relion-5.0.1")
    program(here.parent / "bin", "cryolo_predict.py", "exit 0")
    model = here.parent / "m.h5"
    model.touch()
    given = {"picker": "cryolo", "picker_model": str(model), "schemes": str(schemes)}
    refused(opener, asked(raw, here / "a", pipeline="relion", **given), "does not pick with cryolo")


def test_schemer_runs_the_schemes_where_that_is_asked_for(here, raw, opener):
    """Our own programs import, align and fit the CTF of a real session, apart from this process."""
    project, raw = here / "apo", here.parent / "simulated"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "services",
            "simulate",
            "session",
            "--out",
            raw,
            "--recipe",
            "tiny",
            "--fast",
        ],
        check=True,
        capture_output=True,
    )
    wanted = asked(
        raw,
        project,
        pipeline="relion",
        runner="schemer",
        executor="native",
        particle_diameter_A=180.0,
        settings={"prep__motioncorr__patch_x": "1", "prep__motioncorr__patch_y": "1"},
    )
    opened(opener, wanted)
    fitted = project / "CtfFind" / "job003" / "micrographs_ctf.star"
    wait_for(fitted.exists, 120)
    assert len(star.load(fitted)["micrographs"]) == 1
    assert running.is_running(project, "prep") and running.is_running(project, "proc")


# ---- crYOLO as a job of RELION

CRYOLO = """
while [ $# -gt 0 ]; do case "$1" in --input) in=$2;; --output) out=$2;; --filament) f=_START_END;;
esac; shift; done
mkdir -p "$out/STAR$f"
for m in "$in"*.mrc; do n=$(basename "$m" .mrc)
  [ -s "$m" ] && printf 'data_\\n\\nloop_\\n_rlnCoordinateX #1\\n_rlnCoordinateY #2\\n10 20\\n' \\
    > "$out/STAR$f/$n.star"
done; exit 0
"""


def micrographs(project, *names):
    rows = []
    for name, content in names:
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        rows.append(name)
    table = star.Table.of({"rlnMicrographName": rows})
    star.save(project / "mics.star", {"micrographs": table})


def cryolo_job(project, *words):
    usual = ["--in_mics", "mics.star", "--o", "External/job007/", "--model", "m.h5"]
    return subprocess.run(
        [sys.executable, "-m", "mdcatch.launch.cryolo_job", *usual, *words],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def test_cryolos_job_picks_what_is_new(here):
    project = here / "p"
    Project(project).init()
    program(here.parent / "bin", "cryolo_predict.py", CRYOLO)
    names = ("MotionCorr/job002/Movies/A/x.mrc", "MotionCorr/job002/Movies/B/x.mrc")
    micrographs(project, (names[0], b"1"), (names[1], b""))  # one name twice, one without picks
    done = cryolo_job(project, "--gpu", "0,1", "--pipeline_control", "External/job007/")
    assert done.returncode == 0, done.stderr
    assert "2 new micrographs, 2 of 2 have coordinates" in done.stdout
    assert "--gpu 0 1 " in done.stdout and "--distance" not in done.stdout
    job = project / "External" / "job007"
    table = star.load(job / "autopick.star")["coordinate_files"]
    assert table.strings("rlnMicrographName") == list(names)
    files = table.strings("rlnMicrographCoordinates")
    assert files == [f"External/job007/Movies/{one}/x_autopick.star" for one in "AB"]
    assert [len(star.load(project / one).get("", star.Table())) for one in files] == [1, 0]
    nodes = star.load(job / "RELION_OUTPUT_NODES.star")["output_nodes"]
    assert nodes.strings("rlnPipeLineNodeTypeLabel") == [
        "MicrographCoordsGroup.star.relion.autopick"
    ]
    assert (job / "RELION_JOB_EXIT_SUCCESS").exists() and not (job / ".cryolo").exists()
    micrographs(project, (names[0], b"1"), (names[1], b""), ("MotionCorr/job002/new.mrc", b"1"))
    again = cryolo_job(project)
    assert "1 new micrographs, 3 of 3" in again.stdout
    assert "nothing" not in again.stdout and again.returncode == 0


def test_cryolos_job_picks_filaments(here):
    project = here / "p"
    Project(project).init()
    program(here.parent / "bin", "cryolo_predict.py", CRYOLO)
    micrographs(project, ("MotionCorr/job002/x.mrc", b"1"))
    words = ("--box_size", "306", "--filament_width", "170", "--box_distance", "31")
    done = cryolo_job(project, *words, "--minimum_number_boxes", "6")
    assert done.returncode == 0, done.stderr
    assert "--filament --filament_width 170 --box_distance 31" in done.stdout
    job = project / "External" / "job007"
    nodes = star.load(job / "RELION_OUTPUT_NODES.star")["output_nodes"]
    assert nodes.strings("rlnPipeLineNodeTypeLabel")[0].endswith("helixstartend")
    assert len(star.load(job / "x_autopick.star")[""]) == 1


def test_cryolos_job_tells_how_it_ended(here):
    project = here / "p"
    Project(project).init()
    micrographs(project, ("MotionCorr/job002/x.mrc", b"1"))
    job = project / "External" / "job007"
    done = cryolo_job(project, "--program", "/no/such/cryolo")
    assert done.returncode == 1 and "put crYOLO on the PATH" in done.stderr
    assert (job / "RELION_JOB_EXIT_FAILURE").exists()
    program(here.parent / "bin", "cryolo_predict.py", "exit 3")
    assert "exit code 3" in cryolo_job(project).stderr
    program(here.parent / "bin", "cryolo_predict.py", CRYOLO)
    (job / "RELION_JOB_ABORT_NOW").touch()
    assert cryolo_job(project).returncode == 2
    assert (job / "RELION_JOB_EXIT_ABORTED").exists()
    (project / "MotionCorr/job002/x.mrc").unlink()
    (job / "RELION_JOB_ABORT_NOW").unlink()
    assert "x.mrc is not there" in cryolo_job(project).stderr


def test_the_scheme_with_cryolo_is_whole(here, raw, opener):
    model = here.parent / "m.h5"
    model.touch()
    program(here.parent / "bin", "cryolo_predict.py", "exit 0")
    given = {"picker": "cryolo", "picker_model": str(model), "gpus": "0,1", "start": False}
    project = here / "apo"
    opened(opener, asked(raw, project, pipeline="relion", **given))
    checked = subprocess.run(
        [sys.executable, "-m", "schemer", "check", "Schemes/proc"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert "0 errors, 0 warnings" in checked.stdout
    scheme = starfile.load(project / "Schemes" / "proc")
    assert scheme.next_node("SET_prev_nr_mics", {}) == "autopick"
    assert scheme.strings["cryolo_model"].reset == str(model)
    job = JobFile.load(project / "Schemes/proc/autopick/job.star")
    assert job.label == "relion.external" and job.options["param1_value"] == "0,1"
    assert job.options["fn_exe"].endswith("-m mdcatch.launch.cryolo_job")
    shipped = templates.shipped("proc").scheme
    gone = {"SET_do_topaz", "HAS_topaz_model"}
    assert set(scheme.operators) == set(shipped.operators) - gone


def test_cryolos_job_runs_as_a_job_of_relion(here, raw, opener):
    """The very job.star of the Scheme, done by the executor that forms RELION's command lines."""
    model = here.parent / "m.h5"
    model.touch()
    program(here.parent / "bin", "cryolo_predict.py", CRYOLO)
    given = {"picker": "cryolo", "picker_model": str(model), "gpus": "0,1", "start": False}
    project = here / "apo"
    opened(opener, asked(raw, project, pipeline="relion", **given))
    micrographs(project, ("MotionCorr/job002/Movies/x.mrc", b"1"))
    words = ["-p", project, "-e", "relion", "--set", "in_mic=mics.star"]
    words += ["--set", f"param4_value={model}", "Schemes/proc/autopick/job.star"]
    done = subprocess.run(
        [sys.executable, "-m", "schemer", "job", *map(str, words)],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    rows = star.load(project / "default_pipeline.star")
    assert rows["pipeline_processes"].strings("rlnPipeLineProcessStatusLabel") == ["Succeeded"]
    nodes = rows["pipeline_nodes"].strings("rlnPipeLineNodeName")
    assert "External/job001/autopick.star" in nodes
    assert (project / "External/job001/Movies/x_autopick.star").is_file()


# ---- Scipion

SCIPION = """
echo "$PWD $*" >> "$(dirname "$0")/calls"
case "$*" in *create*) echo made; : > "$6/$4/project.sqlite";; esac
"""


def test_scipion_gets_its_workflow_and_is_started(here, raw, opener):
    program(here.parent / "bin", "scipion3", SCIPION)
    project = here / "apo"
    reply = opened(opener, asked(raw, project, pipeline="scipion", picker="topaz"))
    assert "Scipion" in reply.text
    content = json.loads((project / "apo.json").read_text())
    assert content[0]["filesPath"] == str(raw)
    assert Path(content[0]["gainFile"]).is_file() and content[0]["gainFile"].startswith(
        str(project)
    )
    assert (project / "EPU_session_params").is_file()
    calls = (here.parent / "bin" / "calls").read_text().splitlines()
    modules = "python -m pyworkflow.project.scripts"
    assert calls[0] == f"{here} {modules}.create apo {project}/apo.json {here}"
    assert calls[1] == f"{project} {modules}.schedule apo"


def test_without_scipion_it_is_said_how_to_start(here, raw, opener):
    project = here / "apo"
    reply = opened(opener, asked(raw, project, pipeline="scipion"))
    assert "scipion3 is not installed here" in reply.text and HOW_TO in reply.text
    first, second = (project / HOW_TO).read_text().splitlines()
    assert first.startswith("scipion3 python -m pyworkflow.project.scripts.create apo ")
    assert second.endswith("schedule apo")


def test_a_scipion_project_that_cannot_be_made_leaves_nothing(here, raw, opener):
    program(here.parent / "bin", "scipion3", 'echo "There is already a project" >&2; exit 1')
    wanted = asked(raw, here / "apo", pipeline="scipion")
    refused(opener, wanted, "exit code 1: There is already a project")


# ---- the daemon and the command line


def command_line(*words, **variables):
    """Run `coldstream session`."""
    return subprocess.run(
        serving(*words), capture_output=True, text=True, check=False, env=environment(**variables)
    )


def serving(*words):
    code = "from mdcatch.launch.cli import session_app; session_app()"
    return [sys.executable, "-c", code, *map(str, words)]


def environment(**variables):
    root = str(Path(__file__).parents[2])
    kept = {key: value for key, value in os.environ.items() if key != "COLDSTREAM_CONFIG"}
    return {**kept, "PYTHONPATH": root, **variables}


class Daemon:
    """A daemon in a process of its own, to be killed."""

    def __init__(self, state, *words, **variables):
        self.state = state
        log = open(state.parent / "daemon.log", "a")
        with log:
            self.process = subprocess.Popen(
                serving("serve", "--state", state, *words),
                env=environment(**variables),
                stdout=log,
                stderr=log,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def ready(self):
        wait_for(lambda: Mailbox(self.state / "commands").served_by() == self.process.pid)
        return self


@pytest.fixture
def state(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


def send(state, wanted, command_id):
    box = Mailbox(state / "commands")
    arguments = to_arguments(wanted)
    box.send(Command(id=command_id, kind=KIND, arguments=arguments, sent_at=time.time()))
    return box


def test_the_command_line_opens_a_session_without_a_daemon(here, raw, state):
    words = ("open", raw, "-p", here / "apo", "--state", state, "--pipeline", "relion")
    words += ("--particle-diameter", "20", "--no-start", "--id", "mine")
    words += ("--with", "batch=9", "--set", "prep__motioncorr__patch_x=3")
    done = command_line(*words)
    assert done.returncode == 0, done.stderr
    assert "relion session in" in done.stdout
    job = JobFile.load(here / "apo/Schemes/prep/motioncorr/job.star")
    assert job.options["patch_x"] == "3"
    assert starfile.load(here / "apo/Schemes/prep").floats["do_at_most"].value == 9.0
    again = command_line(*words, "--json")  # the same id: the first answer
    assert again.returncode == 0 and json.loads(again.stdout)["id"] == "mine"
    other = command_line(*words[:-6], "--id", "other")
    assert other.returncode == 1 and "is not empty" in other.stderr
    listed = json.loads(command_line("list", "--state", state, "--json").stdout)
    assert [row["state"] for row in listed] == ["done", "refused"]
    text = command_line("list", "--state", state).stdout
    assert "done" in text and str(raw) in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--pipeline", "other"), "pipeline"),
        (("--with", "nonsense"), "must be KEY=VALUE"),
        (("--with", "nonsense=1"), "nonsense"),
        (("--with", "workers=many"), "workers"),
        (("--id", "../x"), "command id"),
        (("--config", "/no/such.toml"), "is not a file"),
    ],
)
def test_wrong_usage_is_told(here, raw, state, words, said):
    done = command_line("open", raw, "-p", here / "apo", "--state", state, *words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert list(here.iterdir()) == []


def test_the_command_line_leaves_it_to_the_daemon(here, raw, state):
    with Daemon(state).ready() as daemon:
        words = ("open", raw, "-p", here / "apo", "--state", state, "--pipeline", "relion")
        done = command_line(*words, "--particle-diameter", "20")
        assert done.returncode == 0, done.stderr
        parents = {process.ppid() for process in of(here)}
        assert parents == {daemon.process.pid}
        daemon.process.terminate()
        assert daemon.process.wait(10) == 0
    assert len(of(here)) == 2  # what it started goes on
    text = (state.parent / "daemon.log").read_text()
    assert "command.answered" in text and "daemon.stopped" in text and "Traceback" not in text


def test_a_command_waits_for_the_daemon(here, raw, state):
    box = send(state, asked(raw, here / "apo", pipeline="relion"), "early")
    assert box.answer("early") is None
    with Daemon(state).ready():
        answer = box.wait("early", 20.0)
    assert answer is not None and answer.done and len(of(here)) == 2


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_each_point_the_session_is_opened_once(here, raw, state, point):
    crashes = state / "crashes"
    crashes.mkdir()
    (crashes / f"launch.{point}").touch()
    box = send(state, asked(raw, here / "apo", pipeline="relion"), "c1")
    with Daemon(state, COLDSTREAM_CRASH_DIR=str(crashes)) as daemon:
        assert daemon.process.wait(20) == -signal.SIGKILL
    assert list(crashes.iterdir()) == []
    with Daemon(state, COLDSTREAM_CRASH_DIR=str(crashes)).ready():
        answer = box.wait("c1", 20.0)
        assert answer is not None and answer.done, answer
    check_opened(here, ["apo"])


def check_opened(here, names):
    """Check that these projects are there, whole, each with its two programs, and nothing else."""
    assert sorted(path.name for path in here.iterdir()) == sorted(names)
    for name in names:
        project = here / name
        assert (project / "Schemes/proc/scheme.star").is_file()
        assert (project / relionit.OPTIONS_FILE).is_file()
        assert len(of(project)) == 2, [one.cmdline() for one in of(project)]
        for scheme in ("prep", "proc"):
            lines = (project / "Schemes" / scheme / "run.out").read_text().splitlines()
            assert len(lines) == 1, lines


@pytest.mark.slow
def test_kill_loop(here, raw, state):
    """The daemon is killed at random times; each of the sessions is opened once, and whole."""
    chance, names, kills = random.Random(9), [f"s{n}" for n in range(8)], 0
    for name in names:
        box = send(state, asked(raw, here / name, pipeline="relion"), name)
    deadline = time.monotonic() + 200
    while box.waiting():
        assert time.monotonic() < deadline
        with Daemon(state).ready():
            kills += 1  # every third is given the time to end a command: five kills give it up
            time.sleep(chance.uniform(0.0, 2.0) if kills % 3 else chance.uniform(5.0, 7.0))
    assert kills >= 5
    answers = [box.answer(name) for name in names]
    assert all(answer is not None and answer.done for answer in answers), answers
    check_opened(here, names)


# ---- by itself

LIST = "import sys; print(open({path!r}).read())"


def test_a_site_opens_what_grows(here, state, tmp_path, monkeypatch):
    """The daemon looks at a list of sessions that changes, as `mdcatch sessions` would print it."""
    from mdcatch.launch.daemon import Daemon as Loop
    from mdcatch.launch.look import Query
    from services.kit.logs import Log

    listed = tmp_path / "sessions.json"

    class Sessions:
        def start(self):
            return Query([sys.executable, "-c", LIST.format(path=str(listed))])

    site = msgspec.structs.replace(
        SITE,
        defaults=Defaults(projects=str(here), pipeline="relion", particle_diameter_A=20.0),
        programs=Programs(),
    )
    old, new = (session(tmp_path / "raw2" / name) for name in ("old", "new"))

    def show(*rows):
        listed.write_text(json.dumps([{"raw": str(raw), "exposures": n} for raw, n in rows]))

    box, opener = Mailbox(state / "commands"), Opener(site)
    loop = Loop(box, opener, Log("launch"), Policy(), Sessions(), look_s=0.0)

    def look():
        """Turn until a look has begun, has ended, and what it led to is done."""
        for _ in range(2):
            wait_for(lambda: (loop.turn(time.monotonic()), loop._query is not None)[1])
            wait_for(lambda: (loop.turn(time.monotonic()), loop._query is None)[1])
        wait_for(lambda: (loop.turn(time.monotonic()), not box.waiting())[1])

    with loop._inbox:
        show((old, 50))
        look()
        assert list(here.iterdir()) == []
        show((old, 50), (new, 2))
        look()
        assert list(here.iterdir()) == []  # two may be a test
        show((old, 50), (new, 4))
        look()
        assert [path.name for path in here.iterdir()] == ["new"]
        show((old, 51), (new, 9))
        look()
        assert sorted(path.name for path in here.iterdir()) == ["new", "old"]
        look()
        listed.write_text("nonsense")
        look()
    opener.let_go()
    if loop._query is not None:
        loop._query.close()
    assert len(box.exchanges()) == 2
    assert all(one.answer.done for one in box.exchanges())
    assert len(of(here)) == 4


def test_serve_says_that_the_sessions_cannot_be_listed(here, state, tmp_path):
    config = tmp_path / "site.toml"
    config.write_text('[roots.a]\npath = "/no/such/root"\n')
    with Daemon(state, "--auto-open", "--config", config).ready() as daemon:
        time.sleep(0.5)
        assert daemon.process.poll() is None
    assert "Traceback" not in (state.parent / "daemon.log").read_text()


def test_a_second_daemon_is_refused(state):
    with Daemon(state).ready():
        second = command_line("serve", "--state", state)
    assert second.returncode == 2 and "does the commands" in second.stderr


def test_the_state_folder_is_private(state):
    (state / "commands").mkdir(mode=0o755)
    done = command_line("list", "--state", state)
    assert done.returncode == 2 and "chmod 700" in done.stderr
    home = state / "home"
    done = command_line("list", XDG_STATE_HOME=str(home))
    assert done.returncode == 0 and "no session was opened" in done.stdout
    assert (home / "coldstream" / "commands").stat().st_mode & 0o777 == 0o700


def test_a_site_without_relion_is_told(here, raw, state):
    site = Site(programs=Programs(relion="/opt/none/relion_refine"))
    wanted = asked(raw, here / "apo", pipeline="relion")
    refused(Opener(site), wanted, "/opt/none/relion_schemer is not installed")
