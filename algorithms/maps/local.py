"""Resolution of each part of a map: half-maps are correlated in a soft sphere that moves over them.

The sphere's phase-randomised correlation is taken away as for a mask. A window just around the
sphere is transformed and not the whole box: its shells are as wide as the sphere allows to tell
apart, so that each has many independent values, and the work is less by the ratio of volumes.

Source: refinement.md section 7 (one sphere's curve); Cardone et al. (2013) J. Struct. Biol. 184,
226. Step, radius, edge and limits are the options of `relion_postprocess --locres`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from algorithms.maps import correlation, sharpen, shells

LEAST_WINDOW = 16
AT_ONCE = 2**22  # voxels transformed together


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How local resolution is measured.

    Parameters
    ----------
    step_A
        Between centres of the sphere.
    radius_A, edge_A
        Of the sphere, and width of its cosine edge; 0: half a step, and a step.
    randomise_from_A
        Phases finer than this are random where the sphere's own correlation is measured.
    worst_A
        Where the maps agree on less, this is their resolution.
    threshold
        Correlation at the resolution.
    seed
        Of the random phases.
    """

    step_A: float = 25.0
    radius_A: float = 0.0
    edge_A: float = 0.0
    randomise_from_A: float = 25.0
    worst_A: float = 50.0
    threshold: float = correlation.RESOLVED
    seed: int = 0

    def sphere_A(self) -> tuple[float, float]:
        """Return radius and edge."""
        return self.radius_A or self.step_A / 2.0, self.edge_A or self.step_A


@dataclass(frozen=True, kw_only=True)
class Local:
    """What was measured.

    Parameters
    ----------
    resolution_A
        `[N, N, N]`; 0 where no sphere reached.
    finest
        Shell of the box up to which each sphere's halves agree, not rounded: `[p]`.
    fsc
        Corrected correlation in each sphere, on the shells of the box: `[p, N/2+1]`.
    """

    resolution_A: Tensor
    finest: Tensor
    fsc: Tensor


def resolution(
    first: Tensor,
    second: Tensor,
    pixel_A: float,
    wish: Wish,
    mask: Tensor | None = None,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> Local:
    """Measure the resolution of each part of a map.

    Parameters
    ----------
    first, second
        Unfiltered half-maps `[N, N, N]`.
    pixel_A
        Edge of a voxel.
    wish
        How.
    mask
        Spheres that touch it are looked at, `[N, N, N]`; None: all within the box.
    tell
        Is called with the spheres done and their number.

    Raises
    ------
    ValueError
        The sphere does not fit into the box, or the mask is empty.
    """
    box = first.shape[-1]
    window = _Window(box, pixel_A, wish)
    centres = window.centres(mask, max(1, round(wish.step_A / pixel_A)))
    maps = torch.stack([first, second, *_randomised(first, second, pixel_A, wish)])
    start = round(window.size * pixel_A / wish.randomise_from_A)
    weight, inverse = torch.zeros_like(first), torch.zeros_like(first)
    worst, curves, found = box * pixel_A / wish.worst_A, [], []
    for part in centres.split(max(1, AT_ONCE // (4 * window.size**3))):
        cut = window.cut(maps, part) * window.sphere.to(maps)
        curve = window.corrected(cut, start)
        finest = _crossing(curve, wish.threshold) * box / window.size
        finest = finest.clamp(min=worst)
        for centre, shell in zip(part.tolist(), finest.tolist(), strict=True):
            for place, sphere in window.places(centre):
                weight[place] += sphere
                inverse[place] += sphere * (shell / (box * pixel_A))
        curves.append(curve)
        found.append(finest)
        tell(sum(map(len, found)), len(centres))
    reached = weight > 0.0
    at = torch.where(reached, weight / inverse.clamp(min=1e-30), torch.zeros_like(weight))
    return Local(resolution_A=at, finest=torch.cat(found), fsc=window.on_box(torch.cat(curves)))


def filtered(volume: Tensor, pixel_A: float, local: Local, wish: sharpen.Wish) -> Tensor:
    """Return a map of which each part is sharpened, weighted and low-passed as its own halves say.

    Parameters
    ----------
    volume
        Mean of the half-maps `[N, N, N]`.
    pixel_A
        Edge of a voxel.
    local
        Measured before; the map is 0 where it is.
    wish
        Detector and B-factor; weights and low-pass are put in.
    """
    box = volume.shape[-1]
    reached = local.resolution_A > 0.0
    shell = torch.where(reached, box * pixel_A / local.resolution_A.clamp(min=1e-6), 0.0)
    shell = shell.clamp(max=box / 2)
    low, out = torch.floor(shell), torch.zeros_like(volume)
    for number in range(int(low[reached].min()), int(torch.ceil(shell.max())) + 1):
        share = (1.0 - (shell - number).abs()).clamp(min=0.0) * reached
        if not bool(share.any()):
            continue
        distance = (local.finest - number).abs()
        near = distance <= max(1.0, float(distance.min()))
        fsc = local.fsc[near].mean(0)
        this = replace(wish, auto_bfactor=False, low_pass_A=box * pixel_A / max(1, number))
        out += share * sharpen.sharpened(volume, pixel_A, fsc, this)[0]
    return out


class _Window:
    """The cube around a sphere, and where it goes in the box."""

    def __init__(self, box: int, pixel_A: float, wish: Wish):
        radius, edge = (value / pixel_A for value in wish.sphere_A())
        self.box, self.reach = box, math.ceil(radius + edge)
        self.size = max(LEAST_WINDOW, 2 * (self.reach + 1))
        if self.size > box:
            raise ValueError(
                f"a sphere of {wish.sphere_A()[0] + wish.sphere_A()[1]:g} A with its edge does not "
                f"fit into a box of {box * pixel_A:g} A: give a smaller step or radius"
            )
        axis = torch.arange(self.size, dtype=torch.float64) - self.size // 2
        distance = torch.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
        beyond = ((distance - radius) / max(edge, 1e-6)).clamp(0.0, 1.0)
        self.sphere = (0.5 + 0.5 * torch.cos(torch.pi * beyond)).float()

    def centres(self, mask: Tensor | None, step: int) -> Tensor:
        """Return the centres (z, y, x), px, int `[p, 3]`."""
        most = (self.box // 2 - 1) // step * step
        axis = torch.arange(-most, most + 1, step) + self.box // 2
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        if mask is None:
            far = (grid - self.box // 2).double().norm(dim=1)
            return grid[far <= self.box / 2]
        inside = torch.nn.functional.max_pool3d(
            (mask > 0.5).float()[None, None], 2 * (step // 2) + 1, 1, step // 2
        )[0, 0]
        kept = grid[inside[tuple(grid.T)] > 0.0]
        if not len(kept):
            raise ValueError("the mask holds nothing: its values are below 0.5 everywhere")
        return kept

    def cut(self, maps: Tensor, centres: Tensor) -> Tensor:
        """Return windows of maps `[m, N, N, N]`, periodic: `[p, m, M, M, M]`."""
        offset = torch.arange(self.size) - self.size // 2
        parts = []
        for centre in centres:
            z, y, x = ((offset + c) % self.box for c in centre)
            parts.append(maps[:, z[:, None, None], y[:, None], x])
        return torch.stack(parts)

    def corrected(self, cut: Tensor, start: int) -> Tensor:
        """Return corrected curves of windows `[p, 4, M, M, M]`: `[p, M/2+1]`, 1 at the origin."""
        spectra = torch.fft.rfftn(cut, dim=(-3, -2, -1), norm="forward")
        curves = []
        for masked_first, masked_second, random_first, random_second in spectra:
            masked = correlation.fsc_of_spectra(masked_first, masked_second, self.size)
            random = correlation.fsc_of_spectra(random_first, random_second, self.size)
            late = slice(start + correlation.GAP, None)
            masked[late] = (masked[late] - random[late]) / (1.0 - random[late]).clamp(min=1e-3)
            masked[0] = 1.0
            curves.append(masked)
        return torch.stack(curves)

    def places(self, centre: list[int]) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
        """Return the part of the box that a sphere reaches, with the sphere there."""
        low = [max(0, c - self.reach) for c in centre]
        high = [min(self.box, c + self.reach + 1) for c in centre]
        begin = [a - c + self.size // 2 for a, c in zip(low, centre, strict=True)]
        there = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        here = tuple(slice(s, s + b - a) for s, a, b in zip(begin, low, high, strict=True))
        yield there, self.sphere[here]

    def on_box(self, curves: Tensor) -> Tensor:
        """Return curves on the shells of the box."""
        ours = np.arange(curves.shape[1]) / self.size
        theirs = np.arange(self.box // 2 + 1) / self.box
        return torch.from_numpy(np.stack([np.interp(theirs, ours, c.numpy()) for c in curves]))


def _randomised(first: Tensor, second: Tensor, pixel_A: float, wish: Wish) -> list[Tensor]:
    """Return both half-maps with random phases from a resolution on."""
    box = first.shape[-1]
    random = torch.Generator().manual_seed(wish.seed)
    start = round(box * pixel_A / wish.randomise_from_A)
    return [
        correlation.with_random_phases(shells.to_fourier(half), box, start, random)
        for half in (first, second)
    ]


def _crossing(curves: Tensor, threshold: float) -> Tensor:
    """Return where curves `[p, S]` first fall below a threshold, between shells: `[p]`."""
    out = []
    for curve in curves.tolist():
        last = next((k for k in range(1, len(curve)) if curve[k] < threshold), None)
        if last is None:
            out.append(float(len(curve) - 1))
        else:
            above, below = curve[last - 1], curve[last]
            out.append(last - 1 + (above - threshold) / (above - below))
    return torch.tensor(out, dtype=torch.float64)
