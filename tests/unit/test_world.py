"""Facts about real files: counts that agree with reading, kept until the file changes."""

import os
import time

import pytest

from algorithms.formats import star
from schemer import world as worlds
from schemer.errors import SchemeError
from schemer.scheme import Edge, FloatVariable, Operator, Scheme
from schemer.state import initial
from schemer.world import ProjectWorld
from tests.shared import shared

ROWS = 100_000


@pytest.fixture
def world(tmp_path):
    return ProjectWorld(tmp_path, retry_s=0.0)


def put(world, path, text):
    """Write a file, with a time stamp of some while ago so that what is read may be kept."""
    file = world.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    old = time.time_ns() - 10_000_000_000
    os.utime(file, ns=(old, old))
    return file


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    columns = {f"rlnC{i}": ["1.234567"] * ROWS for i in range(20)}
    columns["rlnMicrographName"] = [f"MotionCorr/job002/m{i:06d}.mrc" for i in range(ROWS)]
    optics = star.Table({"rlnOpticsGroup": ["1"]})
    tables = {"optics": optics, "micrographs": star.Table(columns)}
    star.save(root / "mics.star", tables, durable=False)
    old = time.time_ns() - 10_000_000_000
    os.utime(root / "mics.star", ns=(old, old))
    return root


# Counting


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("", {}),
        ("\n# a comment\n \n", {}),
        ("data_x\n_a 1\n_b 2\n", {"x": 1}),
        ("data_x\nloop_\n_a\n_b\n1 2\n3 4\n", {"x": 2}),
        ("data_x\nloop_\n_a\n_b\n1 2\n3 4", {"x": 2}),
        (
            "data_x\nloop_ \n_a #1 \n# c\n\n_b #2 \n\n1 2\n \t\n3 4\ndata_y\n_c 1\n",
            {"x": 1, "y": 1},
        ),
        ("data_x \r\nloop_\r\n_a\r\n1\r\n2\r\n\r\ndata_x\r\n_b 1\r\n", {"x": 2}),
        ("data_\nloop_\n_a\n1\n", {"": 1}),
        ("data_x\nloop_\n_a\n\n# version 30001\n\ndata_y\n_c 1\n", {"x": 0, "y": 1}),
        ("data_x\nloop_\n_a\n  data_y\n_c 1\n", {"x": 0, "y": 1}),
        ("data_x\nloop_\n_a\n'data_y b'\n\"# no comment\"\n", {"x": 2}),
        ("data_x\nloop_\n_a\n1 # two\n", {"x": 1}),
        ("data_x\n_a \"#\"\n_b ''\n", {"x": 1}),
        ("data_x\n\ndata_y\n", {"x": 0, "y": 0}),
        ("data_x\nloop_\t\n_a\n1\n", {"x": 1}),
    ],
)
def test_rows_are_counted_as_they_are_read(tmp_path, text, counts):
    file = tmp_path / "a.star"
    file.write_bytes(text.encode())
    assert star.count_rows(file) == counts
    assert {name: len(table) for name, table in star.load(file).items()} == counts


@pytest.mark.parametrize(
    "text", ["loose\n", "data_x\nloose\n", "data_x\n_a\0b 1\n", "\0", "\x0b", "data_x\n\x1c\n"]
)
def test_what_cannot_be_counted(tmp_path, text):
    file = tmp_path / "a.star"
    file.write_text(text)
    for read in (star.count_rows, star.load):
        with pytest.raises(star.StarError, match=r"a\.star"):
            read(file)


def test_rows_of_real_files():
    files = sorted(shared("data").rglob("*.star"))
    assert files
    for path in files:
        try:
            expected = {name: len(table) for name, table in star.load(path).items()}
        except star.StarError:
            continue  # one that RELION cannot read either
        assert star.count_rows(path) == expected, path


def test_a_hundred_thousand_rows_are_counted_in_a_moment(big):
    begun = time.perf_counter()
    assert star.count_rows(big / "mics.star") == {"optics": 1, "micrographs": ROWS}
    assert time.perf_counter() - begun < 0.3  # 0.015 s here


def test_count_images(world):
    optics = "data_optics\n_rlnOpticsGroup 1\n\n"
    put(world, "new.star", optics + "data_micrographs\nloop_\n_a\n1\n2\n")
    put(world, "old.star", "data_images\nloop_\n_a\n1\n2\n3\n")
    put(world, "many.star", "data_a\n_x 1\n\ndata_b\n_x 1\n")
    put(world, "empty.star", "")
    put(world, "bad.star", "loose")
    assert world.count_images("new.star", "micrographs") == 2
    assert world.count_images("new.star", "particles") == 0
    assert world.count_images("old.star", "particles") == 3
    assert world.count_images("many.star", "particles") == 0
    assert world.count_images("empty.star", "particles") == 0
    assert world.count_images("gone.star", "particles") == 0
    with pytest.raises(SchemeError, match=r"bad\.star"):
        world.count_images("bad.star", "particles")
    with pytest.raises(SchemeError, match="does not exist"):
        world.count_images(".", "particles")


# Keeping


def test_a_file_is_read_again_only_after_it_changed(world, monkeypatch):
    calls = []
    count = star.count_rows
    monkeypatch.setattr(star, "count_rows", lambda file: calls.append(file) or count(file))
    put(world, "m.star", "data_x\nloop_\n_a\n1\n2\n")
    assert [world.count_images("m.star", "x") for _ in range(5)] == [2] * 5
    assert len(calls) == 1
    put(world, "m.star", "data_x\nloop_\n_a\n1\n2\n3\n")
    assert world.count_images("m.star", "x") == 3
    # Changed just now: it may change again within the same time stamp.
    (world.root / "m.star").write_text("data_x\nloop_\n_a\n1\n")
    now = time.time_ns() + 10**9
    os.utime(world.root / "m.star", ns=(now, now))
    calls.clear()
    assert [world.count_images("m.star", "x") for _ in range(3)] == [1] * 3
    assert len(calls) == 3


def test_little_is_kept(world):
    for number in range(200):
        put(world, f"{number}.star", "data_x\n_a 1\n")
        world.count_images(f"{number}.star", "x")
    assert len(world._known) == worlds._KEPT


def test_100_000_micrographs_cost_a_transition_nothing(big):
    """Operators beside a large file take as long as beside none."""
    from schemer.operators import execute

    scheme = Scheme(
        name="Schemes/me/",
        floats={"n": FloatVariable(0, 0)},
        operators={"COUNT": Operator("float=count_images", "n", "file", "table")},
        edges=(Edge("COUNT", "COUNT"),),
    )
    state, world = initial(scheme), ProjectWorld(big)
    state.strings = {"file": "mics.star", "table": "micrographs"}
    assert execute(scheme, "COUNT", state, world).sets == (("float", "n", float(ROWS)),)
    begun = time.perf_counter()
    for _ in range(1000):
        execute(scheme, "COUNT", state, world)
    assert time.perf_counter() - begun < 0.5  # 15 us each here


def test_columns_are_kept_too(big, monkeypatch):
    world = ProjectWorld(big)
    column = world.column("mics.star", "micrographs", "rlnMicrographName")
    assert len(column) == ROWS and column[1] == "MotionCorr/job002/m000001.mrc"
    monkeypatch.setattr(star, "load", None)
    assert world.column("mics.star", "micrographs", "rlnMicrographName") is column


def test_columns_that_are_not_there(world):
    put(world, "m.star", "data_x\n_a 1\n")
    put(world, "bad.star", "loose")
    (world.root / "latin.star").write_bytes(b"data_x\n_a \xe5\n")
    for path, table, label, words in (
        ("gone.star", "x", "a", "does not exist"),
        ("m.star/x", "x", "a", "does not exist"),
        (".", "x", "a", "does not exist"),
        ("nul\0", "x", "a", "cannot be read"),
        ("m.star", "y", "a", "no table 'y'; it has x"),
        ("m.star", "x", "b", "no column b"),
        ("bad.star", "x", "b", "text before the first"),
        ("latin.star", "x", "b", "not UTF-8"),
    ):
        with pytest.raises(SchemeError, match=words):
            world.column(path, table, label)


# Files and other Schemes


def test_any_path_may_be_asked_for(world, tmp_path):
    put(world, "a/b", "")
    (tmp_path / "broken").symlink_to("gone")
    assert world.file_exists("a") and world.file_exists("a/b") and world.file_exists(str(tmp_path))
    for path in ("", "gone", "a/b/c", "nul\0", "x" * 5000, "broken", "a*"):
        assert not world.file_exists(path)
    assert world.glob("*/b") == ["a/b"] and world.glob("") == [] and world.glob("gone*") == []


JOBS = """data_scheme_jobs
loop_
_rlnSchemeJobNameOriginal
_rlnSchemeJobName
ctffind CtfFind/job003/
later later
"""


def test_only_the_job_table_of_another_scheme_is_read(world):
    path = "Schemes/prep/scheme.star"
    assert world.job_table("prep") is None
    put(world, path, "data_other\nloop_\n_a\n_b\n_c\nragged\n\n" + JOBS)
    assert world.job_table("prep") == {"ctffind": "CtfFind/job003/", "later": "later"}
    put(world, path, "data_x\n_a 1\n")
    assert world.job_table("prep") == {}
    put(world, path, JOBS.replace("_rlnSchemeJobName\n", "_rlnOther\n"))
    with pytest.raises(SchemeError, match="no column rlnSchemeJobName"):
        world.job_table("prep")


@pytest.mark.parametrize("torn", ["", JOBS[:40], JOBS[10:]])
def test_a_file_that_is_just_being_rewritten_is_read_again(tmp_path, monkeypatch, torn):
    world = ProjectWorld(tmp_path, retry_s=1.0)
    put(world, "Schemes/prep/scheme.star", torn)
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            put(world, "Schemes/prep/scheme.star", JOBS)

    monkeypatch.setattr(worlds.time, "sleep", pause)
    assert world.job_table("prep")["ctffind"] == "CtfFind/job003/"
    assert pauses == [1.0, 1.0]


def test_waiting_for_another_scheme_ends(tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(worlds.time, "sleep", pauses.append)
    world = ProjectWorld(tmp_path)
    put(world, "Schemes/prep/scheme.star", "")
    assert world.job_table("prep") == {} and pauses == [1.0] * 5
    put(world, "Schemes/prep/scheme.star", "loose")
    with pytest.raises(SchemeError, match="text before the first"):
        world.job_table("prep")
