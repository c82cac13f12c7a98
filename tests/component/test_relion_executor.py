"""RELION's own programs do jobs with our command lines; written against Debian's RELION 3.1.3.

The lines are those of RELION 5.0.1. RELION 3.1 warns of flags that it does not know and goes on;
float16, which it cannot read, is off here, and so are power spectra: the movies are smaller.
"""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from algorithms.formats import mrc, star
from algorithms.simulate.recipe import load_recipe
from algorithms.simulate.session import simulate_session
from schemer.errors import SchemeError
from schemer.executors import JobRequest
from schemer.executors.relion import RelionExecutor
from schemer.jobs import find
from tests.system import sessions

PROGRAMS = "import run_motioncorr star_handler autopick autopick_mpi preprocess".split()
MISSING = [name for name in PROGRAMS if shutil.which(f"relion_{name}") is None]
pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(bool(MISSING), reason=f"RELION's {', '.join(MISSING)} not installed"),
]

PIXEL_A, DOSE = 4.5, 3.0
MOVIES = 2
NEWER_FLAGS = frozenset(
    "--blush --center_classes --class_inactivity_threshold --coord_list --float16 --fn_topaz_exe "
    "--grad --grad_write_iter --minimum_pick_fom --pick_star --topaz_args --topaz_extract "
    "--topaz_model --topaz_nr_particles --topaz_threshold --topaz_train --topaz_train_picks".split()
)
SUCCESS = "RELION_JOB_EXIT_SUCCESS"
# A container's root, with fewer cores than processes.
MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
ENVIRON = {"RELION_MPIRUN": "mpirun --oversubscribe"}


class Project:
    """A project folder in which jobs are done one after another."""

    def __init__(self, root):
        self.root = root

    def request(self, label, process, is_continue=False, **options):
        complete, unknown = find(label).complete(options)
        assert unknown == ()
        return JobRequest(process=process, label=label, options=complete, is_continue=is_continue)

    def do(self, label, process, is_continue=False, **options):
        """Do a job as the runner does: its commands one after another in the project folder."""
        request = self.request(label, process, is_continue, **options)
        (self.root / process).mkdir(parents=True, exist_ok=True)
        (self.root / process / SUCCESS).unlink(missing_ok=True)
        for command in RelionExecutor(self.root, ENVIRON).commands(request):
            done = subprocess.run(
                command,
                cwd=self.root,
                env=sessions.environment(**MPI),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        assert (self.root / process / SUCCESS).exists()

    def load(self, path):
        return star.load(self.root / path)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("relion")
    recipe = replace(load_recipe("tiny"), n_exposures=MOVIES)
    simulate_session(recipe, folder / "Session", seed=5, realtime=False)
    root = folder / "project"
    root.mkdir()
    (root / "Movies").symlink_to(folder / "Session")
    done = Project(root)
    done.do(
        "relion.import.movies",
        "Import/job001/",
        fn_in_raw="Movies/Images-Disc1/*/Data/*_fractions.tiff",
        angpix=str(PIXEL_A),
    )
    done.do(
        "relion.motioncorr.own",
        "MotionCorr/job002/",
        input_star_mics="Import/job001/movies.star",
        fn_gain_ref="Movies/gain.mrc",
        dose_per_frame=str(DOSE),
        do_float16="No",
        do_save_ps="No",
        nr_threads="2",
        other_args="--do_at_most 1",
    )
    return done


def test_movies_are_imported_and_corrected_in_two_visits(project):
    movies = project.load("Import/job001/movies.star")
    assert len(movies["movies"]) == MOVIES
    assert movies["optics"].floats("rlnMicrographOriginalPixelSize") == [PIXEL_A]
    table = "MotionCorr/job002/corrected_micrographs.star"
    assert len(project.load(table)["micrographs"]) == 1
    project.do(
        "relion.motioncorr.own",
        "MotionCorr/job002/",
        is_continue=True,
        input_star_mics="Import/job001/movies.star",
        fn_gain_ref="Movies/gain.mrc",
        dose_per_frame=str(DOSE),
        do_float16="No",
        do_save_ps="No",
    )
    micrographs = project.load(table)["micrographs"].strings("rlnMicrographName")
    assert len(micrographs) == MOVIES
    for name in micrographs:
        assert mrc.read(project.root / name).shape == (256, 256)


def test_micrographs_are_selected_picked_and_extracted(project):
    project.do(
        "relion.select.onvalue",
        "Select/job003/",
        fn_mic="MotionCorr/job002/corrected_micrographs.star",
        do_select_values="Yes",
        select_label="rlnAccumMotionTotal",
        select_minval="0",
    )
    selected = "Select/job003/micrographs.star"
    count = len(project.load(selected)["micrographs"])
    assert count >= 1
    project.do(
        "relion.autopick.log",
        "AutoPick/job004/",
        fn_input_autopick=selected,
        do_log="Yes",
        log_diam_min="200",
        log_diam_max="300",
        nr_mpi="2",
    )
    picks = sorted((project.root / "AutoPick/job004").rglob("*_autopick.star"))
    assert len(picks) == count
    # Before 4.0 a job had no list of its coordinate files: a file's name gives their suffix.
    project.do(
        "relion.extract",
        "Extract/job005/",
        star_mics=selected,
        coords_suffix="AutoPick/job004/coords_suffix_autopick.star",
        extract_size="64",
        do_rescale="Yes",
        rescale="32",
        do_float16="No",
    )
    particles = project.load("Extract/job005/particles.star")
    picked = sum(len(next(iter(star.load(path).values()))) for path in picks)
    assert 0 < len(particles["particles"]) <= picked
    assert particles["optics"].ints("rlnImageSize") == [32]


def test_relion_3_knows_our_flags_but_for_newer_ones():
    lines = Path(__file__).parents[1] / "unit" / "relion_command_lines.txt"
    flags = {}
    for paragraph in lines.read_text(encoding="utf-8").split("\n\n")[1:]:
        program, *words = paragraph.partition("\n")[2].split()
        flags.setdefault(program, set()).update(w for w in words if w.startswith("--"))
    installed = {program for program in flags if shutil.which(program)}
    assert len(installed) >= 12
    for program in installed:
        done = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
        known = set(re.findall(r"--\w+", done.stdout + done.stderr))
        assert flags[program] - known <= NEWER_FLAGS, program


def test_a_program_that_is_not_there_is_named(project, monkeypatch):
    monkeypatch.setenv("PATH", str(project.root))
    request = project.request("relion.import.movies", "Import/job001/")
    with pytest.raises(
        SchemeError, match=r"'relion_import'.*relion.import.movies needs it.*native"
    ):
        RelionExecutor(project.root).commands(request)


def test_a_queued_job_is_submitted_with_its_script(project, tmp_path):
    queue = tmp_path / "submit"
    queue.write_text('#!/bin/sh\nexec sh "$2"\n')
    queue.chmod(0o755)
    template = tmp_path / "template.sh"
    template.write_text(
        "# XXXqueueXXX XXXnameXXX\nXXXcommandXXX > XXXoutfileXXX 2> XXXerrfileXXX\n"
    )
    project.do(
        "relion.select.onvalue",
        "Select/job006/",
        fn_mic="MotionCorr/job002/corrected_micrographs.star",
        do_select_values="Yes",
        select_label="rlnAccumMotionTotal",
        do_queue="Yes",
        qsub=f"{queue} --now",
        qsubscript=str(template),
    )
    script = (project.root / "Select/job006/run_submit.script").read_text().splitlines()
    assert script[0] == "# openmpi Select/job006/" and len(script) == 2
    assert script[1].startswith("relion_star_handler --i MotionCorr/job002/")
    assert (project.root / "Select/job006/micrographs.star").exists()
    assert (project.root / "Select/job006/run.out").exists()


def test_a_template_that_is_not_there_is_named(project):
    request = project.request(
        "relion.extract",
        "Extract/job009/",
        star_mics="m.star",
        coords_suffix="c.star",
        do_queue="Yes",
        qsubscript="nowhere.sh",
    )
    with pytest.raises(SchemeError, match=r"option 'qsubscript': '.*nowhere.sh' cannot be read"):
        RelionExecutor(project.root).commands(request)
