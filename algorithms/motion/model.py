"""The local motion of a movie: a polynomial, cubic in time and quadratic in space.

With x = X/nx - 0.5, y = Y/ny - 0.5 and z the frame counted from the first one used, each axis has
18 coefficients: of 1, x, x^2, y, y^2, x y, each times z, z^2, z^3. Shifts are applied on top of
the whole frame's: corrected(x) = raw(x - global - local). All is zero in the first frame.

Source: preprocessing.md section 2.6.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
COEFFICIENTS = 18
_SPACE, _TIME = 6, 3
# Reference rule: the model is dropped when either axis has a larger residual, unbinned px.
_MAX_RMSD_PX = 10.0
_CLIP = 2.5  # robust deviations beyond which a shift weighs no more, however far it is
_FAR = 4.0  # robust deviations of a patch's mean residual beyond which it is left out
_ROUNDS = 8
_LEAST_GAIN = 4.0  # of the logarithm of the evidence, for a model at all: odds of 50 to 1


@dataclass(frozen=True, kw_only=True)
class Observations:
    """Shifts seen in patches.

    Parameters
    ----------
    x, y
        `[p]` centres of the patches, -0.5 to 0.5 over the image.
    z
        `[g]` mean frame of each group, counted from the first used.
    shifts
        `[p, g, 2]` (x, y) in unbinned px beyond the whole frame's shifts.
    weight
        `[p]` trust in each patch, 1 on average.
    """

    x: Floats
    y: Floats
    z: Floats
    shifts: Floats
    weight: Floats


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """`coefficients` `[2, 18]` (x axis, y axis) in unbinned px; `rmsd_px` `[2]` of the fit."""

    coefficients: Floats
    rmsd_px: Floats

    def shift(self, z: ArrayLike, x: ArrayLike, y: ArrayLike) -> Floats:
        """Shifts `[..., 2]` (x, y) in unbinned px at equal-shaped z, x, y."""
        z, x, y = (np.asarray(v, np.float64) for v in (z, x, y))
        basis = (_space(x, y)[..., :, None] * _time(z)[..., None, :]).reshape(*z.shape, -1)
        return basis @ self.coefficients.T

    def at_frame(self, z: float) -> Floats:
        """Coefficients `[2, 6]` of 1, x, x^2, y, y^2, x y in one frame."""
        return self.coefficients.reshape(2, _SPACE, _TIME) @ _time(np.asarray(z, np.float64))


def _space(x: Floats, y: Floats) -> Floats:
    return np.stack([np.ones_like(x), x, x * x, y, y * y, x * y], axis=-1)


def _time(z: Floats) -> Floats:
    return np.stack([z, z * z, z * z * z], axis=-1)


def fit_model(seen: Observations) -> tuple[LocalModel | None, NDArray[np.bool_]]:
    """Fit the model with the outlier rules; also which patches were used.

    Robust weights make single wrong shifts count less, and patches whose mean residual is far from
    the others' are left out. The path of every patch is known up to a constant (its first frame is
    as noisy as any other), which is fitted along with the model. How far the coefficients may be
    from zero follows from the observations (`_shrunk`).

    None where there are too few observations or they show nothing but noise, where the residual is
    10 px or more along an axis, or the model moves any place further than max(10 px, 3 times the
    95th percentile of what was seen).
    """
    used = seen.weight > 0.0
    coefficients, residual = np.zeros((2, COEFFICIENTS)), np.zeros_like(seen.shifts)
    weight = np.repeat(seen.weight[:, None], len(seen.z), 1)
    for number in range(_ROUNDS):
        if used.sum() * len(seen.z) <= COEFFICIENTS or used.sum() < 4:
            return None, used
        # Plain least squares first: what is far from it is not known yet, and is no noise.
        coefficients, residual = _solve(seen, weight, used, shrink=number > 0)
        weight, used_now = _robust(seen, residual, used)
        if number > 1 and (used_now == used).all():
            break
        used = used_now
    residual = residual[used]
    rmsd = np.sqrt(np.square(residual).mean((0, 1)))
    model = LocalModel(coefficients=coefficients, rmsd_px=rmsd)
    if not coefficients.any() or (rmsd >= _MAX_RMSD_PX).any() or _too_far(model, seen, used):
        return None, used
    return model, used


def _solve(
    seen: Observations, weight: Floats, used: NDArray[np.bool_], *, shrink: bool
) -> tuple[Floats, Floats]:
    """Most probable coefficients `[2, 18]`, and the residual `[p, g, 2]` of all patches."""
    span = max(1.0, float(seen.z.max()))
    # Places from -1 to 1 and times from 0 to 1: coefficients are of one size then.
    space, time = _space(2 * seen.x, 2 * seen.y), _time(seen.z / span)
    basis = (space[:, None, :, None] * time[None, :, None, :]).reshape(*seen.shifts.shape[:2], -1)
    rows = _without_constant(basis[used], weight[used]).reshape(-1, COEFFICIENTS)
    right = _without_constant(seen.shifts[used], weight[used]).reshape(-1, 2)
    free = len(rows) - int(used.sum()) - COEFFICIENTS
    scaled = _shrunk(rows, right, max(free, 1), least_gain=_LEAST_GAIN if shrink else -math.inf)
    residual = seen.shifts - basis @ scaled
    total = np.maximum(weight.sum(1)[:, None, None], 1e-12)
    residual -= (weight[..., None] * residual).sum(1, keepdims=True) / total
    by_time = scaled.T.reshape(2, _SPACE, _TIME) / span ** np.arange(1, _TIME + 1)
    by_time *= np.array([1, 2, 4, 2, 4, 4])[:, None]
    return by_time.reshape(2, COEFFICIENTS), residual


def _without_constant(values: Floats, weight: Floats) -> Floats:
    """Values `[p, g, k]` times the root of their weight, each patch's weighted mean taken off."""
    w = weight[..., None]
    mean = (w * values).sum(1, keepdims=True) / np.maximum(w.sum(1, keepdims=True), 1e-12)
    return np.sqrt(w) * (values - mean)


def _shrunk(rows: Floats, right: Floats, free: int, least_gain: float) -> Floats:
    """Coefficients `[18, 2]` that are most probable if they come from a normal distribution.

    Its width is the one that makes the observations most probable (empirical Bayes, the evidence
    of a linear model): with strong signals that is plain least squares; where the patches show
    nothing but their own noise it is zero, and so is the model. So it is where the evidence for a
    width beyond zero is below `least_gain` (natural logarithm); minus infinity asks for plain
    least squares.
    """
    left, size, turn = np.linalg.svd(rows, full_matrices=False)
    size = np.maximum(size, 1e-6 * size.max() + 1e-300)
    along = left.T @ right
    noise = (np.square(right).sum() - np.square(along).sum()) / (2 * free)
    noise = max(float(noise), 1e-12)
    power = np.square(along) / noise
    widths = np.concatenate([[0.0], np.geomspace(1e-4, 1e6, 101) * noise])
    ratio = 1.0 + widths[:, None] * np.square(size) / noise
    evidence = -0.5 * (2 * np.log(ratio) + power.sum(1) / ratio).sum(1)
    best = int(evidence.argmax())
    width = widths[best if evidence[best] - evidence[0] >= least_gain else 0]
    if least_gain == -math.inf:
        width = widths[-1]
    kept = width * size / (width * np.square(size) + noise)
    return turn.T @ (kept[:, None] * along)


def _robust(
    seen: Observations, residual: Floats, used: NDArray[np.bool_]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Weights `[p, g]` of the residuals, and the patches that stay."""
    size = np.linalg.norm(residual, axis=-1)
    # The length of two normal errors has a median of 1.1774 of their deviation.
    scale = max(float(np.median(size[used])) / 1.1774, 1e-6)
    # What a wrong shift adds to the noise is bounded, too.
    clipped = np.square(np.minimum(1.0, _CLIP * scale / np.maximum(size, 1e-12)))
    of_patch = np.sqrt(np.square(np.minimum(size, 20 * scale)).mean(1) / 2)
    middle = float(np.median(of_patch[used]))
    spread = 1.4826 * float(np.median(np.abs(of_patch[used] - middle)))
    stays = used & (of_patch <= middle + _FAR * max(spread, 0.1 * middle))
    return seen.weight[:, None] * clipped, stays


def _too_far(model: LocalModel, seen: Observations, used: NDArray[np.bool_]) -> bool:
    x, y, z = np.meshgrid(
        np.linspace(-0.5, 0.5, 9), np.linspace(-0.5, 0.5, 9), np.arange(seen.z.max() + 1)
    )
    furthest = float(np.linalg.norm(model.shift(z, x, y), axis=-1).max())
    observed = seen.shifts[used] - seen.shifts[used][:, :1]
    return furthest > max(10.0, 3.0 * float(np.percentile(np.linalg.norm(observed, axis=-1), 95)))


def frame_planes(
    model: LocalModel | None, shifts_px: Floats, scale: tuple[float, float] = (1.0, 1.0)
) -> Floats:
    """Whole shift of every frame as coefficients `[n, 2, 6]` of 1, x, x^2, y, y^2, x y.

    Parameters
    ----------
    model
        Local motion, or None.
    shifts_px
        `[n, 2]` of the whole frames.
    scale
        Px wanted per unbinned px, (x, y).
    """
    planes = np.zeros((len(shifts_px), 2, _SPACE))
    if model is not None:
        planes += np.stack([model.at_frame(z) for z in range(len(shifts_px))])
    planes[:, :, 0] += shifts_px
    return planes * np.asarray(scale)[None, :, None]
