"""The project folder: what RELION will find there, locks, crashes, and other programs' changes."""

import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from algorithms.formats import star
from schemer import jobs
from schemer.errors import ProjectError, ProjectLocked, SchemeError
from schemer.jobs import JobFile, node_label
from schemer.pipeline import Pipeline
from schemer.project import Project
from schemer.world import ProjectWorld
from tests.shared import shared

SHM = Path("/dev/shm")  # noqa: S108

# The children only touch files, so the threads that a fork leaves behind do not matter.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def project(tmp_path):
    made = Project(tmp_path / "P", retry_s=0.01, tries=3)
    made.init()
    return made


def make(project, node="motioncorr", label="relion.motioncorr", visit="", **options):
    job = jobs.find(label)
    complete, _ = job.complete(options)
    return project.create_job(
        "Schemes/prep/",
        node,
        job.process_label(complete),
        complete,
        job.input_nodes(complete),
        job.output_nodes(complete),
        visit=visit,
    )


def table(project, name):
    return star.load(project.pipeline_path)[f"pipeline_{name}"]


def no_lock(project):
    return not (project.root / ".relion_lock").exists()


def in_child(action):
    """Run `action` in a child process; return how it ended."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# What is written


def test_init_makes_an_empty_project_and_leaves_one_alone(project):
    assert (project.root / ".gui_projectdir").exists()
    assert project.pipeline().counter == 1
    make(project)
    project.init()
    assert project.pipeline().counter == 2
    assert no_lock(project)


def test_a_new_job_is_scheduled_with_its_files(project):
    source = make(project, "importmovies", "relion.import", angpix="0.9")
    process = make(project, input_star_mics=source + "movies.star", nr_threads="4")
    assert (source, process) == ("Import/job001/", "MotionCorr/job002/")
    folder = project.root / process
    for name in ("job.star", "job_pipeline.star", "note.txt", "run.out", "run.err"):
        assert (folder / name).exists(), name
    job = JobFile.load(folder / "job.star")
    assert job.label == "relion.motioncorr.own" and not job.is_continue
    assert job.options["nr_threads"] == "4" and job.options["patch_x"] == "1"
    assert list(job.options) == sorted(job.options) and len(job.options) == 32
    assert project.pipeline().processes == {source: "Scheduled", process: "Scheduled"}
    assert project.pipeline().nodes == {
        source + "movies.star": "MicrographMovieGroupMetadata.star.relion",
        process + "corrected_micrographs.star": "MicrographGroupMetadata.star.relion.motioncorr",
        process + "logfile.pdf": "LogFile.pdf.relion.motioncorr",
    }
    assert table(project, "input_edges").row(0) == {
        "rlnPipeLineEdgeFromNode": source + "movies.star",
        "rlnPipeLineEdgeProcess": process,
    }
    assert (project.root / ".Nodes/LogFile" / process / "logfile.pdf").exists()
    assert (project.root / ".pipeline_has_changed").exists()
    alone = Pipeline.load(str(folder / "job_pipeline.star"))
    assert alone.counter == 2 and list(alone.processes) == [process] and len(alone.nodes) == 3


def test_a_job_runs_ends_and_continues(project):
    process = make(project)
    folder = project.root / process
    project.set_status(process, "Running", command="coldstream prep motioncorr")
    assert project.pipeline().processes[process] == "Running"
    assert "coldstream prep motioncorr" in (folder / "note.txt").read_text()
    copy = Pipeline.load(str(folder / "default_pipeline.star"))
    assert copy.processes[process] == "Running"
    project.set_status(process, "Succeeded")
    assert (folder / "RELION_JOB_EXIT_SUCCESS").exists()
    (folder / "RELION_JOB_ABORT_NOW").touch()
    project.set_status(process, "Running", command="again")
    assert not list(folder.glob("RELION_JOB_*"))
    assert JobFile.load(folder / "job.star").is_continue
    assert (folder / "note.txt").read_text().count("Executing new job") == 2
    project.set_status(process, "Failed")
    project.set_status(process, "Aborted")
    assert [path.name for path in folder.glob("RELION_JOB_*")] == ["RELION_JOB_EXIT_ABORTED"]
    assert project.pipeline().processes[process] == "Aborted"
    assert no_lock(project)


def test_nodes_appear_when_their_file_does(project):
    process = make(project, "external", "relion.external")
    mark = project.root / ".Nodes/ParticleGroupMetadata" / process / "mine.star"
    folder = project.root / process
    star.save(
        folder / "RELION_OUTPUT_NODES.star",
        {
            "output_nodes": star.Table.of(
                {
                    "rlnPipeLineNodeName": [process + "mine.star"],
                    "rlnPipeLineNodeTypeLabel": ["ParticleGroupMetadata.star.relion"],
                }
            )
        },
    )
    project.set_status(process, "Running")
    project.set_status(process, "Succeeded")
    assert project.pipeline().outputs(process) == [process + "mine.star"]
    assert not mark.exists()
    (folder / "mine.star").touch()
    project.set_status(process, "Succeeded")
    assert mark.exists()


def test_relion_4_gets_its_own_labels(tmp_path):
    project = Project(tmp_path, generation="4.0")
    project.init()
    make(project, "class2d", "relion.class2d", fn_img="Extract/job001/particles.star")
    text = project.pipeline_path.read_text()
    assert "# version 30001" in text and "Depth" not in text
    assert "ProcessData.star.relion.optimiser.class2d" in text
    assert "ParticlesData.star.relion.class2d" in text
    # Opened as a project of the other generation, the same nodes get the other words.
    five = Pipeline.load(str(project.pipeline_path)).tables("5.0")["pipeline_nodes"]
    assert "OptimiserData.star.relion.class2d" in five.columns["rlnPipeLineNodeTypeLabel"]
    assert set(five.columns["rlnPipeLineNodeTypeLabelDepth"]) == {"1"}


@pytest.mark.parametrize("trace", ["T1-prep-one-pass", "T3-proc-2d-only"])
def test_the_pipeline_is_what_relion_made_of_the_same_jobs(project, trace):
    """Make the jobs of RELION's trace from the shipped Schemes; compare every block."""
    theirs = star.load(shared(f"data/schemes/traces/{trace}/default_pipeline.star"))
    mics, picks = "Select/job004/micrographs.star", "AutoPick/job005/autopick.star"
    given = [
        ("relion.import", {}),
        ("relion.motioncorr", {"input_star_mics": "Import/job001/movies.star"}),
        ("relion.ctffind", {"input_star_mics": "MotionCorr/job002/corrected_micrographs.star"}),
        ("relion.select", {"fn_mic": "CtfFind/job003/micrographs_ctf.star",
                           "do_select_values": "Yes"}),
        ("relion.autopick", {"fn_input_autopick": mics, "do_log": "Yes"}),
        ("relion.extract", {"star_mics": mics, "coords_suffix": picks}),
        ("relion.class2d", {"fn_img": "Extract/job006/particles.star"}),
        ("relion.select", {"fn_model": "Class2D/job007/run_it200_optimiser.star",
                           "do_class_ranker": "Yes"}),
    ]  # fmt: skip
    for number, (label, options) in enumerate(given[: len(theirs["pipeline_processes"])]):
        process = make(project, f"node{number}", label, **options)
        project.set_status(process, "Running")
        for name in project.pipeline().outputs(process):
            (project.root / name).touch()
        project.set_status(process, "Succeeded")
    ours = star.load(project.pipeline_path)
    assert list(ours) == list(theirs)
    for name, block in theirs.items():
        assert ours[name].columns == block.columns, name
    marks = shared(f"data/schemes/traces/{trace}/Nodes.txt").read_text().split()
    found = [path for path in (project.root / ".Nodes").rglob("*") if path.is_file()]
    assert sorted(str(path.relative_to(project.root)) for path in found) == marks


# Repeating and crashing


def test_repeating_create_job_returns_the_same_process_and_changes_nothing(project):
    process = make(project)
    files = {p: p.stat().st_mtime_ns for p in project.root.rglob("*") if p.suffix == ".star"}
    assert make(project) == process
    assert {p: p.stat().st_mtime_ns for p in files} == files
    assert project.pipeline().counter == 2


def test_changed_options_are_written_into_the_same_job(project):
    process = make(project, patch_x="3")
    assert make(project, patch_x="7") == process
    assert JobFile.load(project.root / process / "job.star").options["patch_x"] == "7"


def test_each_visit_of_a_new_job_gets_its_own_number(project):
    first = make(project, "class2d", "relion.class2d", visit="1")
    second = make(project, "class2d", "relion.class2d", visit="2")
    assert (first, second) == ("Class2D/job001/", "Class2D/job002/")
    assert make(project, "class2d", "relion.class2d", visit="1") == first


def _die_at(point, action):
    """Run `action` in a child that is killed at its n-th touch of the file system."""

    def doomed():
        left = [point]

        def count(event, _):
            if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.utime"):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        action()

    return in_child(doomed)


def _whole(project, process):
    """Check everything that has to be there after create_job."""
    pipeline = project.pipeline()
    assert list(pipeline.processes) == [process]
    assert pipeline.counter == 2
    assert len(pipeline.outputs(process)) == 2 and len(pipeline.nodes) == 3
    folder = project.root / process
    for name in ("job.star", "job_pipeline.star", "note.txt", "run.out", "run.err"):
        assert (folder / name).exists(), name
    assert len(list((project.root / ".Nodes").rglob("*.pdf"))) == 1
    assert len(list(project.root.glob("*/job*"))) == 1
    assert no_lock(project)


@pytest.fixture
def memory(tmp_path):
    """A folder in memory where there is one: a killed process does not need a real disk."""
    if not os.access(SHM, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=SHM) as folder:
        yield Path(folder)


def test_killed_at_any_moment_create_job_is_completed_by_the_next_call(memory):
    def create(project):
        return make(project, input_star_mics="Import/job009/movies.star")

    points = 0
    while True:
        project = Project(memory / f"P{points}", retry_s=0.01, tries=3)
        project.init()
        code = _die_at(points, lambda project=project: create(project))
        assert code in (0, -signal.SIGKILL)
        assert create(project) == "MotionCorr/job001/"
        _whole(project, "MotionCorr/job001/")
        if code == 0:
            break
        points += 1
    assert points > 20, "the audit hook saw too little to be trusted"


def test_killed_at_any_moment_set_status_is_completed_by_the_next_call(memory):
    points = 0
    while True:
        project = Project(memory / f"P{points}", retry_s=0.01, tries=3)
        project.init()
        process = make(project)
        project.set_status(process, "Running")
        code = _die_at(points, lambda p=project, q=process: p.set_status(q, "Succeeded"))
        project.set_status(process, "Succeeded")
        assert (project.root / process / "RELION_JOB_EXIT_SUCCESS").exists()
        assert project.pipeline().processes == {process: "Succeeded"}
        assert no_lock(project)
        if code == 0:
            break
        points += 1
    assert points > 10


def test_a_claim_of_one_node_is_not_taken_by_another(project):
    """Killed between its claim and the pipeline's row, a job keeps its number."""
    claim = project.root / "MotionCorr/job001/.coldstream.json"
    claim.parent.mkdir(parents=True)
    claim.write_text(json.dumps({"scheme": "Schemes/prep/", "node": "motioncorr", "visit": ""}))
    assert make(project, "ctffind", "relion.ctffind") == "CtfFind/job002/"
    assert make(project) == "MotionCorr/job001/"
    assert project.pipeline().counter == 3


def test_a_claim_whose_number_relion_took_is_given_up(project):
    claim = project.root / "MotionCorr/job001/.coldstream.json"
    claim.parent.mkdir(parents=True)
    claim.write_text(json.dumps({"scheme": "Schemes/prep/", "node": "motioncorr", "visit": ""}))
    pipeline = project.pipeline()
    pipeline.add_process("Import/job001/", "relion.import.movies")
    pipeline.counter = 2
    star.save(project.pipeline_path, pipeline.tables("5.0"))
    assert make(project) == "MotionCorr/job002/"
    assert make(project) == "MotionCorr/job002/"


def test_several_processes_make_jobs_at_once(project):
    def make_three(number):
        for k in range(3):
            make(project, f"node{number}.{k}")

    def one_child(number):
        codes.append(in_child(lambda: make_three(number)))

    codes: list[int] = []
    threads = [threading.Thread(target=one_child, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 4
    assert sorted(project.pipeline().processes) == [f"MotionCorr/job{n:03d}/" for n in range(1, 13)]
    assert project.pipeline().counter == 13


# Locks


def test_the_lock_is_relions_and_signed(project):
    with project.lock():
        text = (project.root / ".relion_lock/lock_default_pipeline.star").read_text()
        assert text.split()[:2] == ["coldstream", str(os.getpid())]
    assert no_lock(project)


def test_the_lock_of_a_dead_coldstream_is_removed(project):
    def die_inside():
        with project.lock():
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(die_inside) == -signal.SIGKILL
    assert not no_lock(project)
    make(project)
    assert no_lock(project)


def test_an_empty_lock_folder_is_removed_only_after_a_crash_of_ours(project):
    (project.root / ".relion_lock").mkdir()
    with pytest.raises(ProjectLocked):  # a RELION program between two system calls, for all we know
        make(project)
    (project.root / ".coldstream/pipeline.lock").write_text("coldstream 1 2 host")
    make(project)
    assert no_lock(project)


@pytest.mark.parametrize("text", ["lock mainGUI", "", "coldstream 1 2 elsewhere.example.org"])
def test_a_lock_of_somebody_else_is_respected(project, text):
    folder = project.root / ".relion_lock"
    folder.mkdir()
    (folder / "lock_default_pipeline.star").write_text(text)
    before = project.pipeline_path.read_bytes()
    with pytest.raises(ProjectLocked) as caught:
        make(project)
    assert str(folder) in str(caught.value) and (text or "no reason") in str(caught.value)
    assert project.pipeline_path.read_bytes() == before
    assert (folder / "lock_default_pipeline.star").exists()


def test_a_lock_that_is_released_in_time_is_waited_for(tmp_path):
    project = Project(tmp_path, retry_s=0.02, tries=200)
    project.init()
    folder = project.root / ".relion_lock"
    folder.mkdir()
    (folder / "lock_default_pipeline.star").write_text("lock mainGUI")

    def release():
        time.sleep(0.2)
        (folder / "lock_default_pipeline.star").unlink()
        folder.rmdir()

    thread = threading.Thread(target=release)
    thread.start()
    assert make(project) == "MotionCorr/job001/"
    thread.join()


# Other programs


def test_changes_of_other_programs_are_kept(project):
    process = make(project)
    tables = star.load(project.pipeline_path)
    rows = tables["pipeline_processes"]
    for label, value in zip(rows.columns, ("Ours/job002/", "None", "my.type.deep", "Running"),
                            strict=True):  # fmt: skip
        rows.columns[label].append(value)
    rows.columns["myExtra"] = ["a", "b c"]
    tables["pipeline_general"].columns["rlnPipeLineJobCounter"] = ["3"]
    tables["pipeline_mine"] = star.Table.of({"x": ["1"]})
    star.save(project.pipeline_path, tables)
    project.set_status(process, "Running")
    assert make(project, "ctffind", "relion.ctffind") == "CtfFind/job003/"
    again = star.load(project.pipeline_path)
    assert again["pipeline_mine"].columns == {"x": ["1"]}
    assert again["pipeline_processes"].columns["myExtra"] == ["a", "b c", ""]
    assert project.pipeline().processes == {
        process: "Running",
        "Ours/job002/": "Running",
        "CtfFind/job003/": "Scheduled",
    }


def test_a_job_deleted_by_the_gui_is_told(project):
    with pytest.raises(ProjectError, match="was it deleted"):
        project.set_status("MotionCorr/job007/", "Running")


def test_unknown_words_are_refused(project):
    process = make(project)
    with pytest.raises(ProjectError, match="not one of Running, Succeeded"):
        project.set_status(process, "Done")
    with pytest.raises(SchemeError, match="not a known job type"):
        make(project, "x", "relion.unheard")


def test_an_alias_shows_in_the_nodes(project):
    process = make(project)
    tables = star.load(project.pipeline_path)
    tables["pipeline_processes"].columns["rlnPipeLineProcessAlias"] = ["MotionCorr/mine/"]
    star.save(project.pipeline_path, tables)
    (project.root / process / "logfile.pdf").touch()
    project.set_status(process, "Succeeded")
    assert (project.root / ".Nodes/LogFile/MotionCorr/mine/logfile.pdf").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data_other\n_x 1\n", "no block data_pipeline_general"),
        ("data_pipeline_general\n_rlnPipeLineJobCounter many\n", "many"),
        ("data_pipeline_general\n_x 1\n", "rlnPipeLineJobCounter"),
        ("nonsense\n", "text before"),
    ],
)
def test_a_damaged_pipeline_is_named_and_left_alone(project, text, words):
    project.pipeline_path.write_text(text)
    with pytest.raises(ProjectError, match=words) as caught:
        make(project)
    assert "default_pipeline.star" in str(caught.value)
    assert project.pipeline_path.read_text() == text
    assert no_lock(project)


def test_a_project_of_relion_3_goes_on_in_numbers(project):
    old = shared("data/star/relion_tutorial/default_pipeline.star").read_bytes()
    project.pipeline_path.write_bytes(old)
    before = star.loads(old.decode())
    assert project.generation == "3.1"
    process = make(project, input_star_mics="Import/job001/movies.star")
    assert process == "MotionCorr/job032/"
    project.set_status(process, "Running")
    after = star.load(project.pipeline_path)
    for block, table in before.items():
        for label, values in table.columns.items():
            if block != "pipeline_general":
                assert after[block].columns[label][: len(values)] == values
    row = after["pipeline_processes"].row(31)
    assert list(row.values()) == [process, "None", "1", "0"]
    nodes = dict(zip(*after["pipeline_nodes"].columns.values(), strict=True))
    assert nodes[process + "corrected_micrographs.star"] == "1"
    assert project.pipeline().label(process) == "relion.motioncorr.own", "we remember it"
    job = (project.root / process / "job.star").read_text()
    assert "_rlnJobType " in job and "Label" not in job and "Tomo" not in job


# Job types and facts


def test_defaults_are_relions():
    for label in ("import", "motioncorr", "ctffind", "select", "autopick", "extract", "class2d",
                  "initialmodel", "refine3d", "external"):  # fmt: skip
        theirs = JobFile.load(
            shared(f"data/schemes/relion-5.0.1-job-defaults/relion.{label}.job.star")
        )
        complete, dead = jobs.find(theirs.label).complete({})
        assert complete == theirs.options and dead == ()


def test_labels_follow_the_options():
    select = jobs.find("relion.select.onvalue")
    assert select.process_label({"do_discard": "Yes"}) == "relion.select.discard"
    assert select.process_label({}) == "relion.select.interactive"
    pick = jobs.find("relion.autopick")
    assert pick.process_label({"do_topaz": "Yes", "do_topaz_pick": "Yes"}).endswith(".topaz.pick")
    assert pick.process_label({"do_refs": "Yes", "do_ref3d": "Yes"}).endswith(".ref3d")
    external = jobs.find("relion.external.coldstream.ranker")
    assert external.label == "relion.external"
    assert external.process_label({}, "relion.external.mine") == "relion.external.mine"


def test_dead_options_are_reported_and_inputs_skip_none():
    refine = jobs.find("relion.refine3d")
    complete, dead = refine.complete({"skip_gridding": "Yes", "fn_ref": "None", "fn_img": "a.star"})
    assert dead == ("skip_gridding",) and "skip_gridding" not in complete
    assert refine.input_nodes(complete) == (("a.star", "ParticleGroupMetadata.star.relion"),)


def test_initial_model_has_a_map_per_class():
    model = jobs.find("relion.initialmodel")
    names = [name for name, _ in model.output_nodes({"nr_classes": "2", "nr_iter": "200"})]
    assert names == ["initial_model.mrc", "run_it200_class001.mrc", "run_it200_class002.mrc"]


def test_node_labels_translate_both_ways():
    for five in ("MicrographMovieGroupMetadata.star.relion", "OptimiserData.star.relion.class2d",
                 "DensityMap.mrc.relion", "ParamsData.sav.topaz.model"):  # fmt: skip
        assert node_label(node_label(five, "4.0"), "5.0") == five
    assert node_label("ParticlesDatabase.x", "5.0") == "ParticlesDatabase.x"


def test_the_world_is_a_project_folder(project):
    root: Path = project.root
    world = ProjectWorld(root, retry_s=0.0)
    (root / "Movies").mkdir()
    (root / "Movies/b.tif").touch()
    (root / "Movies/a.tif").touch()
    assert world.file_exists("Movies/a.tif") and world.file_exists("Movies")
    assert not world.file_exists("") and not world.file_exists("gone")
    assert world.glob("Movies/*.tif") == ["Movies/a.tif", "Movies/b.tif"]
    rows = star.Table.of({"rlnMicrographName": ["a", "b"], "rlnX": [1.5, 2.5]})
    optics = star.Table.of({"rlnOpticsGroup": [1]})
    star.save(root / "m.star", {"optics": optics, "micrographs": rows})
    star.save(root / "old.star", {"": rows})
    assert world.count_images("m.star", "micrographs") == 2
    assert world.count_images("m.star", "particles") == 0
    assert world.count_images("old.star", "particles") == 2
    assert world.count_images("gone.star", "particles") == 0
    more = star.Table.of({"rlnMicrographName": ["a", "b", "c"]})
    star.save(root / "m.star", {"optics": optics, "micrographs": more})
    assert world.count_images("m.star", "micrographs") == 3
    assert world.column("m.star", "micrographs", "rlnMicrographName") == ["a", "b", "c"]
    for path, name, label, words in (
        ("gone.star", "t", "x", "does not exist"),
        ("m.star", "t", "x", "no table 't'"),
        ("m.star", "micrographs", "x", "no column x"),
    ):
        with pytest.raises(SchemeError, match=words):
            world.column(path, name, label)


def test_the_world_reads_other_schemes(project):
    world = ProjectWorld(project.root, retry_s=0.0)
    assert world.job_table("prep") is None
    text = shared("data/schemes/traces/T1-prep-one-pass/scheme.final.star").read_text()
    path = project.root / "Schemes/prep/scheme.star"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    table = world.job_table("prep")
    assert table is not None and table["ctffind"] == "CtfFind/job003/"
