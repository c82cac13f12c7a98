"""Movies with bytes changed: each one is read or refused by name, whatever was hit."""

import bz2
import lzma
import struct
import tracemalloc

import imagecodecs
import numpy as np
import pytest
import tifffile

from algorithms.formats import mrc
from algorithms.formats.dm4 import load as load_dm
from algorithms.formats.eer import BITS_7, BITS_8
from algorithms.formats.errors import FormatError
from algorithms.formats.movie import EerOptions, open_movie
from tests.eer_files import big_tiff, random_electrons, stream
from tests.header_files import dm_file

SHAPE = (24, 32)
CHANGES = 350
EXTREMES = (0, 1, 2**7, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
RNG = np.random.default_rng(11)
FRAMES = RNG.poisson(2, (4, *SHAPE)).astype("u1")


def eer_movie(code, compression, tags=()):
    n = SHAPE[0] * SHAPE[1]
    contents = [
        stream(random_electrons(RNG, k, n), n, code.run_bits, 4, keeps_symbol=code.keeps_symbol)
        for k in (0, 3, 90, 300)
    ]
    return big_tiff(contents, SHAPE, compression=compression, tags=tags, strips=2, sums=1)


def tiff_movie(path, **layout):
    tifffile.imwrite(path, FRAMES, photometric="minisblack", rowsperstrip=7, **layout)
    return path.read_bytes()


def mrc_movie(mode):
    content = bytearray(mrc.encode(FRAMES, 1.0, is_stack=True))
    struct.pack_into("<i", content, 12, mode)
    return bytes(content[:1024]) + (FRAMES & 7).tobytes() * 4


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    path = tmp_path_factory.mktemp("seeds") / "a.tif"
    lzw = tiff_movie(path, compression="lzw", predictor=2)
    return {
        "eer7": eer_movie(BITS_7, 65001),
        "eer8": eer_movie(BITS_8, 65000),
        "eer-tags": eer_movie(BITS_7, 65002, ((65007, 3, 7), (65008, 3, 2))),
        "tiff-lzw": lzw,
        "tiff-deflate": tiff_movie(path, compression="deflate", bigtiff=True),
        "tiff-packbits": tiff_movie(path, compression="packbits", byteorder=">"),
        "tiff-zstd": tiff_movie(path, compression="zstd"),
        "mrc-bytes": mrc_movie(0),
        "mrc-packed": mrc_movie(101),
        "mrc-bz2": bz2.compress(mrc_movie(2)),
        "mrc-xz": lzma.compress(mrc_movie(6)),
        "mrc-zstd": imagecodecs.zstd_encode(mrc_movie(12)),
        "dm4": dm_file(FRAMES[0].astype(np.float32)),
    }


def changed(content, rng):
    """Flip bits, cut, repeat, or put a number there that no field should have."""
    out = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(out))) if len(out) > 1 else 0
        match int(rng.integers(5)):
            case 0:
                out[at] ^= 1 << int(rng.integers(8))
            case 1:
                del out[at:]
                out += b"\0" if not out else b""
            case 2:
                number = EXTREMES[rng.integers(len(EXTREMES))]
                width = (2, 4, 8)[rng.integers(3)]
                out[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
            case 3:
                out[at:at] = out[at : at + int(rng.integers(1, 40))]
            case 4:
                del out[at : at + int(rng.integers(1, 40))]
    return bytes(out)


def read(path):
    if path.suffix == ".dm4":
        load_dm(path)
        return
    for upsampling in (1, 2):
        options = EerOptions(upsampling=upsampling, grouping=2)
        with open_movie(path, eer=options, threads=1) as movie:
            for _, frame in movie.frames():
                assert frame.shape == (movie.ny, movie.nx)
            if movie.format != "eer":
                return


NAMES = ["eer7", "eer8", "eer-tags", "tiff-lzw", "tiff-deflate", "tiff-packbits", "tiff-zstd"]
NAMES += ["mrc-bytes", "mrc-packed", "mrc-bz2", "mrc-xz", "mrc-zstd", "dm4"]


@pytest.mark.parametrize("name", NAMES)
def test_changed_files_are_read_or_refused(tmp_path, samples, name):
    suffix = {"eer": ".eer", "tif": ".tif", "mrc": ".mrc", "dm4": ".dm4"}[name[:3]]
    path = tmp_path / f"a{suffix}"
    rng = np.random.default_rng(len(name))
    path.write_bytes(samples[name])
    read(path)
    refused = 0
    tracemalloc.start()
    for _ in range(CHANGES):
        path.write_bytes(changed(samples[name], rng))
        try:
            read(path)
        except FormatError as error:
            assert str(path) in str(error) and len(error.detail) > 10
            refused += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused > CHANGES // 20
    assert peak < 300_000_000
