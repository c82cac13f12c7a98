"""Whatever bytes a file holds, reading it ends soon, in little memory, with a result or a message.

One megabyte of anything: never another error than StarError or SchemeError, never more than a few
seconds, never more than 200 MB.
"""

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from algorithms.formats import star
from schemer import check, starfile
from schemer.errors import SchemeError
from schemer.jobs import JobFile

MEGABYTE = 1_000_000
MEMORY_MB = 200
SECONDS = 5.0
LONGEST = 5000  # letters of a message

GENERAL = "data_scheme_general\n_rlnSchemeName Schemes/x/\n_rlnSchemeCurrentNodeName undefined\n\n"


def loop(block: str, labels: str, rows: str) -> str:
    head = "".join(f"_rlnScheme{label} #{i} \n" for i, label in enumerate(labels.split(), 1))
    return f"\n# version 50001\n\ndata_scheme_{block}\n\nloop_ \n{head}{rows} \n"


FLOATS = "FloatVariableName FloatVariableValue FloatVariableResetValue"
BOOLS = "BooleanVariableName BooleanVariableValue BooleanVariableResetValue"
STRINGS = "StringVariableName StringVariableValue StringVariableResetValue"
OPERATORS = "OperatorName OperatorType OperatorOutput OperatorInput1 OperatorInput2"
JOBS = "JobNameOriginal JobName JobMode JobHasStarted"
EDGES = (
    "EdgeInputNodeName EdgeOutputNodeName EdgeIsFork EdgeOutputNodeNameIfTrue EdgeBooleanVariable"
)
SCHEME = (
    GENERAL
    + loop("floats", FLOATS, "wait_sec 60.000000 180\nx 1e-3 -2.5e+06\n")
    + loop("bools", BOOLS, "big 0 1\nword True no\n")
    + loop("strings", STRINGS, "s \"\" 'a b'\np Schemes/x/work/f.star $$s\n")
    + loop("operators", OPERATORS, "WAIT wait undefined wait_sec undefined\nC bool=gt big x 10\n")
    + loop("jobs", JOBS, "work Class2D/job012/ new 1\n")
    + loop("edges", EDGES, "WAIT C 0 undefined undefined\nC WAIT 1 work big\nwork WAIT 0 u u\n")
    + "data_mine\n_note 'kept' # as it is\n"
)
JOB = (
    "data_job\n\n_rlnJobTypeLabel  relion.import.movies\n_rlnJobIsContinue 0\n"
    "_rlnJobIsTomo 0\n \n\ndata_joboptions_values\n\nloop_ \n_rlnJobOptionVariable #1 \n"
    '_rlnJobOptionValue #2 \nangpix 0.885\nfn_in_raw "Movies/*.tif"\nfn_mtf ""\n \n'
)
PARTICLES = (
    "data_optics\n\nloop_ \n_rlnOpticsGroup #1 \n_rlnOpticsGroupName #2 \n1 'group 1' \n \n\n"
    "data_particles\n\nloop_ \n_rlnCoordinateX #1 \n_rlnImageName #2 \n_rlnDefocusU #3 \n"
    "  1.500000 000001@Extract/job006/m.mrcs 1.0e+04 \n"
    " -2.50000 000002@Extract/job006/m.mrcs      nan \n \n"
)
BASES = (SCHEME, JOB, PARTICLES)
READERS = {
    "star": star.load,
    "rows": star.count_rows,
    "scheme": starfile.read,
    "strict scheme": lambda path: starfile.load(path, strict=True),
    "safe scheme": starfile.load,
    "warnings": lambda path: check.warnings(starfile.read(path)),
}
PIECES = [
    b"\0", b"\xff", b"\xed\xa0\x80", b"\x0b", b"\x1c", b"\xc2\x85", b"\xe2\x80\xa8", b"\r", b"\n",
    b"\n\n", b"\t", b" ", b"'", b'"', b"#", b"_", b"_rln", b"data_", b"loop_", b"\ndata_x\n",
    b"\nloop_\n", b"\n_a\n", b"$$", b"Schemes/", b"undefined", b"1e999", b"nan", b"-", b",,", b"/",
    b"\n# version 1\n",
]  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "scheme.star"


def read_all(file: Path, content: bytes, readers: dict = READERS) -> dict[str, Any]:
    """Read the content in every way; an unexpected error is the failure of the test."""
    file.write_bytes(content)
    results = {}
    for name, read in readers.items():
        try:
            results[name] = read(file)
        except (star.StarError, SchemeError) as error:
            assert len(str(error)) < LONGEST
    return results


@given(st.binary(max_size=400))
@example(b"data_x\n\x0b\n")
@example(b"data_x\nloop_\n_a\n\xe2\x80\xa8\n")
@settings(deadline=None)
def test_any_bytes_are_read_or_refused(file, content):
    read_all(file, content)


# Where, how much to drop, what to put there instead.
edits = st.lists(
    st.tuples(
        st.integers(0, 2000),
        st.integers(0, 40),
        st.one_of(st.sampled_from(PIECES), st.binary(max_size=6)),
    ),
    min_size=1,
    max_size=8,
)


def damaged(base: str, changes: list[tuple[int, int, bytes]]) -> bytes:
    content = base.encode()
    for place, drop, piece in changes:
        place %= len(content) + 1
        content = content[:place] + piece + content[place + drop :]
    return content


@given(st.sampled_from(BASES), edits)
@settings(deadline=None, max_examples=400)
def test_damaged_files_are_read_or_refused(file, base, changes):
    results = read_all(file, damaged(base, changes))
    if "star" in results:
        tables = results["star"]
        assert {name: len(table) for name, table in tables.items()} == results["rows"]
        assert all(
            len({len(values) for values in table.columns.values()}) <= 1
            for table in tables.values()
        )


@given(edits)
@example([(JOB.index("_rlnJobOptionVariable"), 3, b"_x")])
@settings(deadline=None, max_examples=400)
def test_damaged_job_files_are_read_or_refused(file, changes):
    read_all(file, damaged(JOB, changes), {"job": JobFile.load})


@given(st.sampled_from(BASES), st.data())
@settings(deadline=None)
def test_shuffled_lines_are_read_or_refused(file, base, data):
    lines = data.draw(st.permutations(base.splitlines(keepends=True)))
    read_all(file, "".join(lines[: data.draw(st.integers(0, len(lines)))]).encode())


# A megabyte of each


def fill(piece: str, head: str = "") -> str:
    return head + piece * ((MEGABYTE - len(head)) // len(piece))


def count_up(line: str, head: str = "") -> str:
    """Return numbered lines, up to a megabyte."""
    rows = MEGABYTE // (len(line.format(100_000)) + 1)
    return head + "".join(f"{line.format(number)}\n" for number in range(rows))


def scheme_of(block: str, labels: str, row: str) -> str:
    return GENERAL + count_up(row, loop(block, labels, "")[:-2])


def huge() -> dict[str, str | bytes]:
    """Return a megabyte of each kind of trouble."""
    noise = random.Random(5)  # fixed: the same megabyte each time
    words = ["data_", "loop_", "_a", " ", "\n", "'", "#", "1"]
    return {
        "random bytes": noise.randbytes(MEGABYTE),
        "random letters": "".join(noise.choices("ab1_#'\" \t\n", k=MEGABYTE)),
        "random words": "".join(noise.choices(words, k=MEGABYTE // 2)),
        "NULs": "data_x\n" + "\0" * MEGABYTE,
        "line ends": "\n" * MEGABYTE,
        "CR LF": fill("\r\n", "data_x\n"),
        "lone CR": fill("\r", "data_x\n_a 1"),
        "blanks": fill("\t ", "data_x\nloop_\n_a\n1"),
        "one long word": "data_x\n_a " + "a" * MEGABYTE,
        "a long block name": "data_" + "a" * MEGABYTE,
        "a long label": "data_x\n_" + "a" * MEGABYTE,
        "a long version": "# version " + "1" * MEGABYTE + "x",
        "a version with a long end": "# version 1" + " " * MEGABYTE + "x",
        "quotes in a list": fill('"', "data_x\n_a "),
        "quotes in a row": fill("\" '", "data_x\nloop_\n_a\n_b\n_c\n"),
        "quoted words in a row": fill("'\" \"' ", "data_x\nloop_\n_a\n_b\n_c\n"),
        "rows of quotes": fill("'a'\n", "data_x\nloop_\n_a\n"),
        "brackets": fill("[({", "data_x\n_a "),
        "blocks": count_up("data_{}"),
        "blocks with a list": count_up("data_{}\n_a 1"),
        "the same block": fill("data_\n"),
        "loops": fill("loop_\n", "data_x\n"),
        "labels": count_up("_{}", "data_x\nloop_\n"),
        "labels of a list": count_up("_{} 1", "data_x\n"),
        "comments": fill("#a\n", "data_x\n"),
        "short rows": fill("ab\n", "data_x\nloop_\n_a\n"),
        "a wide row": fill("ab ", "data_x\nloop_\n_a\n_b\n"),
        "wide rows": "data_x\nloop_\n" + "".join(f"_{i}\n" for i in range(1024))
                     + ("1 " * 1024 + "\n") * 480,
        "wide letters": "data_x\nloop_\n_a\n" + "\U0001f600\n" * 200_000,
        "strange line ends": "data_x\n_a " + "\u2028" * 330_000,
        "floats": scheme_of("floats", FLOATS, "v{} 1 2"),
        "a long float": GENERAL + loop("floats", FLOATS, f"x {'1' * MEGABYTE} 2\n"),
        "bools": scheme_of("bools", BOOLS, "v{} True 0"),
        "strings": scheme_of("strings", STRINGS, "v{} Schemes/x/j/a Schemes/x/"),
        "operators": scheme_of("operators", OPERATORS, "o{} x a b c"),
        "edges": scheme_of("edges", EDGES, "a{0} b{0} 0 u u"),
        "a chain": scheme_of("edges", EDGES, "WAIT{0} WAIT{0} 1 u u"),
        "jobs": scheme_of("jobs", JOBS, "j{0} j{0} new 0"),
        "unknown columns": GENERAL + "data_scheme_edges\nloop_\n"
                           + "".join(f"_rlnScheme{label}\n" for label in EDGES.split())
                           + "".join(f"_{i}\n" for i in range(1000)) + ("1 " * 1005 + "\n") * 480,
        "options": count_up("o{0} v{0}", JOB[: JOB.index("angpix")]),
        "a long job type": f"data_job\n_rlnJobTypeLabel {'a.' * (MEGABYTE // 2)}\n",
    }  # fmt: skip


# Memory is that of a process of its own, from its start: VmHWM, which no parent adds to.
CHILD = """
import json, sys, time
from pathlib import Path
from algorithms.formats import star
from schemer import starfile
from schemer.errors import SchemeError
from schemer.jobs import JobFile
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))
def strict(path):
    starfile.load(path, strict=True)
found = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    for read in (star.load, star.count_rows, starfile.load, strict, JobFile.load):
        begun, length = time.perf_counter(), 0
        try:
            read(path)
        except (star.StarError, SchemeError) as error:
            length = len(str(error))
        found[f"{path.name}, {read.__qualname__}"] = time.perf_counter() - begun, peak(), length
print(json.dumps(found))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_megabyte_takes_little_time_and_memory(tmp_path):
    for kind, content in huge().items():
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / kind).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, tuple[float, int, int]] = msgspec.json.decode(done.stdout)
    assert {what: one for what, one in found.items() if one[0] > SECONDS} == {}
    assert {what: one for what, one in found.items() if one[1] > MEMORY_MB} == {}
    assert {what: one for what, one in found.items() if one[2] > LONGEST} == {}
