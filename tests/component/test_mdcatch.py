"""mdcatch on real files: every fault of a tree, EER, restarts, a real visit, inotify, shares."""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile

from mdcatch.config import MdcatchConfig
from mdcatch.daemon import build
from mdcatch.service import Status
from services.kit import events
from services.kit.errors import Code, Misuse
from tests.epu_tree import FOLDER, Drive, close_drives, image_xml, stem
from tests.shared import shared


def config(raw: Path, **changes: object) -> MdcatchConfig:
    return MdcatchConfig(**{"raw": str(raw), "inotify": False, "stuck_s": 20.0, **changes})


def write_movie(path: Path, frames: int = 4, height: int = 48, width: int = 64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    data = rng.poisson(1.0, (frames, height, width)).astype(np.uint8)
    tifffile.imwrite(path, data, compression="lzw", photometric="minisblack")


def write_exposure(raw: Path, number: int, **changes: object) -> tuple[Path, Path]:
    """Write a movie and its metadata; returns both paths."""
    movie = raw / FOLDER / f"{stem(number=number)}_fractions.tiff"
    write_movie(movie)
    metadata = movie.with_name(f"{stem(number=number)}.xml")
    metadata.write_bytes(image_xml(**changes))
    return movie, metadata


def write_half_of_an_mrc(path: Path) -> None:
    """Write what a copying program leaves that makes the file at its full size first."""
    with mrcfile.new(path.with_suffix(".whole"), data=np.ones((4, 48, 64), np.int8)):
        pass
    whole = path.with_suffix(".whole").read_bytes()
    path.with_suffix(".whole").unlink()
    path.unlink()
    half = whole[: len(whole) // 2]
    path.with_name(path.name.replace(".tiff", ".mrc")).write_bytes(half.ljust(len(whole), b"\0"))


@pytest.fixture(autouse=True)
def closed_drives() -> Iterator[None]:
    """Close what a test opened."""
    yield
    close_drives()


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "session1"
    folder.mkdir()
    return folder


def test_a_tree_with_every_fault(raw: Path):
    for number in range(3):
        write_exposure(raw, number)
    cut, _ = write_exposure(raw, 10)
    cut.write_bytes(cut.read_bytes()[:-100])
    empty, _ = write_exposure(raw, 11)
    empty.write_bytes(b"")
    _, doctype = write_exposure(raw, 12)
    doctype.write_bytes(b'<!DOCTYPE x [<!ENTITY a "b">]>' + image_xml())
    alone, _ = write_exposure(raw, 13)
    alone.unlink()
    _, missing = write_exposure(raw, 14)
    missing.unlink()
    other_size, _ = write_exposure(raw, 15)
    write_movie(other_size, height=32)
    noise, _ = write_exposure(raw, 16)
    noise.write_bytes(np.random.default_rng(0).bytes(5000))
    link, _ = write_exposure(raw, 17)
    link.rename(raw / "elsewhere.bin")
    link.symlink_to(raw / "elsewhere.bin")
    allocated, _ = write_exposure(raw, 18)
    write_half_of_an_mrc(allocated)
    # What is no exposure must not become one.
    (raw / FOLDER / f"{stem(number=1)}.mrc").write_bytes(b"no MRC")
    (raw / FOLDER / f".{stem(number=20)}_fractions.tiff.Ab12Cd").write_bytes(b"rsync")
    (raw / FOLDER.replace("Data", "FoilHoles")).mkdir()
    preview = raw / FOLDER.replace("Data", "FoilHoles") / "FoilHole_1001_20261120_101500.xml"
    preview.write_bytes(image_xml(frames=None))

    drive = Drive(config(raw, inherit=False))
    drive.run(90.0)
    assert drive.codes() == {
        stem(number=10): Code.TRUNCATED,
        stem(number=11): Code.EMPTY_FILE,
        stem(number=12): Code.XML_DTD,
        stem(number=13): Code.NO_MOVIE,
        stem(number=14): Code.NO_METADATA,
        stem(number=15): Code.GEOMETRY_MISMATCH,
        stem(number=16): Code.BAD_HEADER,
        stem(number=17): Code.BAD_NAME,
        stem(number=18): Code.TRUNCATED,
    }
    counts = drive.state.count()
    assert counts[Status.SETTLED] == 3 and counts[Status.SEEN] == 0
    assert len(drive.of(events.MovieSettled)) == 3

    # Each is published once its cause is gone, and nothing is published twice.
    allocated.with_name(allocated.name.replace(".tiff", ".mrc")).unlink()
    for number in (10, 11, 12, 14, 15, 16, 18):
        write_exposure(raw, number)
    write_movie(raw / FOLDER / f"{stem(number=13)}_fractions.tiff")
    drive.run(10.0)
    assert set(drive.codes().values()) == {Code.BAD_NAME}
    settled = [body.movie for body in drive.of(events.MovieSettled)]
    assert len(settled) == len(set(settled)) == 11


def test_the_simulated_session_is_published_with_its_facts():
    root = shared("data/movies/sim_30S/Supervisor_20260404_091207_sim21")
    drive = Drive(config(root, backlog=True, close_when_idle=True))
    drive.run_until(lambda state: state.closed, 20.0)
    bodies = drive.of(events.MovieSettled)
    assert len(bodies) == 2 and not drive.codes()
    body = bodies[0]
    assert (body.width_px, body.height_px, body.n_frames) == (1024, 1024, 16)
    assert body.pixel_size_A == pytest.approx(2.0)
    assert body.dose_e_A2 == pytest.approx(16.0)
    assert body.dose_per_frame_e_A2 == pytest.approx(1.0)
    assert (body.voltage_kV, body.spherical_aberration_mm) == (300.0, 2.7)
    assert body.gain_path == "gain.mrc" and body.flags == ("cs_assumed",)
    assert body.path.endswith("_fractions.tiff") and body.metadata_path.endswith(".xml")
    assert (root / body.path).stat().st_size == body.size_bytes
    assert body.grid_square == "18881822" and body.acquisition_area == "18884024"
    assert drive.bodies[-1].settled == 2


def test_a_restart_tells_nothing_twice_and_finds_what_came_meanwhile(raw: Path):
    for number in range(3):
        write_exposure(raw, number)
    drive = Drive(config(raw))
    drive.run(6.0)
    write_exposure(raw, 3)
    again = drive.restarted(config(raw))
    again.run(6.0)
    kinds = [events.kind_of(body) for body in again.bodies]
    assert kinds == ["session.reopened", "movie.seen", "movie.settled"]
    assert len(again.of(events.OpticsGrouped)) == 0, "the optics group is remembered"


def test_a_sum_is_no_movie_and_a_stack_without_suffix_is_one(raw: Path):
    for number, sections in ((1, 1), (2, 5)):
        movie, _ = write_exposure(raw, number)
        movie.unlink()
        name = raw / FOLDER / f"{stem(number=number)}.tiff"
        write_movie(name, frames=sections)
    drive = Drive(config(raw))
    drive.run(6.0)
    (body,) = drive.of(events.MovieSettled)
    assert body.n_frames == 5 and body.movie.endswith(stem(number=2))
    assert {"cs_assumed", "frames_mismatch"} <= set(body.flags)


def test_the_sessions_size_binds_movies_whose_metadata_agrees_with_them(raw: Path):
    for number in range(4):
        write_exposure(raw, number)
    drive = Drive(config(raw))
    drive.run(6.0)
    movie, metadata = write_exposure(raw, 9)
    write_movie(movie, height=96, width=128)
    metadata.write_bytes(image_xml(width=128, height=96))
    drive.run(6.0)
    assert drive.codes() == {stem(number=9): Code.GEOMETRY_MISMATCH}


def test_the_digest_is_of_the_files_ends_and_size(raw: Path):
    movie, _ = write_exposure(raw, 1)
    drive = Drive(config(raw))
    drive.run(6.0)
    (body,) = drive.of(events.MovieSettled)
    other = raw.with_name("copy")
    shutil.copytree(raw, other)  # other inodes and times
    copied = Drive(config(other))
    copied.run(6.0)
    assert copied.of(events.MovieSettled)[0].digest == body.digest
    data = bytearray(movie.read_bytes())
    data[-1] ^= 1
    (other / FOLDER / movie.name).write_bytes(bytes(data))
    changed = Drive(config(other))
    changed.run(6.0)
    assert changed.of(events.MovieSettled)[0].digest != body.digest


def test_files_that_are_hidden_from_a_folder_time_are_found_by_a_full_walk(raw: Path):
    write_exposure(raw, 0)
    drive = Drive(config(raw, full_walk_s=30.0))
    drive.run(10.0)
    folder = raw / FOLDER
    before = folder.stat()
    write_exposure(raw, 1)
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    drive.run(40.0)
    assert len(drive.of(events.MovieSettled)) == 2


def test_a_real_visit_gives_its_exposures_and_no_preview(tmp_path: Path):
    listing = shared("data/metadata/layout/epu_visit_tree.txt")
    expected = json.loads(listing.with_name(listing.name + ".expected.json").read_text())
    parts: list[str] = []
    lines = [line for line in listing.read_text().splitlines()[1:] if "── " in line]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        depth, name = line.index("── ") // 4, line.partition("── ")[2]
        parts = [*parts[:depth], name]
        path = tmp_path.joinpath(*parts)
        if "── " in following and following.index("── ") // 4 > depth:
            path.mkdir(exist_ok=True)
        elif "." in name:
            path.touch()
        else:
            path.mkdir(exist_ok=True)
    drive = Drive(config(tmp_path))
    drive.run(1.0)
    seen = [body.movie for body in drive.of(events.MovieSeen)]
    assert len(seen) == len(set(seen)) == expected["n_exposures"]
    for session, wanted in expected["sessions"].items():
        mine = [movie for movie in seen if movie.startswith(f"{session}/")]
        assert len(mine) == wanted["exposures"], session
        squares = {movie.rsplit("/", 3)[1] for movie in mine}
        assert len(squares) == wanted["squares_with_exposures"]


def test_an_eer_movie_is_published_with_the_frames_that_are_in_it(raw: Path):
    movie, _ = write_exposure(raw, 1, width=256, height=256, frames=None)
    movie.unlink()
    source = shared("data/metadata/synthetic/falcon4i_20frames.eer")
    whole = movie.with_name(f"{stem(number=1)}_EER.eer")
    whole.write_bytes(source.read_bytes()[:-1000])
    drive = Drive(config(raw))
    drive.run(15.0)
    assert not drive.of(events.MovieSettled), "it is cut"
    shutil.copy(source, whole)
    drive.run(6.0)
    (body,) = drive.of(events.MovieSettled)
    assert (body.format, body.n_frames, body.width_px) == ("eer", 20, 256)
    assert body.dose_per_frame_e_A2 == pytest.approx(2.0)
    assert body.frames_per_fraction == 1 and "gain_missing" in body.flags


def test_a_settled_file_that_is_replaced_is_told_and_published_again(raw: Path):
    movie, _ = write_exposure(raw, 0)
    write_exposure(raw, 1)
    drive = Drive(config(raw))
    drive.run(6.0)
    first = drive.of(events.MovieSettled)[0]
    # The same content under another inode and time is the same movie.
    copy = raw.parent / "copy"
    shutil.copy(movie, copy)
    os.replace(copy, movie)
    drive.run(70.0)
    assert len(drive.of(events.MovieSettled)) == 2 and not drive.of(events.MovieChanged)
    write_movie(copy.with_suffix(".tiff"), frames=4)
    copy = copy.with_suffix(".tiff")
    data = bytearray(copy.read_bytes())
    copy.write_bytes(data + b"more")
    os.replace(copy, movie)
    drive.run(70.0)
    (changed,) = drive.of(events.MovieChanged)
    assert changed.movie == first.movie and "bytes" in changed.detail
    again = drive.of(events.MovieSettled)
    assert [body.movie for body in again].count(first.movie) == 2 and len(again) == 3
    assert again[-1].digest != first.digest
    assert drive.state.sizes == {"64 x 48": 2}, "it is counted once"


def test_session_files_are_read_and_told_again_when_they_change(raw: Path):
    source = shared("data/metadata/epu/epu3.7.0_k3_session/EpuSession.dm").read_bytes()
    (raw / "EpuSession.dm").write_bytes(source)
    write_exposure(raw, 0)
    drive = Drive(config(raw))
    drive.run(6.0)
    (described,) = drive.of(events.SessionDescribed)
    assert described.session == "session1" and described.software_version == "3.7.0.6930"
    assert described.beam_shift_clustering is False and described.grid_type == "HoleyCarbon"
    clustered = source.replace(b"NoClustering", b"ClusteringWithImageBeamShift")
    (raw / "EpuSession.dm").write_bytes(clustered[: len(clustered) // 2])  # rewritten in place
    drive.run(6.0)
    (raw / "EpuSession.dm").write_bytes(clustered)
    drive.run(200.0)
    assert [b.beam_shift_clustering for b in drive.of(events.SessionDescribed)] == [False, True]
    assert not drive.codes()


def test_stage_shift_sessions_group_by_area_and_clustered_ones_by_beam_shift(raw: Path):
    source = shared("data/metadata/epu/epu3.7.0_k3_session/EpuSession.dm").read_bytes()
    for word, groups in ((b"NoClustering", 1), (b"ClusteringWithImageBeamShift", 3)):
        (raw / "EpuSession.dm").write_bytes(source.replace(b"NoClustering", word))
        for number in range(3):
            write_exposure(raw, number, beam_shift=(0.1 * number, 0.0))
        drive = Drive(config(raw))
        drive.run(6.0)
        assert len(drive.of(events.OpticsGrouped)) == groups


def test_inotify_makes_it_soon(raw: Path):
    write_exposure(raw, 0)
    (raw / "gain.mrc").touch()
    service, source = build(config(raw, inotify=True, settle_s=0.3, poll_s=30.0))
    state, woken = service.empty(), threading.Event()
    source.open(woken.set)
    settled: dict[str, float] = {}
    try:
        due, deadline, written = 0.0, time.monotonic() + 20.0, 0.0
        while len(settled) < 2 and time.monotonic() < deadline:
            woken.wait(min(1.0, max(0.0, due - time.monotonic())))
            woken.clear()
            stimuli, due = source.poll(time.monotonic(), state)
            for stimulus in stimuli:
                for body in service.decide(state, stimulus):
                    service.apply(state, body, time.time())
                    if isinstance(body, events.MovieSettled):
                        settled[body.movie] = time.monotonic()
            if len(settled) == 1 and not written:
                write_exposure(raw, 1)
                written = time.monotonic()
    finally:
        source.close()
    assert len(settled) == 2
    assert max(settled.values()) - written < 5.0, "polls alone would take half a minute"


@pytest.mark.parametrize("raw", ["relative/path", "/", "/data/../etc"])
def test_a_root_that_is_none_is_misuse(raw: str):
    with pytest.raises(Misuse, match="absolute path"):
        build(MdcatchConfig(raw=raw))
