"""The acceptance checks of the acquisition side that need a whole world around the daemon.

Source: acquisition.md sections 8, 9 and 11.
"""

import json
import os
import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tifffile

from mdcatch.config import MdcatchConfig
from mdcatch.roots import RootConfig
from mdcatch.service import Status
from mdcatch.status import overview
from services.kit import events
from services.kit.errors import Code
from services.kit.sitetables import Camera, Microscope, Site
from tests.epu_tree import FOLDER, Drive, MemoryTree, close_drives, image_xml, stem
from tests.shared import shared

XML = image_xml(frames=4)
POLL_S, SETTLE_S = 1.0, 10.0
WHOLE = b"frames|4END"


@pytest.fixture(autouse=True)
def closed_drives() -> Iterator[None]:
    """Close what a test opened."""
    yield
    close_drives()


# ---- check 3: a share with every nuisance


@dataclass
class Writing:
    """One file that comes to be: what is done to it, and when."""

    path: Path
    content: bytes
    steps: list[tuple[float, str, bytes]] = field(default_factory=list)  # time, deed, content
    done_at: float = 0.0

    def act(self, now: float) -> None:
        """Do all steps that are due, as copying programs and cameras do them."""
        hidden = self.path.with_name(f".{self.path.name}.Ab12Cd")
        while self.steps and self.steps[0][0] <= now:
            self.done_at, deed, content = self.steps.pop(0)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if deed == "rename":
                hidden.rename(self.path)
            else:
                (hidden if deed == "hidden" else self.path).write_bytes(content)
            if deed == "old":  # given the time of its source at the end
                os.utime(self.path, (1e9, 1e9))


def movie_states(seed: int) -> list[bytes]:
    """Return a TIFF of four frames after each frame: whole every time, too short until the last."""
    frames = np.random.default_rng(seed).poisson(1.0, (4, 48, 64)).astype(np.uint8)
    states, buffer = [], BytesIO()
    for frame in frames:
        buffer.seek(0)
        more = bool(states)
        tifffile.imwrite(buffer, frame, compression="lzw", photometric="minisblack", append=more)
        states.append(buffer.getvalue())
    return states


def written(
    chance: random.Random, path: Path, content: bytes, begin: float, stall_s: float = 0.0
) -> Writing:
    """Return a writer with chunks of random sizes at random times, and a stall in mid-file."""
    deed = chance.choice(["grow", "hidden", "fill"])
    one, now = Writing(path, content), begin
    for number, size in enumerate(sorted(chance.sample(range(1, len(content)), 4))):
        part = content[:size]
        # Robocopy makes the file at its full size first.
        one.steps.append((now, deed, part.ljust(len(content), b"\0") if deed == "fill" else part))
        now += chance.uniform(0.2, 8.0) + stall_s * (number == 2)
    one.steps.append((now, "old" if deed == "fill" else deed, content))
    if deed == "hidden":
        one.steps.append((now, "rename", b""))
    return one


class Share:
    """A folder of a share with its writers; real files, simulated time."""

    def __init__(self, raw: Path, seed: int, exposures: int):
        self.raw, chance = raw, random.Random(seed)
        raw.mkdir()
        (raw / "notes.txt").write_text("a share is never empty")
        self.ready: dict[str, tuple[Writing, Writing]] = {}
        self.delays: list[float] = []
        self.drive = Drive(config(raw, poll_s=POLL_S, settle_s=SETTLE_S))
        for number in range(exposures):
            # Two squares have the same stems.
            folder = FOLDER if number % 2 else FOLDER.replace("4590776", "4590777")
            name = f"{folder}/{stem(number=number // 2)}"
            begin, path = self.drive.now + 6.0 * number, raw / f"{name}_fractions.tiff"
            states = movie_states(number)
            if number % 5 == 4:  # frame by frame
                steps = [(begin + 20.0 * n, "grow", state) for n, state in enumerate(states)]
                movie = Writing(path, states[-1], steps)
            else:
                movie = written(chance, path, states[-1], begin, 90.0 * (number % 5 == 2))
            lag = chance.uniform(-30.0, 30.0)  # metadata first, or the movie
            xml = written(chance, raw / f"{name}.xml", XML, max(self.drive.now, begin + lag))
            self.ready[name] = movie, xml

    def turn(self) -> None:
        """Let one poll pass, with what is written until then."""
        for writing in [one for pair in self.ready.values() for one in pair]:
            writing.act(self.drive.now)
        now = self.drive.now
        for body in self.drive.step(POLL_S):
            if isinstance(body, events.MovieSettled):
                movie, xml = self.ready[body.movie]
                assert not movie.steps and not xml.steps, "published before its last byte"
                assert movie.path.read_bytes() == movie.content
                self.delays.append(now - max(movie.done_at, xml.done_at))

    def vanish(self, seconds: float) -> None:
        """Unmount: nothing can be written meanwhile; first it comes back empty."""
        away = self.raw.with_name("away")
        self.raw.rename(away)
        for _ in range(round(seconds / POLL_S)):
            self.drive.step(POLL_S)
        assert self.drive.state.unavailable
        self.raw.mkdir()
        self.drive.step(POLL_S)
        self.raw.rmdir()
        away.rename(self.raw)
        for pair in self.ready.values():
            for writing in pair:
                late = seconds + POLL_S
                writing.steps = [(at + late, deed, part) for at, deed, part in writing.steps]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_share_with_every_nuisance_gives_each_exposure_once_and_soon(tmp_path: Path, seed: int):
    share = Share(tmp_path / "session1", seed, exposures=30)
    for _ in range(100):
        share.turn()
    share.vanish(40.0)
    while any(one.steps for pair in share.ready.values() for one in pair):
        share.turn()
    for _ in range(200):
        share.turn()
    settled = [body.movie for body in share.drive.of(events.MovieSettled)]
    assert sorted(settled) == sorted(share.ready) and share.drive.codes() == {}
    assert {body.n_frames for body in share.drive.of(events.MovieSettled)} == {4}
    assert not share.drive.of(events.MovieChanged)
    assert statistics.median(share.delays) < SETTLE_S + 2 * POLL_S
    assert max(share.delays) < 60.0, "a stalled file is tested less and less often"


def config(raw: Path | str, **changes: object) -> MdcatchConfig:
    return MdcatchConfig(**{"raw": str(raw), "inotify": False, **changes})


# ---- check 5: a real beam time, its movies on a disk of their own


def test_a_real_beam_time_with_its_movies_elsewhere_is_published_in_the_right_places():
    listing = shared("data/metadata/layout/epu_visit_tree.txt")
    expected = json.loads(listing.with_name(f"{listing.name}.expected.json").read_text())
    meta, cam = MemoryTree(), MemoryTree()
    for path in _files(listing.read_text()):
        meta.put(path, XML if "_Data_" in path and path.endswith(".xml") else b"")
        if "_Data_" in path and path.endswith(".xml"):
            session, _, tail = path.partition("/")
            cam.put(f"DoseFractions/{session}/{tail[:-4]}_fractions.tiff", WHOLE)
    roots = (RootConfig(path="/cam", role="movies"),)
    settings = config("/visit", role="metadata", roots=roots, backlog=True, close_when_idle=True)
    drive = Drive(settings, meta, trees={"/cam": cam})
    drive.run_until(lambda state: state.closed, 120.0)
    settled = drive.of(events.MovieSettled)
    assert len(settled) == len({body.movie for body in settled}) == expected["n_exposures"] == 4228
    assert drive.codes() == {} and len(drive.state.exposures) == 4228, "no preview is a movie"
    assert {body.link for body in settled} == {"Movies_2"}
    for session, wanted in expected["sessions"].items():
        mine = [body for body in settled if body.session == session]
        assert len(mine) == wanted["exposures"], session
        assert len({body.grid_square for body in mine}) == wanted["squares_with_exposures"]
        for body in mine:
            assert body.path == f"DoseFractions/{body.metadata_path[:-4]}_fractions.tiff"
    squares = overview(drive.state, drive.now).squares
    assert sum(square.settled for square in squares) == 4228 and all(
        square.grid_square for square in squares
    )


def _files(text: str) -> Iterator[str]:
    """Yield the paths of the files of a listing made by `tree`."""
    parts: list[str] = []
    for line in text.splitlines():
        if "── " in line:
            depth, name = line.index("── ") // 4, line.partition("── ")[2]
            parts = [*parts[:depth], name]
            if "." in name:
                yield "/".join(parts)


# ---- idle for days


def test_after_three_idle_days_a_movie_is_found_within_the_longest_pause():
    drive = Drive(config("/raw/s"), tree := MemoryTree())

    def take(number: int) -> None:
        tree.put(f"{FOLDER}/{stem(number=number)}.xml", XML)
        tree.put(f"{FOLDER}/{stem(number=number)}_fractions.tiff", WHOLE)

    def follow(until: float) -> int:
        """Poll when the source asks for it, as the host does; return how often."""
        polls = 0
        while drive.now < until:
            stimuli, due = drive.source.poll(drive.now, drive.state)
            for stimulus in stimuli:
                for body in drive.service.decide(drive.state, stimulus):
                    drive.service.apply(drive.state, body, drive.now)
                    drive.bodies.append(body)
            drive.now, polls = max(due, drive.now + 0.01), polls + 1
        return polls

    take(0)
    follow(drive.now + 20.0)
    before = len(drive.bodies)
    polls = follow(drive.now + 72 * 3600.0)
    assert polls < 72 * 60 + 300 and len(drive.bodies) == before, "about one a minute, silently"
    take(1)
    follow(drive.now + 60.0 + 5.0)
    assert len(drive.of(events.MovieSettled)) == 2
    assert [body.optics_group for body in drive.of(events.MovieSettled)] == [1, 1]


@pytest.mark.parametrize("way", ["movies", "everything"])
def test_files_that_are_cleaned_up_after_hours_change_nothing(way: str):
    drive = Drive(config("/raw/s"), tree := MemoryTree())
    tree.put("EpuSession.txt", b"")
    for number in range(3):
        tree.put(f"{FOLDER}/{stem(number=number)}.xml", XML)
        tree.put(f"{FOLDER}/{stem(number=number)}_fractions.tiff", WHOLE)
    drive.run(5.0)
    before = len(drive.bodies)
    for path in [path for path in tree.files if path.startswith(FOLDER)]:
        if way == "everything" or path.endswith(".tiff"):
            tree.remove(path)
    drive.run(6 * 3600.0, 30.0)
    again = drive.restarted(config("/raw/s"), tree)
    again.run(3600.0, 10.0)
    assert len(drive.bodies) == before
    assert [events.kind_of(body) for body in again.bodies] == ["session.reopened"]
    assert again.state.count()[Status.SETTLED] == 3


# ---- what the site and the sums of section 1.9 add to an event

SITE = Site(
    microscopes=(
        Microscope(
            id="3299",
            name="Krios1",
            spherical_aberration_mm=2.62,
            voltage_kV=300.0,
            cameras=(
                Camera(
                    model="K3",
                    epu_id="EF-CCD",
                    gain=("*_reference.tiff",),
                    gain_rotation=1,
                    gain_flip=2,
                    mtf={
                        "counting": "/mtf/k3-count-{kV}.star",
                        "super-resolution": "/mtf/k3-super-{kV}.star",
                    },
                    pixel_sizes_A={130000: 0.66},
                ),
            ),
        ),
    )
)


def test_site_and_derived_quantities_are_in_the_event():
    tree = MemoryTree()
    # 32 x 24 sensor pixels in super-resolution: the movie has 64 x 48.
    tree.put(f"{FOLDER}/{stem()}.xml", image_xml(width=32, height=24, factor=2, dose_e_m2="8E20"))
    tree.put(f"{FOLDER}/{stem()}_fractions.tiff", WHOLE)
    tree.put(f"{FOLDER}/K3_reference_gain.tiff", b"gain of another pattern")
    tree.put(f"{FOLDER}/my_gain.tiff", b"gain")
    drive = Drive(config("/raw/s", site=SITE, particle_diameter_A=150.0), tree)
    drive.run(5.0)
    (body,) = drive.of(events.MovieSettled)
    assert body.pixel_size_A == pytest.approx(0.33) and body.sources["pixel_size_A"] == "site"
    assert body.processing_pixel_size_A == pytest.approx(0.66) and body.bin_factor == 2
    assert body.spherical_aberration_mm == 2.62
    assert body.sources["spherical_aberration_mm"] == "site"
    assert body.mtf_path == "/mtf/k3-super-300.star"
    assert (body.gain_rotation, body.gain_flip) == (1, 2)
    assert body.dose_e_A2 == pytest.approx(8.0) and body.dose_per_frame_e_A2 == pytest.approx(2.0)
    assert body.group_frames == 1 and body.frames_per_fraction is None
    assert {"pixel_from_table", "pixel_conflict"} <= set(body.flags)
    assert "0.33 A" in body.notes["pixel_conflict"] and "0.5 A" in body.notes["pixel_conflict"]
    (group,) = drive.of(events.OpticsGrouped)
    assert group.mtf_path == body.mtf_path
    (plan,) = drive.of(events.SessionPlanned)
    assert (plan.bin_factor, plan.particle_diameter_A) == (2, 150.0)
    assert plan.box_px == 342 and plan.small_box_px is not None, "1.5 x 150 / 0.66, even"


def test_the_plan_of_eer_movies_says_fractions_and_what_is_left_over():
    tree = MemoryTree()
    tree.put(f"{FOLDER}/{stem()}.xml", image_xml(frames=None, dose_e_m2="4E21"))
    tree.put(f"{FOLDER}/{stem()}_EER.eer", b"frames|1003END")
    drive = Drive(config("/raw/s"), tree)
    drive.run(5.0)
    (body,) = drive.of(events.MovieSettled)
    assert body.frames_per_fraction == 25 and body.group_frames is None
    (plan,) = drive.of(events.SessionPlanned)
    assert (plan.fractions, plan.leftover_frames) == (40, 3)
    assert plan.dose_per_fraction_e_A2 == pytest.approx(25 * 40.0 / 1003)
    tree.put(f"{FOLDER}/{stem(number=1)}.xml", image_xml(frames=None, dose_e_m2="4E21"))
    tree.put(f"{FOLDER}/{stem(number=1)}_EER.eer", b"frames|1001END")
    drive.run(5.0)
    assert len(drive.of(events.SessionPlanned)) == 1, "two frames more or less are no news"


def test_a_movie_without_dose_says_how_to_give_one_and_takes_it():
    tree = MemoryTree()
    tree.put(f"{FOLDER}/{stem()}.xml", image_xml(dose_e_m2=None))
    tree.put(f"{FOLDER}/{stem()}_fractions.tiff", WHOLE)
    drive = Drive(config("/raw/s"), tree)
    drive.run(5.0)
    assert drive.codes() == {stem(): Code.MISSING_FIELD}
    assert "--dose" in drive.state.exposures[f"{FOLDER}/{stem()}"].detail
    person = msgspec.convert(
        {"raw": "/raw/s", "inotify": False, "overrides": {"dose_e_A2": 40.0}}, MdcatchConfig
    )
    again = drive.restarted(person, tree)
    again.run(5.0)
    (body,) = again.of(events.MovieSettled)
    assert body.sources["dose_e_A2"] == "operator" and again.codes() == {}


# ---- a gain that comes late


def test_movies_that_went_without_gain_are_published_again_when_it_comes():
    drive = Drive(config("/raw/s"), tree := MemoryTree())
    for number in range(2):
        tree.put(f"{FOLDER}/{stem(number=number)}.xml", XML)
        tree.put(f"{FOLDER}/{stem(number=number)}_fractions.tiff", WHOLE)
    drive.run(5.0)
    first = drive.of(events.MovieSettled)
    assert len(first) == 2 and all("gain_missing" in body.flags for body in first)
    drive = drive.restarted(config("/raw/s"), tree)
    tree.put(f"{FOLDER}/{stem()}_gain.tiff", b"gain")
    drive.run(10.0)
    again = drive.of(events.MovieSettled)
    assert sorted(body.movie for body in again) == sorted(body.movie for body in first)
    assert {body.gain_path for body in again} == {f"{FOLDER}/{stem()}_gain.tiff"}
    assert not any("gain_missing" in body.flags for body in again)
    assert drive.state.sizes == {"64 x 48": 2}, "each is counted once"
    tree.put(f"{FOLDER}/{stem(number=1)}_gain.tiff", b"gain")
    drive.run(20.0)
    assert len(drive.of(events.MovieSettled)) == 2 and drive.state.gainless == {}
    assert drive.state.count()[Status.SETTLED] == 2


# ---- files that go before they are published


def test_an_exposure_whose_files_vanish_says_so_and_is_published_when_they_return():
    drive = Drive(config("/raw/s"), tree := MemoryTree())
    tree.put("EpuSession.txt", b"")
    files = {f"{FOLDER}/{stem()}.xml": XML, f"{FOLDER}/{stem()}_fractions.tiff": b"part"}
    for path, content in files.items():
        tree.put(path, content)
    drive.run(5.0)
    for path in files:
        tree.remove(path)
    drive.run(90.0)
    assert drive.codes() == {stem(): Code.VANISHED}
    for path in files:
        tree.put(path, XML if path.endswith(".xml") else WHOLE)
    drive.run(10.0)
    assert drive.codes() == {} and len(drive.of(events.MovieSettled)) == 1


def test_files_that_go_while_the_daemon_is_down_are_missed_after_its_start():
    drive = Drive(config("/raw/s"), tree := MemoryTree())
    tree.put("EpuSession.txt", b"")
    tree.put(f"{FOLDER}/{stem()}.xml", XML)
    tree.put(f"{FOLDER}/{stem(number=1)}.xml", XML)
    drive.run(2.0)
    assert drive.state.count()[Status.SEEN] == 2
    tree.remove(f"{FOLDER}/{stem()}.xml")
    again = drive.restarted(config("/raw/s"), tree)
    again.run(90.0)
    assert again.codes() == {stem(): Code.VANISHED, stem(number=1): Code.NO_MOVIE}


def test_nobody_is_late_while_a_root_cannot_be_seen():
    meta, cam = MemoryTree(), MemoryTree()
    session = "Supervisor_20250130_145409_grid1"
    for number in range(2):
        meta.put(f"{session}/{FOLDER}/{stem(number=number)}.xml", XML)
    cam.put(f"{session}/{FOLDER}/{stem()}_fractions.tiff", WHOLE)
    roots = (RootConfig(path="/cam", role="movies"),)
    drive = Drive(config("/meta", role="metadata", roots=roots), meta, trees={"/cam": cam})
    drive.run(10.0)
    cam.put(f"{session}/{FOLDER}/{stem(number=2)}_fractions.tiff", WHOLE)
    drive.run(10.0)
    meta.gone = True
    drive.run(3600.0, 5.0)
    assert len(drive.of(events.MovieSettled)) == 1, "its metadata may be there all the time"
    meta.gone = False
    meta.put(f"{session}/{FOLDER}/{stem(number=2)}.xml", XML)
    drive.run(10.0)
    assert [body.metadata for body in drive.of(events.MovieSettled)] == ["own", "own"]
