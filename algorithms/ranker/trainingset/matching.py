"""Which noise-free projection a class average shows, and how well.

Candidates are the views of the class's own members, turned as the classification has turned them;
small rotations and all shifts are tried. Source: class-ranker.md section 9.3.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algorithms.ranker.trainingset.optics import half_plane
from algorithms.ranker.trainingset.projecting import (
    Projector,
    image_of,
    rotated_in_plane,
    shift_phases,
)
from algorithms.refine.images import soft_mask

HALF = 0.5
_MEMBERS = 14  # views that are tried
_COARSE_DEG = np.array([-20.0, -10.0, 0.0, 10.0, 20.0])
_FINE_DEG = np.array([-6.0, -3.0, 0.0, 3.0, 6.0])
_BEST = 2  # views whose rotation is refined
_REACH = 0.5  # of the mask's diameter: farther shifts are not looked for
_LIMIT_A = 8.0  # finer than this does not tell views apart in the search


@dataclass(frozen=True)
class Match:
    """The projection that fits a class average best.

    Parameters
    ----------
    curve
        Correlation by shell `[box / 2 + 1]`.
    resolution_A
        Where the curve falls below one half; inf: nowhere above it.
    finest_A
        Finest shell with a correlation above one half, even if others before are not.
    offset_px
        Distance of the projection's centre from that of the box.
    """

    curve: np.ndarray
    resolution_A: float
    finest_A: float
    offset_px: float


NONE = Match(np.zeros(0), np.inf, np.inf, np.nan)


class Matcher:
    """Matches class averages of one job.

    Parameters
    ----------
    projector
        Of the target.
    box_px, pixel_A, mask_A
        Of the averages.
    """

    def __init__(self, projector: Projector, box_px: int, pixel_A: float, mask_A: float):
        self._projector, self._box, self._pixel_A = projector, box_px, pixel_A
        self._inside = (1.0 - soft_mask(box_px, mask_A / pixel_A / 2.0)).float()
        pixels = half_plane(box_px)
        # Columns strictly between the first and the last stand for their mirror images, too.
        self._twice = 1.0 + ((pixels.jx > 0) & (pixels.jx < box_px // 2)).float()
        self._shell = pixels.shell
        limit = min(box_px // 2, round(box_px * pixel_A / _LIMIT_A))
        self._band = (self._twice * ((self._shell > 0) & (self._shell <= limit))).float()
        axis = torch.arange(box_px) - box_px // 2
        reach = _REACH * mask_A / pixel_A
        self._near = torch.fft.ifftshift(axis[:, None] ** 2 + axis[None, :] ** 2 <= reach**2)

    def match(self, average: np.ndarray, rotations: np.ndarray, psi_deg: np.ndarray) -> Match:
        """Return the best match of an average.

        Parameters
        ----------
        average
            `[box, box]`.
        rotations, psi_deg
            Orientations of the members with a target, `[m, 3, 3]`, and how the classification has
            turned the class to see them `[m]`; some of them are tried.
        """
        if not len(rotations):
            return NONE
        few = np.linspace(0, len(rotations) - 1, min(_MEMBERS, len(rotations))).astype(int)
        # In the frame of the class a member lies as it does turned back.
        there = rotated_in_plane(rotations[few], -psi_deg[few])
        seen = self._spectrum(torch.from_numpy(np.asarray(average, np.float32))[None])[0]
        turned = _all(there, _COARSE_DEG)
        score = self._scores(seen, turned)[0]
        best = np.argsort(-score)[:_BEST]
        turned = _all(turned[best], _FINE_DEG)
        score, shifts = self._scores(seen, turned)
        winner = int(score.argmax())
        return self._compared(seen, turned[winner], shifts[winner])

    def _spectrum(self, images: Tensor) -> Tensor:
        return self._flat(images * self._inside)

    def _flat(self, images: Tensor) -> Tensor:
        return torch.fft.rfft2(torch.fft.ifftshift(images, dim=(-2, -1)), norm="forward").flatten(1)

    def _scores(self, seen: Tensor, rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the highest correlation of each projection, and its shift (x, y) in px."""
        box = self._box
        slices = self._projector.slices(rotations, box)
        norm = torch.sqrt((slices.abs().square() * self._band).sum(1)).clamp(min=1e-20)
        product = (slices.conj() * seen * (self._band > 0)).reshape(-1, box, box // 2 + 1)
        surface = torch.fft.irfft2(product, s=(box, box), norm="forward")
        surface = torch.where(self._near, surface, torch.tensor(-torch.inf)).flatten(1)
        highest, at = surface.max(1)
        y, x = torch.div(at, box, rounding_mode="floor"), at % box
        shift = torch.stack([x, y], 1).float()
        shift = torch.where(shift >= box / 2, shift - box, shift)
        return (highest / norm).numpy(), shift.numpy()

    def _compared(self, seen: Tensor, rotation: np.ndarray, shift: np.ndarray) -> Match:
        """Return the correlation curve with a projection; its shift is refined first."""
        box = self._box
        steps = np.array([(x, y) for x in (-0.5, 0.0, 0.5) for y in (-0.5, 0.0, 0.5)])
        shifts = shift + steps
        moved = self._projector.slices(rotation[None], box) * shift_phases(box, shifts)
        spectra = self._spectrum(image_of(moved, box))
        cross = (spectra.conj() * seen).real
        norm = torch.sqrt((spectra.abs().square() * self._band).sum(1)).clamp(min=1e-20)
        best = int(((cross * self._band).sum(1) / norm).argmax())
        curve = self._curve(seen, spectra[best])
        resolution, finest = crossing(curve, box * self._pixel_A)
        return Match(curve, resolution, finest, float(np.linalg.norm(shifts[best])))

    def _curve(self, first: Tensor, second: Tensor) -> np.ndarray:
        count = self._box // 2 + 1

        def summed(values: Tensor) -> np.ndarray:
            weights = (values * self._twice).double()
            return torch.bincount(self._shell, weights, minlength=count)[:count].numpy()

        power = summed(first.abs().square()) * summed(second.abs().square())
        curve = summed((first.conj() * second).real) / np.sqrt(np.maximum(power, 1e-300))
        # One shell alone falls, or rises, by chance.
        padded = np.pad(curve, 1, mode="edge")
        return (padded[:-2] + 2.0 * padded[1:-1] + padded[2:]) / 4.0


def crossing(curve: np.ndarray, edge_A: float) -> tuple[float, float]:
    """Return where a correlation falls below one half, and the finest shell that is above it.

    Parameters
    ----------
    curve
        By shell, `[S]`. The first shells hold what normalisation and the CTF have taken away: the
        fall is looked for after the first shell above one half among the lowest.
    edge_A
        Side of the box.
    """
    above = np.flatnonzero(curve[1:] >= HALF) + 1
    if not len(above):
        return np.inf, np.inf
    first = int(above[0])
    if first > max(3, len(curve) // 6):
        return np.inf, edge_A / float(above[-1])
    below = np.flatnonzero(curve[first:] < HALF)
    last = first + int(below[0]) if len(below) else len(curve) - 1
    if last < len(curve) and curve[last] < HALF:  # between two shells
        part = (curve[last - 1] - HALF) / (curve[last - 1] - curve[last])
        return edge_A / (last - 1 + part), edge_A / float(above[-1])
    return edge_A / last, edge_A / float(above[-1])


def _all(rotations: np.ndarray, turns_deg: np.ndarray) -> np.ndarray:
    """Return each rotation turned in the plane by each angle."""
    many = np.repeat(rotations, len(turns_deg), axis=0)
    return rotated_in_plane(many, np.tile(turns_deg, len(rotations)))
