"""Movies: every encoding, the orientation, and files that were cut or lie."""

import struct
import time
import tracemalloc

import imagecodecs
import numpy as np
import pytest
import tifffile

from algorithms.formats import mrc, tiff
from algorithms.formats.errors import FormatError
from algorithms.formats.movie import open_movie, structure_of
from tests.shared import SHARED, shared

RNG = np.random.default_rng(2)
SYNTHETIC = "data/metadata/synthetic"


def frames_of(path, **options):
    with open_movie(path, **options) as movie:
        return np.stack([frame for _, frame in movie.frames()])


def code_of(path):
    with pytest.raises(FormatError) as error:
        structure_of(path)
    return error.value.code


def tiff_bytes(strips, *, shape=(4, 6), at_end=False, big=False, tags=(), link=None):
    """Lay out a TIFF by hand: one page per entry of `strips`, all rows in one strip.

    `at_end` puts all directories behind the data, otherwise each follows its page. `tags`
    replaces or adds (tag, type, value); `link` is (page, offset) of a false next directory.
    """
    head, word, entry = ("<Q", "<Q", "<HHQQ") if big else ("<H", "<I", "<HHII")
    start = (
        struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if big else struct.pack("<2sHI", b"II", 42, 0)
    )
    out = bytearray(start)
    pointer = len(out) - struct.calcsize(word)
    directories = []
    for strip in strips:
        directories.append((len(out), len(strip)))
        out += strip
        if not at_end:
            pointer = _directory(out, directories[-1:], pointer, shape, tags, (head, word, entry))
    if at_end:
        _directory(out, directories, pointer, shape, tags, (head, word, entry))
    return bytes(out)


def _directory(out, pages, pointer, shape, tags, layouts):
    head, word, entry = layouts
    for offset, size in pages:
        fields = {256: (3, shape[1]), 257: (3, shape[0]), 258: (3, 8), 259: (3, 1)}
        fields |= {273: (4, offset), 278: (3, shape[0]), 279: (4, size)}
        fields |= {tag: (kind, value) for tag, kind, value in tags}
        struct.pack_into(word, out, pointer, len(out))
        out += struct.pack(head, len(fields))
        for tag, (kind, value) in sorted(fields.items()):
            out += struct.pack(entry, tag, kind, 1, value)
        pointer = len(out)
        out += struct.pack(word, 0)
    return pointer


@pytest.mark.parametrize(
    "compression", [None, "lzw", "deflate", "adobe_deflate", "packbits", "zstd"]
)
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "f4"])
def test_tiff_equals_its_mrc_twin(tmp_path, kind, compression):
    frames = RNG.integers(0, 120, (3, 21, 14)).astype(kind)
    layout = {"rowsperstrip": 4, "compression": compression, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", frames, metadata=None, **layout)
    read = frames_of(tmp_path / "a.tif")
    assert read.dtype == np.dtype(kind)
    np.testing.assert_array_equal(read, frames[:, ::-1])
    mode = {"i1": 0, "i2": 1, "f4": 2, "u2": 6}.get(kind)
    if mode is not None:
        mrcs = tmp_path / "a.mrcs"
        mrc.write(mrcs, frames[:, ::-1], 1.0, is_stack=True)
        header = bytearray(mrcs.read_bytes()[:1024])
        struct.pack_into("<i", header, 12, mode)
        mrcs.write_bytes(bytes(header) + frames[:, ::-1].tobytes())
        np.testing.assert_array_equal(frames_of(mrcs), read)


@pytest.mark.parametrize("compression", ["lzw", "deflate"])
@pytest.mark.parametrize("kind", ["u1", "u2", "i2"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_predictor_byte_order_and_big_tiff(tmp_path, order, kind, big, compression):
    frames = RNG.integers(0, 2 ** (7 if kind == "u1" else 15), (2, 8, 9)).astype(kind)
    tifffile.imwrite(
        tmp_path / "a.tif", frames, byteorder=order, bigtiff=big, compression=compression,
        predictor=2, photometric="minisblack", metadata=None,
    )  # fmt: skip
    np.testing.assert_array_equal(frames_of(tmp_path / "a.tif"), frames[:, ::-1])


def test_structure_and_ranges(tmp_path):
    frames = RNG.poisson(1, (5, 16, 24)).astype("u1")
    tifffile.imwrite(
        tmp_path / "a.tif", frames, compression="lzw", photometric="minisblack", metadata=None,
        resolution=(2.54e8 / 0.85, 2.54e8 / 0.85), resolutionunit="INCH",
    )  # fmt: skip
    found = structure_of(tmp_path / "a.tif")
    assert (found.format, found.nx, found.ny, found.n_frames) == ("tiff", 24, 16, 5)
    assert (found.dtype, found.compression) == ("uint8", "lzw")
    assert found.complete_bytes <= (tmp_path / "a.tif").stat().st_size
    assert found.pixel_size_A == pytest.approx(0.85)
    with open_movie(tmp_path / "a.tif") as movie:
        indices, some = zip(*movie.frames(1, 3), strict=True)
        assert indices == (1, 2)
        np.testing.assert_array_equal(some, frames[1:3, ::-1])
        for first, last in ((-1, 2), (2, 2), (0, 6)):
            with pytest.raises(ValueError, match="of a movie with 5"):
                next(movie.frames(first, last))


def test_implausible_resolution_is_not_a_pixel_size(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 8, 8), "u1"), resolution=(72, 72))
    assert structure_of(tmp_path / "a.tif").pixel_size_A is None


def test_packed_pixels_on_demand_and_by_size(tmp_path):
    packed = RNG.integers(0, 256, (2, 4, 6)).astype("u1")
    tifffile.imwrite(tmp_path / "a.tif", packed, compression="lzw", photometric="minisblack")
    read = frames_of(tmp_path / "a.tif", packed_4bit=True)
    assert read.shape == (2, 4, 12)
    np.testing.assert_array_equal(read[..., 0::2], packed[:, ::-1] & 15)
    np.testing.assert_array_equal(read[..., 1::2], packed[:, ::-1] >> 4)
    assert frames_of(tmp_path / "a.tif").shape == (2, 4, 6)
    page = np.zeros((7420, 3838), "u1")
    tifffile.imwrite(tmp_path / "k2.tif", page, compression="lzw", photometric="minisblack")
    assert structure_of(tmp_path / "k2.tif").nx == 7676
    assert structure_of(tmp_path / "k2.tif", packed_4bit=False).nx == 3838


def test_mrc_movies(tmp_path):
    frames = RNG.normal(0, 1, (3, 4, 5)).astype("f4")
    mrc.write(tmp_path / "a.mrcs", frames, 0.83, float16=True, is_stack=True)
    np.testing.assert_allclose(frames_of(tmp_path / "a.mrcs"), frames, rtol=1e-3, atol=1e-6)
    found = structure_of(tmp_path / "a.mrcs")
    assert (found.format, found.n_frames, found.dtype) == ("mrc", 3, "float32")
    assert found.pixel_size_A == pytest.approx(0.83)
    assert found.complete_bytes == (tmp_path / "a.mrcs").stat().st_size
    mrc.write(tmp_path / "long.mrcs", np.zeros((4097, 1, 1)), 1.0, is_stack=True)
    assert code_of(tmp_path / "long.mrcs") == "TOO_LARGE"


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("at_end", [False, True])
def test_cut_at_any_byte_is_never_a_shorter_movie(tmp_path, at_end, big):
    strips = [bytes(range(number, number + 24)) for number in range(5)]
    whole = tiff_bytes(strips, at_end=at_end, big=big)
    path = tmp_path / "a.tif"
    path.write_bytes(whole)
    assert structure_of(path).n_frames == 5
    assert structure_of(path).complete_bytes == len(whole)
    np.testing.assert_array_equal(frames_of(path)[4, ::-1].ravel(), np.arange(4, 28))
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert code_of(path) == ("TRUNCATED" if size else "EMPTY_FILE"), size


@pytest.mark.parametrize("layout", ["interleaved", "at the end"])
def test_cut_compressed_movie(tmp_path, layout):
    path = tmp_path / "a.tif"
    frames = RNG.poisson(1, (6, 40, 50)).astype("u1")
    if layout == "interleaved":
        with tifffile.TiffWriter(path) as writer:
            for frame in frames:
                writer.write(frame, compression="lzw", contiguous=False, metadata=None)
    else:
        strips = [imagecodecs.lzw_encode(frame.tobytes()) for frame in frames]
        path.write_bytes(tiff_bytes(strips, shape=(40, 50), at_end=True, tags=[(259, 3, 5)]))
    whole = path.read_bytes()
    np.testing.assert_array_equal(frames_of(path), frames[:, ::-1])
    complete = structure_of(path).complete_bytes
    for size in range(8, complete, 37):
        path.write_bytes(whole[:size])
        assert code_of(path) == "TRUNCATED", size


def test_unfinished_writer(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 0) + bytes(100))
    assert code_of(path) == "TRUNCATED"
    path.write_bytes(tiff_bytes([bytes(24)], tags=[(279, 4, 0)]))
    assert code_of(path) == "TRUNCATED"


@pytest.mark.parametrize(
    ("code", "tags"),
    [
        ("UNSUPPORTED", [(259, 3, 7)]),  # JPEG
        ("UNSUPPORTED", [(277, 3, 3)]),
        ("UNSUPPORTED", [(258, 3, 4)]),
        ("UNSUPPORTED", [(258, 3, 32)]),
        ("UNSUPPORTED", [(322, 3, 16)]),
        ("UNSUPPORTED", [(266, 3, 2)]),
        ("UNSUPPORTED", [(317, 3, 3)]),
        ("UNSUPPORTED", [(258, 3, 32), (339, 3, 3), (317, 3, 2)]),
        ("BAD_HEADER", [(256, 3, 0)]),
        ("BAD_HEADER", [(278, 3, 0)]),
        ("BAD_HEADER", [(278, 3, 2)]),  # two strips promised, one given
        ("BAD_HEADER", [(256, 5, 8)]),
        ("BAD_HEADER", [(256, 3, 7)]),  # a byte of a row is not there
        ("BAD_HEADER", [(259, 3, 5), (256, 3, 30_000), (257, 3, 30_000), (278, 3, 30_000)]),
        ("BAD_HEADER", [(259, 3, 8), (256, 3, 30_000), (257, 3, 30_000), (278, 3, 30_000)]),
        ("TRUNCATED", [(273, 4, 2**32 - 1)]),
        ("TRUNCATED", [(279, 4, 2**32 - 1)]),
        ("TOO_LARGE", [(256, 4, 10_000_000), (257, 4, 11_700_000), (278, 4, 11_700_000)]),
        ("TOO_LARGE", [(256, 4, 32_768), (257, 4, 32_768), (258, 3, 16), (278, 4, 32_768)]),
    ],
)
def test_pages_that_are_not_read_cost_nothing(tmp_path, code, tags):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_bytes([bytes(24)], tags=tags))
    tracemalloc.start()
    assert code_of(path) == code
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_loops_and_endless_chains(tmp_path):
    path = tmp_path / "a.tif"
    whole = bytearray(tiff_bytes([bytes(24)] * 3, at_end=True))
    (first,) = struct.unpack_from("<I", whole, 4)
    struct.pack_into("<I", whole, len(whole) - 4, first)
    path.write_bytes(whole)
    assert code_of(path) == "BAD_HEADER"
    path.write_bytes(tiff_bytes([bytes(4)] * (tiff.MAX_DIRECTORIES + 1), shape=(2, 2)))
    assert code_of(path) == "TOO_LARGE"
    path.write_bytes(struct.pack("<2sHIH", b"II", 42, 8, 60_000) + bytes(100))
    assert code_of(path) == "BAD_HEADER"


def test_pages_must_agree(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(np.zeros((8, 8), "u1"))
        writer.write(np.zeros((8, 9), "u1"))
    with pytest.raises(FormatError, match="frame 2 is"):
        structure_of(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("number", "encode"), [(5, "lzw"), (8, "deflate"), (32773, "packbits"), (50000, "zstd")]
)
@pytest.mark.parametrize("size", [23, 25, 50_000_000])
def test_strips_decode_to_what_they_promise_or_not_at_all(tmp_path, number, encode, size):
    strip = {
        "lzw": imagecodecs.lzw_encode,
        "deflate": imagecodecs.zlib_encode,
        "zstd": imagecodecs.zstd_encode,
        "packbits": lambda raw: bytes([257 - min(len(raw), 128), 0]) * max(1, len(raw) // 128),
    }[encode](bytes(size))
    path = tmp_path / "bomb.tif"
    path.write_bytes(tiff_bytes([strip], tags=[(259, 3, number)]))
    tracemalloc.start()
    with pytest.raises(FormatError, match="frame 1, strip 1") as error:
        frames_of(path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    assert error.value.code == "BAD_HEADER"


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(tmp_path, monkeypatch, threads):
    frames = RNG.poisson(1, (9, 40, 50)).astype("u1")
    tifffile.imwrite(
        tmp_path / "a.tif", frames, rowsperstrip=3, compression="lzw", photometric="minisblack"
    )
    mrc.write(tmp_path / "a.mrcs", frames[:, ::-1], 1.0, is_stack=True)
    for name in ("a.tif", "a.mrcs"):
        found = frames_of(tmp_path / name, threads=threads)
        np.testing.assert_array_equal(found, frames[:, ::-1])
    # Frames too large to be many at once are divided among the threads.
    monkeypatch.setattr("algorithms.formats.readahead.AHEAD_BYTES", 1)
    found = frames_of(tmp_path / "a.tif", threads=threads)
    np.testing.assert_array_equal(found, frames[:, ::-1])


def test_no_more_frames_are_made_than_fit(tmp_path, monkeypatch):
    frames = np.zeros((20, 1000, 1000), "f4")
    mrc.write(tmp_path / "a.mrcs", frames, 1.0, is_stack=True)
    monkeypatch.setattr("algorithms.formats.readahead.AHEAD_BYTES", 12_000_000)
    tracemalloc.start()
    with open_movie(tmp_path / "a.mrcs", threads=8) as movie:
        for _, frame in movie.frames():
            del frame
    assert tracemalloc.get_traced_memory()[1] < 18_000_000
    tracemalloc.stop()


def test_many_small_strips_are_walked_quickly(tmp_path):
    """50 directories of 512 strips: one look at each, not one at each strip."""
    frames = np.zeros((50, 512, 8), "u1")
    tifffile.imwrite(
        tmp_path / "a.tif", frames, rowsperstrip=1, compression="lzw", photometric="minisblack"
    )
    begun = time.process_time()
    assert structure_of(tmp_path / "a.tif").n_frames == 50
    assert time.process_time() - begun < 0.5
    np.testing.assert_array_equal(frames_of(tmp_path / "a.tif"), frames)


def test_corrupt_strip(tmp_path):
    path = tmp_path / "a.tif"
    strip = RNG.bytes(20)
    path.write_bytes(tiff_bytes([strip], tags=[(259, 3, 8)]))
    with pytest.raises(FormatError, match="is corrupt"):
        frames_of(path)


@pytest.mark.parametrize("name", ["a.tif", "a.mrc", "a.eer", "a.mrcs.bz2", "a"])
def test_empty_files(tmp_path, name):
    (tmp_path / name).touch()
    assert code_of(tmp_path / name) == "EMPTY_FILE"


def test_other_files(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"no TIFF at all, but long enough")
    assert code_of(tmp_path / "a.tif") == "BAD_HEADER"
    for name, code in (
        ("a.mrc.bz2", "UNSUPPORTED"),
        ("a.dm4", "UNSUPPORTED"),
        ("a.eer", "BAD_HEADER"),
    ):
        (tmp_path / name).write_bytes(b"something")
        assert code_of(tmp_path / name) == code


def test_closing_and_failed_opening_leave_no_file_open(tmp_path):
    mrc.write(tmp_path / "a.mrc", np.zeros((4, 4)), 1.0)
    with open_movie(tmp_path / "a.mrc") as movie:
        pass
    with pytest.raises(ValueError, match="closed file"):
        next(movie.frames())


def test_shared_samples():
    found = structure_of(shared(f"{SYNTHETIC}/k3_serialem_8frames.tif"))
    assert (found.nx, found.ny, found.n_frames, found.compression) == (128, 96, 8, "lzw")
    assert found.pixel_size_A == pytest.approx(0.85, rel=1e-4)
    assert code_of(shared(f"{SYNTHETIC}/k3_serialem_truncated.tif")) == "TRUNCATED"


@pytest.mark.parametrize("path", sorted((SHARED / "data/movies").rglob("*.tiff")), ids=str)
def test_shared_movies_read_as_tifffile_reads_them(path):
    np.testing.assert_array_equal(frames_of(path), tifffile.imread(path)[:, ::-1])
