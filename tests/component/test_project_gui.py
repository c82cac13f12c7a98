"""A GUI open on the project we work in: both change the pipeline all the time, nothing is lost."""

import subprocess
import sys

import pytest

from algorithms.formats import star
from schemer.project import Project
from tests.gui import Gui

OUTPUTS = [("mask.mrc", "Mask3D.mrc.relion")]


def make(project, n):
    return project.create_job("S/", f"n{n}", "relion.maskcreate", {}, (), OUTPUTS)


@pytest.mark.parametrize("generation", ["5.0", "4.0", "3.1"])
def test_a_gui_in_another_process(tmp_path, generation):
    project = Project(tmp_path, generation=generation, retry_s=0.002, tries=5000)
    project.init()
    make(project, 0)
    command = [sys.executable, "-m", "tests.gui", tmp_path, "60", "7", generation]
    gui = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    made, expected = [], {}
    try:
        while gui.poll() is None:
            process = make(project, len(made) + 1)
            made.append(process)
            project.set_status(process, "Running")
            expected[process] = ("Succeeded", "Failed")[len(made) % 2]
            project.set_status(process, expected[process])
            seen = project.pipeline()  # without the lock, while the GUI may be writing
            assert {name: seen.status(name) for name in made} == expected
            if len(made) % 5 == 0:
                project.set_alias(process, f"ours{len(made)}")
        theirs = gui.communicate()[0].split()
    finally:
        gui.kill()
        gui.wait()
    assert gui.returncode == 0 and len(made) > 5
    pipeline = project.pipeline()
    assert set(pipeline.processes) == {"MaskCreate/job001/", *made, *theirs}
    numbers = [int(name[-4:-1]) for name in pipeline.processes]
    assert len(set(numbers)) == len(numbers) and pipeline.counter > max(numbers)
    assert {name: pipeline.status(name) for name in made} == expected
    for process in theirs:  # links are made for its aliases, and kept for ours
        assert pipeline.outputs(process) == [process + "movies.star"]
    project.check_completion()
    project.remake_nodes()
    for process, alias in pipeline.aliases.items():
        assert (tmp_path / alias).resolve() == (tmp_path / process).resolve()
    assert not (tmp_path / ".relion_lock").exists()
    assert pipeline.generation == generation


def test_what_the_gui_changes_meanwhile_is_kept(tmp_path):
    project = Project(tmp_path)
    project.init()
    gui, first = Gui(tmp_path), make(project, 1)
    theirs = gui.add_job()
    gui.mark(first, "Running")
    gui.rename(first, "named")
    second = make(project, 2)
    assert (theirs, second) == ("Import/job002/", "MaskCreate/job003/")
    pipeline = project.pipeline()
    assert pipeline.processes == {first: "Running", theirs: "Scheduled", second: "Scheduled"}
    assert pipeline.alias(first) == "MaskCreate/named/"
    # The GUI may mark a job as finished before we do: it sees the same exit file.
    project.set_status(second, "Running")
    (tmp_path / second / "RELION_JOB_EXIT_SUCCESS").touch()
    gui.mark(second, "Succeeded")
    project.set_status(second, "Succeeded")
    assert project.pipeline().status(second) == "Succeeded"
    # Or delete it.
    gui.delete(second)
    assert make(project, 2) == "MaskCreate/job004/", "a number is never used again"
    assert star.load(project.pipeline_path)["pipeline_nodes"].columns["rlnPipeLineNodeName"] == [
        first + "mask.mrc",
        theirs + "movies.star",
        "MaskCreate/job004/mask.mrc",
    ]
