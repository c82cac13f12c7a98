"""LZW strips: the same bytes as by imagecodecs, and no harm from those that are spoilt."""

import imagecodecs
import numpy as np
import pytest

from algorithms.formats import lzw, strips

pytest.importorskip("numba")
RNG = np.random.default_rng(5)
SAMPLES = {
    "one": b"a",
    "run": b"a" * 100_000,  # strings that contain themselves, up to the longest
    "pair": b"ab" * 50_000,
    "three": b"abc" * 3,
    "noise": RNG.bytes(60_000),  # no string is found: the table fills and is cleared
    "ramp": bytes(range(256)) * 300,
    "faint": RNG.poisson(0.02, 300_000).astype("u1").tobytes(),
    "counts": RNG.poisson(0.7, 300_000).astype("u1").tobytes(),
    "bright": RNG.poisson(20, 300_000).astype("u1").tobytes(),
    "text": b"to be or not to be, that is the question; " * 400,
}


def decoded(packed, expected):
    """Return what a strip in the middle of a piece of a file has, between two others."""
    around = imagecodecs.lzw_encode(bytes(expected + 1))
    raw = b"123" + packed + around
    begins = np.array([3, 3 + len(packed)])
    found = lzw.decode(memoryview(raw), begins, np.array([len(packed), len(around)]), expected)
    if found is None:
        return None
    content, (count, other) = found
    assert other == lzw.TOO_MUCH
    if count < 0:
        raise RuntimeError({lzw.TOO_MUCH: "too much", lzw.CORRUPT: "corrupt"}[int(count)])
    return content[0, :count].tobytes()


@pytest.mark.parametrize("name", SAMPLES)
def test_every_byte_comes_back(name):
    data = SAMPLES[name]
    packed = imagecodecs.lzw_encode(data)
    assert decoded(packed, len(data)) == data
    for length in (*range(1, 40), 255, 256, 4095, 4096, 4097):
        part = data[:length]
        assert decoded(imagecodecs.lzw_encode(part), len(part)) == part


@pytest.mark.parametrize("name", ["counts", "run", "noise", "text"])
def test_strips_that_are_cut_or_too_long(name):
    data = SAMPLES[name]
    packed = imagecodecs.lzw_encode(data)
    with pytest.raises(RuntimeError, match="too much"):
        decoded(packed, len(data) - 1)
    for size in np.linspace(2, len(packed) - 1, 15).astype(int):
        part = decoded(packed[:size], len(data))
        assert part is not None
        assert data.startswith(part)
        assert len(part) < len(data) or size >= len(packed) - 2  # but for the code of the end


@pytest.mark.parametrize("name", ["counts", "text"])
def test_spoilt_strips_give_bytes_or_an_error(name):
    data = SAMPLES[name][:3000]
    packed = imagecodecs.lzw_encode(data)
    refused = 0
    for _ in range(400):
        spoilt = bytearray(packed)
        for at in RNG.integers(2, len(spoilt), 3):
            spoilt[at] = RNG.integers(256)
        try:
            found = decoded(spoilt, len(data))
        except RuntimeError:
            refused += 1
        else:
            assert found is not None and len(found) <= len(data)
    assert refused > 50


def test_what_does_not_begin_with_a_clear_table_is_left_to_imagecodecs(monkeypatch):
    assert decoded(b"\x00\x01" + bytes(30), 20) is None
    assert decoded(b"\x80", 20) is None
    monkeypatch.setattr(lzw, "compiled", lambda _: None)
    data = SAMPLES["counts"]
    packed = imagecodecs.lzw_encode(data)
    assert decoded(packed, len(data)) is None
    run = strips.Run(memoryview(packed), np.array([0]), np.array([len(packed)]))
    found = strips.decode(run, "lzw", [len(data)], lambda number: ("a.tif", f"strip {number}"))
    assert found.tobytes() == data
