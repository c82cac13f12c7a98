"""Our project folder in the hands of RELION's own programs.

The programs at hand may be RELION 3.1, which knows types as numbers: it reads what we write for
it whole. Of the pipeline of RELION 4 and 5 it reads the STAR dialect, and it takes the lock.
"""

import shutil
import subprocess
import sys
import time

import pytest

from algorithms.formats import star
from schemer import jobs, templates
from schemer.errors import ProjectLocked
from schemer.pipeline import Pipeline
from schemer.project import Project
from tests.gui import Gui

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(
        shutil.which("relion_star_printtable") is None or shutil.which("relion_pipeliner") is None,
        reason="RELION's programs are not installed",
    ),
]


def relion(project, *command):
    return subprocess.run(
        command, cwd=project.root, capture_output=True, text=True, timeout=60, check=False
    )


def column(project, path, block, label):
    done = relion(project, "relion_star_printtable", path, block, label)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def make(project, label, **options):
    job = jobs.find(label)
    complete, _ = job.complete(options)
    return project.create_job(
        "Schemes/all/",
        f"node{project.pipeline().counter}",
        job.process_label(complete),
        complete,
        job.input_nodes(complete),
        job.output_nodes(complete),
    )


def run(project, process, status="Succeeded"):
    project.set_status(process, "Running", command="coldstream")
    if status == "Succeeded":
        for name in project.pipeline().outputs(process):
            (project.root / name).touch()
    if status != "Running":
        project.set_status(process, status)


@pytest.fixture(params=["5.0", "4.0"])
def project(request, tmp_path):
    made = Project(tmp_path, generation=request.param, retry_s=0.01, tries=2)
    made.init()
    templates.install(tmp_path, "prep", {"prep__importmovies__angpix": "0.9"})
    templates.install(tmp_path, "proc")
    source = ""
    for label, option in (
        ("relion.import", ""),
        ("relion.motioncorr", "input_star_mics"),
        ("relion.ctffind", "input_star_mics"),
    ):
        process = make(made, label, **({option: source} if option else {}))
        run(made, process)
        source = made.pipeline().outputs(process)[0]
    return made


def test_relion_reads_every_block_of_the_pipeline(project):
    pipeline = project.pipeline()
    path = "default_pipeline.star"
    names = column(project, path, "data_pipeline_processes", "rlnPipeLineProcessName")
    assert names == list(pipeline.processes)
    assert column(project, path, "data_pipeline_nodes", "rlnPipeLineNodeName") == list(
        pipeline.nodes
    )
    sources = column(project, path, "data_pipeline_input_edges", "rlnPipeLineEdgeFromNode")
    assert sources == ["Import/job001/movies.star", "MotionCorr/job002/corrected_micrographs.star"]
    targets = column(project, path, "data_pipeline_output_edges", "rlnPipeLineEdgeToNode")
    assert targets == list(pipeline.nodes)


def test_relion_reads_job_and_job_pipeline(project):
    for process in project.pipeline().processes:
        path = process + "job_pipeline.star"
        names = column(project, path, "data_pipeline_processes", "rlnPipeLineProcessName")
        assert names == [process]


def test_relion_3_takes_the_lock_and_its_crash_is_told_apart_from_ours(project):
    done = relion(project, "relion_pipeliner", "--check_job_completion")
    if done.returncode == 0:
        assert len(project.pipeline().processes) == 3  # RELION 4 or later: reads and rewrites
        return
    # RELION 3.1 cannot read node labels: it stops, and leaves its lock folder behind.
    assert "pipeline_nodes" in done.stderr
    with pytest.raises(ProjectLocked, match="if no RELION program runs in this project"):
        project.set_status("Import/job001/", "Running")
    shutil.rmtree(project.root / ".relion_lock")
    project.set_status("Import/job001/", "Running")
    assert project.pipeline().processes["Import/job001/"] == "Running"


# RELION 3.1's own generation


@pytest.fixture
def old(tmp_path):
    """A project of RELION 3.1, with one job of each kind that our Schemes make."""
    made = Project(tmp_path, generation="3.1", retry_s=0.2, tries=60)
    made.init()
    mics, picks = "Select/job004/micrographs.star", "AutoPick/job005/autopick.star"
    for label, options in (
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
        ("relion.initialmodel", {"fn_img": "Select/job008/particles.star"}),
        ("relion.refine3d", {"fn_img": "Select/job008/particles.star",
                             "fn_ref": "InitialModel/job009/initial_model.mrc"}),
    ):  # fmt: skip
        run(made, make(made, label, **options))
    return made


def rows(project):
    return {
        name: block.columns
        for name, block in star.load(project.root / "default_pipeline.star").items()
    }


def spaced(text):
    """Return a text without the differences in spacing."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def checked(project):
    """Let RELION look whether jobs have ended, and rewrite the pipeline."""
    project.root.joinpath(".pipeline_has_changed").touch()  # or it would not rewrite
    done = relion(project, "relion_pipeliner", "--check_job_completion")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    assert not project.root.joinpath(".relion_lock").exists()
    assert not project.root.joinpath(".pipeline_has_changed").exists(), "it was not rewritten"


def test_relion_3_changes_nothing_but_spacing(old):
    # What it meets besides: an alias, outputs that a job declares, unknown types, other states.
    external = make(old, "relion.external", fn_exe="x", in_part="Select/job008/particles.star")
    declared = [("mine.star", "ParticleGroupMetadata.star.relion.mine", 1),
                ("map.mrc", "DensityMap.mrc.relion.mine", 2)]  # fmt: skip
    for name, _, _ in declared:
        (old.root / external / name).touch()
    table = star.Table.of(
        {
            "rlnPipeLineNodeName": [external + name for name, _, _ in declared],
            "rlnPipeLineNodeTypeLabel": [label for _, label, _ in declared],
            "rlnPipeLineNodeTypeLabelDepth": [depth for _, _, depth in declared],
        }
    )
    star.save(old.root / external / "RELION_OUTPUT_NODES.star", {"output_nodes": table})
    run(old, external)
    old.set_alias("MotionCorr/job002/", "my movies")
    for status in ("Failed", "Aborted", "Running"):
        run(old, make(old, "relion.postprocess", fn_in=f"{status}.mrc"), status)
    make(old, "relion.maskcreate", fn_in="Refine3D/job010/run_class001.mrc")  # scheduled
    tilts = [("tilt_series.star", "TomogramGroupMetadata.star.relion.tomo.import")]
    old.create_job("S", "tomo", "relion.importtomo", {}, (), tilts)
    before, labels = rows(old), old.pipeline()
    text = old.pipeline_path.read_text()
    assert "# version 30001" in text and "Label" not in text and "Depth" not in text

    checked(old)
    assert spaced(old.pipeline_path.read_text()) == spaced(text)
    assert rows(old) == before
    again = old.pipeline()
    assert again.tables("5.0") == labels.tables("5.0"), "labels that numbers cannot say were lost"
    assert again.nodes[external + "mine.star"] == "ParticleGroupMetadata.star.relion.mine"
    assert again.label("MotionCorr/job002/") == "relion.motioncorr.own"
    assert again.alias("MotionCorr/job002/") == "MotionCorr/my_movies/"
    statuses = list(again.processes.values())
    assert statuses[-5:] == ["Failed", "Aborted", "Running", "Scheduled", "Scheduled"]


def test_an_empty_project_stays_one_of_relion_3(tmp_path):
    Project(tmp_path, generation="3.1").init()
    done = relion(Project(tmp_path), "relion_pipeliner", "--addJob", "Import")
    assert (done.returncode, done.stderr) == (0, "")
    project = Project(tmp_path)
    assert project.generation == "3.1"
    assert project.pipeline().processes == {"Import/job001/": "Scheduled"}
    assert project.pipeline().label("Import/job001/") == "relion.import"


def test_relion_3_marks_our_running_jobs_and_we_take_it(old):
    for status, name in (("Succeeded", "SUCCESS"), ("Failed", "FAILURE"), ("Aborted", "ABORTED")):
        process = make(old, "relion.maskcreate", fn_in=f"{status}.mrc")
        run(old, process, "Running")
        (old.root / process / f"RELION_JOB_EXIT_{name}").touch()
        (old.root / process / "mask.mrc").touch()
    expected = ["Succeeded", "Failed", "Aborted"]
    checked(old)
    assert list(old.pipeline().processes.values())[-3:] == expected
    assert old.check_completion() == {}, "there is nothing left to mark"
    theirs = rows(old)
    old.set_status(process, "Aborted")  # late, as an engine that was busy
    assert rows(old) == theirs
    # And the same by ourselves, from the same state.
    for process in list(old.pipeline().processes)[-3:]:
        Gui(old.root, "3.1").mark(process, "Running")
    assert list(old.check_completion().values()) == expected
    assert rows(old) == theirs


def test_relion_3_adds_a_job_and_opens_one_of_ours(old):
    done = relion(old, "relion_pipeliner", "--addJobFromStar", "Import/job001/job.star")
    assert done.returncode == 0 and "rlnJob" not in done.stderr, done.stderr
    ours = make(old, "relion.maskcreate", fn_in="Refine3D/job010/run_class001.mrc")
    assert list(old.pipeline().processes)[-2:] == ["Import/job011/", ours]
    theirs = star.load(old.root / "Import/job011/job.star")
    mine = star.load(old.root / "Import/job001/job.star")
    assert list(theirs["job"].columns) == list(mine["job"].columns)
    options = [
        dict(zip(*one["joboptions_values"].columns.values(), strict=True)) for one in (theirs, mine)
    ]
    both = set(options[0]) & set(options[1])
    assert len(both) > 15 and all(options[0][name] == options[1][name] for name in both)


def test_relion_3_and_we_write_in_turns(old):
    """RELION adds jobs while another process of ours makes and runs some; none is lost."""
    code = f"""
import sys
from schemer.project import Project
from tests.gui import Gui
project = Project({str(old.root)!r}, retry_s=0.02, tries=1000)
for n in range(80):
    process = project.create_job("S", f"n{{n}}", "relion.maskcreate", {{}}, (), (("mask.mrc", "Mask3D.mrc.relion"),))
    project.set_status(process, "Running")
    project.set_status(process, "Failed")
    project.check_completion()
"""  # noqa: E501
    writer = subprocess.Popen([sys.executable, "-c", code])
    added = 0
    try:
        while writer.poll() is None and added < 8:
            done = relion(old, "relion_pipeliner", "--addJob", "Import")
            assert done.returncode == 0, done.stderr
            added += 1
        assert writer.wait(timeout=120) == 0
    finally:
        writer.kill()
        writer.wait()
    pipeline = Pipeline.load(str(old.pipeline_path))
    processes = list(pipeline.processes)
    assert len(processes) == 10 + 80 + added and pipeline.counter == len(processes) + 1
    # RELION chooses its number before it has the lock: only ours are sure to be new.
    numbers = [name[-4:] for name in processes if name.startswith("MaskCreate")]
    assert len(numbers) == len(set(numbers)) == 80
    names = star.load(old.pipeline_path)["pipeline_nodes"].columns["rlnPipeLineNodeName"]
    assert len(names) == len(set(names))
    assert added >= 1 and not (old.root / ".relion_lock").exists()


def test_the_lock_held_by_relion_is_waited_for(old):
    """A scheduler of RELION holds the lock for moments only; ours waits for it."""
    relion(old, "relion_pipeliner", "--addJob", "Import")
    scheduler = subprocess.Popen(
        ["relion_pipeliner", "--RunJobs", "Import/job011/", "--schedule", "one",
         "--sec_wait_after", "0"],
        cwd=old.root,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        began = time.monotonic()
        while scheduler.poll() is None and time.monotonic() - began < 50:
            old.set_status("Import/job001/", "Running")
            old.set_status("Import/job001/", "Succeeded")
            time.sleep(0.01)
        assert scheduler.wait(timeout=10) == 0
    finally:
        scheduler.kill()
        scheduler.wait()
    assert old.pipeline().status("Import/job011/") in ("Succeeded", "Failed")
    assert "Executing new job" in (old.root / "Import/job011/note.txt").read_text()
