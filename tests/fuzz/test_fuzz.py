"""Every fuzz target for a moment; `make fuzz` runs them for ten minutes each."""

import subprocess
import sys
from pathlib import Path

import pytest

from mdcatch.parsers import Record
from services.kit.errors import Code, Refused
from tests.fuzz.harness import Tally, Target, Wrong, check, check_record, run
from tests.fuzz.mutate import CHANGES, SCALE, apply, steps
from tests.fuzz.targets import targets

SECONDS = 1.0


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_a_moment_of_fuzzing_finds_nothing(target: Target, tmp_path: Path):
    tally = run(target, SECONDS, first_seed=20_261_120, folder=tmp_path)
    assert not tally.finding
    assert tally.examples > 20
    for seed in target.seeds:
        check(target, seed, tally)


def failing(data: bytes) -> Record:
    if b"7" in data:
        raise ZeroDivisionError("seven")
    raise Refused(Code.TRUNCATED, "no seven")


def test_a_finding_is_made_small_and_kept(tmp_path: Path):
    tally = run(Target("t", failing, [b"1 2 3 4 5 6"]), 20.0, 1, tmp_path)
    assert "ZeroDivisionError" in tally.finding
    (kept,) = tmp_path.iterdir()
    assert b"7" in kept.read_bytes() and kept.name in tally.finding


def test_what_a_record_must_not_be():
    record = Record(format="a", kind="b")
    record.put("voltage_kV", 300.0, "xml")
    check_record(record)
    for key, value in (("voltage_kV", -1.0), ("binning", float("nan")), ("colour", "red")):
        bad = Record(format="a", kind="b", fields={key: record.fields["voltage_kV"]})
        bad.fields[key] = type(record.fields["voltage_kV"])(value, "xml")
        with pytest.raises((Wrong, Refused)):
            check_record(bad)
    with pytest.raises(Wrong, match="a number is inf"):
        check_record(Record(format="a", kind="b", sections=[{"x": (1.0, float("inf"))}]))


def test_every_change_works_on_any_file():
    for name in CHANGES:
        for seed in (b"", b"1", b"<a>12.5</a>", b"<a>" + b"<b>12.5</b>" * 20 + b"</a>"):
            for first in (0, SCALE // 2, SCALE):
                assert isinstance(apply(seed, (name, first, SCALE - first, 7)), bytes)
    assert apply(b"x=12", ("number", 0, 0, 3)) == b"x=NaN"
    assert apply(b"<a><b/></a>", ("prune", SCALE, 0, 0)) == b"<a/>"
    assert list(steps(b"ab", [("cut", SCALE // 2, 0, 0), ("flip", 0, 0, 48)])) == [b"a", b"0"]


def test_the_program_runs_a_target_in_a_process_of_its_own(tmp_path: Path):
    command = [sys.executable, "-m", "tests.fuzz", "--folder", tmp_path, "--seconds", "0.3"]
    done = subprocess.run([*command, "sample"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sample" in done.stdout and "FINDING" not in done.stdout
    wrong = subprocess.run([*command, "nothing"], capture_output=True, text=True, timeout=120)
    assert wrong.returncode == 2 and "epu-image" in wrong.stderr
    assert Tally("t").finding == ""
