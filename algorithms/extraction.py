"""Particle images cut out of a micrograph: centred, rescaled, normalised.

The work goes in small batches that stay in the processor's cache, on as many threads as the caller
gives; a batch is the same whatever their number. Source: preprocessing.md section 5.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algorithms.background import Levelled, background_of, moments_of
from algorithms.boxes import BoxSizes, box_sizes
from algorithms.ctf import Ctf
from algorithms.windows import gather, level, ramps_of, rescaled, transfer_of

__all__ = ["BoxSizes", "Cutting", "ExtractOptions", "Particles", "box_sizes", "extract"]

# Of a batch on the processor: what is read again is still in its cache. A device wants more.
BATCH_PIXELS = {"cpu": 300_000, "cuda": 32_000_000}


@dataclass(frozen=True, kw_only=True)
class ExtractOptions:
    """How to cut out.

    Parameters
    ----------
    box_px, scaled_px
        Even side of the window in the micrograph, and of the image it is Fourier-cropped to.
    bg_radius_px
        In px of the final image; pixels further from the centre are background.
    invert
        Make dark particles white.
    normalise
        Take the background's level away and scale it to mean 0, deviation 1.
    ramp
        The level is a plane through the background; False: its mean.
    white_dust, black_dust
        Replace pixels beyond this many background deviations by noise; None: leave them.
    min_edge_px
        Drop particles whose centre is closer to the border of the micrograph; None: keep all.
    subpixel
        Centre to a fraction of a pixel. False leaves the rest in the origins, as RELION's files
        have it.
    window_px
        Side of the middle of the scaled image that is kept; None: all.
    ctf
        Multiply by this CTF; of what only `phase_flip` leaves the sign, and `intact_first_peak`
        the frequencies before the first peak.
    ctf_box_px
        Side of a larger window in which the CTF is applied, for what it has spread beyond the
        box; None: the box itself.
    """

    box_px: int
    scaled_px: int
    bg_radius_px: int
    invert: bool = True
    normalise: bool = True
    ramp: bool = True
    white_dust: float | None = None
    black_dust: float | None = None
    min_edge_px: float | None = None
    subpixel: bool = True
    window_px: int | None = None
    ctf: Ctf | None = None
    phase_flip: bool = False
    intact_first_peak: bool = False
    ctf_box_px: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.scaled_px <= self.box_px or self.box_px % 2 or self.scaled_px % 2:
            raise ValueError(
                f"box {self.box_px} px scaled to {self.scaled_px} px: both must be even and "
                "the second not above the first"
            )
        if not 0 < self.final_px <= self.scaled_px or self.final_px % 2:
            raise ValueError(f"box of {self.window_px} px out of {self.scaled_px}: even, not above")
        if self.normalise and not 0 < self.bg_radius_px < self.final_px / 2:
            raise ValueError(
                f"background radius {self.bg_radius_px} px in a box of {self.final_px}"
            )
        if self.outer_px < self.box_px or self.outer_px % 2:
            raise ValueError(
                f"a box of {self.outer_px} px for the CTF around one of {self.box_px} px: it must "
                "be even and not smaller"
            )

    @property
    def final_px(self) -> int:
        """Side of the images."""
        return self.window_px or self.scaled_px

    @property
    def outer_px(self) -> int:
        """Side of the windows in the micrograph."""
        return self.box_px if self.ctf is None else self.ctf_box_px or self.box_px


@dataclass(frozen=True, kw_only=True)
class Particles:
    """Extracted images and what belongs to them.

    Parameters
    ----------
    images
        `[n, side, side]` float32.
    kept
        Index `[n]` into the coordinates that were given.
    origin_x_A, origin_y_A
        Shift `[n]` that would still centre the particle (rlnOriginXAngst); 0 with `subpixel`.
    pixel_size_A
        Of the images.
    statistics
        Minimum, maximum, mean and standard deviation of all images.
    flat
        True `[n]` where the background was constant and the image is not normalised.
    """

    images: Tensor
    kept: np.ndarray
    origin_x_A: np.ndarray
    origin_y_A: np.ndarray
    pixel_size_A: float
    statistics: tuple[float, float, float, float]
    flat: np.ndarray


class Cutting:
    """The particles of one micrograph, image after image; see `extract` for the arguments.

    Attributes
    ----------
    kept, origin_x_A, origin_y_A, pixel_size_A
        As in `Particles`.
    shape
        Of the micrograph, (ny, nx).
    x_px, y_px
        Coordinates of the particles that are kept.
    statistics, flat
        As in `Particles`; complete when all batches have been taken.
    """

    def __init__(
        self,
        image: np.ndarray | Tensor,
        coordinates_px: tuple[np.ndarray | Sequence[float], np.ndarray | Sequence[float]],
        pixel_size_A: float,
        options: ExtractOptions,
        device: str | torch.device = "cpu",
        *,
        seed: int = 0,
        threads: int | None = None,
    ):
        self._image, self.options, self._seed = _placed(image, device), options, seed
        self._device = torch.device(device)
        self._threads = torch.get_num_threads() if threads is None else threads
        x, y = (np.asarray(v, dtype=np.float64).reshape(-1) for v in coordinates_px)
        self.shape = int(image.shape[0]), int(image.shape[1])
        self.kept = _kept(self.shape, x, y, options)
        self.x_px, self.y_px = x, y = x[self.kept], y[self.kept]
        self._x, self._y = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
        self._rest = x - self._x, y - self._y
        left_A = 0.0 if options.subpixel else pixel_size_A
        self.origin_x_A, self.origin_y_A = (-rest * left_A + 0.0 for rest in self._rest)
        self.pixel_size_A = pixel_size_A * options.box_px / options.scaled_px
        self._zero = level(self._image) if options.normalise else 0.0
        self._transfer = self._transfer_of(pixel_size_A)
        self._ramps = [
            ramps_of(rest, options.box_px, options.scaled_px, self._device)
            for rest in self._rest
            if options.subpixel and any(part.any() for part in self._rest)
        ]
        self.statistics = (0.0, 0.0, 0.0, 0.0)
        self.flat = np.zeros(0, dtype=bool)

    def _transfer_of(self, pixel_size_A: float) -> Tensor | None:
        options = self.options
        if options.ctf is None:
            return None
        outer = options.outer_px
        return transfer_of(
            options.ctf,
            outer,
            options.scaled_px if outer == options.box_px else outer,
            pixel_size_A,
            flip_only=options.phase_flip,
            intact_first_peak=options.intact_first_peak,
            device=self._device,
        )

    def __len__(self) -> int:
        return len(self.kept)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the images in order, a batch `[m, side, side]` at a time."""
        step = max(1, BATCH_PIXELS[self._device.type] // self.options.outer_px**2)
        parts = [slice(i, min(i + step, len(self))) for i in range(0, len(self), step)]
        found, flats = [], []
        with _one_thread_each(), ThreadPoolExecutor(max(1, self._threads)) as pool:
            many = self._threads > 1 and len(parts) > 1
            for done in (pool.map if many else map)(self._batch, parts):
                found.append(done.moments)
                flats.append(done.flat)
                yield done.images
        if found:
            low, high, total, squares = np.array(found).T
            count = len(self) * self.options.final_px**2
            mean = total.sum() / count
            deviation = np.sqrt(max(0.0, squares.sum() / count - mean**2))
            self.statistics = (low.min(), high.max(), float(mean), float(deviation))
            self.flat = np.concatenate(flats)

    def _batch(self, part: slice) -> Levelled:
        options = self.options
        windows = gather(self._image, self._x[part], self._y[part], options.outer_px, self._zero)
        transfer = self._transfer
        if transfer is not None and options.outer_px > options.box_px:
            windows = _middle(rescaled(windows, options.outer_px, None, transfer), options.box_px)
            transfer = None
        ramps = (self._ramps[0][part], self._ramps[1][part]) if self._ramps else None
        images = _middle(rescaled(windows, options.scaled_px, ramps, transfer), options.final_px)
        if not options.normalise:
            images = -images if options.invert else images
            return Levelled(images, np.zeros(len(images), bool), moments_of(images))
        side = options.final_px
        background = background_of(side, options.bg_radius_px, options.ramp, str(self._device))
        seeds = self._seed * 1_000_003 + np.arange(part.start, part.stop)
        values = images.view(len(images), -1)
        background.replace_dust(values, options.white_dust, options.black_dust, seeds)
        return background.normalise(images, -1.0 if options.invert else 1.0)


def extract(
    image: np.ndarray | Tensor,
    x_px: np.ndarray | Sequence[float],
    y_px: np.ndarray | Sequence[float],
    pixel_size_A: float,
    options: ExtractOptions,
    device: str | torch.device = "cpu",
    *,
    seed: int = 0,
    threads: int | None = None,
) -> Particles:
    """Cut out one image per coordinate.

    Parameters
    ----------
    image
        Micrograph `[ny, nx]`.
    x_px, y_px
        Centres `[n]`, 0 at the centre of the first pixel. Windows over the border repeat its
        pixels.
    pixel_size_A
        Of the micrograph.
    options
        Sizes and what to do.
    device
        Where to compute; the images stay there.
    seed
        Of the noise that replaces dust.
    threads
        How many batches are worked on at a time; None: as many as torch uses.

    Raises
    ------
    ValueError
        The micrograph is not 2-D, coordinates differ in number or are not finite, or a window
        lies wholly outside: coordinates of another image or scale.
    """
    cutting = Cutting(
        image, (x_px, y_px), pixel_size_A, options, device, seed=seed, threads=threads
    )
    side = options.final_px
    batches = list(cutting)
    return Particles(
        images=torch.cat(batches) if batches else torch.empty((0, side, side), device=device),
        kept=cutting.kept,
        origin_x_A=cutting.origin_x_A,
        origin_y_A=cutting.origin_y_A,
        pixel_size_A=cutting.pixel_size_A,
        statistics=cutting.statistics,
        flat=cutting.flat,
    )


def _placed(image: np.ndarray | Tensor, device: str | torch.device) -> np.ndarray | Tensor:
    """Return the micrograph where it is cut: an array on the processor, else a tensor."""
    if image.ndim != 2:
        raise ValueError(f"a micrograph is two-dimensional, not {tuple(image.shape)}")
    if torch.device(device).type != "cpu":
        return torch.as_tensor(image, device=device)
    return image.detach().cpu().numpy() if isinstance(image, Tensor) else image


def _kept(
    shape: tuple[int, int], x: np.ndarray, y: np.ndarray, options: ExtractOptions
) -> np.ndarray:
    """Index of the particles far enough from the border, after checks."""
    if len(x) != len(y) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"{len(x)} x and {len(y)} y coordinates; all must be finite pairs")
    ny, nx = shape
    half = options.box_px // 2
    column, row = np.rint(x), np.rint(y)
    outside = (column + half <= 0) | (column - half >= nx) | (row + half <= 0) | (row - half >= ny)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise ValueError(
            f"particle {first + 1} at ({x[first]:.1f}, {y[first]:.1f}) px lies outside the "
            f"{nx} x {ny} micrograph: coordinates of another image or binning?"
        )
    if options.min_edge_px is None:
        return np.arange(len(x))
    edge = np.minimum(np.minimum(x, nx - 1 - x), np.minimum(y, ny - 1 - y))
    return np.flatnonzero(edge >= options.min_edge_px)


def _middle(images: Tensor, side: int) -> Tensor:
    """Return the middle `[n, side, side]`, element side // 2 where the centre was."""
    old = images.shape[-1]
    if side == old:
        return images
    first = old // 2 - side // 2
    return images[:, first : first + side, first : first + side].contiguous()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep torch from dividing a batch: sums would depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
