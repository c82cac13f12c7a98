"""Rows, outputs, aliases and RELION's file browser, as jobs come and go."""

import os
import sys

import pytest

from algorithms.formats import star
from schemer import jobs
from schemer.errors import ProjectError, SchemeError
from schemer.jobs import JobFile
from schemer.project import Project

MASK = ("mask.mrc", "Mask3D.mrc.relion")


@pytest.fixture
def project(tmp_path):
    made = Project(tmp_path / "P", retry_s=0.01, tries=3)
    made.init()
    return made


def make(project, label="relion.maskcreate", outputs=(MASK,), node="n", inputs=(), **options):
    return project.create_job("Schemes/s/", node, label, options, inputs, outputs)


def declare(project, process, nodes, label="rlnPipeLineNodeTypeLabel", depths=None):
    columns = {"rlnPipeLineNodeName": [process + name for name, _ in nodes],
               label: [word for _, word in nodes]}  # fmt: skip
    if depths:
        columns["rlnPipeLineNodeTypeLabelDepth"] = depths
    path = project.root / process / "RELION_OUTPUT_NODES.star"
    star.save(path, {"output_nodes": star.Table.of(columns)})


def marks(project):
    root = project.root / ".Nodes"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


# Starting and finishing


def test_the_note_is_relions(project):
    process = make(project)
    note = project.root / process / "note.txt"
    note.write_text("my own words\n")
    project.set_status(process, "Running", command="relion_mask_create --i a\nrelion_again")
    project.set_status(process, "Running")  # it runs already: nothing is launched
    lines = note.read_text().split("\n")
    assert lines[:2] == ["my own words", ""]
    assert lines[2].startswith(" ++++ Executing new job on ") and len(lines[2].split()) == 10
    assert lines[3:] == [
        " ++++ with the following command(s): ", "relion_mask_create --i a", "relion_again",
        " ++++ ", "",
    ]  # fmt: skip


def test_continuing_is_what_the_caller_says(project):
    process = make(project)
    job = project.root / process / "job.star"
    for is_continue, expected in ((None, False), (True, True), (None, True), (False, False)):
        project.set_status(process, "Running", is_continue=is_continue)
        assert JobFile.load(job).is_continue == expected
    make(project, lowpass_filter="15")
    assert not JobFile.load(job).is_continue
    project.set_status(process, "Running", is_continue=True)
    make(project, lowpass_filter="20")
    assert JobFile.load(job).is_continue, "new options do not make it a new job"
    assert JobFile.load(job).options["lowpass_filter"] == "20"


def test_a_job_without_its_job_star_is_told(project):
    process = make(project)
    (project.root / process / "job.star").unlink()
    with pytest.raises(ProjectError, match=r"job\.star is missing"):
        project.set_status(process, "Running", is_continue=True)
    assert project.pipeline().status(process) == "Scheduled"


def test_a_job_that_succeeded_tells_what_it_did_not_make(project):
    process = make(project, outputs=(MASK, ("more.mrc", "Mask3D.mrc.relion")))
    (project.root / process / "mask.mrc").touch()
    project.set_status(process, "Running")
    assert project.set_status(process, "Succeeded") == (process + "more.mrc",)
    assert len(project.pipeline().outputs(process)) == 2, "RELION keeps it and warns"
    project.set_status(process, "Succeeded", by_hand=True)
    assert project.pipeline().outputs(process) == [process + "mask.mrc"]
    assert marks(project) == [f"Mask3D/{process}mask.mrc"]


def test_declared_nodes_are_taken_over_with_their_depth(project):
    process = make(project, "relion.external", ())
    nodes = [("a.star", "ParticleGroupMetadata.star.relion"), ("b.mrc", "DensityMap.mrc.mine")]
    declare(project, process, nodes, depths=[2, 1])
    for name, _ in nodes:
        (project.root / process / name).touch()
    project.set_status(process, "Succeeded")
    pipeline = project.pipeline()
    assert pipeline.node(process + "a.star") == ("ParticleGroupMetadata.star.relion", 2)
    assert pipeline.node(process + "b.mrc") == ("DensityMap.mrc.mine", 1)
    assert marks(project) == [
        f"DensityMap/{process}b.mrc",
        f"ParticleGroupMetadata.star/{process}a.star",
        f"ParticleGroupMetadata/{process}a.star",
    ]


def test_declared_nodes_of_relion_3_are_numbers(project):
    process = make(project, "relion.external", ())
    declare(project, process, [("a.star", 3)], label="rlnPipeLineNodeType")
    project.set_status(process, "Succeeded")
    assert project.pipeline().nodes == {process + "a.star": "ParticleGroupMetadata.star.relion"}


def test_a_declaration_that_relion_3_cannot_read_is_set_right(tmp_path):
    project = Project(tmp_path, generation="3.1")
    project.init()
    process = make(project, "relion.external", ())
    declare(project, process, [("a.star", "ParticleGroupMetadata.star.mine")])
    with project._file.change() as pipeline:  # as RELION 3.1 does: type 0, movies
        pipeline.add_output(process, process + "a.star", "MicrographMovieGroupMetadata.star.relion")
    project.set_status(process, "Succeeded")
    nodes = star.load(project.pipeline_path)["pipeline_nodes"].columns
    assert nodes["rlnPipeLineNodeType"] == ["3"]
    assert project.pipeline().nodes == {process + "a.star": "ParticleGroupMetadata.star.mine"}


def test_a_declaration_that_cannot_be_read_is_named(project):
    process = make(project, "relion.external", ())
    path = project.root / process / "RELION_OUTPUT_NODES.star"
    path.write_text("\ndata_output_nodes\n\nloop_\n_rlnPipeLineNodeName #1\na.star\n\n")
    with pytest.raises(ProjectError, match=r"RELION_OUTPUT_NODES\.star: no column"):
        project.set_status(process, "Succeeded")


def test_a_change_that_fails_leaves_nothing_for_the_next_one(project):
    process, other = make(project, "relion.external", ()), make(project, node="other")
    path = project.root / process / "RELION_OUTPUT_NODES.star"
    path.write_text("\ndata_output_nodes\n\n_rlnPipeLineNodeName a.star\n\n")
    with pytest.raises(ProjectError):
        project.set_status(process, "Succeeded")
    project.set_status(other, "Failed")
    assert project.pipeline().processes == {process: "Scheduled", other: "Failed"}


def test_running_jobs_with_an_exit_file_are_marked(project):
    ends = {"SUCCESS": "Succeeded", "FAILURE": "Failed", "ABORTED": "Aborted"}
    made = {name: make(project, node=name) for name in (*ends, "both", "none", "waits")}
    for name, process in made.items():
        if name != "waits":
            project.set_status(process, "Running")
    for name, process in made.items():
        for word in ends if name == "both" else {name} & set(ends):
            (project.root / process / f"RELION_JOB_EXIT_{word}").touch()
    (project.root / made["waits"] / "RELION_JOB_EXIT_SUCCESS").touch()
    declare(project, made["SUCCESS"], [("new.mrc", "Mask3D.mrc")])
    expected = {made[name]: status for name, status in ends.items()} | {made["both"]: "Succeeded"}
    assert project.check_completion() == expected
    statuses = project.pipeline().processes
    assert statuses == expected | {made["none"]: "Running", made["waits"]: "Scheduled"}
    assert made["SUCCESS"] + "new.mrc" in project.pipeline().nodes
    written = project.pipeline_path.stat().st_mtime_ns
    assert project.check_completion() == {}
    assert project.pipeline_path.stat().st_mtime_ns == written


@pytest.mark.parametrize("name", ["class2d", "class3d", "refine3d", "initialmodel", "multibody"])
def test_a_continued_refinement_gives_up_outputs_that_it_will_not_make(project, name):
    label = f"relion.{name}"
    first = [(f"run_it025_{end}.star", "X.star.relion") for end in ("data", "optimiser")]
    process = make(project, label, first)
    reader = make(project, node="reader", inputs=[(process + first[1][0], "X.star.relion")])
    project.set_status(process, "Failed")
    (project.root / process / first[0][0]).touch()
    then = [("run_ct10_it050_data.star", "X.star.relion")]
    project.update_job(process, label, {}, (), then)
    expected = [process + first[0][0], process + then[0][0]]
    assert project.pipeline().outputs(process) == expected
    assert project.pipeline().inputs(reader) == []
    project.set_status(process, "Running", is_continue=True)
    assert project.pipeline().outputs(process) == expected


def test_other_jobs_keep_what_they_declare(project):
    process = make(project)
    project.set_status(process, "Failed")
    inputs = [("a.mrc", "DensityMap.mrc")]
    project.update_job(process, "relion.maskcreate", {"fn_in": "a.mrc"}, inputs, [("b", "X")])
    pipeline = project.pipeline()
    assert pipeline.outputs(process) == [process + "mask.mrc", process + "b"]
    assert pipeline.inputs(process) == ["a.mrc"] and pipeline.status(process) == "Failed"
    assert JobFile.load(project.root / process / "job.star").options["fn_in"] == "a.mrc"
    with pytest.raises(ProjectError, match="was it deleted"):
        project.update_job("MaskCreate/job009/", "relion.maskcreate", {}, (), ())


def test_a_tomography_job_keeps_its_own_options(project):
    tomo = jobs.find("relion.motioncorr", tomo=True)
    only_tomo = sorted(set(tomo.options) - set(jobs.find("relion.motioncorr").options))
    process = project.create_job(
        "S/", "n", "relion.motioncorr.own", tomo.complete({})[0], (), (), is_tomo=True
    )
    file = JobFile.load(project.root / process / "job.star")
    assert file.is_tomo and only_tomo and set(only_tomo) <= set(file.options)


# Aliases


def test_an_alias_is_a_link_and_shows_in_the_file_browser(project):
    process = make(project)
    assert marks(project) == [f"Mask3D/{process}mask.mrc"]
    assert project.set_alias(process, "my mask") == "MaskCreate/my_mask/"
    link = project.root / "MaskCreate/my_mask"
    assert os.readlink(link) == "../MaskCreate/job001/"
    assert project.pipeline().alias(process) == "MaskCreate/my_mask/"
    assert marks(project) == ["Mask3D/MaskCreate/my_mask/mask.mrc"]
    assert project.set_alias(process, "other") == "MaskCreate/other/"
    assert project.set_alias(process, "other") == "MaskCreate/other/"
    assert sorted(os.listdir(project.root / "MaskCreate")) == ["job001", "other"]
    assert marks(project) == ["Mask3D/MaskCreate/other/mask.mrc"]
    reader = make(project, node="reader", inputs=[("MaskCreate/other/mask.mrc", "Mask3D.mrc")])
    assert project.pipeline().inputs(reader) == [process + "mask.mrc"]
    assert project.set_alias(process, "") == process
    assert os.listdir(project.root / "MaskCreate") != ["other"] and not link.is_symlink()
    assert f"Mask3D/{process}mask.mrc" in marks(project)
    assert star.load(project.pipeline_path)["pipeline_processes"].columns[
        "rlnPipeLineProcessAlias"
    ] == ["None", "None"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("a", "less than 2"), ("job7", "starts with 'job'"), ("None", "no name"), ("..", "no name"),
     ("a\nb", "no name"), *((f"ab{mark}", f"contains \\{mark}") for mark in '*?()/"\\|#<>&%{}$')],
)  # fmt: skip
def test_a_name_that_relion_refuses_is_refused(project, name, words):
    process = make(project)
    before = project.pipeline_path.read_bytes()
    with pytest.raises(SchemeError, match=words):
        project.set_alias(process, name)
    assert project.pipeline_path.read_bytes() == before


def test_a_name_that_is_taken_is_refused(project):
    first, second = make(project), make(project, node="m")
    project.set_alias(first, "mine")
    (project.root / "MaskCreate/there").mkdir()
    for name in ("mine", "there"):
        with pytest.raises(ProjectError, match="choose another"):
            project.set_alias(second, name)
    assert project.pipeline().aliases == {first: "MaskCreate/mine/"}
    with pytest.raises(ProjectError, match="was it deleted"):
        project.set_alias("MaskCreate/job009/", "mine2")


def test_a_missing_link_is_made_again_but_never_outside(project):
    process, other = make(project), make(project, node="m")
    project.set_alias(process, "mine")
    tables = star.load(project.pipeline_path)
    aliases = tables["pipeline_processes"].columns["rlnPipeLineProcessAlias"]
    aliases[1] = "../../outside/"
    star.save(project.pipeline_path, tables)
    (project.root / "MaskCreate/mine").unlink()
    Project(project.root).set_status(process, "Running")
    assert os.readlink(project.root / "MaskCreate/mine") == "../MaskCreate/job001/"
    assert not list(project.root.parent.parent.glob("outside*"))
    assert project.pipeline().alias(other) == "../../outside/", "it is not ours to change"


def test_the_file_browser_can_be_made_again(project):
    process = make(project, outputs=(MASK, ("never.mrc", "Mask3D.mrc")))
    outside = project.root / "Maps/start.mrc"
    outside.parent.mkdir()
    outside.touch()
    (project.root / process / "mask.mrc").touch()
    later = make(project, node="later", inputs=[("Maps/start.mrc", "DensityMap.mrc")])
    project.set_status(process, "Succeeded")
    expected = [
        "DensityMap/Maps/start.mrc", f"Mask3D/{process}mask.mrc", f"Mask3D/{later}mask.mrc"
    ]  # fmt: skip
    stale = project.root / ".Nodes/LogFile/Old/job009/logfile.pdf"
    stale.parent.mkdir(parents=True)
    stale.touch()
    for _ in range(2):
        project.remake_nodes()
        assert marks(project) == expected
        (project.root / ".Nodes/DensityMap/Maps/start.mrc").unlink()
    assert not (project.root / ".Nodes/LogFile").exists()


@pytest.mark.parametrize(
    ("generation", "shelf"), [("5.0", "Mask3D"), ("4.0", "Mask3D"), ("3.1", "7")]
)
def test_each_relion_has_its_own_shelves(tmp_path, generation, shelf):
    project = Project(tmp_path, generation=generation)
    project.init()
    process = make(project, outputs=(MASK, ("p.star", "ParticleGroupMetadata.star.relion")))
    particles = {"5.0": "ParticleGroupMetadata", "4.0": "ParticlesData", "3.1": "3"}[generation]
    assert marks(project) == sorted([f"{shelf}/{process}mask.mrc", f"{particles}/{process}p.star"])


# Cost


def test_a_call_that_changes_nothing_writes_nothing(project):
    process = make(project)
    project.set_status(process, "Succeeded")
    files = [path for path in project.root.rglob("*.star") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    make(project)
    project.set_status(process, "Succeeded")
    project.set_alias(process, "")
    project.update_job(process, "relion.maskcreate", {}, (), (MASK,))
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_jobs_that_are_there_cost_the_next_one_no_file_access(project):
    """Not a matter of seconds but of files: a call touches those of its own job."""
    touched, counting = [], [False]

    def count(event, arguments):
        if counting[0] and event in ("open", "os.listdir", "os.scandir", "os.mkdir"):
            touched.append(arguments[0])

    sys.addaudithook(count)

    def cost(node):
        touched.clear()
        counting[0] = True
        process = make(project, node=node)
        project.set_status(process, "Running")
        project.set_status(process, "Failed")
        counting[0] = False
        return len(touched)

    make(project, node="first")
    few = cost("second")
    assert few > 10
    for n in range(50):
        make(project, node=f"n{n}")
    assert cost("last") <= few + 1


def test_claims_are_read_once_and_those_of_others_are_found(project):
    other = Project(project.root)
    first = make(project, node="a")
    assert make(other, node="a") == first
    second = make(other, node="b")
    assert make(project, node="b") == second
    assert make(project, node="c") == "MaskCreate/job003/"
    assert list(project.pipeline().processes) == [first, second, "MaskCreate/job003/"]


def test_two_jobs_with_one_number_both_stay(project):
    """RELION chooses a number before it has the lock, so that this happens."""
    process = make(project)
    with project._file.change() as pipeline:
        pipeline.add_process("Import/job001/", "relion.import.movies")
    assert make(project) == process
    assert make(Project(project.root)) == process
    assert make(project, node="next") == "MaskCreate/job002/"
