"""Whole sessions with real processes: on disk, live, interrupted, with broken files."""

import shutil
import time
from pathlib import Path

import numpy as np
import tifffile

from algorithms.formats import star
from tests.system import sessions

# Where a handful of movies is enough: each worker that starts loads all algorithms.
ONE_WORKER = ("--workers", "1")
NAME = "FoilHole_9_Data_8_7_20261120_1200{:02d}"


def test_a_session_on_disk(undisturbed: dict) -> None:
    """Every movie becomes a row of every table, and its particles are in the joined file."""
    tables = {name: star.loads(text) for name, text in undisturbed["tables"].items()}
    movies = tables["Import/job001/movies.star"]["movies"]
    fitted = tables["CtfFind/job003/micrographs_ctf.star"]["micrographs"]
    particles = tables["Extract/job006/particles.star"]["particles"]
    assert len(movies) == len(fitted) == 30
    assert len(particles) == undisturbed["ledger"]["particles"]
    assert set(particles.strings("rlnMicrographName")) <= set(fitted.strings("rlnMicrographName"))
    assert list(particles.columns).count("rlnImageName") == 1
    # What a selection can look at has come over the bus as prep measured it.
    corrected = tables["MotionCorr/job002/corrected_micrographs.star"]["micrographs"]
    quality = tables["Select/job004/quality.star"]["micrographs"]
    motion = dict(
        zip(
            corrected.strings("rlnMicrographName"),
            corrected.floats("rlnAccumMotionTotal"),
            strict=True,
        )
    )
    moved = [motion[name] for name in quality.strings("rlnMicrographName")]
    assert len(moved) == 30 and min(moved) > 0.0
    assert np.allclose(quality.floats("rlnAccumMotionTotal"), moved, atol=1e-4)
    assert quality.floats("rlnColdstreamMeanIntensity").min() > 0.0
    names = particles.strings("rlnImageName")
    assert len(set(names)) == len(names)
    scheme = tables["Schemes/prep/scheme.star"]
    rows = dict(
        zip(
            scheme["scheme_jobs"].strings("rlnSchemeJobNameOriginal"),
            scheme["scheme_jobs"].strings("rlnSchemeJobName"),
            strict=True,
        )
    )
    assert rows == {
        "importmovies": "Import/job001/",
        "motioncorr": "MotionCorr/job002/",
        "ctffind": "CtfFind/job003/",
    }


def test_live_stop_and_go_on(raw30: Path, undisturbed: dict, tmp_path: Path) -> None:
    """Ctrl-C stops within 10 s; started again it goes on where it was, to the same end."""
    raw, project = tmp_path / "Simulated30", tmp_path / "project"
    files = sorted(p for p in raw30.rglob("*") if p.is_file())
    half = [p for p in files if p.name == "gain.mrc" or p.name < files[len(files) // 2].name]
    for path in half:
        copy(path, raw30, raw)
    up = ("up", "--project", project, *sessions.SETTINGS, "--settle", "0.5")
    live = sessions.Live(*up, "--raw", raw, log=tmp_path / "log")
    try:
        sessions.wait_for(lambda: sessions.done(project) >= 3, 60, "three movies done")
        assert live.interrupt() < 10
        before = sessions.done(project)
        for path in files:
            if path not in half:
                copy(path, raw30, raw)
        live = sessions.Live(*up, log=tmp_path / "log")  # knows its raw folder
        sessions.wait_for(lambda: sessions.done(project) == 30, 120, "all movies done")
        assert live.interrupt() < 10
    finally:
        live.end()
    assert before < 30
    found = sessions.outcome(project)
    found["ledger"]["closed"] = True  # a live session is closed by nobody
    for outcome in (found, undisturbed):  # the raw folder is another one, and so is its time
        outcome["tables"] = {
            k: v for k, v in outcome["tables"].items() if not k.startswith("Schemes")
        }
    sessions.assert_same(found, undisturbed)
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log


def copy(path: Path, source: Path, target: Path) -> None:
    """Copy a file of a session to the same place in another."""
    new = target / path.relative_to(source)
    new.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, new)


def test_broken_files(raw30: Path, tmp_path: Path) -> None:
    """Each kind of broken file is refused or pending with its code; the others are done."""
    raw = tmp_path / "Simulated_broken"
    good = sorted(raw30.rglob("*_fractions.tiff"))[:6]
    for movie in good:
        copy(movie, raw30, raw)
        copy(movie.with_name(movie.name.replace("_fractions.tiff", ".xml")), raw30, raw)
    copy(raw30 / "gain.mrc", raw30, raw)
    data = raw / good[0].parent.relative_to(raw30)
    movie = good[0].read_bytes()
    xml = good[0].with_name(good[0].name.replace("_fractions.tiff", ".xml")).read_bytes()
    frames = tifffile.imread(good[0])

    def write(number: int, content: bytes | None, metadata: bytes | None) -> str:
        stem = NAME.format(number)
        if content is not None:
            (data / f"{stem}_fractions.tiff").write_bytes(content)
        if metadata is not None:
            (data / f"{stem}.xml").write_bytes(metadata)
        return stem

    expected = {
        write(1, movie[: len(movie) // 2], xml): ("refused", "TRUNCATED"),
        write(2, movie, b"<!DOCTYPE a [<!ENTITY b 'c'>]>" + xml): ("refused", "XML_DTD"),
        write(3, None, xml): ("pending", "NO_MOVIE"),
        write(4, movie, None): ("pending", "NO_METADATA"),
        write(5, b"", xml): ("refused", "EMPTY_FILE"),
        write(6, None, xml): ("refused", "GEOMETRY_MISMATCH"),
    }
    stem6 = NAME.format(6)
    tifffile.imwrite(data / f"{stem6}_fractions.tiff", np.ascontiguousarray(frames[:, :200, :300]))
    project = tmp_path / "project"
    result = sessions.process(raw, project, *ONE_WORKER)
    assert result.returncode == 0, result.stdout + result.stderr
    ledger = sessions.status(project)
    found = {
        row["movie"].rpartition("/")[2]: (row["status"], row["code"]) for row in ledger["not_done"]
    }
    assert found == expected
    assert ledger["stages"]["proc"]["done"] == 6
    assert result.stdout.splitlines()[-1].startswith(
        "12 movies seen: 6 done, 4 refused, 2 pending; 6 with CTF"
    )
    for stem, (state, code) in expected.items():
        story = sessions.coldstream("why", stem, "--project", project)
        assert story.returncode == 0
        last = story.stdout.splitlines()[-1]
        assert state in last and code in last, last


def test_another_diameter_redoes_picking_only(tmp_path: Path) -> None:
    """Changed settings rerun what lies below them and nothing else; refused ones are retried."""
    raw = sessions.simulate(tmp_path / "Simulated4", n_exposures=4)
    project = tmp_path / "project"
    assert sessions.process(raw, project, *ONE_WORKER).returncode == 0
    motion = {p: p.stat().st_mtime_ns for p in project.glob("MotionCorr/job*/Movies/**/*.mrc")}
    picks = {p: p.read_text() for p in project.glob("AutoPick/job*/Movies/**/*.star")}
    assert len(motion) == 3 * 4 and len(picks) == 4
    again = sessions.coldstream("process", raw, "--project", project, "--particle-diameter", "180")
    assert again.returncode == 0, again.stdout + again.stderr
    assert {p: p.stat().st_mtime_ns for p in motion} == motion
    assert all(p.read_text() != text for p, text in picks.items())
    assert sessions.status(project)["stages"]["proc"]["done"] == 4
    # A third run with nothing changed finds nothing to do.
    stamps = {p: p.stat().st_mtime_ns for p in picks}
    assert sessions.process(raw, project, "--particle-diameter", "180").returncode == 0
    assert {p: p.stat().st_mtime_ns for p in picks} == stamps


def test_misuse_is_told_in_one_line(tmp_path: Path) -> None:
    """Wrong commands say what to change, with exit code 2 and without a trace."""
    cases = {
        ("up", "--project", str(tmp_path / "p")): "--raw",
        ("process", str(tmp_path / "none"), "--project", str(tmp_path / "p")): "not a folder",
        ("status", "--project", str(tmp_path / "p")): "no coldstream session",
        ("process", str(tmp_path), "--project", str(tmp_path)): "keep them apart",
    }
    for arguments, words in cases.items():
        result = sessions.coldstream(*arguments)
        assert result.returncode == 2, arguments
        assert words in result.stderr and "Traceback" not in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    raw = tmp_path / "raw"
    raw.mkdir()
    wrong = sessions.coldstream(
        *("up", "--raw", raw, "--project", tmp_path / "q"),
        *("--set", "prep__motioncorr__binfactor=2"),
    )
    assert wrong.returncode == 2
    assert "prep__motioncorr__bin_factor" in wrong.stderr  # the near match


def test_progress_is_quick_to_stop(tmp_path: Path) -> None:
    """A live session on an empty folder waits, says so, and stops at once."""
    raw = tmp_path / "raw"
    raw.mkdir()
    live = sessions.Live("up", "--project", tmp_path / "p", "--raw", raw, log=tmp_path / "log")
    try:
        sessions.wait_for(
            lambda: "UNAVAILABLE" in (tmp_path / "log").read_text(), 30, "the wait is told"
        )
        time.sleep(0.5)
        assert live.interrupt() < 10
        assert live.popen.returncode == 0
    finally:
        live.end()
