"""Topaz as a job and as a task of a live session, with a program in its place that takes notes."""

import hashlib
import json
import os
import signal
import sys

import msgspec
import numpy as np
import pytest

from algorithms.formats import mrc, star
from services.kit.errors import Misuse, Refused
from services.kit.host import Arrived
from services.kit.journal import Journal, Reader
from services.kit.options import Options
from services.proc import topazlive
from services.proc.build import build
from services.proc.requests import PickResult
from services.proc.topaz import autopick
from services.proc.topazask import TopazRequest, model_digest, topaz_request, uses_topaz
from services.setup import set_up
from tests import native
from tests.bench import grown

PIXEL_A, DIAMETER_A, COUNT = 1.0, 180.0, 20
PICK = "AutoPick/job007/"
# Picks of each micrograph: three in a row of the small image, and none in one of five. Without
# files it reads their names from its input and tells what it has found, as Topaz does.
PROGRAM = """#!{python}
import json, os, sys
from pathlib import Path
words = sys.argv[1:]
values = dict(zip(words[1:], words[2:]))
if "-v" in words and Path("{old}").exists():
    sys.exit(2)
images = [word for word in words if word.endswith(".mrc")]
def heads():
    return [list(open(image, "rb").read(12)) for image in images]
note = {{"words": words, "sizes": heads(), "pid": os.getpid()}}
with open("{notes}", "a") as file:
    file.write(json.dumps(note) + "\\n")
if Path("{fail}").exists():
    sys.stderr.write("first line\\nCUDA is out of order\\n")
    sys.exit(3)
scale = float(values["-x"])
def picks(image):
    pixel = int.from_bytes(open(image, "rb").read(1028)[1024:1028], "little")
    found = ((10, 1.5), (20, 4.25), (30, -5.5)) if pixel % 5 else ()
    return [f"{{Path(image).stem}}\\t{{x * scale:g}}\\t{{5 * scale:g}}\\t{{s}}" for x, s in found]
head = "image_name\\tx_coord\\ty_coord\\tscore"
if images:
    rows = [row for image in images for row in picks(image)]
    Path(values["-o"]).write_text("\\n".join([head, *rows]) + "\\n")
    sys.exit()
print("# Beginning extraction", file=sys.stderr)
print(head)
for line in sys.stdin:
    if Path("{die}").exists():
        Path("{die}").unlink()
        os.kill(os.getpid(), 9)
    rows = picks(line.strip())
    print(f"# Extracted {{len(rows)}} particles from {{Path(line.strip()).stem}}", file=sys.stderr)
    print("a warning between", file=sys.stderr)
    for row in rows:
        print(row)
Path("{end}").touch()
"""


@pytest.fixture(scope="module", autouse=True)
def jobs(tmp_path_factory):
    """Do all jobs in one process: loading the algorithms takes longer than they do."""
    with native.job_server(tmp_path_factory.mktemp("jobs")):
        yield


class Project:
    """A project with micrographs, and a program that stands for Topaz."""

    def __init__(self, folder):
        self.folder, self.notes = folder, folder / "notes"
        self.fail, self.die = folder / "fail", folder / "die"
        self.old, self.end = folder / "old", folder / "end"
        self.program = folder / "bin" / "topaz"
        self.program.parent.mkdir()
        places = {one: getattr(self, one) for one in ("notes", "fail", "die", "old", "end")}
        text = PROGRAM.format(python=sys.executable, **places)
        self.program.write_text(text)
        self.program.chmod(0o755)
        (folder / "Mics").mkdir()
        self.names = [f"Mics/m{index:02d}.mrc" for index in range(COUNT)]
        rng = np.random.default_rng(1)
        for name in self.names:
            mrc.write(folder / name, rng.normal(30, 4, (300, 400)).astype(np.float32), PIXEL_A)
        self.table(COUNT)

    def table(self, count):
        optics = {"rlnOpticsGroupName": ["a"], "rlnOpticsGroup": [1]}
        optics |= {"rlnMicrographPixelSize": [PIXEL_A], "rlnMicrographOriginalPixelSize": [0.5]}
        names = self.names[:count]
        rows = {"rlnMicrographName": names, "rlnOpticsGroup": [1] * count}
        tables = {"optics": star.Table.of(optics), "micrographs": star.Table.of(rows)}
        star.save(self.folder / "mics.star", tables)

    def options(self, **changes):
        return {
            "fn_input_autopick": "mics.star",
            "do_topaz": "Yes",
            "do_topaz_pick": "Yes",
            "topaz_particle_diameter": f"{DIAMETER_A}",
            "fn_topaz_exe": str(self.program),
            "topaz_other_args": "--num-workers 2",
            **changes,
        }

    def pick(self, code=0, more=False, **changes):
        options = self.options(**changes)
        command = native.described(self.folder, PICK, "relion.autopick", options, more=more)
        return native.ran(command, self.folder, code)

    def calls(self):
        if not self.notes.exists():
            return []
        return [json.loads(line) for line in self.notes.read_text().splitlines()]

    def picks(self, index):
        return star.load(self.folder / PICK / f"Mics/m{index:02d}_autopick.star")[""]


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def test_many_micrographs_go_through_one_call(project):
    said = project.pick(nr_mpi="1")
    calls = project.calls()
    assert [sum(w.endswith(".mrc") for w in call["words"]) for call in calls] == [16, 4]
    words = calls[0]["words"]
    assert words[:3] == ["extract", "-t", "-6"]
    for name, value in (("-r", "18"), ("-d", "-1"), ("-x", "5"), ("--num-workers", "2")):
        assert words[words.index(name) + 1] == value
    assert "-m" not in words
    assert calls[0]["sizes"][0][:12] == [80, 0, 0, 0, 60, 0, 0, 0, 1, 0, 0, 0]
    tables = [project.picks(index) for index in range(COUNT)]
    full = [t for t in tables if len(t)]
    assert 0 < len(full) < COUNT  # some have none, and a file that says so
    assert full[0].floats("rlnCoordinateX").tolist() == [100, 50, 150]  # the best first
    assert full[0].floats("rlnCoordinateY").tolist() == [25, 25, 25]
    assert full[0].floats("rlnAutopickFigureOfMerit").tolist() == [4.25, 1.5, -5.5]
    listed = star.load(project.folder / PICK / "autopick.star")["coordinate_files"]
    assert listed.strings("rlnMicrographName") == project.names
    assert f"{3 * len(full)} particles in {COUNT} micrographs" in said.stdout
    note = json.loads((project.folder / PICK / "topaz_model.json").read_text())
    assert note == {
        "program": str(project.program),
        "model": "Topaz's general model",
        "sha256": None,
        "diameter_A": DIAMETER_A,
    }


def test_only_new_micrographs_are_looked_at_again(project):
    project.table(3)
    project.pick()
    project.table(5)
    project.pick(more=True)
    counts = [sum(w.endswith(".mrc") for w in call["words"]) for call in project.calls()]
    assert counts == [3, 2]


def test_a_model_of_ones_own(project):
    project.table(2)
    (project.folder / "Models").mkdir()
    (project.folder / "Models/a.sav").write_bytes(b"weights")
    project.pick(topaz_model="Models/a.sav", use_gpu="Yes", gpu_ids="1:2")
    words = project.calls()[0]["words"]
    assert words[words.index("-m") + 1] == str(project.folder / "Models/a.sav")
    assert words[words.index("-d") + 1] == "1"
    note = json.loads((project.folder / PICK / "topaz_model.json").read_text())
    assert note["sha256"] == hashlib.sha256(b"weights").hexdigest()
    (project.folder / "Models/a.sav").write_bytes(b"better weights")
    project.pick(topaz_model="Models/a.sav")
    assert len(project.calls()) == 2  # another generation of the model picks anew
    assert model_digest(project.folder, "resnet8_u32") == ""
    assert "is neither a file nor one of" in project.pick(1, topaz_model="none.sav").stderr


def test_what_is_missing_or_wrong_is_said(project):
    absent = project.pick(1, fn_topaz_exe="/nowhere/topaz")
    assert "Topaz (/nowhere/topaz) is not here: install Topaz" in absent.stderr
    assert "topaz_particle_diameter" in project.pick(1, topaz_particle_diameter="-1").stderr
    assert "filaments" in project.pick(1, do_topaz_filaments="Yes").stderr
    assert project.calls() == []
    project.fail.touch()
    project.table(2)
    failed = project.pick(1)
    assert "Topaz ended with exit code 3: CUDA is out of order" in failed.stderr
    project.fail.unlink()
    project.pick(more=True)
    assert len(star.load(project.folder / PICK / "autopick.star")["coordinate_files"]) == 2


@pytest.fixture
def live(project, tmp_path):
    """Pick in one micrograph after the other, as a worker of a live session does."""
    folder = tmp_path / "private"
    folder.mkdir()

    def pick(index, **changes):
        class Image:
            movie = f"m{index:02d}"
            micrograph, pixel_size_A = f"Mics/m{index:02d}.mrc", PIXEL_A

        options = Options("proc/autopick", project.options(do_log="No", **changes))
        ask = topaz_request(Image(), options, PICK, project.folder)
        output = autopick(msgspec.msgpack.encode(ask), folder, project.folder)
        assert output.files == {"p.star": f"{PICK}Mics/m{index:02d}_autopick.star"}
        assert [path.name for path in folder.iterdir()] == ["p.star"]
        picks = star.load(folder / "p.star")[""].columns
        result = msgspec.msgpack.decode(output.result, type=PickResult)
        assert result.n_particles == len(picks["rlnCoordinateX"])
        return picks

    yield pick
    topazlive.end_topaz()
    topazlive._unable.clear()


def test_a_live_session_keeps_one_topaz_for_all_micrographs(project, live):
    options = Options("proc/autopick", project.options(do_log="No"))
    assert uses_topaz(options)
    assert not uses_topaz(Options("proc/autopick", project.options(do_log="Yes")))
    found = [live(index) for index in range(6)]
    (call,) = project.calls()
    words = call["words"]
    assert words[0] == "extract"
    assert words[-1] == "-v"
    assert "-o" not in words
    # What it says in this way is what it writes when it is called with files.
    project.pick()
    assert found == [project.picks(index).columns for index in range(6)]
    assert {len(one["rlnCoordinateX"]) for one in found} == {0, 3}
    assert not project.end.exists()
    topazlive.end_topaz()
    assert project.end.exists()  # it was let finish


def test_a_topaz_that_dies_is_started_again(project, live):
    before = live(1)
    project.die.touch()
    assert live(1) == before  # it died over this one, and a second one did it
    first, second = project.calls()
    assert first["pid"] != second["pid"]
    os.kill(second["pid"], signal.SIGKILL)
    assert live(1) == before
    project.fail.touch()
    live(2)  # the one that runs is not looked at again
    topazlive.end_topaz()
    with pytest.raises(Refused, match="exit code 3: CUDA is out of order"):
        live(3)
    project.fail.unlink()
    live(3)


def test_other_settings_are_another_topaz(project, live):
    (project.folder / "a.sav").write_bytes(b"weights")
    for model, diameter in (("", 180), ("a.sav", 180), ("a.sav", 180), ("a.sav", 150)):
        live(1, topaz_model=model, topaz_particle_diameter=f"{diameter}")
    assert len(project.calls()) == 3
    (project.folder / "a.sav").write_bytes(b"better weights")
    live(1, topaz_model="a.sav", topaz_particle_diameter="150")
    assert len(project.calls()) == 4
    assert len(topazlive._running) == 1


def test_a_topaz_that_cannot_stay_is_called_for_each(project, live):
    project.old.touch()
    one, two = live(1), live(2)
    project.pick()
    assert [one, two] == [project.picks(index).columns for index in (1, 2)]
    calls = [[w.endswith(".mrc") for w in call["words"]] for call in project.calls()]
    assert [sum(call) for call in calls] == [1, 1, 16, 4]


def test_a_topaz_that_is_gone_is_named(project):
    class Image:
        movie, micrograph, pixel_size_A = "m04", "Mics/m04.mrc", PIXEL_A

    with pytest.raises(Misuse, match="is not here"):
        topaz_request(
            Image(), Options("x", project.options(fn_topaz_exe="no-topaz")), PICK, project.folder
        )


def test_the_scheme_of_a_live_session_goes_over_to_topaz(project, tmp_path, monkeypatch):
    changed = {
        "proc__do_log": "No",
        "proc__autopick__topaz_particle_diameter": "260",
        "proc__autopick__fn_topaz_exe": str(project.program),
        "proc__select_mics__select_maxval": "30",
    }
    monkeypatch.setattr(
        grown, "set_up", lambda folder, raw, changes, _: set_up(folder, raw, changes, changed)
    )
    layout, session = grown.set_up_grown(tmp_path / "live", tmp_path / "raw", 2)
    grown.grow_mdcatch(layout, session, 2).journal.close()
    grown.grow_prep(layout, session).journal.close()
    service, _ = build(layout, session)
    driver = grown.Driver(service, Journal(layout.journal("proc"), "proc", session.name))
    part = grown._particles_file(tmp_path / "particles_of_one.star")
    rng = np.random.default_rng(1)
    asked = []

    def answer(task):
        asked.append(task)
        return grown.proc_result(task, rng, layout.project, part)

    reader = Reader(layout.journal("prep"))
    for event in reader.read():
        driver.handle([Arrived(event)])
        driver.work(answer)
    reader.close()
    driver.journal.close()
    calls = {task.call for task in asked if task.stage == "autopick"}
    assert calls == {"services.proc.topaz:autopick"}
    ask = msgspec.msgpack.decode(asked[0].request, type=TopazRequest)
    assert (ask.diameter_A, ask.program, ask.device) == (260.0, str(project.program), -1)
    assert len(driver.state.extracted) == 2
    (job,) = (layout.project / "AutoPick").glob("job*")
    assert "relion.autopick.topaz.pick" in (layout.project / "default_pipeline.star").read_text()
    assert job.is_dir()
