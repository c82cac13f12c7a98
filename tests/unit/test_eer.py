"""EER movies: codes, containers and grids; frames that are broken, files that were cut or lie."""

import os
import struct
import tracemalloc

import numpy as np
import pytest
import torch

from algorithms.formats import eer, eerdecode
from algorithms.formats.eer import BITS_7, BITS_8, Code
from algorithms.formats.eerdecode import Grid, Streams
from algorithms.formats.errors import FormatError
from algorithms.formats.movie import EerMovie, EerOptions, open_movie, structure_of
from tests.eer_files import big_tiff, legacy, random_electrons, rendered, stream
from tests.shared import shared

SHAPE = (48, 64)
N_PIXELS = SHAPE[0] * SHAPE[1]
CODES = {
    "8+4": (BITS_8, 65000, ()),
    "7+4": (BITS_7, 65001, ()),
    "7+4 by tags": (BITS_7, 65002, ((65007, 3, 7), (65008, 3, 2), (65009, 3, 2))),
    "7+2": (Code(7, 1, 1), 65002, ((65007, 3, 7), (65008, 3, 1))),
    "8+4 by tags": (Code(8, 2, 2), 65002, ((65007, 3, 8), (65008, 3, 2))),
    "7+3": (Code(7, 1, 2), 65002, ((65007, 3, 7), (65008, 3, 1), (65009, 3, 2))),
}


def electrons_of(code, counts=(0, 1, 40, 400, 3072), seed=1):
    """Frames that are empty, sparse, dense and full: runs of every kind."""
    rng = np.random.default_rng(seed)
    return [random_electrons(rng, n, N_PIXELS, code.symbol_bits) for n in counts]


def packed(code, frames, n_pixels=N_PIXELS):
    return [
        stream(one, n_pixels, code.run_bits, code.symbol_bits, keeps_symbol=code.keeps_symbol)
        for one in frames
    ]


def written(path, name="7+4", frames=None, **layout):
    code, compression, tags = CODES[name]
    frames = electrons_of(code) if frames is None else frames
    content = big_tiff(packed(code, frames), SHAPE, compression=compression, tags=tags, **layout)
    path.write_bytes(content)
    return frames


def images(path, threads=1, **options):
    with open_movie(path, eer=EerOptions(**options), threads=threads) as movie:
        return [frame for _, frame in movie.frames()]


def refused(path, **options):
    with pytest.raises(FormatError) as error:
        images(path, **options)
    return error.value


def streams_of(code, contents):
    """Return what is read of frames, without a file."""
    begins = np.cumsum([0, *(-(-len(one) // 8) + 2 for one in contents)])
    words = np.zeros(begins[-1], np.uint64)
    for one, begin in zip(contents, begins, strict=False):
        words[begin:].view(np.uint8)[: len(one)] = np.frombuffer(one, np.uint8)
    return Streams(words, begins, np.array([8 * len(one) for one in contents]))


# Electrons


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("upsampling", [1, 2, 3, -1])
def test_every_electron_is_where_it_was_written(tmp_path, name, upsampling):
    code = CODES[name][0]
    if not eerdecode.can_read(code):
        pytest.skip("only Numba reads places of unequal precision")
    frames = written(tmp_path / "a.eer", name)
    if upsampling - 1 > min(code.x_bits, code.y_bits):
        error = refused(tmp_path / "a.eer", upsampling=upsampling)
        assert error.code == "UNSUPPORTED" and "upsampling 3 needs 2 bits" in error.detail
        return
    found = images(tmp_path / "a.eer", upsampling=upsampling, grouping=1)
    for image, one in zip(found, frames, strict=True):
        expected = rendered(one, SHAPE, upsampling, (code.x_bits, code.y_bits))
        np.testing.assert_array_equal(image, expected)
        assert image.sum() == len(one.pixel)


FINER = [(name, n) for name, (code, *_) in CODES.items() for n in range(1 + min(code[1:3]))]


@pytest.mark.parametrize(("name", "finer"), FINER)
def test_the_ways_to_decode_agree(name, finer):
    code = CODES[name][0]
    pytest.importorskip("numba")
    whole = packed(code, electrons_of(code))
    contents = [*whole[:3], whole[3][:-3], whole[3], whole[3] + bytes(9), whole[4]]
    contents.append(bytes([whole[3][0] ^ 1]) + whole[3][1:])
    contents.append(packed(code, electrons_of(code), N_PIXELS + 3)[2])
    contents.append(packed(code, electrons_of(code, (20,)), N_PIXELS * 2)[0])
    read, grid = streams_of(code, contents), Grid(SHAPE[1], SHAPE[0], code, finer)
    expected = np.zeros(grid.shape, np.uint8)
    broken = eerdecode.by_numba(read, grid, expected)
    assert broken == [3, 7, 8, 9]
    kept = [one for i, one in enumerate(contents) if i not in broken]
    alone = np.zeros(grid.shape, np.uint8)
    assert eerdecode.by_numba(streams_of(code, kept), grid, alone) == []
    np.testing.assert_array_equal(alone, expected)
    other = np.zeros(grid.shape, np.uint8)
    if code.x_bits != code.y_bits:
        with pytest.raises(RuntimeError, match="Numba"):
            eerdecode.by_imagecodecs(read, grid, other)
        return
    twin = eerdecode.by_numpy if code.keeps_symbol else eerdecode.by_imagecodecs
    assert twin(read, grid, other) == broken
    np.testing.assert_array_equal(other, expected)


def test_a_camera_frame_has_the_size_it_should():
    """A 4096 x 4096 frame with 503,119 events has 701 kB in the 7-bit code."""
    side = 4096
    electrons = random_electrons(np.random.default_rng(0), 503_119, side * side)
    content = stream(electrons, side * side)
    assert 700_500 < len(content) < 702_500
    read, grid = streams_of(BITS_7, [content]), Grid(side, side, BITS_7, 0)
    image = np.zeros(grid.shape, np.uint8)
    assert eerdecode.count_electrons(read, grid, image) == []
    np.testing.assert_array_equal(np.flatnonzero(image), electrons.pixel)


@pytest.mark.parametrize("name", ["8+4", "7+4"])
def test_without_numba_everything_is_the_same(tmp_path, monkeypatch, name):
    written(tmp_path / "a.eer", name)
    expected = images(tmp_path / "a.eer", grouping=2)
    monkeypatch.setattr(eerdecode, "compiled", lambda _: None)
    found = images(tmp_path / "a.eer", grouping=2)
    np.testing.assert_array_equal(found, expected)
    written(tmp_path / "b.eer", "7+3")
    assert "install numba" in refused(tmp_path / "b.eer").detail


# Fractions


def test_fractions_and_the_rest_that_is_left_out(tmp_path):
    frames = electrons_of(BITS_7, (30, 60, 90, 120, 150, 180, 210))
    written(tmp_path / "a.eer", frames=frames)
    found = images(tmp_path / "a.eer", grouping=3)
    assert len(found) == 2
    for i, image in enumerate(found):
        expected = sum(rendered(one, SHAPE, 1) for one in frames[3 * i : 3 * i + 3])
        np.testing.assert_array_equal(image, expected)
    with open_movie(tmp_path / "a.eer", eer=EerOptions(grouping=3, upsampling=2)) as movie:
        assert isinstance(movie, EerMovie)
        assert (movie.nx, movie.ny, movie.n_frames) == (128, 96, 2)
        assert (movie.n_raw, movie.grouping, movie.dtype) == (7, 3, np.uint8)
        assert movie.frame_bytes() == 128 * 96
        assert movie.pixel_size_header is None
        [(index, last)] = movie.frames(1, 2)
        assert (index, last.sum()) == (1, 120 + 150 + 180)


@pytest.mark.parametrize(
    ("options", "n_raw", "group"),
    [
        ({}, 100, 32),
        ({}, 20, 20),
        ({"grouping": 7}, 100, 7),
        ({"dose_per_fraction": 1.0, "dose_per_raw_frame": 0.03}, 1000, 33),
        ({"dose_per_fraction": 1.0, "dose_per_raw_frame": 3.0}, 1000, 1),
        ({"dose_per_fraction": 9.0, "dose_per_raw_frame": 0.01}, 40, 40),
        ({"grouping": 5, "dose_per_fraction": 1.0, "dose_per_raw_frame": 0.1}, 40, 5),
    ],
)
def test_grouping_by_number_or_by_dose(options, n_raw, group):
    assert EerOptions(**options).frames_per_fraction(n_raw) == group


@pytest.mark.parametrize(
    "options",
    [
        {"upsampling": 0},
        {"upsampling": 4},
        {"grouping": 0},
        {"grouping": 20_000},
        {"dose_per_fraction": 0.0},
        {"dose_per_raw_frame": float("nan")},
    ],
)
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match="EER"):
        EerOptions(**options)


@pytest.mark.parametrize(("upsampling", "group", "dtype"), [(1, 300, "u2"), (-1, 70, "u2")])
def test_counts_never_wrap_around(tmp_path, upsampling, group, dtype):
    full = electrons_of(BITS_7, (N_PIXELS,)) * group
    written(tmp_path / "a.eer", frames=full)
    [image] = images(tmp_path / "a.eer", grouping=group, upsampling=upsampling)
    assert image.dtype == dtype
    assert (image == group * (4 if upsampling == -1 else 1)).all()


@pytest.mark.parametrize("upsampling", [1, 2, -1])
def test_threads_change_nothing(tmp_path, monkeypatch, upsampling):
    rng = np.random.default_rng(3)
    frames = [random_electrons(rng, int(n), N_PIXELS) for n in rng.integers(1, 600, 61)]
    written(tmp_path / "a.eer", frames=frames, strips=3)
    expected = images(tmp_path / "a.eer", upsampling=upsampling, grouping=6)
    for threads in (2, 5):
        found = images(tmp_path / "a.eer", threads, upsampling=upsampling, grouping=6)
        np.testing.assert_array_equal(found, expected)
    # Frames too large to be many at once are divided among the threads, streams into batches.
    monkeypatch.setattr("algorithms.formats.readahead.AHEAD_BYTES", 1)
    monkeypatch.setattr("algorithms.formats.eermovie._STREAM_BYTES", 900)
    found = images(tmp_path / "a.eer", 4, upsampling=upsampling, grouping=6)
    np.testing.assert_array_equal(found, expected)


# Containers


def test_sums_are_no_frames_and_names_mean_nothing(tmp_path):
    frames = written(tmp_path / "a.tif", sums=1)
    found = images(tmp_path / "a.tif", grouping=1)
    np.testing.assert_array_equal(found[3], rendered(frames[3], SHAPE, 1))
    assert len(found) == len(frames)
    structure = structure_of(tmp_path / "a.tif")
    assert (structure.format, structure.compression) == ("eer", "eer 7+4 bit")
    assert structure.complete_bytes == (tmp_path / "a.tif").stat().st_size


def test_the_container_before_tiff(tmp_path):
    side = eer.LEGACY_SIDE
    rng = np.random.default_rng(4)
    frames = [random_electrons(rng, 2000, side * side) for _ in range(3)]
    contents = [stream(one, side * side, 8, 4, keeps_symbol=True) for one in frames]
    (tmp_path / "a.ecc").write_bytes(legacy(contents))
    found = images(tmp_path / "a.ecc", grouping=1)
    for image, one in zip(found, frames, strict=True):
        np.testing.assert_array_equal(np.flatnonzero(image), one.pixel)
    (tmp_path / "b.ecc").write_bytes(legacy(contents, broken=[1]))
    assert "1 of 3 raw frames are corrupt" in refused(tmp_path / "b.ecc", grouping=1).detail
    whole = (tmp_path / "a.ecc").read_bytes()
    (tmp_path / "a.ecc").write_bytes(whole[:-1])
    assert refused(tmp_path / "a.ecc").code == "TRUNCATED"
    (tmp_path / "a.ecc").write_bytes(whole[100:])
    assert refused(tmp_path / "a.ecc").code == "BAD_HEADER"
    (tmp_path / "a.ecc").write_bytes(struct.pack("<Q", 2**60) + whole[-24:])
    assert refused(tmp_path / "a.ecc").code == "BAD_HEADER"


def test_shared_sample():
    path = shared("data/metadata/synthetic/falcon4i_20frames.eer")
    found = structure_of(path, eer=EerOptions(grouping=4))
    assert (found.nx, found.ny, found.n_frames) == (256, 256, 5)
    assert [image.sum() for image in images(path, grouping=1)] == [120] * 20
    cut = refused(shared("data/metadata/synthetic/falcon4i_truncated.eer"))
    assert cut.code == "TRUNCATED"


# Files that are broken, cut, or lie


def spoilt(n_frames, broken):
    """Return frames of which some end too early."""
    rng = np.random.default_rng(5)
    frames = [random_electrons(rng, 200, N_PIXELS) for _ in range(n_frames)]
    contents = packed(BITS_7, frames)
    for i in broken:
        contents[i] = contents[i][:-6]
    return frames, contents


def test_a_broken_frame_is_left_out_and_counted(tmp_path):
    frames, contents = spoilt(200, [3, 150])
    (tmp_path / "a.eer").write_bytes(big_tiff(contents, SHAPE))
    with open_movie(tmp_path / "a.eer", eer=EerOptions(grouping=20), threads=2) as movie:
        assert isinstance(movie, EerMovie)
        for _ in range(2):  # a second pass counts nothing twice
            found = [frame for _, frame in movie.frames()]
            assert movie.broken == (3, 150)
    for i, image in enumerate(found):
        kept = [n for n in range(20 * i, 20 * i + 20) if n not in (3, 150)]
        expected = sum(rendered(frames[n], SHAPE, 1) for n in kept)
        np.testing.assert_array_equal(image, expected)


def test_too_many_broken_frames_spoil_the_movie(tmp_path):
    (tmp_path / "a.eer").write_bytes(big_tiff(spoilt(200, [3, 150, 151])[1], SHAPE))
    error = refused(tmp_path / "a.eer", grouping=20)
    assert error.code == "BAD_HEADER"
    assert "3 of 200 raw frames are corrupt" in error.detail and "number 4;" in error.detail


def test_cut_at_any_byte_is_never_a_shorter_movie(tmp_path):
    contents = packed(BITS_7, electrons_of(BITS_7, (3, 2, 1)))
    whole = big_tiff(contents, SHAPE, strips=2)
    path = tmp_path / "a.eer"
    path.write_bytes(whole)
    assert structure_of(path, eer=EerOptions(grouping=1)).n_frames == 3
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert refused(path).code == (
            "TRUNCATED" if size >= 4 else "BAD_HEADER" if size else "EMPTY_FILE"
        )


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    written(tmp_path / "a.eer")
    with open_movie(tmp_path / "a.eer", eer=EerOptions(grouping=1)) as movie:
        os.truncate(tmp_path / "a.eer", 100)
        with pytest.raises(FormatError, match="TRUNCATED: the file became shorter"):
            list(movie.frames())


@pytest.mark.parametrize(
    ("code", "layout"),
    [
        ("BAD_HEADER", {"link": 16 + 8}),  # no directory there
        ("TRUNCATED", {"link": 2**40}),
        ("TOO_LARGE", {"tags": [(256, 4, 10_000_000), (257, 4, 11_700_000)]}),
        ("TOO_LARGE", {"tags": [(256, 4, 2), (257, 4, 2), (278, 4, 2)]}),  # too long a stream
        ("BAD_HEADER", {"tags": [(256, 4, 63)]}),
        ("BAD_HEADER", {"tags": [(278, 4, 0)]}),
        ("BAD_HEADER", {"tags": [(278, 4, 1)]}),  # 48 strips promised, one given
        ("TRUNCATED", {"tags": [(279, 16, 2**62)]}),
        ("TRUNCATED", {"tags": [(273, 16, 2**63)]}),
        ("TRUNCATED", {"tags": [(279, 16, 0)]}),
        ("BAD_HEADER", {"compression": 65002}),  # no bits told
        ("UNSUPPORTED", {"compression": 65002, "tags": [(65007, 3, 60), (65008, 3, 2)]}),
        ("UNSUPPORTED", {"compression": 65002, "tags": [(65007, 3, 7), (65008, 3, 9)]}),
        ("UNSUPPORTED", {"compression": 7}),
    ],
)
def test_headers_that_lie_cost_nothing(tmp_path, code, layout):
    contents = packed(BITS_7, electrons_of(BITS_7))
    path = tmp_path / "a.eer"
    path.write_bytes(big_tiff(contents, SHAPE, **layout))
    tracemalloc.start()
    error = refused(path, grouping=1)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert error.code == code, error
    assert str(path) in str(error)


def test_a_chain_that_loops(tmp_path):
    whole = bytearray(big_tiff(packed(BITS_7, electrons_of(BITS_7)), SHAPE))
    (first,) = struct.unpack_from("<Q", whole, 8)
    whole[-8:] = struct.pack("<Q", first)
    (tmp_path / "a.eer").write_bytes(whole)
    assert "loops" in refused(tmp_path / "a.eer").detail


def test_frames_that_differ(tmp_path):
    whole = bytearray(big_tiff(packed(BITS_7, electrons_of(BITS_7)), SHAPE))
    at = whole.rindex(struct.pack("<HHQQ", 257, 4, 1, SHAPE[0]))
    whole[at : at + 20] = struct.pack("<HHQQ", 257, 4, 1, 2 * SHAPE[0])
    (tmp_path / "a.eer").write_bytes(whole)
    assert "directory 5 is 64 x 96 px" in refused(tmp_path / "a.eer").detail


def test_too_few_frames_for_one_fraction(tmp_path):
    written(tmp_path / "a.eer")
    error = refused(tmp_path / "a.eer", grouping=6)
    assert "5 raw frames make no fraction of 6" in error.detail


def test_torch_threads_are_the_default(tmp_path):
    written(tmp_path / "a.eer")
    with open_movie(tmp_path / "a.eer") as movie:
        assert movie.threads == torch.get_num_threads()


def test_an_iterator_that_is_left_leaves_no_thread(tmp_path):
    written(tmp_path / "a.eer")
    with open_movie(tmp_path / "a.eer", eer=EerOptions(grouping=1), threads=3) as movie:
        frames = movie.frames()
        next(frames)
        frames.close()
