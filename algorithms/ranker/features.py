"""The features of class averages: 24 numbers for the network, and those only written.

Columns are named as in RELION's features.star, without `rln`. Source: class-ranker.md section 2.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from algorithms.ranker import texture
from algorithms.ranker.masks import PI, Circle, Masks, masks_of
from algorithms.ranker.openings import RADII, granulometry
from algorithms.ranker.resampling import grid_size, low_passed, network_images, resampled
from algorithms.ranker.types import ClassSet, Mode

# What the network is given, in its order; granulometry has six columns.
VECTOR = (
    "AccuracyRotations",
    "AccuracyTranslations",
    "WeightedResolution",
    "RelativeResolution",
    "RingMean",
    "RingStddev",
    "ProteinStddev",
    "SolventMean",
    "SolventStddev",
    "ScatteredSignal",
    "EdgeSignal",
    "LowpassFilteredImageMean",
    "LowpassFilteredImageStddev",
    "LowpassFilteredImageMin",
    "LowpassFilteredImageMax",
    *(f"Granulo{radius}" for radius in RADII),
    "ProteinSum",
    "SolventSum",
    "RelativeSignalIntensity",
)
GRANULOMETRY = tuple(range(15, 21))
# Columns that follow a factor of the grey scale.
GREY = (4, 5, 6, 7, 8, *range(11, 24))

_SOLVENT_AREA = 0.08
_LEAST_FOR_OPENING = 15  # px: RELION stops below it
_CHUNK_BYTES = 1 << 25

# Fills in rotational (degrees) and translational accuracies of a set of classes.
Fallback = Callable[[ClassSet, Mode], ClassSet]


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of the scored classes, n of them.

    Parameters
    ----------
    places
        Which classes, from 0 `[n]`.
    columns
        By name: `[n]`, or `[n, m]` for lists of numbers.
    images
        What the network looks at, `[n, 64, 64]` float32.
    accuracy_deg, accuracy_A
        As used, filled in where the model did not know them.
    """

    places: np.ndarray
    columns: dict[str, np.ndarray]
    images: np.ndarray
    accuracy_deg: np.ndarray
    accuracy_A: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def vector(self) -> np.ndarray:
        """Return the network's 24 numbers as measured, not normalised: `[n, 24]` float64."""
        granulo = self.columns.get("Granulo", np.zeros((len(self), len(RADII))))
        columns = {f"Granulo{r}": granulo[:, i] for i, r in enumerate(RADII)} | self.columns
        return np.stack([columns[name] for name in VECTOR], axis=1)


def features(
    classes: ClassSet,
    mode: Mode = "relion",
    *,
    opening: bool = True,
    with_texture: bool = False,
    fallback: Fallback | None = None,
) -> Features:
    """Return the features of the classes that are to be scored.

    Parameters
    ----------
    classes
        All of an iteration.
    mode
        "relion" keeps the accidents of its program; "coldstream" centres odd boxes exactly.
    opening
        Whether to compute granulometry, the most expensive of the 24.
    with_texture
        Whether to add what is only written: `features.star` has it.
    fallback
        Finds accuracies that the model does not know.
    """
    places = classes.scored
    if fallback is not None:
        classes = fallback(classes, mode)
    chosen = classes.take(places)
    size = grid_size(chosen.box, chosen.pixel_A)
    circle = Circle.of(size, chosen.diameter_A)
    step = max(1, _CHUNK_BYTES // (8 * max(chosen.box, size) ** 2))
    parts = [
        _measured(chosen.images[start : start + step], circle, mode, opening, with_texture)
        for start in range(0, max(1, len(chosen)), step)
    ]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Features(
        places=places,
        columns=_listed(chosen) | columns,
        images=network_images(chosen.images, chosen.pixel_A, chosen.diameter_A),
        accuracy_deg=classes.accuracy_deg,
        accuracy_A=classes.accuracy_A,
    )


def on_grid(images: np.ndarray, size: int, mode: Mode) -> np.ndarray:
    """Return averages on the features' grid, `[K, size, size]` float64.

    The origin of an odd box, its middle pixel, comes to lie on the grid's origin in our own mode,
    up to half a pixel beside it in RELION's.
    """
    is_off = images.shape[-1] % 2 == 1 and mode == "coldstream"
    return resampled(images, size, shift_px=0.5 if is_off else 0.0)


def grey_free(found: Features, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return images and vectors divided by the typical contrast of the job.

    That is the median over the classes of the deviation of the filtered average: a factor on all
    averages then changes nothing.
    """
    level = float(np.median(found.columns["LowpassFilteredImageStddev"])) if len(found) else 1.0
    factor = 1.0 / level if level > 0.0 else 1.0
    scaled = vector.copy()
    scaled[:, GREY] *= factor
    return found.images * np.float32(factor), scaled


def _listed(chosen: ClassSet) -> dict[str, np.ndarray]:
    """Return the features that come from the model's tables."""
    return {
        "AccuracyRotations": chosen.accuracy_deg,
        "AccuracyTranslations": chosen.accuracy_A,
        "WeightedResolution": 1.0 / (chosen.resolution_A**2 * np.log(chosen.sizes)),
        "RelativeResolution": chosen.resolution_A / (chosen.box * chosen.pixel_A),
    }


def _measured(
    images: np.ndarray, circle: Circle, mode: Mode, opening: bool, with_texture: bool
) -> dict[str, np.ndarray]:
    """Return the features of some images."""
    grid = on_grid(images, circle.size, mode)
    filtered = low_passed(grid)
    masks = masks_of(filtered, circle)
    protein, solvent = masks.protein, masks.solvent
    n = protein.sum((1, 2))
    found: dict[str, np.ndarray] = {}
    for name, mask in (("Ring", circle.ring), ("Protein", protein), ("Solvent", solvent)):
        found |= _moments(name, grid, np.broadcast_to(mask, grid.shape))
    rim = circle.rim
    found |= {
        "ProteinArea": (n > 1).astype(np.int64),
        "SolventArea": (solvent.sum((1, 2)) > _SOLVENT_AREA * PI * circle.radius**2).astype(
            np.int64
        ),
        "RelativeSignalIntensity": found["ProteinSum"] - found["SolventMean"] * n,
        "ScatteredSignal": masks.scattered,
        "EdgeSignal": protein[:, rim].sum(1) / max(1, int(rim.sum())),
        "ProteinCAR": _outline(protein) / (2.0 * np.sqrt(PI * np.maximum(n, 1))),
        "LowpassFilteredImageMean": filtered.mean((1, 2)),
        "LowpassFilteredImageStddev": filtered.std((1, 2)),
        "LowpassFilteredImageMin": filtered.min((1, 2)),
        "LowpassFilteredImageMax": filtered.max((1, 2)),
    }
    if with_texture:
        found |= _texture(grid, masks, circle)
    if opening and circle.size >= _LEAST_FOR_OPENING:
        found["Granulo"] = granulometry(grid)
    return found


def _moments(name: str, images: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
    """Return sum, mean, deviation, skewness and kurtosis inside of masks; 0 where one is empty."""
    m = masks.sum((1, 2))
    total = np.where(masks, images, 0.0).sum((1, 2))
    mean = total / np.maximum(m, 1)
    away = np.where(masks, images - mean[:, None, None], 0.0)
    second, third = (away**2).sum((1, 2)), (away**3).sum((1, 2))
    fourth, flat = (away**4).sum((1, 2)), second == 0.0
    divisor = np.where(flat, 1.0, second)
    return {
        f"{name}Sum": total,
        f"{name}Mean": mean,
        f"{name}Stddev": np.sqrt(second / np.maximum(m, 1)),
        f"{name}Skew": np.where(flat, 0.0, np.sqrt(m) * third / divisor**1.5),
        f"{name}Kurt": np.where(flat, 0.0, m * fourth / divisor**2),
    }


def _outline(protein: np.ndarray) -> np.ndarray:
    """Return how many pixels have one of eight neighbours outside; none exist beyond the edge."""
    padded = np.pad(protein, ((0, 0), (1, 1), (1, 1)))
    m = protein.shape[-1]
    inner = np.ones_like(protein)
    for dy in range(3):
        for dx in range(3):
            inner &= padded[:, dy : dy + m, dx : dx + m]
    return (protein & ~inner).sum((1, 2))


def _texture(grid: np.ndarray, masks: Masks, circle: Circle) -> dict[str, np.ndarray]:
    whole = np.ones(grid.shape, bool)
    patterns = texture.patterns(grid)
    return {
        "LBP": texture.histograms(patterns, masks.protein | masks.solvent),
        "ProteinLBP": texture.histograms(patterns, masks.protein),
        "SolventLBP": texture.histograms(patterns, masks.solvent),
        "TotalEntropy": texture.entropies(grid, whole),
        "ProteinEntropy": texture.entropies(grid, masks.protein),
        "SolventEntropy": texture.entropies(grid, masks.solvent),
        "ProteinHaralick": texture.haralick(grid, masks.protein),
        "SolventHaralick": texture.haralick(grid, masks.solvent),
        "ZernikeMoments": texture.zernike(grid, circle),
    }
