"""Bad pixels: where they are and what stands in for them.

Source: preprocessing.md section 1.7.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

# A copy of one neighbour keeps the noise of the image; with fewer choices than this the same
# few values would repeat, and a Gaussian draw does less harm.
MIN_GOOD_NEIGHBOURS = 6
_CHUNK = 1 << 16
_ROWS = 256  # at a time, whole blocks: no copies of a whole image
_CHANCE = 0.01  # dead pixels expected in a whole sum by chance
# Of the pixels. With many outliers those in a crowd are left out: the edges of bars and crystals.
# With more than the most there is no noise to compare with.
_MANY, _MOST = 0.001, 0.01
_CROWD = 6  # in 5 x 5
_BLOCK = 16
_FAINT = 0.1  # of the usual counts: below, the deviation of read-out noise and rounding remains


def find_hot_pixels(total: Tensor, bad: Tensor, sigma: float) -> Tensor:
    """Pixels of the summed movie `[ny, nx]` above mean + `sigma` deviations and not yet `bad`.

    Gives int64 `[k, 2]` of (x, y), in row order. This is RELION's rule.
    """
    mean, deviation = mean_deviation(total)
    hot = (total > mean + sigma * deviation) & ~bad
    return torch.nonzero(hot).flip(1)


def find_outliers(total: Tensor, bad: Tensor, sigma: float) -> Tensor:
    """Pixels far above or below all that is around them: hot, cold and dead ones.

    Parameters
    ----------
    total
        Gain-corrected sum of the frames, `[ny, nx]`.
    bad
        Pixels known to be bad.
    sigma
        Deviations from the mean of the 16 x 16 block, and from the median of the good pixels in
        the 5 x 5 around: a crystal or the bar of a foil is no defect. A deviation is robust
        (1.4826 MAD of every fourth pixel along both axes) and grows with the root of the counts.

    Gives int64 `[k, 2]` of (x, y), in row order. A pixel that counted nothing is dead where that
    cannot be chance (Poisson).
    """
    blocks = [-(-n // _BLOCK) for n in total.shape]
    around = total.new_empty(blocks)
    sample = total.new_empty(blocks[0], _BLOCK // 4, blocks[1], _BLOCK // 4)
    for rows, part, rest in _strips(total):
        here = slice(rows.start // _BLOCK, rows.start // _BLOCK + len(part))
        around[here], sample[here] = part, rest[:, ::4, :, ::4]
    middle = max(float(around.median()), 1e-30)
    deviation = max(1.4826 * float(sample.abs_().median()), 1e-30)
    # Counts have a longer tail than a normal distribution (Cornish and Fisher).
    tail = (sigma * sigma - 1.0) / 6.0 * deviation**2 / middle

    def limit(level: Tensor) -> Tensor:
        return sigma * deviation * torch.sqrt((level / middle).clamp(min=_FAINT)) + tail

    far = torch.empty_like(bad)
    for rows, part, rest in _strips(total):
        beyond = rest.abs_() > limit(part)[:, None, :, None]
        beyond = beyond.view(-1, beyond.shape[2] * _BLOCK)
        far[rows] = beyond[: rows.stop - rows.start, : far.shape[1]]
    far &= ~bad
    if total.numel() * math.exp(-min(middle, 700.0)) < _CHANCE:
        far |= (total == 0.0) & ~bad
    if int(far.sum()) > _MANY * total.numel():
        crowd = avg_pool2d(far[None].float(), 5, stride=1, padding=2, divisor_override=1)[0]
        far &= crowd <= _CROWD
    found = torch.nonzero(far)
    if len(found) > _MOST * total.numel():
        return find_hot_pixels(total, bad, sigma)
    near = _neighbours(total, bad | far, found)
    value = total[found[:, 0], found[:, 1]]
    alone = (value - near).abs() > limit(near)
    alone |= (value == 0.0) & (near > 0.5 * middle)
    return found[alone & torch.isfinite(near)].flip(1)


def _strips(total: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Give rows, the means `[by, bx]` of their blocks and the rest `[by, 16, bx, 16]`.

    The last row and column repeat where a block is not full.
    """
    ny, nx = total.shape
    for first in range(0, ny, _ROWS):
        last = min(first + _ROWS, ny)
        missing = (0, -nx % _BLOCK, 0, (first - last) % _BLOCK)
        padded = pad(total[None, first:last], missing, "replicate")
        around = avg_pool2d(padded, _BLOCK)[0]
        rest = padded.view(len(around), _BLOCK, -1, _BLOCK) - around[:, None, :, None]
        yield slice(first, last), around, rest


def _neighbours(total: Tensor, unusable: Tensor, places: Tensor) -> Tensor:
    """Median `[k]` of the usable pixels in the 5 x 5 around (y, x); NaN where there are none."""
    offset = torch.arange(-2, 3, device=total.device)
    y = (places[:, 0, None, None] + offset[:, None]).clamp(0, total.shape[0] - 1)
    x = (places[:, 1, None, None] + offset).clamp(0, total.shape[1] - 1)
    values = torch.where(unusable[y, x], torch.nan, total[y, x])
    return values.flatten(1).nanmedian(1).values


def mean_deviation(total: Tensor) -> tuple[float, float]:
    """Mean and population deviation over all pixels, accumulated in float64."""
    mean = sum(float(part.double().sum()) for part in total.split(_ROWS)) / total.numel()
    squares = sum(float((part.double() - mean).square_().sum()) for part in total.split(_ROWS))
    return mean, (squares / total.numel()) ** 0.5


@dataclass(frozen=True, kw_only=True)
class BadPixels:
    """Bad pixels in row order and their stand-ins.

    Parameters
    ----------
    y, x
        int64 `[m]`.
    row_start
        int64 `[ny + 1]`: those of row r are row_start[r] .. row_start[r + 1] - 1.
    values
        float32 `[n, m]` in n frames.
    """

    y: np.ndarray
    x: np.ndarray
    row_start: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Repair:
    """How to fill the bad pixels of the frames of one movie, reproducibly.

    Parameters
    ----------
    bad
        Flat indices `[m]`, in order.
    copied, window, n_good
        Which of them copy a neighbour, `[c, w]` flat indices of their window with the good ones
        first, and `[c]` how many are good. The others are drawn from a Gaussian.
    shape
        Of a frame.
    mean, deviation
        Of that Gaussian, per frame.
    seed
        Key of the generator; the frame is its counter, so frames can be done in any order.
    """

    bad: np.ndarray
    copied: np.ndarray
    window: np.ndarray
    n_good: np.ndarray
    shape: tuple[int, int]
    mean: float
    deviation: float
    seed: int

    def pixels(self, raw: Tensor, gain: Tensor, first: int) -> BadPixels:
        """Stand-ins in frames `raw` `[n, ny, nx]`, the first of which is number `first`."""
        ny, nx = self.shape
        y, x = np.divmod(self.bad, nx)
        flat, scale = raw.reshape(len(raw), -1), gain.reshape(-1)
        values = [self._values(frame, scale, first + i) for i, frame in enumerate(flat)]
        return BadPixels(
            y=y,
            x=x,
            row_start=np.searchsorted(y, np.arange(ny + 1)),
            values=np.stack(values),
        )

    def _values(self, frame: Tensor, gain: Tensor, index: int) -> np.ndarray:
        generator = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, index]))
        choice = (generator.random(len(self.n_good)) * self.n_good).astype(np.int64)
        source = torch.from_numpy(self.window[np.arange(len(choice)), choice].astype(np.int64))
        source = source.to(frame.device)
        out = np.empty(len(self.bad), np.float32)
        out[self.copied] = (frame[source].to(torch.float32) * gain[source]).cpu().numpy()
        drawn = ~self.copied
        out[drawn] = generator.normal(self.mean, self.deviation, int(drawn.sum()))
        return out


def plan_repair(
    bad: np.ndarray, half_width: int, *, mean: float, deviation: float, seed: int
) -> Repair:
    """Plan the repair of the `bad` pixels (bool `[ny, nx]`).

    A pixel copies one good pixel of the same frame, chosen at random from the window of
    2 `half_width` + 1 px around it; where at most six are good it is drawn from a Gaussian with
    the `mean` and `deviation` of a frame.
    """
    flat = np.flatnonzero(bad)
    windows, counts = [], []
    for start in range(0, len(flat), _CHUNK):
        window, count = _windows(bad, flat[start : start + _CHUNK], half_width)
        windows.append(window)
        counts.append(count)
    count = np.concatenate(counts) if counts else np.zeros(0, np.int64)
    window = np.concatenate(windows) if windows else np.zeros((0, 1), np.int32)
    enough = count > MIN_GOOD_NEIGHBOURS
    return Repair(
        bad=flat,
        copied=enough,
        window=window[enough],
        n_good=count[enough],
        shape=(bad.shape[0], bad.shape[1]),
        mean=mean,
        deviation=deviation,
        seed=seed,
    )


def _windows(bad: np.ndarray, flat: np.ndarray, half_width: int) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices of the window around each pixel, good ones first, and how many are good."""
    ny, nx = bad.shape
    offset = np.arange(-half_width, half_width + 1)
    y = (flat // nx)[:, None, None] + offset[None, :, None]
    x = (flat % nx)[:, None, None] + offset[None, None, :]
    inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
    index = (np.clip(y, 0, ny - 1) * nx + np.clip(x, 0, nx - 1)).reshape(len(flat), -1)
    good = inside.reshape(len(flat), -1) & ~bad.ravel()[index]
    order = np.argsort(~good, axis=1, kind="stable")
    return np.take_along_axis(index, order, 1).astype(np.int32), good.sum(1)
