"""Whole RELION jobs by `python -m services.jobs FOLDER`, as the `native` executor runs them."""

import errno
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from algorithms.formats import mrc, star
from algorithms.simulate.recipe import load_recipe
from algorithms.simulate.session import simulate_session
from algorithms.simulate.truth import read_movie_truth, truth_folder
from schemer.jobs import find
from services.jobs.items import identity
from services.jobs.job import Failed, Stop
from services.jobs.pool import ENVIRONMENT, MAX_DEATHS, Pool
from services.kit.errors import Code
from tests import tasks
from tests.native import (
    CHAIN,
    CORRECTED,
    CTF,
    DIAMETER_A,
    EXTRACT,
    FITTED,
    IMPORT,
    MOTION,
    MOVIES,
    N_MOVIES,
    PARTICLES,
    PICK,
    PICKED,
    PIXEL_A,
    SMALL_PIXEL_A,
    TABLES,
    digests,
    do,
    do_all,
    handed_over,
    job_server,
    new_project,
    rows,
)
from tests.relion import Session, positions, shifts, spread
from tests.system import sessions


@pytest.fixture(scope="module", autouse=True)
def jobs(tmp_path_factory):
    """Do most jobs in one process; the chain, and those that die, have each their own."""
    with job_server(tmp_path_factory.mktemp("jobs")):
        yield


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("native") / "Simulated"
    # One acquisition area: the live session then has one optics group, as an import has.
    recipe = replace(load_recipe("ci"), n_exposures=N_MOVIES, areas_per_hole=1, holes_per_stage=1)
    simulate_session(recipe, folder, seed=31, realtime=False)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return sessions.simulate(tmp_path_factory.mktemp("small") / "Simulated", n_exposures=N_MOVIES)


@pytest.fixture(scope="module")
def corrected_once(small, tmp_path_factory):
    project = new_project(tmp_path_factory.mktemp("once") / "project", small)
    do(project, IMPORT, {"angpix": f"{SMALL_PIXEL_A}"})
    do(project, MOTION)
    return project


@pytest.fixture
def corrected(corrected_once, tmp_path):
    """A project with all movies of the small session corrected."""
    return Path(shutil.copytree(corrected_once, tmp_path / "project", symlinks=True))


@pytest.fixture(scope="module")
def chain(raw, tmp_path_factory):
    """All jobs, each as people start it; not to be changed."""
    project = new_project(tmp_path_factory.mktemp("chain") / "project", raw)
    do_all(project, alone=True)
    names = rows(project, CORRECTED).strings("rlnMicrographName")
    stems = {name: Path(name).stem.removesuffix("_fractions") for name in names}
    truth = {name: read_movie_truth(truth_folder(raw) / stem) for name, stem in stems.items()}
    return Session(project, truth)


@pytest.fixture
def project(raw, tmp_path):
    """A project with the large movies imported."""
    folder = new_project(tmp_path / "project", raw)
    do(folder, IMPORT)
    return folder


@pytest.fixture
def fresh(small, tmp_path):
    """A project with the small movies imported."""
    folder = new_project(tmp_path / "project", small)
    do(folder, IMPORT, {"angpix": f"{SMALL_PIXEL_A}"})
    return folder


# The chain


def test_the_chain_finds_what_is_true(chain):
    fitted = rows(chain.project, FITTED)
    picked = rows(chain.project, PICKED, "coordinate_files")
    assert len(fitted) == len(picked) == N_MOVIES
    for i, (name, truth) in enumerate(chain.truth.items()):
        track = chain.load(fitted.strings("rlnMicrographMetadata")[i])["global_shift"]
        assert spread(shifts(track) + truth.global_shift_px) < 0.5
        defocus_A = (fitted.floats("rlnDefocusU")[i] + fitted.floats("rlnDefocusV")[i]) / 2
        assert abs(defocus_A - (truth.defocus_u_A + truth.defocus_v_A) / 2) < 200
        assert picked.strings("rlnMicrographName")[i] == name
        found = positions(chain.load(picked.strings("rlnMicrographCoordinates")[i])[""])
        distance = np.linalg.norm(found[:, None] - truth.position_px, axis=2).min(1)
        assert np.mean(distance * PIXEL_A < 0.3 * DIAMETER_A) > 0.75


def test_the_chain_gives_what_a_live_session_gives(chain, raw, tmp_path):
    live = tmp_path / "live"
    options = ("prep__motioncorr__do_float16=No", "proc__extract__do_float16=No")
    done = sessions.process(raw, live, *(word for one in options for word in ("--set", one)))
    assert done.returncode == 0, done.stderr
    ours, theirs = digests(chain.project), digests(live)
    assert len(ours) == 12 * N_MOVIES
    assert ours == theirs
    for path in TABLES:
        own, peer = star.load(chain.project / path), star.load(live / path)
        assert list(own) == list(peer)
        for block, table in peer.items():
            assert own[block].columns.items() >= table.columns.items(), (path, block)


def test_each_type_leaves_the_outputs_that_it_declares(chain):
    for process, (label, options) in CHAIN.items():
        kind = find(label)
        complete, _ = kind.complete(options)
        for name, _ in kind.output_nodes(complete):
            assert (chain.project / process / name).stat().st_size > 0
        assert not list((chain.project / process).rglob("*.tmp"))


def test_what_a_job_says_is_plain_text_with_a_bar(fresh):
    done = do(fresh, MOTION)
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    last = done.stdout.splitlines()[-3].rpartition("\r")[2]
    assert last.startswith(f"      {N_MOVIES} of {N_MOVIES} movies [####")
    assert f"{N_MOVIES} movies done, {N_MOVIES} in all, 0 refused, 0 left" in done.stdout


def test_a_second_call_does_nothing_again(corrected):
    before = digests(corrected)
    written = {path: (corrected / path).stat().st_mtime_ns for path in before}
    table = (corrected / CORRECTED).read_text()
    for more in (True, False):
        assert "0 movies done" in do(corrected, MOTION, more=more).stdout
        assert {path: (corrected / path).stat().st_mtime_ns for path in before} == written
        assert (corrected / CORRECTED).read_text() == table


def test_a_continued_job_keeps_what_other_options_made(corrected):
    changes = {"bfactor": "200"}
    before = digests(corrected)
    done = do(corrected, MOTION, changes, more=True)
    assert f"note: {N_MOVIES} of these are kept from other options" in done.stdout
    assert digests(corrected) == before
    done = do(corrected, MOTION, changes)
    assert f"{N_MOVIES} movies done" in done.stdout
    assert digests(corrected) != before


def test_results_that_do_not_fit_the_others_are_made_again(corrected):
    table = rows(corrected, CORRECTED)
    done = do(corrected, MOTION, {"bin_factor": "2"}, more=True)
    assert f"{N_MOVIES} movies done" in done.stdout
    assert rows(corrected, CORRECTED).columns.keys() == table.columns.keys()
    (name, *_) = table.strings("rlnMicrographName")
    assert mrc.read_header(corrected / name).nx == 192
    optics = star.load(corrected / CORRECTED)["optics"]
    assert optics.floats("rlnMicrographPixelSize") == 2 * SMALL_PIXEL_A


def test_a_deleted_result_is_made_again(corrected):
    before = digests(corrected)
    (corrected / next(iter(before))).unlink()
    assert "1 movies done" in do(corrected, MOTION, more=True).stdout
    assert digests(corrected) == before


def test_raw_files_may_be_moved_away_after_their_movies_were_done(corrected, small, tmp_path):
    table = (corrected / CORRECTED).read_text()
    (corrected / "Movies").unlink()
    (tmp_path / "raw").mkdir()
    shutil.copy2(small / "gain.mrc", tmp_path / "raw")
    (corrected / "Movies").symlink_to(tmp_path / "raw")
    for _ in range(2):
        assert f"{N_MOVIES} in all, 0 refused" in do(corrected, MOTION, more=True).stdout
        assert (corrected / CORRECTED).read_text() == table


def test_without_saved_spectra_the_ctf_is_fitted_to_micrographs(project, chain):
    do(project, MOTION, {"do_save_ps": "No"})
    corrected = rows(project, CORRECTED)
    assert "rlnCtfPowerSpectrum" not in corrected.columns
    assert not list(project.glob(f"{MOTION}Movies/**/*_PS.mrc"))
    done = do(project, CTF, {"use_noDW": "Yes"})
    assert "names no power spectra" in done.stdout
    fitted = rows(project, FITTED)
    names = corrected.strings("rlnMicrographNameNoDW")
    images = [n.replace(MOTION, CTF).replace(".mrc", ".ctf:mrc") for n in names]
    assert fitted.strings("rlnCtfImage") == images
    assert (project / images[0].removesuffix(":mrc")).exists()
    usual = rows(chain.project, FITTED).floats("rlnDefocusU")
    np.testing.assert_allclose(fitted.floats("rlnDefocusU"), usual, atol=600)


def test_pre_exposure_of_single_movies_is_added(fresh):
    tables = star.load(fresh / MOVIES)
    tables["movies"].columns["rlnMicrographPreExposure"] = ["2.5"] * N_MOVIES
    star.save(fresh / MOVIES, tables)
    do(fresh, MOTION, {"pre_exposure": "0.5", "other_args": "--do_at_most 1"})
    (name,) = rows(fresh, CORRECTED).strings("rlnMicrographMetadata")
    assert star.load(fresh / name)["general"].floats("rlnMicrographPreExposure") == 3.0


def test_without_dose_weighting_the_plain_sum_is_the_micrograph(fresh, corrected_once):
    do(fresh, MOTION, {"do_dose_weighting": "No", "other_args": "--do_at_most 1"})
    table = rows(fresh, CORRECTED)
    assert "rlnMicrographNameNoDW" not in table.columns
    (name,) = table.strings("rlnMicrographName")
    plain = mrc.read(corrected_once / name.replace(".mrc", "_noDW.mrc"))
    np.testing.assert_array_equal(mrc.read(fresh / name), plain)


# Continuing


def test_do_at_most_takes_the_next_ones_in_the_order_of_the_table(fresh):
    movies = rows(fresh, MOVIES, "movies").strings("rlnMicrographMovieName")
    roots = [f"{MOTION}{movie.removesuffix('.tiff')}.mrc" for movie in movies]
    limit = {"other_args": "--do_at_most 3"}
    for n, left in ((3, 1), (4, 0), (4, 0)):
        done = do(fresh, MOTION, limit, more=n > 3)
        assert f"{left} left" in done.stdout
        assert rows(fresh, CORRECTED).strings("rlnMicrographName") == roots[:n]


def test_new_movies_are_appended_and_done(small, tmp_path):
    folder = tmp_path / "raw"
    shutil.copytree(small, folder)
    first, *others = sorted(folder.rglob("*_fractions.tiff"))
    hidden = first.rename(tmp_path / first.name)
    project = new_project(tmp_path / "project", folder)
    do_all(project)
    before = digests(project)
    hidden.rename(first)
    said = do_all(project, more=True)
    assert f"{N_MOVIES} movies in {MOVIES}, 1 of them new" in said[IMPORT].stdout
    movies = rows(project, MOVIES, "movies").strings("rlnMicrographMovieName")
    assert [Path(m).name for m in movies] == [*(o.name for o in others), first.name]
    for process in (MOTION, CTF, PICK, EXTRACT):
        assert f" 1 {'movies' if process == MOTION else 'micrographs'} done" in said[process].stdout
    after = digests(project)
    assert before.items() < after.items()
    assert len(after) == 12 * N_MOVIES
    particles = rows(project, PARTICLES, "particles")
    assert len(set(particles.strings("rlnMicrographName"))) == N_MOVIES


def test_an_import_without_files_is_a_start(tmp_path):
    project = new_project(tmp_path / "project", tmp_path)
    for process in CHAIN:
        do(project, process, {"fn_gain_ref": ""} if process == MOTION else {})
    assert len(star.load(project / MOVIES)["optics"]) == 1
    assert len(rows(project, PARTICLES, "particles")) == 0


# Bad movies


def spoilt(raw, folder, which=1):
    """Copy a session; cut the end off some of its movies."""
    shutil.copytree(raw, folder)
    bad = sorted(folder.rglob("*_fractions.tiff"))[:which]
    for movie in bad:
        with open(movie, "r+b") as file:
            file.truncate(movie.stat().st_size // 2)
    return bad


def test_a_truncated_movie_is_refused_and_the_others_are_done(small, tmp_path, corrected_once):
    (bad,) = spoilt(small, tmp_path / "raw")
    project = new_project(tmp_path / "project", tmp_path / "raw")
    do(project, IMPORT, {"angpix": f"{SMALL_PIXEL_A}"})
    done = do(project, MOTION)
    assert f"{N_MOVIES - 1} movies done, {N_MOVIES - 1} in all, 1 refused" in done.stdout
    (line,) = (project / MOTION / "refused.txt").read_text().splitlines()
    movie, code, detail = line.split("\t")
    assert (movie, code) == (str(Path("Movies") / bad.relative_to(tmp_path / "raw")), "TRUNCATED")
    assert str(bad.stat().st_size) in detail
    assert done.stderr == f" refused: {movie}: {code}: {detail}\n"
    assert f"refused: {movie}: TRUNCATED" in done.stdout
    names = rows(corrected_once, CORRECTED).strings("rlnMicrographName")
    kept = [name for name in names if bad.stem not in name]
    assert rows(project, CORRECTED).strings("rlnMicrographName") == kept
    # It is not tried again, and does not use up the places of others.
    again = do(project, MOTION, {"other_args": "--do_at_most 1"}, more=True)
    assert "0 movies done, 3 in all, 1 refused, 0 left" in again.stdout
    assert again.stderr == ""
    # A complete copy is another file.
    shutil.copy(small / bad.relative_to(tmp_path / "raw"), bad)
    done = do(project, MOTION, more=True)
    assert f"1 movies done, {N_MOVIES} in all, 0 refused" in done.stdout
    assert not (project / MOTION / "refused.txt").exists()
    assert digests(project) == digests(corrected_once)


def test_a_job_whose_movies_are_all_refused_fails(small, tmp_path):
    spoilt(small, tmp_path / "raw", which=N_MOVIES)
    project = new_project(tmp_path / "project", tmp_path / "raw")
    do(project, IMPORT)
    done = do(project, MOTION, code=1)
    last = done.stderr.splitlines()[-1]
    assert last == f"ERROR: all {N_MOVIES} movies were refused; see {MOTION}refused.txt"
    assert not (project / CORRECTED).exists()


def test_a_movie_that_is_gone_is_refused(corrected):
    tables = star.load(corrected / MOVIES)
    tables["movies"].columns["rlnMicrographMovieName"][0] = "Movies/none_fractions.tiff"
    star.save(corrected / MOVIES, tables)
    done = do(corrected, MOTION)
    assert "refused: Movies/none_fractions.tiff: READ_ERROR: " in done.stderr
    assert len(rows(corrected, CORRECTED)) == N_MOVIES - 1


def test_a_worker_that_dies_costs_one_more_try(fresh, tmp_path):
    crashes = tmp_path / "crashes"
    crashes.mkdir()
    (crashes / "worker.work-after-compute-before-rename").touch()
    (crashes / "worker.work-after-rename-before-manifest").touch()
    do(fresh, MOTION, COLDSTREAM_CRASH_DIR=str(crashes))
    assert not list(crashes.iterdir())
    assert len(rows(fresh, CORRECTED)) == N_MOVIES
    assert not list((fresh / ".coldstream/tmp").iterdir())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Start the process that workers are forked from; it stays until this one ends."""
    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        for name in ENVIRONMENT:
            patch.delenv(name, raising=False)
        with Pool(folder, 1, token=7) as pool:
            list(pool.run([tasks.task("write", "first")], Stop(folder)))


def test_an_item_that_kills_its_workers_is_refused_and_the_others_are_done(server, tmp_path):
    work = [tasks.task("die", "bad"), *(tasks.task("write", f"m{i}", i) for i in range(4))]
    with Pool(tmp_path, 2, token=7) as pool:
        replies = {task.movie: reply for task, reply in pool.run(work, Stop(tmp_path))}
    assert replies["bad"].code == Code.POISON
    assert f"died {MAX_DEATHS} times" in replies["bad"].detail
    assert tasks.computed(tmp_path) == 4
    assert all(replies[f"m{i}"].result is not None for i in range(4))


def test_a_defect_that_one_item_brings_out_is_told(server, tmp_path):
    with Pool(tmp_path, 1, token=7) as pool:
        ((_, reply),) = pool.run([tasks.task("broken", "bad")], Stop(tmp_path))
    assert (reply.code, reply.detail) == (Code.POISON, "ZeroDivisionError: bad")


def test_what_concerns_all_items_ends_the_job(server, tmp_path):
    work = [tasks.task("os_error", "first", errno.ENOSPC), tasks.task("write", "second")]
    with Pool(tmp_path, 1, token=7) as pool, pytest.raises(Failed, match=r"first: .*No space left"):
        list(pool.run(work, Stop(tmp_path)))


# Stopping


class Running:
    """A job that is at work on its second movie, one at a time."""

    def __init__(self, project):
        command = handed_over(project, MOTION, {"nr_threads": "1"})
        self.project = project
        self.popen = subprocess.Popen(
            command,
            cwd=project,
            env=sessions.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        done = project / ".coldstream/done/motioncorr"
        sessions.wait_for(lambda: list(done.glob("*/*")), 60, "the first movie")

    def ended(self):
        said, complained = self.popen.communicate(timeout=60)
        assert "Traceback" not in complained
        return self.popen.returncode, said

    def processes(self):
        return [p for p in psutil.process_iter() if _session_of(p) == self.popen.pid]


def _session_of(process):
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None


@pytest.fixture
def expected(chain):
    return digests(chain.project, f"{MOTION}Movies/**/*")


def finished_after(project, expected):
    """Continue a job that was interrupted; check that nothing is lost, doubled or different."""
    manifests = list((project / ".coldstream/done/motioncorr").glob("*/*"))
    kept = {path: path.stat().st_mtime_ns for path in manifests}
    assert 0 < len(kept) < N_MOVIES
    done = do(project, MOTION, more=True)
    assert f"{N_MOVIES - len(kept)} movies done, {N_MOVIES} in all, 0 refused" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in manifests} == kept
    assert digests(project) == expected
    assert not list((project / ".coldstream/tmp").iterdir())


def test_an_abort_ends_the_job_with_what_is_done_in_its_table(project, expected):
    job = Running(project)
    (project / MOTION / "RELION_JOB_ABORT_NOW").touch()
    code, said = job.ended()
    assert code == 2
    assert "was told to stop" in said
    done = len(list((project / ".coldstream/done/motioncorr").glob("*/*")))
    assert len(rows(project, CORRECTED)) == done
    (project / MOTION / "RELION_JOB_ABORT_NOW").unlink()
    finished_after(project, expected)


def test_sigterm_ends_the_job_at_once(project, expected):
    job = Running(project)
    start = time.monotonic()
    job.popen.send_signal(signal.SIGTERM)
    code, _ = job.ended()
    assert code == 2
    assert time.monotonic() - start < 5
    finished_after(project, expected)


def test_killed_in_the_middle_the_job_goes_on_where_it_was(project, expected):
    job = Running(project)
    job.popen.kill()
    assert job.ended()[0] == -signal.SIGKILL
    sessions.wait_for(lambda: not job.processes(), 10, "the end of the workers")
    assert not (project / CORRECTED).exists()
    finished_after(project, expected)


def test_two_programs_do_not_work_on_one_job(project):
    job = Running(project)
    try:
        done = do(project, MOTION, {"nr_threads": "1"}, code=1)
        assert "another program is at work" in done.stderr
    finally:
        job.popen.kill()
        job.ended()
        sessions.wait_for(lambda: not job.processes(), 10, "the end of the workers")


def test_the_identity_is_that_of_a_live_session(chain, raw):
    movies = rows(chain.project, MOVIES, "movies").strings("rlnMicrographMovieName")
    named = [Path(m).relative_to("Movies") for m in movies]
    assert [identity(m) for m in movies] == [
        str(path.with_name(path.name.removesuffix("_fractions.tiff"))) for path in named
    ]
