"""MRC files: every mode, both byte orders, and headers that lie."""

import shutil
import struct
import subprocess
import tracemalloc

import mrcfile
import numpy as np
import pytest

from algorithms.formats import mrc
from algorithms.formats.errors import FormatError
from tests.shared import shared

RNG = np.random.default_rng(1)


def file_of(path, body=b"", *, shape=(3, 4, 5), mode=2, order="<", extended=b"", patches=()):
    """Write a file by hand: header fields, extended header, data."""
    nz, ny, nx = shape
    header = bytearray(1024)
    struct.pack_into(order + "4i", header, 0, nx, ny, nz, mode)
    struct.pack_into(order + "3i3f", header, 28, nx, ny, 1, nx * 1.5, ny * 1.5, 1.0)
    struct.pack_into(order + "i", header, 92, len(extended))
    for offset, layout, value in patches:
        struct.pack_into(order + layout, header, offset, value)
    path.write_bytes(bytes(header) + extended + body)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("mode", "kind"), [(0, "i1"), (1, "i2"), (2, "f4"), (6, "u2"), (12, "f2")])
def test_modes_in_both_byte_orders(tmp_path, mode, kind, order):
    array = RNG.integers(0, 100, (3, 4, 5)).astype(order + kind)
    path = file_of(
        tmp_path / "a.mrcs", array.tobytes(), mode=mode, order=order, extended=b"x" * 100
    )
    header = mrc.read_header(path)
    assert (header.nx, header.ny, header.nz, header.mode) == (5, 4, 3, mode)
    assert header.pixel_size_A == 1.5
    assert header.complete_bytes == path.stat().st_size
    read = mrc.read(path)
    assert read.dtype == (np.float32 if mode == 12 else np.dtype(kind))
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize(
    ("patches", "kind"),
    [
        ((), "i1"),
        (((152, "i", 1146047817), (156, "i", 0)), "u1"),  # IMOD: unsigned
        (((152, "i", 1146047817), (156, "i", 1), (80, "f", 250.0)), "i1"),  # IMOD: signed
        (((80, "f", 250.0),), "u1"),  # a maximum no signed byte has
        (((76, "f", -1.0), (80, "f", 250.0)), "i1"),
    ],
)
def test_signs_of_bytes(tmp_path, patches, kind):
    raw = bytes(range(100, 160))
    read = mrc.read(file_of(tmp_path / "a.mrc", raw, mode=0, patches=patches))
    np.testing.assert_array_equal(read.ravel(), np.frombuffer(raw, kind))


def test_packed_nibbles_low_first_and_rows_padded(tmp_path):
    raw = bytes([0x21, 0x43, 0x05, 0x76, 0x98, 0x0A])
    path = file_of(tmp_path / "a.mrc", raw, shape=(1, 2, 5), mode=101)
    np.testing.assert_array_equal(mrc.read(path), [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])


def test_one_section_is_an_image_unless_a_stack(tmp_path):
    body = np.zeros(20, "f4").tobytes()
    assert mrc.read(file_of(tmp_path / "a.mrc", body, shape=(1, 4, 5))).shape == (4, 5)
    assert mrc.read(file_of(tmp_path / "a.mrcs", body, shape=(1, 4, 5))).shape == (1, 4, 5)


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("TRUNCATED", {}),
        ("BAD_HEADER", {"mode": 5}),
        ("BAD_HEADER", {"shape": (1, 4, -4)}),
        ("BAD_HEADER", {"shape": (0, 4, 4)}),
        ("BAD_HEADER", {"patches": ((92, "i", -8),)}),
        ("UNSUPPORTED", {"mode": 4}),
        ("TOO_LARGE", {"shape": (1, 50_000, 50_000)}),
        ("TOO_LARGE", {"patches": ((92, "i", 2**31 - 1),)}),
        ("TOO_LARGE", {"shape": (2**21, 1, 1)}),
        ("BAD_HEADER", {"shape": (1, 4, 2**31 - 1)}),
        ("TRUNCATED", {"shape": (4096, 32_768, 32_768)}),
    ],
)
def test_headers_that_lie_cost_nothing(tmp_path, code, options):
    path = file_of(tmp_path / "a.mrc", b"\0" * 100, **options)
    tracemalloc.start()
    with pytest.raises(FormatError) as error:
        mrc.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.value.code == code
    assert str(path) in str(error.value)
    assert peak < 1_000_000


def test_cut_at_any_byte(tmp_path):
    whole = file_of(tmp_path / "a.mrc", np.ones(60, "f4").tobytes()).read_bytes()
    cut = tmp_path / "cut.mrc"
    for size in (0, 1, 512, 1023, 1024, 1200, len(whole) - 1):
        cut.write_bytes(whole[:size])
        with pytest.raises(FormatError) as error:
            mrc.read(cut)
        assert error.value.code == ("TRUNCATED" if size else "EMPTY_FILE")


def test_real_file_cut_short():
    path = shared("data/metadata/mrc/epu1.2_k2_fei1_sum.mrc")
    with pytest.raises(FormatError, match="TRUNCATED: 852992 of 29265416 bytes"):
        mrc.read_header(path)


@pytest.mark.parametrize("float16", [False, True])
@pytest.mark.parametrize(
    ("shape", "is_stack", "mz", "cell_z", "ispg"),
    [((6, 8), False, 1, 1.0, 0), ((3, 6, 8), True, 1, 1.0, 0), ((3, 6, 8), False, 3, 3.75, 1)],
)
def test_written_files_are_valid(tmp_path, shape, is_stack, mz, cell_z, ispg, float16):
    array = RNG.normal(40, 5, shape).astype(np.float32)
    path = tmp_path / "a.mrc"
    mrc.write(path, array, 1.25, float16=float16, is_stack=is_stack)
    with open(tmp_path / "report", "w") as report:
        assert mrcfile.validate(path, print_file=report), (tmp_path / "report").read_text()
    with mrcfile.open(path) as file:
        np.testing.assert_allclose(file.data, array, rtol=1e-3 if float16 else 0)
        fields = file.header
        assert (fields.mx, fields.my, fields.mz) == (8, 6, mz)
        assert fields.cella.tolist() == (10.0, 7.5, cell_z)
        assert (fields.ispg, fields.mode) == (ispg, 12 if float16 else 2)
        assert fields.rms == pytest.approx(array.std(), rel=1e-3)
        assert fields.dmean == pytest.approx(array.mean(), rel=1e-3)
    header = mrc.read_header(path)
    assert header.pixel_size_A == 1.25
    assert header.is_stack == is_stack
    np.testing.assert_allclose(mrc.read(path), array, rtol=1e-3 if float16 else 0)


def test_float16_saturates_and_is_never_infinite(tmp_path):
    array = np.array([[1e6, -1e6], [65_519.0, 1e-9]])
    mrc.write(tmp_path / "a.mrc", array, 1.0, float16=True)
    np.testing.assert_array_equal(
        mrc.read(tmp_path / "a.mrc"), np.array([[65_504, -65_504], [65_504, 0]], "f4")
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    with pytest.raises(ValueError, match="not finite"):
        mrc.write(tmp_path / "a.mrc", np.array([[0.0, value]]), 1.0)
    assert not (tmp_path / "a.mrc").exists()


def test_arrays_that_are_no_image_are_refused():
    for array in (np.zeros(3), np.zeros((0, 3)), np.zeros((2, 2), complex)):
        with pytest.raises(ValueError, match="cannot write"):
            mrc.encode(array, 1.0)


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_image_handler") is None, reason="RELION is not here")
def test_relion_reads_what_is_written(tmp_path):
    array = RNG.normal(40, 5, (32, 48)).astype(np.float32)
    mrc.write(tmp_path / "a.mrc", array, 1.25)
    command = ["relion_image_handler", "--i", "a.mrc", "--stats"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "(x,y,z,n)= 48 x 32 x 1 x 1" in done.stdout
    words = done.stdout.replace("=", " ").replace(";", " ").split()
    for name, expected in (("avg", array.mean()), ("stddev", array.std())):
        assert float(words[words.index(name) + 1]) == pytest.approx(expected, rel=1e-4)
    assert float(words[words.index("angpix") + 1]) == pytest.approx(1.25)
