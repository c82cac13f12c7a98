"""Our project folder in the hands of RELION's own programs.

The programs at hand may be RELION 3.1, which knows node types as numbers only and cannot read the
pipeline of RELION 4 and 5; it does read the STAR dialect, and it does take the pipeline's lock.
"""

import shutil
import subprocess

import pytest

from schemer import jobs, templates
from schemer.errors import ProjectLocked
from schemer.project import Project

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


@pytest.fixture(params=["5.0", "4.0"])
def project(request, tmp_path):
    made = Project(tmp_path, generation=request.param, retry_s=0.01, tries=2)
    made.init()
    templates.install(tmp_path, "prep", {"prep__importmovies__angpix": "0.9"})
    templates.install(tmp_path, "proc")
    source = ""
    for node, label, option in (
        ("importmovies", "relion.import", ""),
        ("motioncorr", "relion.motioncorr", "input_star_mics"),
        ("ctffind", "relion.ctffind", "input_star_mics"),
    ):
        job = jobs.find(label)
        options, _ = job.complete({option: source} if option else {})
        process = made.create_job(
            "Schemes/prep/",
            node,
            job.process_label(options),
            options,
            job.input_nodes(options),
            job.output_nodes(options),
        )
        source = process + job.output_nodes(options)[0][0]
        made.set_status(process, "Running", command="coldstream")
        (made.root / source).touch()
        made.set_status(process, "Succeeded")
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
