"""The commands that change Schemes, and relion_schemer's own option names, on real folders."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from algorithms.formats import star
from schemer import optionfile, relionit, starfile, store, templates
from schemer.cli import app, relion_names
from schemer.cli.common import ABORTED, FAILED, USAGE
from schemer.jobs import JobFile
from schemer.scheme import BoolVariable, FloatVariable, JobRow, Scheme, StringVariable
from tests.shared import shared


@pytest.fixture
def project(tmp_path: Path) -> Path:
    templates.install(tmp_path, "prep")
    templates.install(tmp_path, "proc")
    return tmp_path


def invoke(project: Path, *words: object, scheme: str = "prep") -> Result:
    place = ["--project", str(project), "--scheme", scheme]
    return CliRunner().invoke(app, [*map(str, words), *place])


def done(project: Path, *words: object, scheme: str = "prep") -> Result:
    result = invoke(project, *words, scheme=scheme)
    assert result.exit_code == 0, result.output
    return result


def read(project: Path, scheme: str = "prep") -> Scheme:
    return starfile.read(project / "Schemes" / scheme)


def options(project: Path, job: str, scheme: str = "prep") -> dict[str, str]:
    return JobFile.load(project / "Schemes" / scheme / job / "job.star").options


def snapshot(project: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in project.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def advance(project: Path, job: str = "motioncorr") -> None:
    """Write a Scheme that has run its jobs and stands at one of them."""
    folder = project / "Schemes/prep"
    text = (folder / "scheme.star").read_text()
    text = text.replace(
        f"{job} {job}   continue          0", f"{job} MotionCorr/job002/ continue 1"
    )
    (folder / "scheme.star").write_text(
        text.replace(
            "_rlnSchemeCurrentNodeName            WAIT", f"_rlnSchemeCurrentNodeName {job}"
        )
    )
    assert read(project).jobs[job] == JobRow("MotionCorr/job002/", "continue", True)


# Setting


def test_set_and_reset(project):
    assert "wait_sec is 5.0, after a reset 180.0" in done(project, "set", "wait_sec", "5").stdout
    assert read(project).floats["wait_sec"] == FloatVariable(5.0, 180.0)
    done(project, "set", "do_at_most", "-1", "--reset-value", "-1")
    assert read(project).floats["do_at_most"] == FloatVariable(-1.0, -1.0)
    advance(project)
    assert "the next run begins at WAIT" in done(project, "reset").stdout
    after = read(project)
    assert after.floats["wait_sec"].value == 180.0 and after.floats["do_at_most"].value == -1.0
    assert after.jobs["motioncorr"] == JobRow("motioncorr", "continue")
    assert after.current_node == "WAIT"


def test_the_former_file_is_kept(project):
    path = project / "Schemes/prep/scheme.star"
    before = path.read_text()
    done(project, "set", "wait_sec", "5")
    assert path.with_name("scheme.star.bck").read_text() == before


def test_json(project):
    found = json.loads(done(project, "set", "wait_sec", "5", "--json").stdout)
    assert found == {
        "scheme": "Schemes/prep/",
        "current_node": "WAIT",
        "variable": "wait_sec",
        "value": 5.0,
        "reset": 180.0,
    }
    found = json.loads(done(project, "set-job-option", "ctffind", "box", "256", "--json").stdout)
    assert found == {"job": "ctffind", "option": "box", "value": "256", "begins_anew": True}
    for words in (("reset",), ("set-current-node", "ctffind"), ("set-job-mode", "ctffind", "new")):
        assert json.loads(done(project, *words, "--json").stdout)["scheme"] == "Schemes/prep/"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("set", "wait_sek", "5"), "did you mean wait_sec"),
        (("set", "wait_sec", "soon"), "value 'soon' is not a number"),
        (("set", "wait_sec", "5", "--reset-value", "soon"), "value 'soon' is not a number"),
        (("set-current-node", "motioncor"), "there is no node 'motioncor'"),
        (("set-job-mode", "motioncorr", "overwrite"), "write new or continue"),
        (("set-has-started", "motioncorr", "maybe"), "write True or False"),
        (("set-job-option", "motioncor", "box", "1"), "there is no job 'motioncor'"),
        (("set-job-option", "ctffind", "boxx", "1"), "did you mean box"),
        (("set-job-option", "ctffind", "box", "wide"), "value 'wide' is not a number"),
        (("set-job-option", "motioncorr", "gain_rot", "2"), "write one of No rotation (0)"),
        (("copy", "proc"), "is there already"),
        (("copy", "../prep2"), "cannot be the name of a Scheme"),
        (("add", "edge", "ctffind", "WAIT"), "an edge leaves 'ctffind' already"),
        (("add", "operator", "X", "bool=gt"), "is not a bool variable"),
        (("add", "job", "gone"), "has no job.star"),
        (("add", "variable", "WAIT", "1"), "is used already"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(project, words, message):
    before = snapshot(project)
    result = invoke(project, *words)
    assert result.exit_code == FAILED
    assert message in " ".join(result.stderr.split()) and result.stdout == ""
    assert snapshot(project) == before


def test_a_scheme_that_is_not_there(project):
    for words in (("reset",), ("abort",), ("set", "x", "1"), ("copy", "y")):
        result = invoke(project, *words, scheme="prepp")
        assert result.exit_code == USAGE and "there are prep, proc" in result.stderr


def test_an_option_makes_the_job_begin_anew(project):
    advance(project)
    assert (
        "motioncorr begins anew"
        in done(project, "set-job-option", "motioncorr", "do_save_noDW", "False").stdout
    )
    assert options(project, "motioncorr")["do_save_noDW"] == "No"
    assert read(project).jobs["motioncorr"] == JobRow("MotionCorr/job002/", "continue", False)
    done(project, "set-has-started", "motioncorr", "True")
    done(project, "set-job-option", "motioncorr", "bfactor", "-1", "--keep-job")
    assert options(project, "motioncorr")["bfactor"] == "-1"
    assert read(project).jobs["motioncorr"].has_started is True


def test_mode_flag_and_node(project):
    done(project, "set-job-mode", "ctffind", "new")
    done(project, "set-has-started", "ctffind", "1")
    assert "is at motioncorr" in done(project, "set-current-node", "motioncorr").stdout
    assert read(project).jobs["ctffind"] == JobRow("ctffind", "new", True)
    assert read(project).current_node == "motioncorr"


def test_abort_touches_the_files_that_relions_programs_look_for(project):
    advance(project)
    (project / "MotionCorr/job002").mkdir(parents=True)
    assert "to stop at motioncorr; nobody seems to run it" in done(project, "abort").stdout
    assert (project / "MotionCorr/job002/RELION_JOB_ABORT_NOW").exists()
    assert (project / "Schemes/prep/RELION_JOB_ABORT_NOW").exists()
    assert json.loads(done(project, "abort", "--json").stdout) == {
        "scheme": "Schemes/prep/",
        "node": "motioncorr",
        "running": False,
    }


def test_while_it_runs_only_variables_options_and_abort(project):
    folder = project / "Schemes/prep"
    with store.run_lock(project, folder, strict=False):
        for words in (
            ("reset",),
            ("set-current-node", "ctffind"),
            ("set-job-mode", "ctffind", "new"),
            ("set-has-started", "ctffind", "True"),
            ("set-job-option", "ctffind", "box", "256"),
            ("add", "variable", "x", "1"),
        ):
            result = invoke(project, *words)
            assert result.exit_code == FAILED and "is running" in result.stderr
            assert "schemer abort" in result.stderr
        assert options(project, "ctffind")["box"] == "512"
        done(project, "set", "wait_sec", "5")
        done(project, "set-job-option", "ctffind", "box", "256", "--keep-job")
        assert json.loads(done(project, "abort", "--json").stdout)["running"] is True
        done(project, "set", "wait_sec", "6", scheme="proc")
    assert read(project).floats["wait_sec"].value == 5.0
    assert options(project, "ctffind")["box"] == "256"


def test_a_relion_schemer_that_runs_is_respected(project):
    (project / ".relion_lock_scheme_prep").mkdir()
    result = invoke(project, "set", "wait_sec", "5")
    assert result.exit_code == FAILED and ".relion_lock_scheme_prep exists" in result.stderr


def test_changes_are_noted_for_relion_it(project):
    path = project / relionit.OPTIONS_FILE
    optionfile.write(path, {"do_prep": "True"})
    done(project, "set-job-option", "ctffind", "box", "256")
    done(project, "set", "wait_sec", "5", "--reset-value", "5")
    done(project, "set", "maxtime_hr", "1")  # for this run only: not noted
    assert optionfile.read(path) == {
        "do_prep": "True",
        "prep__ctffind__box": "256",
        "prep__wait_sec": "5",
    }
    path.write_text("print('hello')\n")
    result = done(project, "set-job-option", "ctffind", "box", "128")
    assert "not noted for relion_it" in result.stderr
    assert options(project, "ctffind")["box"] == "128"


# Copying and adding


def test_a_copy_stands_on_its_own(project):
    done(project, "copy", "proc2", scheme="proc")
    copied = read(project, "proc2")
    assert copied.name == "Schemes/proc2/"
    assert copied.strings["selected_mics"].reset == "Schemes/proc2/select_mics/micrographs.star"
    assert copied.strings["ctffind_mics"].value == "Schemes/prep/ctffind/micrographs_ctf.star"
    assert options(project, "extract", "proc2")["coords_suffix"] == (
        "Schemes/proc2/autopick/autopick.star"
    )
    original = read(project, "proc")
    assert (copied.edges, copied.operators, copied.jobs) == (
        original.edges,
        original.operators,
        original.jobs,
    )
    starfile.load(project / "Schemes/proc2")


def test_a_copy_of_one_that_ran_says_what_it_shares(project):
    advance(project)
    result = done(project, "copy", "Schemes/prep2/")
    assert "motioncorr would go on in the original's folders; reset the copy" in result.stderr
    done(project, "reset", scheme="prep2")
    assert read(project, "prep2").jobs["motioncorr"].has_started is False


def test_a_scheme_built_from_nothing_runs(tmp_path):
    for words in (
        ("variable", "wait_sec", "0"),
        ("variable", "hours", "-1"),
        ("variable", "offset", "-5", "--reset-value", "-6"),
        ("variable", "file", "there.txt"),
        ("variable", "there", "False"),
        ("operator", "WAIT", "wait", "--input1", "wait_sec"),
        ("operator", "HAS", "bool=file_exists", "--input1", "file", "--output", "there"),
        ("operator", "END", "exit"),
        ("edge", "WAIT", "HAS"),
        ("fork", "HAS", "there", "END", "WAIT"),
    ):
        done(tmp_path, "add", *words, scheme="mine")
    scheme = starfile.load(tmp_path / "Schemes/mine")
    assert scheme.floats["offset"] == FloatVariable(-5.0, -6.0)
    assert scheme.bools["there"] == BoolVariable(False, False)
    assert scheme.strings["file"] == StringVariable("there.txt", "there.txt")
    (tmp_path / "there.txt").touch()
    result = done(tmp_path, "run", "--json", scheme="mine")
    assert json.loads(result.stdout)["visited"] == ["WAIT", "HAS", "END"]


def test_a_job_is_added_from_its_folder(project):
    source = project / "Schemes/prep/ctffind"
    done(project, "add", "job", source, "--mode", "new", "--name", "again")
    assert read(project).jobs["again"] == JobRow("again", "new")
    assert options(project, "again") == options(project, "ctffind")
    done(project, "add", "job", "Schemes/proc/extract/")
    assert read(project).jobs["extract"] == JobRow("extract", "continue")
    result = invoke(project / "gone", "add", "variable", "x", "1")
    assert result.exit_code == USAGE and "no such project folder" in result.stderr


# relion_it


def test_relion_it_applies_and_reports(tmp_path):
    file = tmp_path / "o.toml"
    file.write_text(
        "[prep.importmovies]\nkV = 300\nkv = 300\n[proc.autopick]\nlog_diam_max = 150\n"
    )
    words = ["relion-it", str(file), "--project", str(tmp_path), "--only-save"]
    result = CliRunner().invoke(app, [*words, "--calculate", "relion", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["set"]["prep__importmovies__kV"] == "300"
    assert found["calculated"]["proc__class2d__particle_diameter"] == "165"
    assert list(found["unknown"]) == ["prep__importmovies__kv"]
    assert found["copied"] == ["prep", "proc"] and found["started"] == []
    assert any("Movies/gain.mrc" in warning for warning in found["warnings"])
    assert options(tmp_path, "importmovies")["kV"] == "300"
    result = CliRunner().invoke(app, words)
    assert "prep__importmovies__kV = 300\n" in result.stdout
    assert "unknown key 'prep__importmovies__kv'; did you mean" in result.stderr
    assert "1 unknown; all are in" in result.stdout


def test_relion_it_that_is_refused_writes_nothing(tmp_path):
    file = tmp_path / "o.py"
    file.write_text("{'prep__importmovies__kV': 'high'}")
    words = ["relion-it", str(file), "--project", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == FAILED
    assert f"{file}: key 'prep__importmovies__kV'" in result.stderr and "'high'" in result.stderr
    result = CliRunner().invoke(app, [*words, "--calculate", "guess"])
    assert result.exit_code == USAGE and "mdcatch-helix" in result.stderr
    assert list(tmp_path.iterdir()) == [file]


STUB = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
for name in ("movies.star", "corrected_micrographs.star", "micrographs_ctf.star"):
    (folder / name).touch()
"""


def schemer(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "schemer", *words]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


def test_relion_it_runs_prep_in_the_background(tmp_path):
    stub = tmp_path / "stub"
    stub.write_text(f"#!{sys.executable}\n{STUB}")
    stub.chmod(0o755)
    (tmp_path / "o.py").write_text(
        "{'prep__maxtime_hr': -1, 'prep__wait_sec': 0, 'do_proc': 'False'}"
    )
    folder = tmp_path / "Schemes/prep"
    result = schemer(tmp_path, "relion-it", "o.py", "--executor", f"command:{stub}", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["started"] == ["prep"]
    deadline = time.monotonic() + 60
    while not (folder / "RELION_JOB_EXIT_SUCCESS").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    while store.running(folder) is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    scheme = starfile.read(folder)
    assert scheme.current_node == "EXIT_maxtime", (folder / "run.err").read_text()
    assert all(row.has_started for row in scheme.jobs.values())
    assert "ctffind" in (folder / "run.out").read_text()


# relion_schemer's own names


@pytest.fixture
def relion(project, monkeypatch, capsys):
    """Return a function that runs a relion_schemer command line in the project."""
    monkeypatch.chdir(project)

    def run(line: str, *more: str) -> tuple[int, str]:
        code = relion_names.main([*line.split(), *more])
        caught = capsys.readouterr()
        return code, caught.out + caught.err

    return run


def test_setting_as_relion_schemer_does(relion, project):
    assert relion("--scheme prep --set_var wait_sec --value 30")[0] == 0
    assert read(project).floats["wait_sec"] == FloatVariable(30.0, 180.0)
    assert relion("--scheme prep --set_var do_at_most --value -1 --original_value -1")[0] == 0
    assert read(project).floats["do_at_most"] == FloatVariable(-1.0, -1.0)
    code, _ = relion("--scheme proc --set_var iniref --value", "", "--original_value", "")
    assert code == 0 and read(project, "proc").strings["iniref"] == StringVariable("", "")
    assert relion("--scheme proc --set_var do_log --value False")[0] == 0
    assert read(project, "proc").bools["do_log"] == BoolVariable(False, True)
    code, text = relion("--scheme proc --set_var do_log --value No")
    assert code == FAILED and "write True or False" in text
    assert relion("--scheme prep --set_job_mode ctffind --value new")[0] == 0
    assert relion("--scheme prep --set_has_started ctffind --value True")[0] == 0
    assert read(project).jobs["ctffind"] == JobRow("ctffind", "new", True)
    assert relion("--scheme prep --set_current_node ctffind")[0] == 0
    assert read(project).current_node == "ctffind"
    assert relion("--scheme prep --abort")[0] == 0
    assert (project / "Schemes/prep/RELION_JOB_ABORT_NOW").exists()
    assert relion("--scheme prep --reset")[0] == 0
    assert read(project).current_node == "WAIT"
    assert relion("--scheme prep --copy Schemes/prep2/")[0] == 0
    assert read(project, "prep2").name == "Schemes/prep2/"


def test_adding_as_relion_schemer_does(relion, project):
    for line in (
        "variable --name wait_sec --value 60 --original_value 90",
        "variable --name there --value false",
        "variable --name file --value Schemes/prep/ctffind/micrographs_ctf.star",
        "operator --name WAIT --type wait --i wait_sec",
        "operator --name HAS --type bool=file_exists --i file --o there",
        "job --i Schemes/prep/ctffind/ --mode continue",
        "edge --i WAIT --o HAS",
        "fork --i HAS --bool there --o ctffind --o2 WAIT",
        "edge --i ctffind --o WAIT",
    ):
        code, text = relion(f"--scheme built --add {line}")
        assert code == 0, text
    scheme = starfile.load(project / "Schemes/built")
    assert scheme.floats["wait_sec"] == FloatVariable(60.0, 90.0)
    assert scheme.next_node("HAS", {"there": True}) == "ctffind"
    assert scheme.next_node("HAS", {"there": False}) == "WAIT"
    assert scheme.jobs["ctffind"] == JobRow("ctffind", "continue")


def test_one_action_per_call_in_relions_order(relion, project):
    before = read(project).floats["wait_sec"]
    line = "--scheme prep --set_current_node ctffind --set_var wait_sec --value 1 --reset"
    assert relion(line)[0] == 0
    assert read(project).floats["wait_sec"] == before and read(project).current_node == "WAIT"
    assert relion("--scheme prep --set_current_node ctffind --set_var wait_sec --value 1")[0] == 0
    assert read(project).floats["wait_sec"].value == 1.0 and read(project).current_node == "WAIT"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--scheme prep", "nothing to do; give one of --run, --abort, --copy, --add, --reset"),
        ("--reset", "say which Scheme with --scheme"),
        ("--scheme prep --set_var wait_sec", "--value must be given too"),
        ("--scheme prep --set_var", "--set_var needs a value"),
        ("--scheme prep --add edge --i WAIT", "--o must be given too"),
        ("--scheme prep --add node", "write one of variable, operator, job, edge, fork"),
        ("--scheme prep --rest", "'--rest' is no option of relion_schemer"),
        ("--scheme prep reset", "'reset' is no option of relion_schemer"),
        ("--scheme prepp --reset", "there is no Scheme 'prepp'"),
    ],
)
def test_wrong_command_lines(relion, project, line, message):
    before = snapshot(project)
    code, text = relion(line)
    assert code == USAGE and message in text
    assert snapshot(project) == before


def test_a_run_with_relions_command_line(project):
    for name, value in (("maxtime_hr", "-1"), ("wait_sec", "0")):
        line = f"--scheme prep --set_var {name} --value {value}"
        assert schemer(project, *line.split()).returncode == 0
    assert (
        schemer(project, *"--scheme prep --set_current_node EXIT_maxtime".split()).returncode == 0
    )
    stub = project / "stub"
    stub.write_text(f"#!{sys.executable}\n{STUB}")
    stub.chmod(0o755)
    line = "--scheme prep --run --verb 2 --run_pipeline default --pipeline_control Schemes/prep/ "
    result = schemer(project, *line.split(), "--executor", f"command:{stub}", "--json")
    found = json.loads(result.stdout)
    assert (
        found["visited"] == "EXIT_maxtime importmovies motioncorr ctffind WAIT EXIT_maxtime".split()
    )
    assert result.returncode == found["exit_code"] != ABORTED
    assert schemer(project, "--scheme", "prep").returncode == USAGE


@pytest.mark.parametrize("version", ["relion-4.0", "relion-5.0.1"])
def test_relions_own_schemes_can_be_edited(tmp_path, version):
    source = shared(f"data/schemes/{version}")
    for path in source.glob("*/**/*.star"):
        target = tmp_path / "Schemes" / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    done(tmp_path, "set-job-option", "autopick", "use_gpu", "False", scheme="proc")
    done(tmp_path, "set", "maxtime_hr", "-1", scheme="proc")
    after = starfile.load(tmp_path / "Schemes/proc")
    before = starfile.load(source / "proc")
    assert options(tmp_path, "autopick", "proc")["use_gpu"] == "No"
    assert after.floats["maxtime_hr"] == FloatVariable(-1.0, 48.0)
    assert (after.edges, after.jobs, after.strings) == (before.edges, before.jobs, before.strings)


def test_the_shipped_schemes_run_with_an_option_file_up_to_particles(tmp_path):
    session = shared("data/movies/sim_30S/Supervisor_20260404_091207_sim21")
    (tmp_path / "Movies").symlink_to(session)
    (tmp_path / "o.toml").write_text(
        "prep__importmovies__angpix = 2.0\n"
        'prep__motioncorr__fn_gain_ref = "Movies/gain.mrc"\n'
        "proc__autopick__log_diam_max = 260\n"
        "proc__autopick__log_diam_min = 200\n"
        "proc__select_mics__select_maxval = 30\n"
        "proc__class2d__nr_classes = 2\nproc__class2d__nr_iter_grad = 3\n"
        'proc__select_parts__fn_model = "Schemes/proc/class2d/run_it003_optimiser.star"\n'
        "prep__maxtime_hr = -1\nprep__wait_sec = 0\nproc__maxtime_hr = -1\nproc__wait_sec = 0\n"
    )
    words = ("--only-given", "--only-save", "--json")
    assert schemer(tmp_path, "relion-it", "o.toml", *words).returncode == 0
    prep = json.loads(schemer(tmp_path, "run", "--scheme", "prep", "--json").stdout)
    assert prep["visited"] == [
        *("WAIT", "EXIT_maxtime", "importmovies", "motioncorr", "ctffind"),
        *("WAIT", "EXIT_maxtime"),
    ]
    proc = json.loads(schemer(tmp_path, "run", "--scheme", "proc", "--json").stdout)
    assert proc["jobs"]["extract"]["status"] == "Succeeded", proc["detail"]
    particles = star.load(tmp_path / proc["jobs"]["extract"]["name"] / "particles.star")
    assert len(particles["particles"]) > 20
    assert proc["jobs"]["class2d"]["status"] == "Succeeded", proc["detail"]
    classes = star.load(tmp_path / proc["jobs"]["class2d"]["name"] / "run_it003_model.star")
    assert len(classes["model_classes"]) == 2
