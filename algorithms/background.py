"""Normalisation of particle images by their background: the pixels outside a circle.

Source: preprocessing.md section 5.2, step 6.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

FLAT = 1e-10  # a background without this much deviation has nothing to normalise by
# Single precision leaves so much of a constant, relative to it.
ROUNDING = 2e-6


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
        self.count = int(is_outside.sum())
        self._weights = is_outside.float().div_(self.count).to(device)
        self._fit, self._plane = fit.float().to(device), plane.T.float().contiguous().to(device)

    def normalise(self, values: Tensor, sign: float = 1.0) -> tuple[Tensor, Tensor]:
        """Give the background of images `[n, px]` mean 0 and deviation 1, in place.

        Parameters
        ----------
        values
            Images.
        sign
            -1 inverts the contrast as well.

        Returns
        -------
        images
            The same memory.
        flat
            True `[n]` where the background is constant; such an image is not scaled.
        """
        plane = torch.nn.functional.linear(values, self._fit)
        values.addmm_(plane, self._plane, alpha=-1)
        deviation = torch.sqrt((values * values) @ self._weights)
        flat = deviation <= FLAT + ROUNDING * plane[:, -1].abs()
        values *= (sign / torch.where(flat, 1.0, deviation))[:, None]
        return values, flat

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


@lru_cache(maxsize=8)
def background_of(side: int, radius_px: float, ramp: bool, device: str) -> Background:
    """Return the background of images of a kind; all micrographs of a session share one."""
    return Background(side, radius_px, ramp, device)
