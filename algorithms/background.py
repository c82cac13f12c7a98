"""Normalisation of particle images by their background: the pixels outside a circle.

Source: preprocessing.md section 5.2, step 6.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from algorithms import extractloops
from algorithms.jit import compiled

FLAT = 1e-10  # a background without this much deviation has nothing to normalise by
# Single precision leaves so much of a constant, relative to it.
ROUNDING = 1e-5


class Levelled(NamedTuple):
    """Images with their background at 0, in the memory they were in.

    `flat` `[n]` is True where the background is constant; such an image is not scaled. `moments`
    `[4]` are minimum, maximum, sum and sum of squares of all images.
    """

    images: Tensor
    flat: np.ndarray
    moments: np.ndarray


class Background:
    """The background of square images, with its geometry computed once; see `background_of`.

    Parameters
    ----------
    side
        Of the images, px.
    radius_px
        Pixels further from the centre at side // 2 are background.
    ramp
        Subtract the plane through the background; False: its mean alone.
    device
        Where the images are.
    """

    def __init__(self, side: int, radius_px: float, ramp: bool, device: str):
        axis = torch.arange(side, dtype=torch.float64) - side // 2
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        is_outside = (x**2 + y**2 > radius_px**2).reshape(-1)
        terms = (x, y, torch.ones_like(x)) if ramp else (torch.ones_like(x),)
        plane = torch.stack(terms, dim=-1).reshape(-1, len(terms))
        fit = torch.zeros(len(terms), side * side, dtype=torch.float64)
        fit[:, is_outside] = torch.linalg.pinv(plane[is_outside])
        self.side, self.count = side, int(is_outside.sum())
        self._weights = is_outside.float().div_(self.count).to(device)
        self._fit, self._plane = fit.float().to(device), plane.T.float().contiguous().to(device)
        inside = ~is_outside.reshape(side, side).numpy()
        first = np.where(inside.any(1), inside.argmax(1), side)
        last = np.where(inside.any(1), side - inside[:, ::-1].argmax(1), side)
        self._circle = np.stack([first, last], axis=1)
        outer = torch.stack((x, y, torch.ones_like(x)), dim=-1).reshape(-1, 3)[is_outside]
        self._solve = np.zeros((3, 3))
        self._solve[2, 2] = 1 / self.count
        if ramp:
            self._solve = torch.linalg.inv(outer.T @ outer).numpy()

    def normalise(self, images: Tensor, sign: float = 1.0) -> Levelled:
        """Give the background of images `[n, side, side]` mean 0 and deviation 1, in place.

        Parameters
        ----------
        images
            float32.
        sign
            -1 inverts the contrast as well.
        """
        kernels = (compiled(extractloops.outer_sums), compiled(extractloops.flatten))
        if images.device.type != "cpu" or None in kernels:
            return self._by_products(images, sign)
        outer_sums, flatten = kernels
        values, count = images.numpy(), len(images)
        sums, moments = np.empty((count, 3)), np.empty((count, 5))
        outer_sums(values, self._circle, sums)  # type: ignore[misc]
        planes = sums @ self._solve.T
        flatten(values, self._circle, planes, moments)  # type: ignore[misc]
        deviation = np.sqrt(moments[:, 4] / self.count)
        flat = deviation <= FLAT + ROUNDING * np.abs(planes[:, 2])
        factor = sign / np.where(flat, 1.0, deviation)
        values *= factor.astype(np.float32)[:, None, None]
        ends = np.sort(moments[:, :2] * factor[:, None], axis=1)
        sums = (moments[:, 2] @ factor, moments[:, 3] @ factor**2)
        return Levelled(images, flat, np.array([ends[:, 0].min(), ends[:, 1].max(), *sums]))

    def _by_products(self, images: Tensor, sign: float) -> Levelled:
        """Do the same by products of matrices."""
        values = images.view(len(images), -1)
        plane = torch.nn.functional.linear(values, self._fit)
        values.addmm_(plane, self._plane, alpha=-1)
        deviation = torch.sqrt((values * values) @ self._weights)
        flat = deviation <= FLAT + ROUNDING * plane[:, -1].abs()
        values *= (sign / torch.where(flat, 1.0, deviation))[:, None]
        return Levelled(images, flat.cpu().numpy(), moments_of(images))

    def replace_dust(
        self,
        values: Tensor,
        white: float | None,
        black: float | None,
        seeds: np.ndarray,
    ) -> None:
        """Replace outliers of images `[n, px]` by noise like the background, in place.

        Parameters
        ----------
        values
            Images. Outliers anywhere in them count.
        white, black
            Limits above and below, in background deviations; None: no such limit.
        seeds
            Of each image's noise `[n]`, so that it does not depend on the others.
        """
        if white is None and black is None:
            return
        mean = values @ self._weights
        centred = values - mean[:, None]
        deviation = torch.sqrt((centred * centred) @ self._weights)
        dust = torch.zeros_like(values, dtype=torch.bool)
        if white is not None:
            dust |= centred > white * deviation[:, None]
        if black is not None:
            dust |= centred < -black * deviation[:, None]
        for i in torch.nonzero(dust.any(dim=1)).flatten().tolist():
            places = torch.nonzero(dust[i]).flatten()
            noise = np.random.default_rng(int(seeds[i])).standard_normal(len(places))
            drawn = torch.from_numpy(noise).to(values)
            values[i, places] = mean[i] + deviation[i] * drawn


def moments_of(images: Tensor) -> np.ndarray:
    """Return minimum, maximum, sum and sum of squares `[4]` of images `[n, side, side]`."""
    rows = images.flatten(1)
    low, high = torch.aminmax(rows)
    squares = torch.linalg.vector_norm(rows, dim=1).double().square().sum()
    return np.array([float(v) for v in (low, high, rows.sum(1).double().sum(), squares)])


@lru_cache(maxsize=8)
def background_of(side: int, radius_px: float, ramp: bool, device: str) -> Background:
    """Return the background of images of a kind; all micrographs of a session share one."""
    return Background(side, radius_px, ramp, device)
