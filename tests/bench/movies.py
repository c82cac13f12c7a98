"""Reading movies on one thread: decoded frames per second beside the codec alone and a copy."""

import time
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from algorithms.formats import tiff
from algorithms.formats.eerdecode import read_streams
from algorithms.formats.movie import EerMovie, EerOptions, open_movie, structure_of
from algorithms.simulate.eer import encode_eer
from tests.bench.figures import Bench

K3 = (4092, 5760)  # ny, nx
K3_FRAMES, K3_DOSE = 4, 0.7  # electrons per pixel and frame
FALCON = (4096, 4096)
RAW, EVENTS = 40, 0.0235  # raw frames of a fraction, electrons per pixel in each
DIRECTORIES = 1200
REPEATS = 3


def run(bench: Bench) -> None:
    """Measure TIFF and EER."""
    counts = np.random.default_rng(1).poisson(K3_DOSE, (K3_FRAMES, *K3)).astype(np.uint8)
    for compression in ("lzw", "deflate"):
        bench.say(f"TIFF, {compression}")
        path = bench.folder / f"{compression}.tif"
        with tifffile.TiffWriter(path) as writer:
            for frame in counts:
                writer.write(frame, compression=compression, metadata=None, rowsperstrip=44)
        _tiff(bench, path, compression)
    bench.say("writing an EER movie")
    total = np.random.default_rng(2).poisson(RAW * EVENTS, FALCON).astype(np.uint8)
    path = bench.folder / "a.eer"
    path.write_bytes(encode_eer(total[None], RAW, np.random.default_rng(3)))
    for upsampling, name in ((1, "4K"), (2, "8K")):
        bench.say(f"EER, {name}")
        _eer(bench, path, upsampling, name)
    bench.say("opening")
    path = bench.folder / "many.eer"
    path.write_bytes(
        encode_eer(np.ones((1, 64, 64), np.uint8), DIRECTORIES, np.random.default_rng(4))
    )
    opening = best(lambda: structure_of(path))
    bench.add(f"opening an EER movie of {DIRECTORIES} directories", 1e3 * opening, "ms")
    bench.note(
        "Processor time on one thread, the best of three. The floor is a copy of the decoded "
        "frame; imagecodecs decodes the same strips, or the same raw frames into the same image."
    )


def best(function: Callable[[], object]) -> float:
    """Return the least processor time of some runs, the first one not counted."""
    function()
    times = []
    for _ in range(REPEATS):
        begun = time.process_time()
        function()
        times.append(time.process_time() - begun)
    return min(times)


def _copy(shape: tuple[int, int]) -> float:
    """Return the time of a copy of a frame of bytes."""
    frame = np.ones(shape, np.uint8)
    other = np.empty_like(frame)
    return best(lambda: np.copyto(other, frame))


def _read(path: Path, options: EerOptions | None = None) -> int:
    with open_movie(path, eer=options, threads=1) as movie:
        return sum(1 for _ in movie.frames())


def _tiff(bench: Bench, path: Path, compression: str) -> None:
    ours = best(lambda: _read(path)) / K3_FRAMES
    with open(path, "rb") as file:
        pages, _ = tiff.read_pages(file, path)
        content = memoryview(path.read_bytes())
    decode = {"lzw": imagecodecs.lzw_decode, "deflate": imagecodecs.deflate_decode}[compression]

    def peer() -> None:
        for page in pages:
            for offset, count in zip(page.offsets, page.counts, strict=True):
                decode(content[offset : offset + count], out=page.nx * page.rows_per_strip)

    name = f"TIFF {compression}, {K3[1]} x {K3[0]}, per frame"
    bench.floor(name, 1e3 * ours, "ms", 1e3 * _copy(K3), "a copy of the frame")
    bench.peer(name, 1e3 * ours, "ms", 1e3 * best(peer) / K3_FRAMES, "imagecodecs, strips only")


def _eer(bench: Bench, path: Path, upsampling: int, name: str) -> None:
    options = EerOptions(upsampling=upsampling, grouping=RAW)
    ours = best(lambda: _read(path, options))
    with open_movie(path, eer=options) as movie:
        assert isinstance(movie, EerMovie)
        streams = read_streams(movie._file.fileno(), movie._raw, 0, RAW)
        events = int(next(movie.frames())[1].sum())
        shape = (movie.ny, movie.nx)
    parts = [
        streams.words[first : last - 1].tobytes()
        for first, last in zip(streams.first[:-1], streams.first[1:], strict=True)
    ]

    def peer() -> None:
        image = np.zeros(shape, np.uint8)
        for part in parts:
            imagecodecs.eer_decode(part, shape, 7, 2, 2, superres=upsampling - 1, out=image)

    what = f"EER at {name}, {RAW} raw frames"
    bench.floor(what, 1e3 * ours, "ms", 1e3 * _copy(shape), "a copy of the fraction")
    bench.peer(what, 1e3 * ours, "ms", 1e3 * best(peer), "imagecodecs, no reading")
    bench.add(f"EER at {name}", events / ours / 1e6, "million electrons/s")
