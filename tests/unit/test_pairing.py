"""Names, roles and gains; what is said of an exposure; simulated sessions in every order."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdcatch import names
from mdcatch.config import MdcatchConfig, Overrides
from mdcatch.gains import Gains
from mdcatch.names import Role
from mdcatch.service import Status
from services.kit import events
from services.kit.errors import Code
from tests.epu_tree import FOLDER, Drive, MemoryTree, image_xml, plain, stem

MOVIE = b"frames END"
CONFIG = MdcatchConfig(raw="/raw/session1", inotify=False, stuck_s=30.0)


def path(number: int, suffix: str = "") -> str:
    return f"{FOLDER}/{stem(number=number)}{suffix}"


@pytest.mark.parametrize(
    ("name", "role", "identity"),
    [
        (f"{stem()}_fractions.tiff", Role.MOVIE, stem()),
        (f"{stem()}_Fractions.mrc", Role.MOVIE, stem()),
        (f"{stem()}_Fractions.TIF", Role.MOVIE, stem()),
        (f"{stem()}_EER.eer", Role.MOVIE, stem()),
        (f"{stem()}-0001.mrc", Role.MOVIE, stem()),
        (f"{stem()}.mrc", Role.IMAGE, stem()),
        (f"{stem()}.xml", Role.METADATA, stem()),
        ("a/b/x_fractions.tiff", Role.MOVIE, "a/b/x"),
        (f"{stem()}_gain.tiff", Role.GAIN, ""),
        (f"{stem()}-gain-ref.MRC", Role.GAIN, ""),
        ("gain.mrc", Role.GAIN, ""),
        ("20240830_103455_EER_GainReference.gain", Role.GAIN, ""),
        (f"{stem()}_Fractions.xml", Role.FRACTIONS, stem()),
        ("FoilHole_1_20261120_101500.xml", Role.IGNORED, ""),
        ("GridSquare_20240406_102420.xml", Role.IGNORED, ""),
        (f"{stem()}.jpg", Role.IGNORED, ""),
        (f".{stem()}_fractions.tiff.AbC123", Role.IGNORED, ""),
        (f"{stem()}_fractions.tiff.part", Role.IGNORED, ""),
        (f"~{stem()}_fractions.tiff", Role.IGNORED, ""),
        (f"{stem()}_fractions.tiff.filepart", Role.IGNORED, ""),
        ("EpuSession.dm", Role.SESSION, ""),
        ("GridSquare_4590776.dm", Role.IGNORED, ""),
        ("GridSquare_20240406_102420.mrc", Role.IGNORED, ""),
        ("FoilHole_1_20261120_101500.tiff", Role.IGNORED, ""),
        (
            "Position_12_3_010_-57.00_20231021_000416_EER.eer",
            Role.MOVIE,
            "Position_12_3_010_-57.00_20231021_000416",
        ),
        ("s_mmm_00993_33.0_Oct08_07.39.05.tif", Role.IMAGE, "s_mmm_00993_33.0_Oct08_07.39.05"),
        (
            "2024-04-14_17.57.51_TS_001_-51.0.tif.mdoc",
            Role.MDOC,
            "2024-04-14_17.57.51_TS_001_-51.0",
        ),
        ("frames/run.mdoc", Role.MDOC, "frames/run"),
        ("SuperRef_s_00000.dm4", Role.GAIN, ""),
        ("CountRef_s_00000.mrc", Role.GAIN, ""),
        ("defects_s_00000.txt", Role.DEFECTS, ""),
        ("notes.txt", Role.IGNORED, ""),
    ],
)
def test_the_name_tells_the_role(name: str, role: Role, identity: str):
    found = names.classify(name)
    assert (found.role, found.identity) == (role, identity)


def test_identifiers_are_taken_from_the_path():
    found = names.identifiers(path(1))
    assert found == ("4590776", "1001", "2001")
    assert names.identifiers("some/other") == ("", "", "")


@pytest.mark.parametrize("name", ["-rf", "a;rm", "a\nb", 'q"', "a/../b", "\udcff", "x\u0430", ""])
def test_names_outside_the_allow_list(name: str):
    assert not names.is_allowed(name)
    assert names.printable(name).isprintable()


def test_one_gain_serves_the_session_and_the_nearest_comes_first():
    gains = Gains(None)
    gains.add("gain.mrc")
    gains.add("a/b/z_gain.tiff")
    gains.add("a/b/y_gain.tiff")
    assert gains.choose("a/b/m_fractions.tiff", None).path == "a/b/y_gain.tiff"
    assert gains.choose("c/m_fractions.tiff", None).path == "a/b/y_gain.tiff"
    later = Gains(None)
    later.add("gain.mrc")
    later.add("a/gain.mrc")
    assert later.choose("c/m.tiff", current="a/gain.mrc").path == "a/gain.mrc"
    assert later.choose("c/m.tiff", None).path == "a/gain.mrc"
    assert Gains("/site/gain.mrc").choose("m", None).path == "/site/gain.mrc"
    assert Gains(None).choose("m", None).path is None


def test_a_gain_that_metadata_name_or_serialem_dates_is_not_the_sessions_first():
    gains = Gains(None)
    for name in ("SuperRef_a_Oct08_01.00.00.mrc", "SuperRef_b_Oct08_05.00.00.mrc"):
        gains.add(f"frames/{name}")
    first = gains.choose("frames/m_1_Oct08_02.00.00.tif", None, acquired_at="2021-10-08T02:00:00")
    later = gains.choose(
        "frames/m_2_Oct08_06.00.00.tif", first.path, acquired_at="2021-10-08T06:00:00"
    )
    assert (first.path or "").endswith("01.00.00.mrc") and (later.path or "").endswith(
        "05.00.00.mrc"
    )
    gains.stock(["/gains/20240830_103455_EER_GainReference.gain"])
    named = gains.choose("m.eer", None, stated="20240830_103455_EER_GainReference.gain")
    assert named.path == "/gains/20240830_103455_EER_GainReference.gain"
    assert gains.choose("m.eer", None, stated="another.tiff").flag


# ---- simulated sessions


def test_movie_first_and_metadata_first_publish_the_same():
    settled = []
    for first, second in ((".xml", "_fractions.tiff"), ("_fractions.tiff", ".xml")):
        drive = Drive(CONFIG, tree := MemoryTree())
        for suffix in (first, second):
            tree.put(path(1, suffix), MOVIE if "tiff" in suffix else image_xml())
            drive.run(5.0)
        settled.append(drive.of(events.MovieSettled))
    assert [plain(b) for b in settled[0]] == [plain(b) for b in settled[1]]
    assert len(settled[0]) == 1


def test_partners_that_are_late_are_waited_for_and_published_when_they_come():
    drive = Drive(CONFIG, tree := MemoryTree())
    tree.put(path(1, "_fractions.tiff"), MOVIE)
    tree.put(path(2, ".xml"), image_xml())
    drive.run(50.0)
    assert not drive.of(events.WaitStarted)[1:], "a partner may be a minute late"
    drive.run(30.0)
    assert drive.codes() == {stem(number=1): Code.NO_METADATA, stem(number=2): Code.NO_MOVIE}
    drive.run(60.0)
    waits = [b for b in drive.of(events.WaitStarted) if b.subject != "session"]
    assert len(waits) == 2, "a wait is told once"
    tree.put(path(1, ".xml"), image_xml())
    tree.put(path(2, "_fractions.tiff"), MOVIE)
    drive.run(5.0)
    assert len(drive.of(events.MovieSettled)) == 2
    assert len(drive.of(events.WaitEnded)) == 2


def test_a_movie_is_published_soon_after_its_last_byte_and_never_before():
    drive = Drive(CONFIG, tree := MemoryTree())
    tree.put(path(1, ".xml"), image_xml())
    for size in range(40):  # 60 s of writing, with a stall
        tree.put(path(1, "_fractions.tiff"), b"x" * size)
        drive.run(12.0 if size == 20 else 1.5)
    assert not drive.of(events.MovieSettled)
    tree.put(path(1, "_fractions.tiff"), MOVIE)
    done = drive.now
    drive.run_until(lambda state: bool(state.groups), 10.0)
    assert drive.now - done <= CONFIG.settle_s + 2 * CONFIG.poll_s


def test_broken_metadata_is_refused_after_stuck_s_and_published_once_it_is_repaired():
    drive = Drive(CONFIG, tree := MemoryTree())
    tree.put(path(1, "_fractions.tiff"), MOVIE)
    tree.put(path(1, ".xml"), image_xml()[:300])
    tree.put(path(2, "_fractions.tiff"), MOVIE)
    tree.put(path(2, ".xml"), image_xml())
    drive.run(29.0)
    assert len(drive.of(events.MovieSettled)) == 1, "the others go on"
    assert not drive.of(events.MovieRefused)
    drive.run(5.0)
    assert drive.codes() == {stem(number=1): Code.TRUNCATED}
    tree.put(path(1, ".xml"), image_xml())
    drive.run(6.0)
    assert drive.codes() == {}
    assert len(drive.of(events.MovieSettled)) == 2
    assert len(drive.of(events.MovieRefused)) == 1


@pytest.mark.parametrize(
    ("changes", "code", "word"),
    [
        ({"pixel_m": None}, Code.MISSING_FIELD, "--pixel-size"),
        ({"voltage_V": None}, Code.MISSING_FIELD, "the site's file"),
        ({"dose_e_m2": None}, Code.MISSING_FIELD, "--dose"),
        ({"dose_e_m2": "0"}, Code.MISSING_FIELD, "--dose"),
        ({"width": 128}, Code.GEOMETRY_MISMATCH, "64 x 48"),
        ({"factor": 2}, Code.GEOMETRY_MISMATCH, "128 x 96"),
        ({"pixel_m": "5e-8"}, Code.OUT_OF_RANGE, "pixel_size_A"),
        ({"voltage_V": "-1"}, Code.OUT_OF_RANGE, "voltage_kV"),
    ],
)
def test_metadata_that_does_not_fit_is_refused_with_the_remedy(
    changes: dict, code: Code, word: str
):
    drive = Drive(CONFIG, tree := MemoryTree())
    tree.put(path(1, "_fractions.tiff"), MOVIE)
    tree.put(path(1, ".xml"), image_xml(**changes))
    drive.run(6.0)
    (refused,) = drive.of(events.MovieRefused)
    assert refused.code == code and word in refused.detail


def test_a_person_overrides_the_metadata_and_the_sources_say_so():
    overrides = Overrides(
        pixel_size_A=0.7, voltage_kV=200.0, dose_e_A2=20.0, spherical_aberration_mm=1.2
    )
    config = MdcatchConfig(raw="/raw/s", inotify=False, overrides=overrides)
    drive = Drive(config, tree := MemoryTree())
    tree.put(path(1, "_fractions.tiff"), MOVIE)
    tree.put(path(1, ".xml"), image_xml(voltage_V=None, dose_e_m2=None))
    drive.run(6.0)
    (body,) = drive.of(events.MovieSettled)
    assert (body.pixel_size_A, body.voltage_kV, body.dose_e_A2) == (0.7, 200.0, 20.0)
    assert body.dose_per_frame_e_A2 == 5.0
    fields = ("pixel_size_A", "voltage_kV", "dose_e_A2", "spherical_aberration_mm")
    assert {body.sources[field] for field in fields} == {"operator"}
    assert "cs_assumed" not in body.flags


def test_cs_comes_from_the_sites_table_and_differences_are_flagged():
    config = MdcatchConfig(
        raw="/raw/s", inotify=False, spherical_aberrations_mm={"3299": 0.01}, short_wait_s=4.0
    )
    drive = Drive(config, tree := MemoryTree())
    tree.put("gain.mrc", b"gain")
    tree.put(path(1, "_fractions.tiff"), MOVIE)
    tree.put(path(1, ".xml"), image_xml(frames=9, width=48, height=64))
    tree.put(path(2, "_fractions.tiff"), MOVIE)
    tree.put(path(2, ".xml"), image_xml(instrument="1"))
    drive.run(6.0)
    other, odd = drive.of(events.MovieSettled)
    assert odd.spherical_aberration_mm == 0.01
    assert odd.sources["spherical_aberration_mm"] == "site"
    assert set(odd.flags) >= {"frames_mismatch", "size_transposed"}
    assert odd.n_frames == 4, "the header's count wins"
    assert other.spherical_aberration_mm == 2.7 and "cs_assumed" in other.flags
    assert other.gain_path == "gain.mrc"


def test_a_second_movie_of_an_exposure_is_a_duplicate_also_after_a_restart():
    drive = Drive(CONFIG, tree := MemoryTree())
    tree.put(path(1, ".xml"), image_xml())
    tree.put(path(1, "_fractions.tiff"), MOVIE)
    drive.run(5.0)
    tree.put(path(1, "_Fractions.mrc"), MOVIE)
    drive.run(5.0)
    again = drive.restarted(CONFIG, tree)
    again.run(5.0)
    for one in (drive, again):
        assert one.codes() == {f"{stem(number=1)}_Fractions.mrc": Code.DUPLICATE}
        assert one.state.count()[Status.SETTLED] == 1
    assert [events.kind_of(body) for body in again.bodies] == ["session.reopened"]


def test_names_that_are_not_let_in_are_refused_and_can_be_stored():
    drive = Drive(CONFIG, tree := MemoryTree())
    tree.put(f"{FOLDER}/a;rm -rf_fractions.tiff", MOVIE)
    tree.put(f"{FOLDER}/bad\udcff\n_fractions.tiff", MOVIE)
    drive.run(5.0)
    assert set(drive.codes().values()) == {Code.BAD_NAME}
    assert len(drive.state.exposures) == 2


def test_a_root_that_vanishes_pauses_everything_and_nothing_is_told_twice():
    drive = Drive(CONFIG, tree := MemoryTree())
    tree.put(path(1, ".xml"), image_xml())
    tree.put(path(1, "_fractions.tiff"), MOVIE)
    drive.run(5.0)
    before = len(drive.bodies)
    tree.gone = True
    drive.run(90.0)
    assert drive.state.unavailable
    tree.gone = False
    files, tree.files = tree.files, {}  # comes back empty first
    drive.run(5.0)
    assert drive.state.unavailable
    tree.files = files
    drive.run(10.0)
    assert not drive.state.unavailable
    kinds = [events.kind_of(body) for body in drive.bodies[before:]]
    assert kinds == ["wait.started", "wait.ended"]


def test_a_restart_at_any_moment_neither_loses_nor_doubles():
    random.seed(7)
    drive = Drive(CONFIG, tree := MemoryTree())
    for number in range(30):
        tree.put(path(number, ".xml"), image_xml())
        if number % 3:
            tree.put(path(number, "_fractions.tiff"), MOVIE if number % 2 else b"cut")
        drive.run(random.uniform(0.5, 4.0))
        if number % 4 == 0:
            bodies = drive.bodies
            drive = drive.restarted(CONFIG, tree)
            drive.bodies = [*bodies, *drive.bodies]
    drive.run(200.0)
    settled = [body.movie for body in drive.of(events.MovieSettled)]
    assert len(settled) == len(set(settled)) == 10
    counts = drive.state.count()
    assert counts[Status.REFUSED] == 10 and counts[Status.WAITING] == 10
    assert len(drive.state.exposures) == 30
    assert len(drive.of(events.MovieSeen)) == 30


def test_a_session_closes_once_everything_is_decided():
    config = MdcatchConfig(raw="/raw/s", inotify=False, backlog=True, close_when_idle=True)
    tree = MemoryTree()
    tree.put(path(1, ".xml"), image_xml())
    tree.put(path(1, "_fractions.tiff"), MOVIE)
    tree.put(path(2, ".xml"), image_xml())
    tree.put(path(3, ".xml"), image_xml())
    tree.put(path(3, "_fractions.tiff"), b"cut")
    tree.put(path(4, "_fractions.tiff"), MOVIE)
    drive = Drive(config, tree)
    drive.run_until(lambda state: bool(state.exposures), 1.0)
    drive.step()
    assert drive.of(events.MovieSettled), "files of a back-log need two polls only"
    drive.run_until(lambda state: state.closed, 20.0)
    closed = drive.bodies[-1]
    assert isinstance(closed, events.SessionClosed)
    assert (closed.seen, closed.settled, closed.refused, closed.waiting) == (4, 1, 1, 2)
    drive.run(30.0)
    assert drive.bodies[-1] is closed
    again = drive.restarted(config, tree)
    tree.put(path(2, "_fractions.tiff"), MOVIE)
    again.run_until(lambda state: state.count()[Status.SETTLED] == 2, 10.0)
    assert isinstance(again.bodies[0], events.SessionReopened)


def arrivals() -> list[tuple[str, bytes]]:
    """Every write of a session of five exposures, faults included, each file's writes in order."""
    writes = []
    for number in range(3):
        movie, metadata = path(number, "_fractions.tiff"), path(number, ".xml")
        writes += [(movie, b"x"), (movie, b"xx"), (movie, MOVIE)]
        writes += [(metadata, image_xml()[:200]), (metadata, image_xml())]
    writes += [(path(3, "_fractions.tiff"), b"cut"), (path(3, ".xml"), image_xml())]
    writes += [(path(4, "_fractions.tiff"), MOVIE), (path(4, ".xml"), b"<!DOCTYPE x><x/>")]
    return writes


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_interleaving_ends_in_the_same_events(data: st.DataObject):
    queues: dict[str, list[bytes]] = {}
    for name, content in arrivals():
        queues.setdefault(name, []).append(content)
    drive = Drive(CONFIG, tree := MemoryTree())
    while queues:
        name = data.draw(st.sampled_from(sorted(queues)))
        tree.put(name, queues[name].pop(0))
        if not queues[name]:
            del queues[name]
        drive.run(data.draw(st.sampled_from([0.5, 1.0, 3.0])))
    drive.run(100.0)
    settled = sorted((plain(b) for b in drive.of(events.MovieSettled)), key=lambda b: b.movie)
    assert settled == EXPECTED
    assert drive.codes() == {
        stem(number=3): Code.TRUNCATED,
        stem(number=4): Code.XML_DTD,
    }
    assert len(drive.of(events.OpticsGrouped)) == 1


def _expected() -> list[events.MovieSettled]:
    drive = Drive(CONFIG, tree := MemoryTree())
    for number in range(3):
        tree.put(path(number, "_fractions.tiff"), MOVIE)
        tree.put(path(number, ".xml"), image_xml())
    drive.run(10.0)
    return [plain(body) for body in drive.of(events.MovieSettled)]


EXPECTED = _expected()


def test_what_is_ready_together_is_published_in_the_order_of_acquisition():
    drive = Drive(CONFIG, tree := MemoryTree())
    for number, minute in ((1, b"10:19"), (2, b"10:17"), (3, b"10:18")):
        tree.put(path(number, "_fractions.tiff"), MOVIE)
        tree.put(path(number, ".xml"), image_xml().replace(b"10:15", minute))
    drive.run(5.0)
    times = [body.acquired_at[11:16] for body in drive.of(events.MovieSettled)]
    assert times == ["10:17", "10:18", "10:19"]
