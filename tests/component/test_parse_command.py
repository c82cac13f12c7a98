"""`mdcatch parse`: every kind of file, as a table and as JSON; one line and exit code 1 else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from mdcatch import cli
from mdcatch.parsers.fields import FIELDS
from tests.epu_tree import image_xml, stem
from tests.metadata import Sample, one_of_each, same, samples

EACH = [*one_of_each("epu"), *one_of_each("serialem"), *one_of_each("tomo5")]
EACH += [*one_of_each("mrc"), *samples("synthetic")]


def parse(*arguments: str | Path, columns: int = 80) -> Result:
    terminal = {"COLUMNS": str(columns)}
    return CliRunner().invoke(cli.app, ["parse", *map(str, arguments)], env=terminal)


def check_json(sample: Sample) -> None:
    shown = parse(sample.path, "--json")
    assert shown.exit_code == 0, shown.output
    got = json.loads(shown.output)
    assert got["file"] == sample.path.name
    for key, wanted in sample.expected.items():
        assert key in got, key
        if key != "notes":
            assert same(got[key], wanted, key), f"{key}: {got[key]!r:.200} not {wanted!r:.200}"


@pytest.mark.parametrize("sample", EACH, ids=lambda s: s.path.name)
def test_json_has_the_keys_and_values_of_the_reference_result(sample: Sample):
    check_json(sample)


@pytest.mark.slow
@pytest.mark.parametrize("sample", samples(), ids=lambda s: s.path.name)
def test_json_of_every_sample(sample: Sample):
    check_json(sample)


@pytest.mark.parametrize("sample", EACH[::3], ids=lambda s: s.path.name)
def test_the_table_names_every_field_with_its_unit_and_source(sample: Sample):
    shown = parse(sample.path)
    assert shown.exit_code == 0
    assert max(map(len, shown.output.splitlines())) <= 80
    sources = json.loads(parse(sample.path, "--json").output)["sources"]
    wide = parse(sample.path, columns=200).output.splitlines()
    rows = {line.split()[0]: line for line in wide if line.startswith("  ") and line.split()}
    for key, source in sources.items():
        assert rows[key].rstrip().endswith(source) and f" {FIELDS[key].unit}" in rows[key]


def test_values_units_and_sources(tmp_path: Path):
    folder = tmp_path / "GridSquare_42" / "Data"
    folder.mkdir(parents=True)
    file = folder / f"{stem()}.xml"
    file.write_bytes(image_xml(factor=2))
    rows = {x.split()[0]: x.split()[1:] for x in parse(file).output.splitlines() if x.split()}
    assert rows["pixel_size_A"] == ["0.5", "A", "computed"]
    assert rows["image_pixel_size_A"] == ["1", "A", "xml"]
    assert rows["grid_square_id"] == ["42", "name"]
    assert rows["movie_size_px"] == ["128,", "96", "px", "computed"]
    assert rows["counting"] == ["yes", "xml"]
    assert rows["slit_width_eV"] == ["unknown", "eV", "-"]
    got = json.loads(parse(file, "--json").output)
    assert got["kind"] == "exposure" and got["voltage_kV"] == 300.0
    assert got["slit_width_eV"] is None and "slit_width_eV" not in got["sources"]


def test_the_folders_count_even_when_the_path_is_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "GridSquare_7" / "Data"
    folder.mkdir(parents=True)
    (folder / f"{stem()}.xml").write_bytes(image_xml())
    monkeypatch.chdir(folder)
    assert json.loads(parse(f"{stem()}.xml", "--json").output)["grid_square_id"] == "7"
    # A person may give a link: it is what they asked for.
    (tmp_path / "link.xml").symlink_to(folder / f"{stem()}.xml")
    assert json.loads(parse(tmp_path / "link.xml", "--json").output)["grid_square_id"] is None


def test_unknown_keys_and_notes_are_shown_harmlessly(tmp_path: Path):
    file = tmp_path / f"{stem()}.xml"
    extra = (
        "<a:KeyValueOfstringanyType><a:Key>Site[bold]Note[/bold]</a:Key>"
        "<a:Value>[red]kept[/red]</a:Value></a:KeyValueOfstringanyType>"
        "<a:KeyValueOfstringanyType><a:Key>BinaryResult.Detector</a:Key>"
        "<a:Value>BM-Ceta</a:Value></a:KeyValueOfstringanyType>"
    )
    file.write_bytes(image_xml(extra=extra))
    output = parse(file).output
    assert "[red]kept[/red]" in output and "Site[bold]" in output
    assert "detector_conflict: detector is 'EF-CCD'" in output


def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path):
    (tmp_path / "cut.xml").write_bytes(image_xml()[:100])
    (tmp_path / "empty.mrc").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "dtd.xml").write_bytes(b"<!DOCTYPE a><MicroscopeImage/>")
    (tmp_path / "voltage.xml").write_bytes(image_xml(voltage_V="-1"))
    for name, word in (
        ("cut.xml", "TRUNCATED"),
        ("empty.mrc", "EMPTY_FILE"),
        ("notes.txt", "UNSUPPORTED"),
        ("dtd.xml", "XML_DTD"),
        ("voltage.xml", "voltage_kV is '-1'"),
        (".", "BAD_NAME"),
        ("absent.xml", "No such file"),
        ("cut.xml/x", "Not a directory"),
    ):
        for options in ((), ("--json",)):
            shown = parse(tmp_path / name, *options)
            assert shown.exit_code == 1
            assert word in shown.output and len(shown.output.strip().splitlines()) == 1
    assert parse().exit_code == 2
    assert parse(tmp_path / "cut.xml", "--jsno").exit_code == 2


def test_the_program_itself(tmp_path: Path):
    file = tmp_path / f"{stem()}.xml"
    file.write_bytes(image_xml())
    program = Path(sys.executable).with_name("mdcatch")
    done = subprocess.run([program, "parse", file, "--json"], capture_output=True, timeout=60)
    assert done.returncode == 0 and json.loads(done.stdout)["voltage_kV"] == 300.0
    assert done.stderr == b""
    missing = subprocess.run([program, "parse", tmp_path / "x"], capture_output=True, timeout=60)
    assert missing.returncode == 1 and missing.stdout == b""
