"""MRC movies in compressed streams: the same frames, and files that are cut, corrupt or bombs."""

import bz2
import lzma
import tracemalloc

import imagecodecs
import numpy as np
import pytest

from algorithms.formats import mrc
from algorithms.formats.errors import FormatError
from algorithms.formats.movie import open_movie, structure_of

RNG = np.random.default_rng(7)
FRAMES = RNG.poisson(3, (5, 20, 30)).astype(np.float32)
PACK = {
    "a.mrcs.bz2": bz2.compress,
    "a.mrc.xz": lzma.compress,
    "a.mrcs.zst": imagecodecs.zstd_encode,
}


@pytest.fixture
def content(tmp_path):
    mrc.write(tmp_path / "plain.mrcs", FRAMES, 0.83, is_stack=True)
    return (tmp_path / "plain.mrcs").read_bytes()


def read(path):
    with open_movie(path) as movie:
        return np.stack([frame for _, frame in movie.frames()])


@pytest.mark.parametrize("name", PACK)
def test_frames_are_those_of_the_plain_file(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(PACK[name](content))
    np.testing.assert_array_equal(read(path), FRAMES)
    found = structure_of(path)
    assert (found.format, found.n_frames, found.compression) == ("mrc", 5, path.suffix)
    assert found.pixel_size_A == pytest.approx(0.83)
    with open_movie(path, threads=4) as movie:
        for _ in range(2):  # each pass begins anew
            [(index, frame)] = movie.frames(3, 4)
            assert index == 3
            np.testing.assert_array_equal(frame, FRAMES[3])
        with pytest.raises(ValueError, match="of a movie with 5"):
            next(movie.frames(4, 6))


@pytest.mark.parametrize("name", ["a.mrcs.bz2", "a.mrc.xz"])
def test_files_of_parallel_packers(tmp_path, content, name):
    pieces = [content[i : i + 700] for i in range(0, len(content), 700)]
    (tmp_path / name).write_bytes(b"".join(map(PACK[name], pieces)))
    np.testing.assert_array_equal(read(tmp_path / name), FRAMES)


@pytest.mark.parametrize("name", PACK)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_cut_files(tmp_path, content, name, share):
    packed = PACK[name](content)
    (tmp_path / name).write_bytes(packed[: int(share * len(packed))])
    with pytest.raises(FormatError) as error:
        read(tmp_path / name)
    assert error.value.code == ("TRUNCATED" if share else "EMPTY_FILE")


@pytest.mark.parametrize("name", PACK)
def test_content_that_ends_too_early(tmp_path, content, name):
    (tmp_path / name).write_bytes(PACK[name](content[:-1]))
    with pytest.raises(FormatError, match=r"TRUNCATED: the .* file ends before its content does"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mrcs.bz2", "a.mrc.xz"])
def test_corrupt_files(tmp_path, content, name):
    packed = bytearray(PACK[name](content))
    packed[len(packed) // 2] ^= 255
    (tmp_path / name).write_bytes(packed)
    with pytest.raises(FormatError) as error:
        read(tmp_path / name)
    # Of bzip2 the whole block is spoilt, the header first.
    assert "is corrupt" in error.value.detail or name == "a.mrcs.bz2"


@pytest.mark.parametrize("name", PACK)
def test_a_bomb_is_not_unpacked(tmp_path, content, name):
    """A hundred megabytes behind the movie; a header of gigabytes."""
    path = tmp_path / name
    path.write_bytes(PACK[name](content + bytes(40_000_000)))
    lying = content[:8] + (10**6).to_bytes(4, "little") + content[12:]
    (tmp_path / f"lying_{name}").write_bytes(PACK[name](lying))
    tracemalloc.start()
    if name.endswith(".zst"):
        read(path)  # may be unpacked whole, as its size is known
    else:
        np.testing.assert_array_equal(read(path), FRAMES)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    with pytest.raises(FormatError, match="TOO_LARGE"):
        read(tmp_path / f"lying_{name}")
    tracemalloc.stop()


def test_a_decoder_that_wants_too_much_memory(tmp_path, content, monkeypatch):
    monkeypatch.setattr("algorithms.formats.streams.MAX_MEMORY", 100_000)
    (tmp_path / "a.mrc.xz").write_bytes(lzma.compress(content, preset=9))
    with pytest.raises(FormatError, match="TOO_LARGE: unpacking needs more"):
        read(tmp_path / "a.mrc.xz")


def test_zstd_without_its_package(tmp_path, content, monkeypatch):
    def missing(_):
        raise ImportError

    monkeypatch.setattr("algorithms.formats.streams.import_module", missing)
    path = tmp_path / "a.mrc.zst"
    path.write_bytes(imagecodecs.zstd_encode(content))
    np.testing.assert_array_equal(read(path), FRAMES)
    monkeypatch.setattr("algorithms.formats.streams.MAX_AT_ONCE", 1000)
    with pytest.raises(FormatError, match=r"UNSUPPORTED: .* install the package zstandard"):
        read(path)


def test_zstd_with_its_package(tmp_path, content):
    zstandard = pytest.importorskip("zstandard")
    path = tmp_path / "a.mrc.zst"
    packer = zstandard.ZstdCompressor(write_content_size=False)
    path.write_bytes(packer.compress(content[:3000]) + packer.compress(content[3000:]))
    np.testing.assert_array_equal(read(path), FRAMES)
    path.write_bytes(packer.compress(content + bytes(40_000_000)))
    tracemalloc.start()
    np.testing.assert_array_equal(read(path), FRAMES)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
