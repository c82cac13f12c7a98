"""Lays one map onto another, either hand: an initial model has no orientation and no hand."""

import torch
from torch import Tensor

from algorithms.maps import correlation, symmetry_align
from algorithms.orientation import euler, healpix

POINTS = 3000
KEPT = 4
ORDER = 2


def _sampled(volume: Tensor, points: Tensor) -> Tensor:
    size = volume.shape[-1]
    unit = 2.0 * (points + size // 2) / (size - 1) - 1.0
    grid = unit[None, :, None].to(volume)
    sampled = torch.nn.functional.grid_sample(volume[None, None], grid, align_corners=True)
    return sampled[0, 0, :, 0]


def _alike(volume: Tensor, wanted: Tensor, points: Tensor, turns: Tensor, move: Tensor) -> Tensor:
    there = _sampled(volume, torch.einsum("rij,pj->rpi", turns, points) + move)
    there = there - there.mean(1, keepdim=True)
    here = wanted - wanted.mean()
    return (there * here).sum(1) / (there.norm(dim=1) * here.norm()).clamp(min=1e-12)


def laid_onto(volume: Tensor, truth: Tensor, radius_px: float) -> Tensor:
    """Return a map `[N, N, N]` turned, moved, perhaps mirrored to be most like another."""
    size, best, out = truth.shape[-1], -2.0, volume
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack([x, y, z], -1).reshape(-1, 3)
    points = points[points.norm(dim=1) <= radius_px]
    points = points[:: max(1, len(points) // POINTS)]
    wanted = _sampled(truth, points[None])[0]
    rot, tilt = healpix.pixels(ORDER)
    psi = torch.arange(0.0, 360.0, healpix.step_deg(ORDER)).double()
    angles = torch.stack(
        [rot.repeat(len(psi)), tilt.repeat(len(psi)), psi.repeat_interleave(len(rot))], 1
    )
    turns, still = euler.matrices(angles), torch.zeros(3).double()
    for hand in (volume, volume.flip(0).roll(1, 0)):
        alike = torch.cat([_alike(hand, wanted, points, t, still) for t in turns.split(256)])
        for row in torch.argsort(alike, descending=True)[:KEPT].tolist():
            turn, move, value = _refined(hand, wanted, points, turns[row])
            if value > best:
                best = value
                out = symmetry_align.mean_of_views(hand, turn[None], move)
    return out


def _refined(
    volume: Tensor, wanted: Tensor, points: Tensor, start: Tensor
) -> tuple[Tensor, Tensor, float]:
    free = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    steps = torch.optim.LBFGS([free], max_iter=25, line_search_fn="strong_wolfe")

    def placed() -> tuple[Tensor, Tensor]:
        x, y, z = (0.1 * free[:3]).unbind()
        o = torch.zeros_like(x)
        cross = torch.stack([torch.stack(r) for r in ((o, -z, y), (z, o, -x), (-y, x, o))])
        return torch.linalg.matrix_exp(cross) @ start, free[3:]

    def loss() -> Tensor:
        steps.zero_grad()
        turn, move = placed()
        value = -_alike(volume, wanted, points, turn[None], move)[0]
        value.backward()
        return value

    steps.step(loss)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        turn, move = placed()
        return turn, move, float(_alike(volume, wanted, points, turn[None], move)[0])


def agreed_A(volume: Tensor, truth: Tensor, pixel_A: float, radius_px: float) -> float:
    """Return the resolution, A, at which a map laid onto the truth correlates by 0.5."""
    fitted = laid_onto(volume.double(), truth.double(), radius_px)
    curve = correlation.fsc(fitted, truth.double())
    below = torch.nonzero(curve[1:] < 0.5)
    last = int(below[0]) if len(below) else len(curve) - 1
    return truth.shape[-1] * pixel_A / max(1, last)
