"""Bad pixels: where they are and what stands in for them.

Source: preprocessing.md section 1.7.
"""

import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# A copy of one neighbour keeps the noise of the image; with fewer choices than this the same
# few values would repeat, and a Gaussian draw does less harm.
MIN_GOOD_NEIGHBOURS = 6
_CHUNK = 1 << 16


def defect_mask(text: str, shape: tuple[int, int]) -> np.ndarray:
    """Bad pixels of a UCSF defect text as a bool array of `shape` (ny, nx).

    Each line is `x y w h` in px of the movie as read; rectangles are clipped to the image.

    Raises
    ------
    ValueError
        A line is not four whole numbers, or the text is a SerialEM defect file, which has
        other coordinates.
    """
    if re.search(r"CameraSize|RotationAndFlip|K2Type|Bad", text):
        raise ValueError(
            "this is a SerialEM defect file, in other coordinates: convert it with "
            "`clip defect` to a defect map first"
        )
    mask = np.zeros(shape, dtype=bool)
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 4 or not all(re.fullmatch(r"-?\d+", field) for field in fields):
            raise ValueError(f"line {number}: {line!r} is not `x y width height` in whole px")
        x, y, width, height = (int(field) for field in fields)
        mask[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)] = True
    return mask


def find_hot_pixels(total: Tensor, bad: Tensor, sigma: float) -> Tensor:
    """Pixels of the summed movie `[ny, nx]` above mean + `sigma` deviations and not yet `bad`.

    Gives int64 `[k, 2]` of (x, y), in row order.
    """
    mean, deviation = mean_deviation(total)
    hot = (total > mean + sigma * deviation) & ~bad
    return torch.nonzero(hot).flip(1)


def mean_deviation(total: Tensor) -> tuple[float, float]:
    """Mean and population deviation over all pixels, accumulated in float64."""
    mean = float(total.mean(dtype=torch.float64))
    return mean, float((total - mean).square_().mean(dtype=torch.float64)) ** 0.5


@dataclass(frozen=True, kw_only=True)
class Repair:
    """How to fill the bad pixels of the frames of one movie, reproducibly.

    Parameters
    ----------
    copied, window, n_good
        Flat indices `[m]` of the pixels that copy a neighbour, `[m, w]` flat indices of their
        window with the good ones first, and `[m]` how many are good.
    drawn
        Flat indices of the pixels drawn from a Gaussian.
    mean, deviation
        Of that Gaussian, per frame.
    seed
        Key of the generator; the frame is its counter, so frames can be done in any order.
    """

    copied: Tensor
    window: np.ndarray
    n_good: np.ndarray
    drawn: Tensor
    mean: float
    deviation: float
    seed: int

    def apply(self, frame: Tensor, index: int) -> None:
        """Fill the bad pixels of the float32 `frame` `[ny, nx]`, number `index`, in place."""
        if not len(self.copied) and not len(self.drawn):
            return
        generator = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, index]))
        choice = (generator.random(len(self.n_good)) * self.n_good).astype(np.int64)
        source = self.window[np.arange(len(choice)), choice].astype(np.int64)
        noise = generator.normal(self.mean, self.deviation, len(self.drawn)).astype(np.float32)
        flat = frame.view(-1)
        flat[self.copied] = flat[torch.from_numpy(source).to(frame.device)]
        flat[self.drawn] = torch.from_numpy(noise).to(frame.device)


def plan_repair(
    bad: np.ndarray, half_width: int, mean: float, deviation: float, seed: int, device: str
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
        copied=torch.from_numpy(flat[enough]).to(device),
        window=window[enough],
        n_good=count[enough],
        drawn=torch.from_numpy(flat[~enough]).to(device),
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
