"""Accuracies of rare classes, which Class2D leaves out: how far one may be turned or moved unseen.

The evidence |F1 - F2|^2 / 2 sigma^2 that tells a class from itself, turned or moved, is summed over
rings. On a ring a rotation is a phase of the angular coefficients, so all rotations follow from
one look at the class; the CTF enters by its mean square on each ring. RELION turns and multiplies
pixel by pixel for each particle; its steps and sums are kept. Source: class-ranker.md section 2.2.
"""

from dataclasses import replace

import numpy as np
from scipy import fft

from algorithms.ranker.contrast import Optics
from algorithms.ranker.inputs import UNKNOWN, Classified
from algorithms.ranker.resampling import resampled
from algorithms.ranker.types import ClassSet, Mode, RankerError

TELLS_APART = 4.60517
PARTICLES, DIVISOR = 101, 100.0  # one more is summed than divided by: RELION's
FEW, FEW_DEG, FEW_SHIFT = 100.0, 5.0, 8.0
_PAD = 2
_CHUNK = 16  # classes
_EXACT = 6  # px of the transform: nearer to the origin all radii are looked at


def _steps(table: tuple[tuple[float, float], ...], most: float) -> np.ndarray:
    values, error = [], 0.0
    while error <= most:
        error += next((step for limit, step in table if error < limit - 1e-9), table[-1][1])
        values.append(error)
    return np.array(values)


ROTATIONS_DEG = _steps(
    ((0.2, 0.05), (1.0, 0.1), (2.0, 0.2), (5.0, 0.5), (10.0, 1.0), (20.0, 2.0), (30.0, 5.0)), 30.0
)
SHIFTS_PX = _steps(((1.0, 0.1), (2.0, 0.2), (5.0, 0.5), (10.0, 1.0), (20.0, 2.0)), 10.0)


class Accuracies:
    """Fills in the accuracies that a model does not know; a `features.Fallback`.

    Parameters
    ----------
    job
        Gives the noise, the window and the particles' CTF.
    """

    def __init__(self, job: Classified):
        self._job = job

    def __call__(self, classes: ClassSet, mode: Mode) -> ClassSet:
        """Return the classes with accuracies of those that are to be scored.

        In RELION's mode a shift found here is in px of the averages, not A, as in its program.
        """
        rare = (classes.accuracy_deg > UNKNOWN) | (classes.accuracy_A > UNKNOWN)
        places = [place for place in classes.scored if rare[place]]
        if not places:
            return classes
        degrees, shifts = classes.accuracy_deg.copy(), classes.accuracy_A.copy()
        degrees[places], shifts[places] = FEW_DEG, FEW_SHIFT
        many = np.array([place for place in places if classes.sizes[place] > FEW], np.int64)
        for start in range(0, len(many), _CHUNK):
            some = many[start : start + _CHUNK]
            degrees[some], moved = self._found(classes.images[some], classes.pixel_A)
            shifts[some] = moved * (1.0 if mode == "relion" else classes.pixel_A)
        return replace(classes, accuracy_deg=degrees, accuracy_A=shifts)

    def _found(self, images: np.ndarray, pixel_A: float) -> tuple[np.ndarray, np.ndarray]:
        """Return degrees and px for some classes `[k]`."""
        box = images.shape[-1]
        about = self._job.model["model_general"]
        size = box - box % 2
        if "rlnCurrentImageSize" in about.columns:
            size = min(size, int(about.floats("rlnCurrentImageSize")[0]) // 2 * 2)
        rings, pixels = _rings(size)
        weight = pixels / (2.0 * self._noise(np.floor(rings + 0.5)))
        contrast, times = self._contrast(rings / (box * pixel_A))
        transforms = _on_rings(images, size, rings)
        turned = _turned(transforms) * weight
        moved = _moved(transforms, rings / box) * weight
        share = times / DIVISOR
        return (
            ROTATIONS_DEG[_first(turned @ contrast.T)] @ share,
            SHIFTS_PX[_first(moved @ contrast.T)] @ share,
        )

    def _noise(self, rings: np.ndarray) -> np.ndarray:
        """Return sigma^2 of the first group on rings."""
        model = self._job.model
        for name in ("model_optics_group_1", "model_group_1"):
            if name in model and "rlnSigma2Noise" in model[name].columns:
                table = model[name]
                shells = table.floats("rlnSpectralIndex")
                noise = np.interp(rings, shells, table.floats("rlnSigma2Noise"))
                return np.where(noise > 0.0, noise, np.inf)
        raise RankerError(
            f"the model of {self._job.optimiser} has accuracies of 999 and no noise spectrum "
            "(rlnSigma2Noise) to find them from"
        )

    def _contrast(self, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean CTF^2 on rings of frequency s `[c, R]`, and how many particles have it.

        Many particles of a micrograph have the same.
        """
        job = self._job
        optics = Optics.of(job.data, slice(PARTICLES))
        n = len(optics.u_A)
        corrected = "rlnDoCorrectCtf" not in job.general.columns or job.flag("rlnDoCorrectCtf")
        if not corrected or job.flag("rlnDoOnlyFlipCtfPhases"):
            return np.ones((1, len(s))), np.array([float(n)])
        kinds = np.stack([optics.u_A, optics.v_A, optics.angle, optics.shift], axis=1)
        kinds, times = np.unique(kinds, axis=0, return_counts=True)
        optics = replace(
            optics, u_A=kinds[:, 0], v_A=kinds[:, 1], angle=kinds[:, 2], shift=kinds[:, 3]
        )
        around = np.arange(64) * np.pi / 64
        sx, sy = np.outer(s, np.cos(around)), np.outer(s, np.sin(around))
        values = np.sin(optics.phase(sx.ravel(), sy.ravel())) ** 2
        return values.reshape(len(kinds), len(s), -1).mean(2), times.astype(np.float64)


def _rings(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return radii, and how many pixels of the half plane lie on or near each, `[R]`.

    Near the origin, where all changes quickly, each radius that pixels have is a ring.
    """
    y, x = np.mgrid[-(size // 2) : size // 2 + 1, 0 : size // 2 + 1]
    r2 = (x**2 + y**2)[((x > 0) | (y > 0)) & (x**2 + y**2 <= (size / 2) ** 2)]
    ring = np.where(r2 < _EXACT**2, r2, _EXACT**2 + np.floor(np.sqrt(r2) + 0.5))
    _, place = np.unique(ring, return_inverse=True)
    pixels = np.bincount(place)
    return np.sqrt(np.bincount(place, r2) / pixels), pixels.astype(np.float64)


def _on_rings(images: np.ndarray, size: int, rings: np.ndarray) -> np.ndarray:
    """Return the transforms of averages at even angles on rings, `[k, R, angles]`.

    As RELION's projector does: the image without what linear interpolation does to it, padded
    twofold, and interpolated linearly.
    """
    small = resampled(images, size)
    axis = (np.arange(size) - size // 2) / (_PAD * size)
    small = small / np.sinc(np.hypot(axis[:, None], axis[None])) ** 2
    padded = np.zeros((len(small), _PAD * size, _PAD * size))
    low = (_PAD - 1) * size // 2
    padded[:, low : low + size, low : low + size] = small
    padded = np.fft.ifftshift(padded, axes=(1, 2))
    plane = np.asarray(fft.fft2(padded, norm="forward")) * _PAD**2
    n_angles = 4 * size  # twice the angular bandwidth of what fits into the box
    theta = 2.0 * np.pi * np.arange(n_angles) / n_angles
    r = _PAD * rings[:, None]
    x, y = r * np.cos(theta), r * np.sin(theta)
    x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = x - x0, y - y0
    out = np.zeros((len(images), *x.shape), np.complex128)
    for dy, wy in ((0, 1.0 - fy), (1, fy)):
        for dx, wx in ((0, 1.0 - fx), (1, fx)):
            out += plane[:, (y0 + dy) % (_PAD * size), (x0 + dx) % (_PAD * size)] * (wy * wx)
    return out


def _turned(transforms: np.ndarray) -> np.ndarray:
    """Return the mean of |F1 - F2|^2 on rings after rotations, `[k, errors, R]`."""
    n = transforms.shape[-1]
    power = np.abs(np.asarray(fft.fft(transforms, norm="forward"))) ** 2
    order = fft.fftfreq(n, 1.0 / n)
    factor = 4.0 * np.sin(np.outer(np.radians(ROTATIONS_DEG), order) / 2.0) ** 2
    return np.einsum("krm,em->ker", power, factor, optimize=True)


def _moved(transforms: np.ndarray, j_per_box: np.ndarray) -> np.ndarray:
    """Return the mean of |F1 - F2|^2 on rings after shifts, `[k, errors, R]`.

    RELION draws x or y; here it is the mean of the two, the same at each call.
    """
    n = transforms.shape[-1]
    theta = 2.0 * np.pi * np.arange(n) / n
    power = np.abs(transforms) ** 2
    out = np.zeros((len(transforms), len(SHIFTS_PX), len(j_per_box)))
    for direction in (np.cos(theta), np.sin(theta)):
        j = j_per_box[:, None] * direction
        for e, error in enumerate(SHIFTS_PX):
            out[:, e] += 2.0 * (power * np.sin(np.pi * j * error) ** 2).mean(2)
    return out


def _first(evidence: np.ndarray) -> np.ndarray:
    """Return where the evidence `[k, errors, c]` first tells two images apart, else the last."""
    tells = evidence > TELLS_APART
    tells[:, -1] = True
    return tells.argmax(1)
