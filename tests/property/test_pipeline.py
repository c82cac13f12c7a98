"""The pipeline file: nothing is lost between generations, or between us and other programs."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from algorithms.formats import star
from schemer import pipeline31
from schemer.errors import ProjectError
from schemer.jobs.labels import STAR_VERSION, node_label
from schemer.pipeline import STATUSES, Pipeline
from schemer.project import Project
from tests.gui import Gui

SHM = Path("/dev/shm")  # noqa: S108
GENERATIONS = ("5.0", "4.0", "3.1")

word = st.text("abcdefgxyzABC0123456789_-", min_size=1, max_size=8)
folder = st.sampled_from(
    ["Import", "MotionCorr", "CtfFind", "AutoPick", "Extract", "Class2D", "Class3D", "Refine3D",
     "Select", "PostProcess", "LocalRes", "MultiBody", "External"]
)  # fmt: skip
top = st.sampled_from(
    ["MicrographMovieGroupMetadata", "MicrographGroupMetadata", "MicrographCoordsGroup",
     "ParticleGroupMetadata", "Image2DGroupMetadata", "DensityMap", "Mask3D", "OptimiserData",
     "Image3D", "LogFile", "ParamsData", "ProcessData", "TomogramGroupMetadata", "Mine"]
)  # fmt: skip
details = st.sampled_from(
    ["", ".star.relion", ".mrc", ".mrc.relion", ".mrc.relion.postprocess.masked", ".mrc.halfmap",
     ".txt.relion.polish", ".star.relion.class2d", ".star.relion.model", ".x.y.z"]
)  # fmt: skip
node_labels = st.builds(str.__add__, top, details)
process_labels = st.sampled_from(
    ["relion.import.movies", "relion.motioncorr", "relion.motioncorr.own", "relion.class2d",
     "relion.external.mine", "relion31.type6", "my.type.deep", "dynamight"]
)  # fmt: skip
file_names = st.sampled_from(
    ["movies.star", "logfile.pdf", "postprocess_masked.mrc", "particles_subtracted.star", "x.star"]
)


@st.composite
def pipelines(draw):
    """Return a pipeline of some jobs, their files and who reads them."""
    made = Pipeline()
    made.counter = draw(st.integers(1, 2000))
    jobs = draw(st.lists(st.tuples(folder, process_labels), max_size=5))
    for number, (name, label) in enumerate(jobs, 1):
        process = f"{name}/job{number:03d}/"
        made.add_process(process, label)
        made.set_status(process, draw(st.sampled_from(STATUSES)))
        if draw(st.booleans()):
            made.set_alias(process, f"{name}/{draw(word)}/")
        for file in draw(st.lists(file_names, max_size=2, unique=True)):
            made.add_output(process, process + file, draw(node_labels))
    for process in list(made.processes):
        for name in draw(st.lists(st.sampled_from(sorted(made.nodes) or ["a.mrc"]), max_size=2)):
            made.add_input(process, name, draw(node_labels))
    return made


def reread(pipeline, generation, remembered=None):
    text = star.dumps(pipeline.tables(generation), STAR_VERSION[generation])
    return Pipeline.loads(text.encode(), "x", remembered)


@given(pipelines(), st.lists(st.sampled_from(GENERATIONS), min_size=1, max_size=4))
def test_a_pipeline_goes_through_all_generations_unchanged(pipeline, generations):
    expected = pipeline.tables("5.0")
    for generation in generations:
        remembered = pipeline.remember() if generation == "3.1" else None
        pipeline = reread(pipeline, generation, remembered)
        if pipeline.processes or pipeline.nodes:
            assert pipeline.generation == generation
    assert pipeline.tables("5.0") == expected


@given(pipelines())
def test_without_our_memory_only_details_of_labels_are_lost(pipeline):
    again = reread(pipeline, "3.1")
    assert again.processes == pipeline.processes and again.aliases == pipeline.aliases
    assert list(again.nodes) == list(pipeline.nodes)
    assert again.tables("3.1") == pipeline.tables("3.1")
    assert reread(again, "5.0").tables("3.1") == pipeline.tables("3.1")
    for process in pipeline.processes:
        assert again.outputs(process) == pipeline.outputs(process)
        assert again.inputs(process) == pipeline.inputs(process)


@given(st.integers(-5, 200), folder, file_names)
def test_every_number_of_relion_3_comes_back(number, name, file):
    path = f"{name}/job001/{file}"
    assert pipeline31.node_number(pipeline31.node_label(number, path)) == number
    assert pipeline31.job_number(pipeline31.job_label(number)) == number


@given(node_labels)
def test_labels_of_relion_4_come_back(label):
    assert node_label(node_label(label, "4.0"), "5.0") == label


# Other programs

ours = st.tuples(
    st.sampled_from(["create", "run", "succeed", "fail", "alias", "check", "update"]),
    st.integers(0, 9),
)
theirs = st.tuples(
    st.sampled_from(["add", "mark", "rename", "delete", "exit file", "count"]), st.integers(0, 9)
)
steps = st.lists(st.one_of(ours, theirs), min_size=1, max_size=25)


class Story:
    """A project in which we and a GUI act in turns, and what must be true after each act."""

    def __init__(self, root, generation):
        self.project = Project(root, generation=generation, retry_s=0.001, tries=3)
        self.project.init()
        self.gui = Gui(root, generation)
        self.root, self.generation = Path(root), generation
        self.counter, self.rows, self.numbers = 1, set(), set()
        self.made = {}  # node -> process

    def some(self, choice):
        names = sorted(self.project.pipeline().processes)
        return names[choice % len(names)] if names else None

    def act(self, what, choice):
        process = self.some(choice)
        if what == "create":
            self.create(choice)
        elif what == "check":
            self.project.check_completion()
        elif what == "add":
            self.created(self.gui.add_job())
        elif what == "count":
            with self.gui.change() as tables:
                columns = tables["pipeline_general"].columns
                number = int(columns["rlnPipeLineJobCounter"][0]) + 1
                columns["rlnPipeLineJobCounter"][0] = str(number)
        elif process is None:
            return
        elif what in ("run", "succeed", "fail"):
            status = {"run": "Running", "succeed": "Succeeded", "fail": "Failed"}[what]
            job = self.root / process / "job.star"
            if what == "run" and not job.exists():  # the GUI's rows here have no files
                job.write_text("\ndata_job\n\n_rlnJobTypeLabel relion.import\n \n")
            self.project.set_status(process, status, command="x")
            assert self.project.pipeline().status(process) == status
        elif what == "alias":
            self.rename(process, choice)
        elif what == "update" and process in self.made.values():
            self.project.update_job(
                process, "relion.maskcreate", {}, (), (("b.mrc", "Mask3D.mrc"),)
            )
        else:
            self.click(what, process, choice)

    def click(self, what, process, choice):
        if what == "mark":
            self.gui.mark(process, STATUSES[choice % 5])
        elif what == "rename":
            self.gui.rename(process, f"theirs{choice}")
        elif what == "exit file":
            (self.root / process / "RELION_JOB_EXIT_ABORTED").touch()
        elif what == "delete":
            self.gui.delete(process)
            self.rows.discard(process)
            self.made = {node: name for node, name in self.made.items() if name != process}
            with pytest.raises(ProjectError, match="was it deleted"):
                self.project.set_status(process, "Succeeded")

    def rename(self, process, choice):
        try:
            self.project.set_alias(process, f"ours{choice}")
        except ProjectError as error:
            assert "choose another" in str(error)

    def create(self, choice):
        process = self.project.create_job(
            "Schemes/s/", f"n{choice}", "relion.maskcreate", {},
            [(name, "Mask3D.mrc") for name in list(self.project.pipeline().nodes)[:1]],
            [("mask.mrc", "Mask3D.mrc.relion")],
        )  # fmt: skip
        assert self.made.setdefault(f"n{choice}", process) == process
        if process not in self.rows:
            self.created(process)

    def created(self, process):
        number = int(process[-4:-1])
        assert number not in self.numbers, f"{process}: the number was given twice"
        self.numbers.add(number)
        self.rows.add(process)

    def check(self):
        pipeline = self.project.pipeline()
        assert set(pipeline.processes) == self.rows
        assert pipeline.counter >= self.counter and pipeline.counter > max(self.numbers, default=0)
        self.counter = pipeline.counter
        blocks = star.load(self.root / "default_pipeline.star")
        for block, label in (("nodes", "rlnPipeLineNodeName"),
                             ("processes", "rlnPipeLineProcessName")):  # fmt: skip
            names = blocks.get(f"pipeline_{block}", star.Table({label: []})).columns[label]
            assert len(names) == len(set(names)), f"{block} twice"
        for block in ("input", "output"):
            table = blocks.get(f"pipeline_{block}_edges", star.Table())
            edges = [tuple(table.row(at).values()) for at in range(len(table))]
            assert len(edges) == len(set(edges)), "an edge twice"
        if self.rows:
            assert pipeline.generation == self.generation
        assert not (self.root / ".relion_lock").exists()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(GENERATIONS), steps)
def test_we_and_a_gui_in_turns(tmp_path, generation, taken):
    where = SHM if os.access(SHM, os.W_OK) else tmp_path
    root = tempfile.mkdtemp(dir=where)
    try:
        story = Story(root, generation)
        for what, choice in taken:
            story.act(what, choice)
            story.check()
    finally:
        shutil.rmtree(root)
