"""The pipeline file in the words of RELION 5, 4 and 3.1."""

import pytest

from algorithms.formats import star
from schemer import jobs, pipeline31
from schemer.errors import ProjectError
from schemer.jobs.types import ALL
from schemer.pipeline import Pipeline
from schemer.pipeline31 import Remembered
from tests.shared import shared

FILES = {
    "star/relion_tutorial/default_pipeline.star": "3.1",
    "star/relion_tutorial/Class2D/job008/job_pipeline.star": "3.1",
    "star/relion5_jobs/default_pipelines__full.star": "5.0",
    "schemes/traces/T3-proc-2d-only/default_pipeline.star": "5.0",
}


def text(general="", processes="", nodes="", version="# version 50001\n"):
    """Return a pipeline file with these rows; the first line of a block holds its labels."""
    blocks = {"general": general or "_rlnPipeLineJobCounter 3", "processes": processes,
              "nodes": nodes}  # fmt: skip
    out = ""
    for name, content in blocks.items():
        if content:
            out += f"\n{version}\ndata_pipeline_{name}\n\n{content}\n \n"
    return out.encode()


def loop(labels, *rows):
    return "loop_\n" + "".join(f"_{one}\n" for one in labels.split()) + "\n".join(rows) + "\n"


PROCESSES = "rlnPipeLineProcessName rlnPipeLineProcessAlias"
LABELS = f"{PROCESSES} rlnPipeLineProcessTypeLabel rlnPipeLineProcessStatusLabel"
NUMBERS = f"{PROCESSES} rlnPipeLineProcessType rlnPipeLineProcessStatus"
IMPORT = "Import/job001/ None relion.import.movies Succeeded"


@pytest.mark.parametrize(("name", "generation"), FILES.items())
def test_relions_own_files_come_back_as_they_were(name, generation):
    path = shared(f"data/{name}")
    pipeline = Pipeline.load(str(path))
    assert pipeline.generation == generation and not pipeline.changed
    expected = {block: table.columns for block, table in star.load(path).items()}
    written = pipeline.tables(generation)
    assert {block: table.columns for block, table in written.items()} == expected
    # And through the words of another generation.
    other = "5.0" if generation != "5.0" else "3.1"
    content = star.dumps(pipeline.tables(other), 30001).encode()
    again = Pipeline.loads(content, "again", pipeline.remember())
    assert {b: t.columns for b, t in again.tables(generation).items()} == expected


@pytest.mark.parametrize(
    ("content", "generation"),
    [
        (text(), "5.0"),
        (text(version="# version 30001\n"), "4.0"),
        (text(version=""), None),
        (text(processes=loop(LABELS, IMPORT)), "5.0"),
        (text(processes=loop(LABELS, IMPORT), version="# version 30001\n"), "4.0"),
        (text(processes=loop(NUMBERS, "Import/job001/ None 0 2")), "3.1"),
        (text(nodes=loop("rlnPipeLineNodeName rlnPipeLineNodeType", "a.star 1")), "3.1"),
        (text(nodes=loop("rlnPipeLineNodeName rlnPipeLineNodeTypeLabel",
                         "a MicrographsData.star.relion"), version=""), "4.0"),
        (text(nodes=loop("rlnPipeLineNodeName rlnPipeLineNodeTypeLabel",
                         "a MicrographGroupMetadata.star.relion"), version=""), "5.0"),
    ],
)  # fmt: skip
def test_the_generation_is_found_out(content, generation):
    assert Pipeline.loads(content, "x").generation == generation


def test_an_empty_file_is_of_the_generation_that_we_remember():
    old = Remembered(generation="3.1")
    assert Pipeline.loads(text(version="# version 30001\n"), "x", old).generation == "3.1"
    assert Pipeline.loads(text(), "x", old).generation == "5.0"
    four = text(processes=loop(LABELS, IMPORT), version="# version 30001\n")
    assert Pipeline.loads(four, "x", old).generation == "4.0"


@pytest.mark.parametrize("generation", ["5.0", "4.0", "3.1"])
def test_unknown_blocks_columns_and_rows_survive(generation):
    rows = loop(LABELS + " mine", IMPORT + " 'a b'", "Odd/name/ None x.y Running c")
    content = text(processes=rows) + b"\ndata_other\n\n_x 1\n \n"
    tables = Pipeline.loads(content, "x").tables(generation)
    again = Pipeline.loads(star.dumps(tables, 30001).encode(), "x")
    written = again.tables(generation)
    assert written["pipeline_processes"].columns["mine"] == ["a b", "c"]
    assert written["other"].columns == {"x": ["1"]}
    assert again.processes == {"Import/job001/": "Succeeded", "Odd/name/": "Running"}


def test_a_job_of_an_unknown_type_is_external_for_relion_3():
    pipeline = Pipeline.loads(text(processes=loop(LABELS, "A/job001/ None x.y Running")), "x")
    columns = pipeline.tables("3.1")["pipeline_processes"].columns
    assert columns["rlnPipeLineProcessType"] == ["99"]
    assert pipeline.remember().jobs == {"A/job001/": "x.y"}


def test_every_job_type_has_its_number_and_its_usual_files_their_labels():
    for job_type in ALL:
        assert pipeline31.job_label(pipeline31.job_number(job_type.label)) == job_type.label
    known = {
        ("relion.motioncorr", "corrected_micrographs.star"),
        ("relion.ctffind", "logfile.pdf"),
        ("relion.autopick", "autopick.star"),
        ("relion.class2d", "run_it200_data.star"),
        ("relion.class2d", "run_it200_optimiser.star"),
        ("relion.initialmodel", "initial_model.mrc"),
        ("relion.refine3d", "run_half1_class001_unfil.mrc"),
        ("relion.refine3d", "run_class001.mrc"),
        ("relion.postprocess", "postprocess_masked.mrc"),
        ("relion.maskcreate", "mask.mrc"),
        ("relion.localres", "relion_locres_filtered.mrc"),
    }
    given = {"do_relion_locres": "Yes", "do_resmap_locres": "No"}
    for label, file in known:
        job_type = jobs.find(label)
        expected = dict(job_type.output_nodes(job_type.complete(given)[0]))
        number = pipeline31.node_number(expected[file])
        path = f"{job_type.folder}/job001/{file}"
        assert pipeline31.node_label(number, path) == expected[file]


def test_a_changed_row_is_not_given_the_label_that_we_remember():
    remembered = Remembered("3.1", {"Import/job001/": "relion.import.movies"}, {})
    one = Pipeline.loads(text(processes=loop(NUMBERS, "Import/job001/ None 0 2")), "x", remembered)
    other = Pipeline.loads(
        text(processes=loop(NUMBERS, "Import/job001/ None 1 2")), "x", remembered
    )
    assert one.label("Import/job001/") == "relion.import.movies"
    assert other.label("Import/job001/") == "relion.motioncorr"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (text(processes=loop(NUMBERS, "A/job001/ None x 2")), "_rlnPipeLineProcessType is 'x'"),
        (text(processes=loop(PROCESSES, "A/job001/ None")), "no column _rlnPipeLineProcessType"),
        (b"", "is empty; restore it"),
        (b"\n# version 30001\n", "is empty; restore it"),
        (b"\xff", "not UTF-8"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(content, words):
    with pytest.raises(ProjectError, match=words) as caught:
        Pipeline.loads(content, "here.star")
    assert "here.star" in str(caught.value)


def test_a_status_that_relion_3_does_not_have_is_refused_there_only():
    pipeline = Pipeline.loads(text(processes=loop(LABELS, "A/job001/ None x Pending")), "x")
    pipeline.tables("5.0")
    with pytest.raises(ProjectError, match="'Pending' has no number"):
        pipeline.tables("3.1")


# Rows


def made():
    pipeline = Pipeline()
    for number, folder in enumerate(("Import", "MotionCorr", "CtfFind"), 1):
        pipeline.add_process(f"{folder}/job{number:03d}/", f"relion.{folder.lower()}")
    return pipeline


def test_edges_are_written_in_the_order_of_their_processes():
    pipeline = made()
    pipeline.add_output("CtfFind/job003/", "CtfFind/job003/b", "LogFile")
    pipeline.add_output("Import/job001/", "Import/job001/c", "LogFile")
    pipeline.add_output("CtfFind/job003/", "CtfFind/job003/a", "LogFile")
    pipeline.add_input("CtfFind/job003/", "Import/job001/c", "LogFile")
    pipeline.add_input("MotionCorr/job002/", "Import/job001/c", "LogFile")
    tables = pipeline.tables()
    assert tables["pipeline_output_edges"].columns["rlnPipeLineEdgeToNode"] == [
        "Import/job001/c", "CtfFind/job003/b", "CtfFind/job003/a",
    ]  # fmt: skip
    assert tables["pipeline_input_edges"].columns["rlnPipeLineEdgeProcess"] == [
        "MotionCorr/job002/", "CtfFind/job003/",
    ]  # fmt: skip
    assert pipeline.outputs("CtfFind/job003/") == ["CtfFind/job003/b", "CtfFind/job003/a"]


def test_nodes_and_edges_are_added_once():
    pipeline = made()
    for _ in range(2):
        pipeline.add_input("MotionCorr/job002/", "Import/job001/movies.star", "Generic")
        pipeline.add_output("Import/job001/", "Import/job001/movies.star", "Special.star", 3)
    assert pipeline.node("Import/job001/movies.star") == ("Generic", 1), "it keeps its label"
    assert {name: len(table) for name, table in pipeline.tables().items()} == {
        "pipeline_general": 1, "pipeline_processes": 3, "pipeline_nodes": 1,
        "pipeline_input_edges": 1, "pipeline_output_edges": 1,
    }  # fmt: skip
    assert pipeline.node("gone") is None and pipeline.maker("Movies/a.tif") is None


def test_an_input_through_an_alias_is_the_file_of_the_job():
    pipeline = made()
    pipeline.set_alias("Import/job001/", "Import/mine/")
    pipeline.add_input("MotionCorr/job002/", "Import/mine/movies.star", "X")
    assert pipeline.inputs("MotionCorr/job002/") == ["Import/job001/movies.star"]
    assert pipeline.outputs("Import/job001/") == ["Import/job001/movies.star"]


def test_removed_nodes_take_their_edges_along():
    pipeline = made()
    pipeline.add_output("Import/job001/", "Import/job001/a", "X", 2)
    pipeline.add_output("Import/job001/", "Import/job001/b", "X")
    pipeline.add_input("MotionCorr/job002/", "Import/job001/a", "X")
    pipeline.remove_nodes(["Import/job001/a"])
    assert list(pipeline.nodes) == ["Import/job001/b"]
    assert pipeline.inputs("MotionCorr/job002/") == []
    assert pipeline.outputs("Import/job001/") == ["Import/job001/b"]


def test_the_depth_of_a_label_is_kept():
    pipeline = made()
    pipeline.add_output("Import/job001/", "Import/job001/a", "X.star.y", 2)
    assert pipeline.node("Import/job001/a") == ("X.star.y", 2)
    again = Pipeline.loads(star.dumps(pipeline.tables()).encode(), "x")
    assert again.node("Import/job001/a") == ("X.star.y", 2)


def test_only_a_change_counts_as_one():
    pipeline = Pipeline.loads(text(processes=loop(LABELS, IMPORT)), "x")
    pipeline.add_process("Import/job001/", "relion.import")
    pipeline.set_status("Import/job001/", "Succeeded")
    pipeline.set_alias("Import/job001/", "")
    pipeline.remove_nodes(["a"])
    pipeline.counter = 3
    assert not pipeline.changed
    pipeline.set_status("Import/job001/", "Failed")
    assert pipeline.changed
