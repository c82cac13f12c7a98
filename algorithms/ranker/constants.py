"""What turns measured features into the network's input; belongs to the weights.

Source: class-ranker.md sections 2.1, 5.4 and 9.5.
"""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from algorithms.ranker.features import GRANULOMETRY, VECTOR, Features, grey_free
from algorithms.ranker.types import Mode, RankerError

N_FEATURES = len(VECTOR)
FLAT = 1e-10  # a column that varies less within a job is 0

# fmt: off
_RELION_MEAN = (
    4.352, 3.871, 0.001, 0.061, -0.199, 0.424, 0.744, -0.380, 0.292, 0.024, 0.047, 0.116, 0.638,
    -1.112, 2.990, 837.576, 726.097, 602.175, 483.469, 328.014, 196.059, 0.0, 0.0, 0.0,
)
_RELION_STD = (
    4.759, 3.019, 0.002, 0.088, 0.283, 0.629, 0.585, 0.378, 0.485, 0.075, 0.075, 0.182, 0.429,
    1.087, 1.758, 1958.823, 2845.330, 3605.858, 4001.972, 4399.578, 4709.751, 1.0, 1.0, 1.0,
)
# fmt: on


@dataclass(frozen=True, kw_only=True)
class Constants:
    """How features become the network's input.

    Parameters
    ----------
    mode
        Which accidents of RELION's program the features keep.
    mean, std
        Of each of the 24 columns.
    per_job
        Columns that are normalised within the job instead.
    zeroed
        Columns that the network never saw: 0.
    clip
        Largest value after normalisation, either sign; None: no limit.
    grey
        "as_is", or "job": images and features are divided by the job's typical contrast first,
        so that the grey scale of the averages does not matter.
    """

    mode: Mode = "coldstream"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    per_job: tuple[int, ...] = (21, 22, 23)
    zeroed: tuple[int, ...] = ()
    clip: float | None = None
    grey: Literal["as_is", "job"] = "as_is"

    def __post_init__(self):
        columns = set(self.per_job) | set(self.zeroed)
        fits = len(self.mean) == len(self.std) == N_FEATURES and columns <= set(range(N_FEATURES))
        if not (fits and np.isfinite([*self.mean, *self.std]).all() and min(self.std) > 0.0):
            raise RankerError(
                f"constants of weights: mean and std must be {N_FEATURES} numbers, std above 0, "
                f"and columns below {N_FEATURES}"
            )
        if self.mode not in ("relion", "coldstream") or self.grey not in ("as_is", "job"):
            raise RankerError(f"constants of weights: mode {self.mode!r}, grey {self.grey!r}")

    @property
    def needs_opening(self) -> bool:
        """Whether granulometry is looked at at all."""
        return not set(GRANULOMETRY) <= set(self.zeroed)

    def dumps(self) -> str:
        """Return the constants as text for the weights' file."""
        return json.dumps(asdict(self) | {"features": VECTOR})

    @classmethod
    def loads(cls, text: str) -> "Constants":
        """Return constants from the text in a weights' file.

        Raises
        ------
        RankerError
            They are not complete, or of other features than those known here.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            if tuple(values.pop("features")) != VECTOR:
                raise RankerError("the weights are for other features than this version computes")
            lists = {name: tuple(values.pop(name)) for name in ("mean", "std", "per_job", "zeroed")}
            return cls(**lists, **values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RankerError(f"constants of weights cannot be read: {error}") from error


# With granulometry as RELION passes it; its weights do not look at it.
RELION = Constants(mode="relion", mean=_RELION_MEAN, std=_RELION_STD)


def network_input(found: Features, constants: Constants) -> tuple[np.ndarray, np.ndarray]:
    """Return images `[n, 64, 64]` and normalised features `[n, 24]`, float32."""
    images, vector = found.images, found.vector()
    if constants.grey == "job":
        images, vector = grey_free(found, vector)
    z = (vector - constants.mean) / np.array(constants.std)
    for column in constants.per_job:
        z[:, column] = within_job(vector[:, column])
    absent = GRANULOMETRY if "Granulo" not in found.columns else ()
    z[:, [*constants.zeroed, *absent]] = 0.0
    if constants.clip is not None:
        z = np.clip(z, -constants.clip, constants.clip)
    return images.astype(np.float32), z.astype(np.float32)


def within_job(column: np.ndarray) -> np.ndarray:
    """Return a column with mean 0 and deviation 1 over the scored classes of a job."""
    if not len(column):
        return column
    deviation = column.std()
    return (column - column.mean()) / deviation if deviation >= FLAT else np.zeros_like(column)


def constants_of(vectors: np.ndarray, **changes: Any) -> Constants:
    """Return robust constants of a training set: median and 1.4826 MAD, clipped at 5.

    Parameters
    ----------
    vectors
        Measured features `[n, 24]`, after division by the job's contrast where `grey` is "job".
    changes
        Fields of the constants.
    """
    median = np.median(vectors, axis=0)
    spread = 1.4826 * np.median(np.abs(vectors - median), axis=0)
    # A column that is mostly one value, as scattered signal is, has no MAD.
    spread = np.where(spread > FLAT, spread, vectors.std(axis=0))
    spread = np.where(spread > FLAT, spread, 1.0)
    made = Constants(mean=tuple(median.tolist()), std=tuple(spread.tolist()), clip=5.0)
    return replace(made, **changes)
