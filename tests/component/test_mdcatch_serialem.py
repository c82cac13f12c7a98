"""SerialEM and flat folders: frame mdocs, one mdoc for many movies, tilt series, maps, no mdoc."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from algorithms.simulate.recipe import load_recipe
from algorithms.simulate.serialemsession import simulate_serialem_session
from mdcatch.config import MdcatchConfig
from services.kit import events
from services.kit.errors import Code
from tests.epu_tree import Drive, MemoryTree, close_drives
from tests.shared import shared

MOVIE = b"frames|12END"
SAMPLES = "data/metadata/serialem"


@pytest.fixture(autouse=True)
def closed_drives() -> Iterator[None]:
    """Close what a test opened."""
    yield
    close_drives()


def config(**changes: object) -> MdcatchConfig:
    return msgspec.convert({"raw": "/data/run7", "inotify": False, **changes}, MdcatchConfig)


def section(name: str, *, number: int = 0, kind: str = "FrameSet", **changes: str) -> str:
    """Return one section that names a movie."""
    values = {
        "TiltAngle": "0.01",
        "StagePosition": "-142.82 -457.442",
        "StageZ": "-13.7",
        "Magnification": "81000",
        "ExposureDose": "40",
        "PixelSpacing": "1.1",
        "ExposureTime": "2.5",
        "Binning": "1",
        "ImageShift": "2.6 -0.3",
        "SubFramePath": rf"X:\user\session\{name}",
        "NumSubFrames": "12",
        "DateTime": "08-Oct-21  07:39:08",
        "FilterSlitAndLoss": "20 0",
        **changes,
    }
    lines = "".join(f"{key} = {value}\n" for key, value in values.items() if value)
    return f"\n[{kind} = {number}]\n{lines}"


def mdoc(*sections: str, title: str = "T = SerialEM: Krios", extra: str = "") -> bytes:
    return f"{title}\nVoltage = 300\n{extra}{''.join(sections)}".encode()


@pytest.mark.parametrize("first", ["movie", "mdoc"])
def test_a_movie_and_its_frame_mdoc_are_paired_in_any_order(first: str):
    drive = Drive(config(), tree := MemoryTree())
    name = "frames/2024-04-14_17.57.51_TS_001_-51.0.tif"
    writes = [(name, MOVIE), (f"{name}.mdoc", mdoc(section(name)))]
    tree.put("frames/CountRef_2024-04-14_10.00.00.mrc", b"gain")
    tree.put("frames/defects_2024-04-14_10.00.00.txt", b"defects")
    for path, content in writes if first == "movie" else reversed(writes):
        tree.put(path, content)
        drive.run(10.0)
    (body,) = drive.of(events.MovieSettled)
    assert body.movie == name.removesuffix(".tif") and body.path == name
    assert body.metadata_path == f"{name}.mdoc" and body.software == "SerialEM"
    assert (body.pixel_size_A, body.voltage_kV, body.dose_e_A2, body.n_frames) == (
        1.1,
        300.0,
        40.0,
        12,
    )
    assert body.sources["pixel_size_A"] == "mdoc" and body.sources["n_frames"] == "header"
    assert body.gain_path == "frames/CountRef_2024-04-14_10.00.00.mrc"
    assert body.defects_path == "frames/defects_2024-04-14_10.00.00.txt"
    assert body.image_shift == (2.6, -0.3) and body.slit_width_eV == 20.0
    assert body.stage_um == (-142.82, -457.442, -13.7)
    (found,) = drive.of(events.SessionFound)
    assert (found.session, found.path, found.software) == ("run7", ".", "SerialEM")
    again = drive.restarted(config(), tree)
    again.run(100.0)
    assert [events.kind_of(body) for body in again.bodies] == ["session.reopened"]


@pytest.mark.parametrize("where", ["frames/", "", "other/place/"])
@pytest.mark.parametrize(
    "stated",
    [r"X:\a\b\Movie_1.tif", r"\\host\share\Movie_1.tif", "../frames/MOVIE_1.tif", "movie_1.TIF"],
)
def test_the_base_name_of_the_path_joins_them(where: str, stated: str):
    drive = Drive(config(), tree := MemoryTree())
    tree.put(f"{where}Movie_1.tif", MOVIE)
    tree.put("Movie_1.tif.mdoc", mdoc(section("", SubFramePath=stated)))
    drive.run(10.0)
    (body,) = drive.of(events.MovieSettled)
    assert body.movie == f"{where}Movie_1" and body.dose_e_A2 == 40.0


def test_an_mdoc_that_grows_section_by_section_serves_each_movie_soon():
    drive = Drive(config(settle_s=20.0), tree := MemoryTree())
    sections: list[str] = []
    delays = []
    for number in range(8):
        tree.put(f"frames/run_{number:03d}.tif", MOVIE)
        sections.append(section(f"run_{number:03d}.tif", number=number))
        tree.put("frames/run.mdoc", mdoc(*sections))
        drive.run(10.0)
        delays.append(len(drive.of(events.MovieSettled)))
    assert delays[-1] >= 4, "the mdoc never comes to rest, and its movies are published"
    settled = [body.movie for body in drive.of(events.MovieSettled)]
    assert settled == [f"frames/run_{number:03d}" for number in range(len(settled))]
    drive.run(60.0)
    assert len(drive.of(events.MovieSettled)) == 8
    assert {body.metadata_path for body in drive.of(events.MovieSettled)} == {"frames/run.mdoc"}
    again = drive.restarted(config(settle_s=20.0), tree)
    sections.append(section("run_008.tif", number=8))
    tree.put("frames/run.mdoc", mdoc(*sections))
    tree.put("frames/run_008.tif", MOVIE)
    again.run(60.0)
    assert [body.movie for body in again.of(events.MovieSettled)] == ["frames/run_008"]


def test_the_last_section_of_a_growing_mdoc_may_be_cut_at_a_line():
    drive = Drive(config(), tree := MemoryTree())
    whole = mdoc(section("a.tif"), section("b.tif", number=1))
    cut = whole[: whole.rindex(b"NumSubFrames")]
    for name in ("a", "b"):
        tree.put(f"{name}.tif", MOVIE)
    tree.put("run.mdoc", cut)
    drive.run(1.5)
    tree.put("run.mdoc", whole)
    drive.run(10.0)
    settled = {body.movie: body for body in drive.of(events.MovieSettled)}
    assert settled["b"].slit_width_eV == 20.0 and len(settled) == 2


def test_one_section_that_is_refused_costs_one_movie():
    drive = Drive(config(), tree := MemoryTree())
    bad = section("bad.tif", number=1, PixelSpacing="1e999")
    tree.put("run.mdoc", mdoc(section("good.tif"), bad, section("fine.tif", number=2)))
    for name in ("good", "bad", "fine"):
        tree.put(f"{name}.tif", MOVIE)
    drive.run(10.0)
    assert sorted(body.movie for body in drive.of(events.MovieSettled)) == ["fine", "good"]
    assert drive.codes() == {"bad": Code.OUT_OF_RANGE}


def test_a_tilt_series_gives_its_movies_and_neither_its_stack_nor_a_map_is_one():
    drive = Drive(config(), tree := MemoryTree())
    names = [f"TS_01_{number:03d}_{angle}.0.tif" for number, angle in enumerate((0, 3, -3))]
    series = [
        section(name, number=number, kind="ZValue", TiltAngle=f"{angle}.0", ExposureDose="3")
        for number, (name, angle) in enumerate(zip(names, (0, 3, -3), strict=True))
    ]
    title = "[T = SerialEM: Krios]\n\n[T =     Tilt axis angle = 84.3, binning = 1  spot = 6]"
    head = "ImageFile = TS_01.mrc\nImageSize = 3708 3838\n"
    tree.put("TS_01.mrc", b"sums|40END")
    tree.put("TS_01.mrc.mdoc", mdoc(*series, title=title, extra=head))
    map_section = section("", kind="ZValue", SubFramePath="", PieceCoordinates="0 0 0")
    tree.put("map.mrc", b"pieces|9END")
    tree.put("map.mrc.mdoc", mdoc(map_section, extra="ImageFile = map.mrc\nMontage = 1\n"))
    for name in names:
        tree.put(f"frames/{name}", MOVIE)
    drive.run(100.0)
    settled = drive.of(events.MovieSettled)
    assert sorted(body.movie for body in settled) == sorted(
        f"frames/{name.removesuffix('.tif')}" for name in names
    )
    assert len(drive.of(events.MovieSeen)) == 3 and drive.codes() == {}
    assert {body.tilt_series for body in settled} == {"TS_01.mrc.mdoc"}
    assert {body.tilt_index: body.tilt_angle_deg for body in settled} == {0: 0.0, 1: 3.0, 2: -3.0}
    assert settled[0].tilt_axis_deg == 84.3
    assert sorted(body.pre_exposure_e_A2 for body in settled) == [0.0, 3.0, 6.0]


def test_movies_without_mdoc_take_the_values_of_a_person():
    person = {"pixel_size_A": 0.9, "voltage_kV": 200.0, "dose_e_A2": 36.0}
    drive = Drive(config(overrides=person), tree := MemoryTree())
    tree.put("one.tif", MOVIE)
    tree.put("sub/two.tiff", MOVIE)
    tree.put("sum.mrc", b"|1END")
    drive.run(10.0)
    one, two = drive.of(events.MovieSettled)
    assert (one.movie, two.movie) == ("one", "sub/two")
    assert one.metadata == "operator" and one.metadata_path is None
    assert one.dose_per_frame_e_A2 == 3.0 and one.sources["dose_e_A2"] == "operator"
    (found,) = drive.of(events.SessionOpened)
    assert found.software in ("flat", "unknown")


def test_movies_of_which_nothing_is_known_wait_and_say_so():
    drive = Drive(config(), tree := MemoryTree())
    tree.put("one.tif", MOVIE)
    drive.run(50.0)
    assert not drive.state.exposures, "its mdoc may be a minute late"
    drive.run(30.0)
    assert drive.codes() == {"one": Code.NO_METADATA}
    assert "--pixel-size" in drive.state.exposures["one"].detail
    tree.put("one.tif.mdoc", mdoc(section("one.tif")))
    drive.run(10.0)
    assert len(drive.of(events.MovieSettled)) == 1 and drive.codes() == {}


def test_a_movie_whose_mdoc_never_comes_inherits_and_is_put_right_when_it_comes():
    drive = Drive(config(), tree := MemoryTree())
    for name in ("one", "two"):
        tree.put(f"{name}.tif", MOVIE)
    tree.put("one.tif.mdoc", mdoc(section("one.tif")))
    drive.run(80.0)
    one, two = drive.of(events.MovieSettled)
    assert (one.metadata, two.metadata) == ("own", "inherited")
    assert two.sources["pixel_size_A"] == two.sources["dose_e_A2"] == "inherited"
    again = drive.restarted(config(), tree)
    tree.put("two.tif.mdoc", mdoc(section("two.tif", ExposureDose="44")))
    again.run(10.0)
    (updated,) = again.of(events.MovieUpdated)
    assert updated.movie == "two" and "dose_e_A2" in updated.changed
    (body,) = again.of(events.MovieSettled)
    assert (body.metadata, body.dose_e_A2, body.sources["dose_e_A2"]) == ("own", 44.0, "mdoc")
    again.run(100.0)
    assert len(again.of(events.MovieSettled)) == 1


def test_a_tilt_whose_series_mdoc_comes_late_gets_its_place_in_the_series():
    drive = Drive(config(), tree := MemoryTree())
    for name in ("one", "two"):
        tree.put(f"{name}.tif", MOVIE)
    tree.put("one.tif.mdoc", mdoc(section("one.tif")))
    drive.run(80.0)
    assert [body.metadata for body in drive.of(events.MovieSettled)] == ["own", "inherited"]
    tilts = [section(f"{name}.tif", number=n, kind="ZValue", TiltAngle=f"{3 * n}", ExposureDose="3")
             for n, name in enumerate(("zero", "two"))]  # fmt: skip
    title = "[T = SerialEM: Krios]\n\n[T =     Tilt axis angle = 84.3, binning = 1  spot = 6]"
    tree.put("TS.mrc.mdoc", mdoc(*tilts, title=title, extra="ImageFile = TS.mrc\n"))
    drive.run(20.0)
    body = drive.of(events.MovieSettled)[-1]
    assert (body.movie, body.tilt_series, body.tilt_index) == ("two", "TS.mrc.mdoc", 1)
    assert (body.metadata, body.tilt_angle_deg, body.dose_e_A2) == ("own", 3.0, 3.0)


def test_mdocs_and_movies_may_lie_on_different_roots():
    roots = [{"path": "/camera", "role": "movies"}]
    tree, camera = MemoryTree(), MemoryTree()
    camera.put("user/frames/a.tif", MOVIE)
    tree.put("a.tif.mdoc", mdoc(section("a.tif")))
    tree.put("b.tif.mdoc", mdoc(section("b.tif")))
    drive = Drive(config(roots=roots), tree, trees={"/camera": camera})
    drive.run(70.0)
    assert drive.codes() == {"b": Code.NO_MOVIE}
    camera.put("user/frames/b.tif", MOVIE)
    drive.run(10.0)
    settled = {body.movie: body for body in drive.of(events.MovieSettled)}
    assert set(settled) == {"user/frames/a", "b"}, "an orphan that was told keeps its name"
    assert all(body.link == "Movies_2" for body in settled.values())
    assert settled["b"].path == "user/frames/b.tif"


def test_real_mdocs_are_paired_with_the_movies_they_name():
    drive = Drive(config(), tree := MemoryTree())
    folder = shared(SAMPLES)
    tree.put("TS_41.mrc.mdoc", (folder / "tilt_series/TS_41.mrc.mdoc").read_bytes())
    tree.put("frames/agro-1_130_048_-67.0.tif", b"frames|26END")
    tree.put("s_mmm.tif.mdoc", (folder / "frames/frame_set_single.mdoc").read_bytes())
    tree.put("frames/S_mmm_00993_33.0_Oct08_07.39.05.tif", MOVIE)
    tree.put("m.mrc.mdoc", (folder / "montage/montage_section.mdoc").read_bytes())
    drive.run(20.0)
    settled = {body.movie.rpartition("/")[2]: body for body in drive.of(events.MovieSettled)}
    tilt = settled["agro-1_130_048_-67.0"]
    assert tilt.tilt_series == "TS_41.mrc.mdoc" and tilt.tilt_angle_deg == pytest.approx(-66.9998)
    assert tilt.pre_exposure_e_A2 == pytest.approx(129.755)
    assert settled["S_mmm_00993_33.0_Oct08_07.39.05"].pixel_size_A == pytest.approx(1.2827)


@pytest.mark.parametrize("dialect", ["classic", "modern"])
def test_a_simulated_session_is_published_as_it_was_taken(tmp_path: Path, dialect: str):
    raw = tmp_path / "run7"
    recipe = replace(load_recipe("tiny"), n_exposures=4, pool=1)
    simulate_serialem_session(recipe, raw, seed=3, dialect=dialect, realtime=False)
    drive = Drive(config(raw=str(raw), backlog=True, close_when_idle=True))
    drive.run_until(lambda state: state.closed, 60.0)
    settled = drive.of(events.MovieSettled)
    assert len(settled) == 4 and not drive.codes()
    for body in settled:
        assert body.n_frames == recipe.n_frames and body.pixel_size_A == recipe.pixel_size_A
        assert body.dose_per_frame_e_A2 == pytest.approx(recipe.dose_per_frame_e_A2, rel=1e-4)
        assert body.gain_path and "CountRef" in body.gain_path
        assert body.software == "SerialEM" and body.metadata == "own"
    times = [body.acquired_at for body in settled]
    assert times == sorted(times) and all(times)
