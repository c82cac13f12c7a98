"""The scanning generator on scripted ticks, the thread that may hang, sessions listed by names."""

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from mdcatch import sessions_command
from mdcatch.config import MdcatchConfig
from mdcatch.daemon import build
from mdcatch.disk import Disk, is_unwritten
from mdcatch.hints import Accelerator
from mdcatch.ledger import State
from mdcatch.parsers.child import ParserChild
from mdcatch.patience import Patient
from mdcatch.roots import RootConfig
from mdcatch.sessions import SessionScanner
from mdcatch.settle import Facts
from mdcatch.show import Shower, status_file
from mdcatch.stimuli import RootFound, RootLost, Stimulus
from mdcatch.watcher import Found, Rhythm, Sighting, Tick, watch
from services.kit import events
from services.kit.errors import Misuse, Refused
from services.kit.paths import Layout
from tests.epu_tree import FOLDER, Drive, MemoryTree, close_drives, image_xml, stem
from tests.shared import shared

RHYTHM = Rhythm(sweep_s=10.0, full_walk_s=60.0)


@pytest.fixture(autouse=True)
def closed_drives() -> Iterator[None]:
    """Close what a test opened."""
    yield
    close_drives()


class Script:
    """A generator that is driven tick by tick, and what it asked of the tree."""

    def __init__(self, tree: MemoryTree):
        self.tree, self.listed = tree, list[str]()
        entries = tree.entries

        def noted(folder: str) -> list:
            self.listed.append(folder)
            return entries(folder)

        tree.entries = noted  # type: ignore[method-assign]
        self.scan = watch(tree, RHYTHM)
        assert next(self.scan) == Sighting()

    def tick(self, now: float, *hints: str, gone: tuple[str, ...] = ()) -> list[str]:
        self.listed.clear()
        sighting = self.scan.send(Tick(now, frozenset(hints), gone))
        assert not sighting.lost
        return [one.path for one in sighting.found]


class QuietTree(MemoryTree):
    """Folders have times of their own, which only tell of names that come and go."""

    def changed(self, folder: str) -> int:
        self._cached("changed", folder, lambda: 1)  # raises when the share is gone
        return hash(tuple(entry.name for entry in self._entries(folder)))


# ---- the generator


def test_each_file_is_found_once_and_a_quiet_tree_is_not_listed():
    script = Script(tree := QuietTree())
    tree.put("a/b/one", b"")
    assert script.tick(0.0) == ["a/b/one"]
    assert script.tick(1.0) == [] and script.tick(5.0) == []
    script.tick(5.5)
    assert script.listed == [], "nothing has changed"
    tree.put("a/b/two", b"")
    assert script.tick(6.0) == ["a/b/two"]
    assert script.tick(70.0) == [] and len(script.listed) == 3, "a full walk lists everything"


def test_a_changed_folder_is_listed_for_a_while_because_clocks_tick_slowly():
    script = Script(tree := QuietTree())
    tree.put("a/one", b"")
    script.tick(0.0)
    tree.changed = lambda folder: 5  # type: ignore[method-assign]
    script.tick(5.0)
    tree.put("a/two", b"")  # within one tick of the file system's clock
    assert script.tick(6.0) == ["a/two"]


def test_a_hint_makes_a_cold_folder_news_at_once_and_without_one_a_sweep_finds_it():
    script = Script(tree := QuietTree())
    for number in range(40):
        tree.put(f"square{number:02d}/one", b"")
    assert len(script.tick(0.0)) == 40
    script.tick(3.0)
    found: dict[str, float] = {}
    tree.put("square07/hinted", b"")
    assert script.tick(4.0, "square07") == ["square07/hinted"]
    for folder in ("square03", "square33"):
        tree.put(f"{folder}/late", b"")
    for now in range(5, 20):
        found |= dict.fromkeys(script.tick(float(now)), float(now))
    assert set(found) == {"square03/late", "square33/late"}
    assert max(found.values()) <= 14.0, "not later than the next sweep"


def test_temporary_and_hidden_names_are_nothing():
    script = Script(tree := MemoryTree())
    names = [".x.Ab12Cd", "~x", "x.part", "x.tmp", "x.filepart", "x.crdownload", "x.downloading"]
    for name in [*names, ".hidden/x", "x.tiff"]:
        tree.put(f"a/{name}", b"")
    assert script.tick(0.0) == ["a/x.tiff"]
    tree.move("a/.x.Ab12Cd", "a/y.tiff")
    assert script.tick(0.5) == ["a/y.tiff"]


def test_a_file_that_is_replaced_is_told_and_one_that_comes_back_is_found_again():
    tree = MemoryTree()
    tree.put("a/one", b"")
    scan = watch(tree, RHYTHM)
    next(scan)
    assert scan.send(Tick(0.0)).found == (Found("a/one", True),)
    tree.inodes += 1
    tree.put("a/one", b"x")
    assert scan.send(Tick(1.0)).found == (Found("a/one", True, True),)
    tree.remove("a/one")
    # Made again with the same inode before the folder is listed: only the looker knows it was gone.
    tree.put("a/one", b"y")
    assert scan.send(Tick(2.0, gone=("a/one",))).found == (Found("a/one", True),)


@pytest.mark.parametrize("way", ["gone", "empty"])
def test_a_root_that_is_gone_or_empty_is_lost_and_nothing_is_forgotten(way: str):
    tree = MemoryTree()
    tree.put("a/one", b"")
    scan = watch(tree, RHYTHM)
    next(scan)
    scan.send(Tick(0.0))
    files, tree.files = tree.files, {} if way == "empty" else tree.files
    tree.gone = way == "gone"
    tree.ticks += 1
    for now in (1.0, 100.0):
        assert scan.send(Tick(now)).lost
    tree.files, tree.gone = files, False
    tree.ticks += 1
    assert scan.send(Tick(101.0)) == Sighting()


def test_folders_of_other_sessions_are_not_entered():
    tree = MemoryTree()
    for folder in ("mine", "other"):
        tree.put(f"{folder}/x", b"")
    scan = watch(tree, RHYTHM, lambda name: name == "other")
    next(scan)
    assert scan.send(Tick(0.0)).found == (Found("mine/x", True),)


# ---- disk and kernel


def test_the_ends_of_a_file_tell_whether_it_is_written_to_its_end(tmp_path: Path):
    data = os.urandom(200_000)
    whole, half, blank = data, data[:100_000].ljust(200_000, b"\0"), bytes(200_000)
    for content, unwritten in ((whole, False), (half, True), (blank, False)):
        assert is_unwritten(len(content), content[:65_536], content[-65_536:]) is unwritten
    path = tmp_path / "m.mrc"
    path.write_bytes(whole)
    with ParserChild([tmp_path]) as child:
        disk = Disk(tmp_path, child)
        facts = disk.facts("m.mrc")
        assert facts is not None and disk.ends("m.mrc", facts) is not None
        assert disk.ends("m.mrc", facts._replace(inode=5)) is not None
        assert disk.ends("m.mrc", Facts(5, 5, 5)) is None
        (tmp_path / "away").symlink_to(tmp_path)
        with pytest.raises(Refused, match="BAD_NAME"):
            disk.ends("away/m.mrc", facts)


def test_raw_events_name_the_files_and_wake_once_per_burst(tmp_path: Path):
    woken: list[float] = []
    accelerator = Accelerator(tmp_path, lambda: woken.append(time.monotonic()))
    try:
        assert accelerator.is_running
        (tmp_path / "a").mkdir()
        time.sleep(0.3)
        accelerator.take()
        woken.clear()
        for number in range(20):
            (tmp_path / "a" / f"{number}.tiff").write_bytes(b"x")
        deadline = time.monotonic() + 5.0
        paths: set[str] = set()
        while len(paths) < 20 and time.monotonic() < deadline:
            time.sleep(0.05)
            paths |= {path for path in accelerator.take() if path.endswith(".tiff")}
        assert paths == {f"a/{number}.tiff" for number in range(20)}
        assert 1 <= len(woken) <= 12
    finally:
        accelerator.close()
    assert not accelerator.is_running
    nowhere = Accelerator(tmp_path / "none", woken.clear)
    assert not nowhere.is_running and nowhere.take() == frozenset()
    nowhere.close()


def test_a_rename_into_place_is_published_soon(tmp_path: Path):
    raw = tmp_path / "session1"
    data = raw / FOLDER
    data.mkdir(parents=True)
    config = MdcatchConfig(raw=str(raw), settle_s=0.3, poll_s=30.0)
    service, source = build(config)
    state, woken = service.empty(), threading.Event()
    source.open(woken.set)
    settled: list[events.MovieSettled] = []
    try:
        due, deadline, step = 0.0, time.monotonic() + 20.0, 0
        while not settled and time.monotonic() < deadline:
            woken.wait(min(0.5, max(0.0, due - time.monotonic())))
            woken.clear()
            stimuli, due = source.poll(time.monotonic(), state)
            for stimulus in stimuli:
                for body in service.decide(state, stimulus):
                    service.apply(state, body, time.time())
                    settled += [body] if isinstance(body, events.MovieSettled) else []
            step += 1
            if step == 3:
                from tests.component.test_mdcatch import write_movie

                hidden = data / f".{stem()}_fractions.tiff.Ab12Cd"
                write_movie(hidden.with_name("x.tiff"))
                hidden.with_name("x.tiff").rename(hidden)
                (data / f"{stem()}.xml").write_bytes(image_xml())
                hidden.rename(data / f"{stem()}_fractions.tiff")
                begun = time.monotonic()
    finally:
        source.close()
    assert len(settled) == 1 and time.monotonic() - begun < 5.0


# ---- a source that hangs


class Hanging:
    """A source whose polls take as long as a test wants."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.polls = 0
        self.error: Exception | None = None

    def open(self, wake) -> None:
        self.wake = wake

    def poll(self, now: float, state: State) -> tuple[list[Stimulus], float]:
        self.polls += 1
        self.go.wait(20.0)
        if self.error is not None:
            raise self.error
        return [RootLost(detail=f"poll {self.polls}", root="/x")], now + 1.0

    def tell(self, order: Stimulus) -> None: ...

    def close(self) -> None:
        self.go.set()


def test_a_poll_that_hangs_does_not_hold_the_host_up_and_is_told_once():
    source, woken = Hanging(), threading.Event()
    patient = Patient(source, prompt_s=0.02, hang_s=10.0)
    patient.open(woken.set)
    try:
        assert patient.poll(0.0, State())[0] == [RootLost(detail="poll 1", root="/x")]
        source.go.clear()
        begun = time.monotonic()
        told = [patient.poll(now, State())[0] for now in (1.0, 2.0, 12.0, 13.0)]
        assert time.monotonic() - begun < 1.0 and source.polls == 2
        assert told[:2] == [[], []] and told[3] == []
        (lost,) = told[2]
        assert isinstance(lost, RootLost) and "11 s" in lost.detail
        source.go.set()
        assert woken.wait(5.0), "the host is woken when the answer is there"
        answer, due = patient.poll(14.0, State())
        assert answer == [RootFound(), RootLost(detail="poll 2", root="/x")] and due == 2.0
    finally:
        patient.close()


def test_an_error_of_the_source_is_the_hosts():
    source = Hanging()
    source.error = Misuse("wrong")
    patient = Patient(source)
    patient.open(lambda: None)
    with pytest.raises(Misuse):
        patient.poll(0.0, State())
    patient.close()


@pytest.mark.parametrize(
    "roots", [[{"path": "relative"}], [{"path": "/"}], [{"path": "/data/s"}], [{"path": "/a/../b"}]]
)
def test_roots_that_are_none_are_misuse(roots: list[dict]):
    config = msgspec.convert({"raw": "/data/s", "roots": roots}, MdcatchConfig)
    with pytest.raises(Misuse, match=r"roots is|twice"):
        build(config)


# ---- what is shown


def test_links_and_status_are_written_into_the_project(tmp_path: Path):
    layout = Layout(tmp_path / "project")
    layout.make()
    meta, cam = MemoryTree(), MemoryTree()
    folder = "Supervisor_20250130_145409_grid1"
    meta.put(f"{folder}/{FOLDER}/{stem()}.xml", image_xml())
    meta.put(f"{folder}/{FOLDER}/{stem(number=1)}.xml", image_xml())
    cam.put(f"{folder}/{FOLDER}/{stem()}_fractions.tiff", b"frames END")
    root = RootConfig(path="/camera/disk", role="movies")
    config = MdcatchConfig(raw="/meta", role="metadata", roots=(root,), inotify=False)
    drive = Drive(config, meta, trees={"/camera/disk": cam})
    drive.run(90.0)
    show = Shower(layout)
    show(drive.state, everything=True)
    assert os.readlink(layout.project / "Movies_2") == "/camera/disk"
    assert not os.path.lexists(layout.project / "Movies"), "that one is made when the project is"
    status = json.loads(status_file(layout).read_text())
    assert status["counts"] == {
        "exposures": 2, "pending": 0, "waiting": 1, "settled": 1, "refused": 0
    }  # fmt: skip
    (orphan,) = status["orphans"]
    assert orphan["lacks"] == "NO_MOVIE" and orphan["age_s"] > 1e6
    assert [r["observer"] for r in status["roots"]] == ["inotify and polling"] * 2
    assert status["squares"][0]["grid_square"] == "4590776"
    (layout.project / "Movies_2").unlink()
    (layout.project / "Movies_2").write_text("in the way")
    with pytest.raises(Misuse, match="in the way"):
        show(drive.state, everything=False)


# ---- sessions


def visit(folder: Path) -> Path:
    """Write the tree of a real beam time with empty files."""
    lines = shared("data/metadata/layout/epu_visit_tree.txt").read_text().splitlines()[1:]
    lines = [line for line in lines if "── " in line]
    parts: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        depth, name = line.index("── ") // 4, line.partition("── ")[2]
        parts = [*parts[:depth], name]
        path = folder.joinpath(*parts)
        has_more = "── " in following and following.index("── ") // 4 > depth
        if "." in name and not has_more:
            path.touch()
        else:
            path.mkdir(exist_ok=True)
    return folder


def test_the_sessions_of_a_real_visit_are_listed_with_their_counts(tmp_path: Path):
    expected = json.loads(
        shared("data/metadata/layout/epu_visit_tree.txt.expected.json").read_text()
    )["sessions"]
    scanner = SessionScanner([RootConfig(path=str(visit(tmp_path)))])
    found = {one.name: one for one in scanner.scan()}
    assert set(found) == set(expected), "the atlas is no session"
    for name, wanted in expected.items():
        assert found[name].exposures == wanted["exposures"]
        assert found[name].squares == wanted["squares_with_exposures"]
    states = {name: one.state for name, one in found.items()}
    assert states["Supervisor_20250130_145409_68"] == "renamed"
    assert states["Supervisor_20250130_150924_1grid3"] == "empty"
    assert states["Supervisor_20250130_105058_11"] == "aborted"
    newest = found["Supervisor_20250129_134723_36_bi37708-28_grid7_EPU"]
    assert (newest.started, newest.last) == ("2025-01-29T15:49:27", "2025-01-29T19:35:03")
    assert newest.metadata.endswith("_20250129_193503.xml")
    keys = [one.key for one in found.values()]
    assert len(set(keys)) == len(keys)
    begun = time.perf_counter()
    again = scanner.scan()
    assert time.perf_counter() - begun < 0.1, "folders that did not change are not listed again"
    assert [one.exposures for one in again] == [found[one.name].exposures for one in again]
    few = SessionScanner([RootConfig(path=str(tmp_path))]).scan(most=3)
    assert len(few) == len(found) and [one.exposures for one in few].count(None) == 5


def test_a_new_exposure_and_a_new_session_show_in_the_next_list():
    tree = MemoryTree()
    name = "Supervisor_20250130_145409_grid1"
    tree.put(f"krios1/{name}/{FOLDER}/{stem()}.xml", b"")
    scanner = SessionScanner([RootConfig(path="/meta")], {"/meta": tree})
    (one,) = scanner.scan()
    assert (one.name, one.raw, one.exposures) == (name, f"/meta/krios1/{name}", 1)
    tree.put(f"krios1/{name}/{FOLDER}/{stem(number=1)}.xml", b"")
    tree.put(f"krios1/{name}/{FOLDER}/{stem(number=1)}_fractions.tiff", b"")
    tree.put(f"krios1/Supervisor_20250131_090000_next/{FOLDER}/{stem(number=2)}.xml", b"")
    counts = {one.name: (one.exposures, one.movie.rpartition("/")[2]) for one in scanner.scan()}
    assert counts == {
        name: (2, f"{stem(number=1)}_fractions.tiff"),
        "Supervisor_20250131_090000_next": (1, ""),
    }


def test_movies_on_another_root_belong_to_the_session_of_the_same_name_or_start():
    meta, cam = MemoryTree(), MemoryTree()
    name = "Supervisor_20250130_145409_grid1"
    meta.put(f"{name}/{FOLDER}/{stem()}.xml", b"")
    cam.put(f"DoseFractions/{name}_new_name/{FOLDER}/{stem()}_fractions.tiff", b"")
    roots = [RootConfig(path="/meta", role="metadata"), RootConfig(path="/cam", role="movies")]
    (one,) = SessionScanner(roots, {"/meta": meta, "/cam": cam}).scan()
    assert (one.raw, one.movies) == (f"/meta/{name}", f"/cam/DoseFractions/{name}_new_name")
    assert one.metadata.startswith("/meta/") and one.movie.startswith("/cam/")


def test_folders_of_serialem_are_sessions_too():
    tree = MemoryTree()
    for number in range(3):
        movie = f"2024/user/run7/frames/2024-04-14_17.5{number}.51_TS_{number}.tif"
        tree.put(movie, b"")
        tree.put(f"{movie}.mdoc", b"")
    tree.put("2024/user/notes.txt", b"")
    (one,) = SessionScanner([RootConfig(path="/data")], {"/data": tree}).scan()
    assert (one.name, one.raw, one.software) == ("run7", "/data/2024/user/run7", "SerialEM")
    assert (one.exposures, one.started, one.last) == (
        3, "2024-04-14T17:50:51", "2024-04-14T17:52:51"
    )  # fmt: skip


def test_the_command_lists_sessions_as_a_table_and_as_json(tmp_path: Path):
    app = typer.Typer()
    app.callback()(lambda: None)
    sessions_command.register(app)
    data = tmp_path / "Supervisor_20250130_145409_grid1" / FOLDER
    data.mkdir(parents=True)
    (data / f"{stem()}.xml").touch()
    shown = CliRunner().invoke(app, ["sessions", str(tmp_path), "--json"])
    (one,) = json.loads(shown.output)["sessions"]
    assert one["raw"] == str(tmp_path / "Supervisor_20250130_145409_grid1")
    assert one["exposures"] == 1 and one["key"] and one["software"] == "EPU"
    table = CliRunner().invoke(app, ["sessions", str(tmp_path)], env={"COLUMNS": "160"})
    assert table.exit_code == 0 and "Supervisor_20250130_145409_grid1" in table.output
    site = tmp_path / "site.toml"
    site.write_text(f'[roots.epu]\npath = "{tmp_path}"\nrole = "both"\n')
    by_site = CliRunner().invoke(app, ["sessions", "--config", str(site), "--json"])
    assert len(json.loads(by_site.output)["sessions"]) == 1
    wrong = CliRunner().invoke(app, ["sessions", str(tmp_path / "none")])
    assert wrong.exit_code == 2
