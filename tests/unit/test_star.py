"""STAR files: RELION's dialect, read and written."""

import subprocess
import sys

import numpy as np
import pytest
import starfile

from algorithms.formats import star
from algorithms.formats.star import StarError, Table
from tests.shared import SHARED, shared

# Files that RELION itself cannot read in full, each with what is wrong in it.
BROKEN = {
    "particles/sample.star": "5 values for 4 labels",
    "star/relion5_jobs/default_pipelines__no_input.star": "2 values for 3 labels",
    "star/relion_tutorial/AutoPick/job006/coords_suffix_autopick.star": "before the first data_",
    "star/relion_tutorial/InitialModel/job015/job.star": "12 values for 11 labels",
    "star/relion_tutorial/Class2D/job008/job.star": "12 values for 11 labels",
    "star/relion_tutorial/Refine3D/job019/job.star": "12 values for 11 labels",
}
FILES = sorted((SHARED / "data").rglob("*.star"))


def test_list_and_loop_and_unnamed_block():
    tables = star.loads(
        '\n# version 50001\n\ndata_general\n\n_rlnName   a.mrc\n_rlnEmpty ""\n \n'
        "data_\n\nloop_ \n_rlnX #1 \n_rlnY #2 \n 1.0  2.0 \n 3.0  4.0 \n \n"
    )
    assert tables["general"] == Table({"rlnName": ["a.mrc"], "rlnEmpty": [""]}, loop=False)
    assert tables[""] == Table({"rlnX": ["1.0", "3.0"], "rlnY": ["2.0", "4.0"]})
    assert tables[""].row(1) == {"rlnX": "3.0", "rlnY": "4.0"}
    assert len(tables[""]) == 2


@pytest.mark.parametrize(
    ("row", "values"),
    [
        ("a 'b c' d", ["a", "b c", "d"]),
        ('a "b c" ""', ["a", "b c", ""]),
        ("it's 5' x\"y", ["it's", "5'", 'x"y']),
        ("'a'b' c \"d\"", ["a'b", "c", "d"]),
        ("a#b c d # comment", ["a#b", "c", "d"]),
        ("a\t b \t 'c \t d'", ["a", "b", "c d"]),  # runs of blanks collapse, in quotes too
        ("Ångström a\u00a0b c", ["Ångström", "a\u00a0b", "c"]),
    ],
)
def test_tokens_of_a_row(row, values):
    table = star.loads(f"data_x\nloop_\n_a\n_b\n_c\n{row}\n")["x"]
    assert [table.columns[label] for label in "abc"] == [[value] for value in values]


def test_list_values_keep_their_blanks():
    assert star.loads("data_x\n_a 'b  c'\n")["x"].columns == {"a": ["b  c"]}


def test_loop_ends_at_a_blank_line():
    tables = star.loads("data_x\nloop_\n_a\n_b\n1 2\n \n3 4\ndata_y\n_c 1\n")
    assert tables["x"].columns == {"a": ["1"], "b": ["2"]}
    assert tables["y"].columns == {"c": ["1"]}


def test_missing_last_value_of_two_columns_is_empty():
    table = star.loads("data_x\nloop_\n_a\n_b\nfn_in\nangpix 1\n")["x"]
    assert table.columns == {"a": ["fn_in", "angpix"], "b": ["", "1"]}


def test_crlf_tabs_and_the_first_of_two_blocks():
    tables = star.loads("data_x \r\nloop_\r\n_a\r\n_b\r\n0.1\t0.2\r\n\r\ndata_x\r\n_a 1\r\n")
    assert tables == {"x": Table({"a": ["0.1"], "b": ["0.2"]})}


def test_empty_loop_and_empty_text():
    assert star.loads("") == {}
    tables = star.loads("data_\n\nloop_\n_rlnX #1\n\n# version 30001\n\ndata_b\n_c 1\n")
    assert tables[""] == Table({"rlnX": []})
    assert tables["b"].columns == {"c": ["1"]}


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("data_p\nloop_\n_a\n_b\n_c\n1 2 3\n1 2\n", 7, "2 values for 3 labels"),
        ("data_p\nloop_\n_a\n_b\n_c\n1 2 3\n1 2 3 4\n", 7, "4 values for 3 labels"),
        ("data_p\nloop_\n_a\n_b\n_c\n1 2 3\n# the end\n", 7, "0 values for 3 labels"),
        ("data_p\n_a 1 2\n", 2, "expected `_label value`"),
        ("data_p\n_a 1\nloose\n", 3, "expected `_label value`"),
        ("data_p\n_a 1\n_a 2\n", 3, "appears twice"),
        ("data_p\n_a 1\nloop_\n_b\n1\n", 3, "block of its own"),
        ("data_p\nloop_\n1 2\n", 3, "without labels"),
        ("loose\ndata_p\n", 1, "before the first data_ line"),
    ],
)
def test_errors_name_file_line_and_block(text, line, what):
    with pytest.raises(StarError) as error:
        star.loads(text, "run_data.star")
    assert f"run_data.star: line {line}, block data_" in str(error.value)
    assert what in str(error.value)


def test_hostile_texts(tmp_path, monkeypatch):
    with pytest.raises(StarError, match="NUL"):
        star.loads("data_\0x\n")
    with pytest.raises(StarError, match="more than 1024 columns"):
        star.loads("data_x\nloop_\n" + "".join(f"_c{i}\n" for i in range(2000)))
    with pytest.raises(StarError, match="values for 2 labels"):  # must not take quadratic time
        star.loads("data_x\nloop_\n_a\n_b\n" + '"a ' * 200_000)
    latin = tmp_path / "latin.star"
    latin.write_bytes(b"data_x\n_a \xe5\n")
    with pytest.raises(StarError, match="not UTF-8"):
        star.load(latin)
    monkeypatch.setattr(star, "MAX_BYTES", 5)
    with pytest.raises(StarError, match="more than the limit of 5"):
        star.load(latin)


def test_only_the_blocks_asked_for_are_parsed():
    text = "data_a\n_x 1\n\ndata_b\nloop_\n_y\n_z\n_w\nragged\n\ndata_c\n_v 2\n"
    assert list(star.loads(text, only=("a", "c"))) == ["a", "c"]
    with pytest.raises(StarError):
        star.loads(text)


def test_numbers():
    table = star.loads("data_x\nloop_\n_f\n_i\n18. 3\n1e400 4.000000\n-0.5 -2\n\n")["x"]
    np.testing.assert_array_equal(table.floats("f"), [18, np.inf, -0.5])
    np.testing.assert_array_equal(table.ints("i"), [3, 4, -2])
    assert table.ints("i").dtype == np.int64
    with pytest.raises(StarError, match="not whole numbers"):
        table.ints("f")
    with pytest.raises(StarError, match="no column g; the table has: f, i"):
        table.floats("g")
    with pytest.raises(StarError, match=r"column f: .*None"):
        Table({"f": ["None"]}).floats("f")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.000000"),
        (1.5, "1.500000"),
        (-1.5, "-1.50000"),
        (12345.678901, "12345.678901"),
        (100000.0, "100000.00000"),
        (100001.0, "1.000010e+05"),
        (0.000999, "9.990000e-04"),
        (0.001, "0.001000"),
        (-0.000999, "-9.99000e-04"),
        (-100001.0, "-1.00001e+05"),
    ],
)
def test_floats_are_written_as_relion_does(value, text):
    assert star.format_float(value) == text
    assert Table.of({"a": np.array([value, 2.0])}).strings("a") == [text, "2.000000"]


def test_tables_of_arrays_and_bare_values():
    table = Table.of(
        {"name": ["a", "b"], "n": np.array([1, 2]), "flag": [True, False], "x": [0.25, 1]}
    )
    assert table.columns["n"] == ["1", "2"]
    assert table.columns["flag"] == ["1", "0"]
    assert table.columns["x"] == ["0.250000", "1"]
    assert Table.of({"name": "abc", "x": 1.5}, loop=False).row(0) == {
        "name": "abc",
        "x": "1.500000",
    }
    with pytest.raises(StarError, match="differ in length"):
        Table.of({"a": [1], "b": [1, 2]})
    with pytest.raises(StarError, match="one value per label"):
        Table.of({"a": [1, 2]}, loop=False)


def test_layout_of_what_is_written():
    text = star.dumps(
        {
            "general": Table.of({"rlnA": "x", "rlnLonger": 'two "words"'}, loop=False),
            "": Table.of({"rlnX": [1.5], "rlnName": [""]}),
        }
    )
    assert text == (
        "\n# version 50001\n\ndata_general\n\n"
        "_rlnA                 x\n_rlnLonger            'two \"words\"'\n \n"
        "\n# version 50001\n\ndata_\n\nloop_ \n_rlnX #1 \n_rlnName #2 \n"
        '  1.500000         "" \n \n'
    )


def test_what_no_star_file_can_hold_is_refused():
    for value in ("a\nb", "a\0b", "\"a\" 'b' c"):
        with pytest.raises(StarError, match="column name"):
            star.dumps({"x": Table({"name": [value]})})
    with pytest.raises(StarError, match="holds a blank"):
        star.dumps({"two words": Table({"a": ["1"]})})


def test_empty_tables_stay_out_unless_last():
    empty, full = Table({"a": []}), Table({"a": ["1"]})
    assert star.loads(star.dumps({"e": empty, "f": full})) == {"f": full}
    assert star.loads(star.dumps({"f": full, "e": empty})) == {"f": full, "e": empty}


def test_comments_come_back():
    text = "# RELION optimiser; version 5\n# --i in.star\n\n# version 50001\n\ndata_x\n_a 1\n"
    tables = star.loads(text)
    assert tables["x"].comments == ["# RELION optimiser; version 5", "# --i in.star"]
    assert star.loads(star.dumps(tables)) == tables


def test_save_replaces_the_file(tmp_path):
    path = tmp_path / "job" / "job.star"
    star.save(path, {"job": Table.of({"a": 1}, loop=False)})
    star.save(path, {"job": Table.of({"a": 2}, loop=False)}, version=30001, durable=False)
    assert star.load(path)["job"].ints("a").tolist() == [2]
    assert "# version 30001" in path.read_text()
    assert [entry.name for entry in path.parent.iterdir()] == ["job.star"]


def test_reading_needs_no_numpy():
    code = "import sys, algorithms.formats.star as s; s.loads('data_\\n_a 1\\n'); "
    code += "sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SHARED / "data")))
def test_real_file_comes_back_the_same(path):
    name = str(path.relative_to(SHARED / "data"))
    if name in BROKEN:
        with pytest.raises(StarError, match=BROKEN[name]):
            star.load(path)
        return
    tables = star.load(path)
    assert tables
    assert star.loads(star.dumps(tables)) == tables


def test_old_job_files_read_by_block():
    path = shared("data/star/relion_tutorial/Class2D/job008/job.star")
    tables = star.load(path, only=("job", "joboptions_values"))
    assert tables["job"].strings("rlnJobType") == ["8"]
    assert "fn_img" in tables["joboptions_values"].strings("rlnJobOptionVariable")


def test_scheme_is_rewritten_as_relion_wrote_it():
    path = shared("data/schemes/relion-5.0.1/prep/scheme.star")
    written = star.dumps(star.load(path), version=30001)
    # RELION pads numbers by two more blanks.
    for ours, theirs in zip(written.split("\n"), path.read_text().split("\n"), strict=True):
        assert ours.split() == theirs.split()


def test_starfile_reads_the_same(tmp_path):
    rng = np.random.default_rng(3)
    numbers = np.concatenate([rng.normal(0, 1000, 50), 10 ** rng.uniform(-8, 8, 50)])
    names = [f"{i:08d}@Extract/job006/Movies/a_{i}.mrcs" for i in range(100)]
    star.save(tmp_path / "p.star", {"particles": Table.of({"x": numbers, "rlnImageName": names})})
    frame = starfile.read(tmp_path / "p.star")
    np.testing.assert_allclose(frame["x"], numbers, rtol=2e-5, atol=1e-6)
    assert list(frame["rlnImageName"]) == names
