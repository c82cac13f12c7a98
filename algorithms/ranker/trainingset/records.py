"""What is kept of one job: features of its classes, and what is known to be true of them.

Source: class-ranker.md sections 9.2 and 9.3.
"""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from algorithms.formats.atomic import atomic_write
from algorithms.ranker.features import Features
from algorithms.ranker.scoring import packed, unpacked
from algorithms.ranker.types import RankerError

# To be raised when the same files would mean something else.
VERSION = 1
SUFFIX = ".npz"

# What a particle is: good, partial, other protein, noise, ice, edge, off-centre, with a neighbour,
# aggregate.
TAGS = ("T", "P", "O", "N", "I", "E", "C", "B", "A")

PARTS = ("train", "validation", "test", "second", "real")
SOURCES = ("simulated", "override", "empiar10812")
UNKNOWN_LABEL = -1

_TEXTS = ("job", "structure", "family", "part", "source", "configuration")
_FEATURES = "features"
_VERSION = "version"


@dataclass(frozen=True, kw_only=True)
class ClassRecords:
    """The scored classes of one job, n of them.

    Parameters
    ----------
    job
        Name; also that of its file.
    structure
        Name of the target.
    family
        Homologous structures share it: parts are divided by it.
    part
        One of PARTS. "second" has the structures of "test", simulated in another way.
    source
        One of SOURCES.
    seed
        What the job was drawn from.
    configuration
        How it was made, JSON.
    features
        Of the scored classes, mode "coldstream", with granulometry.
    size
        Particles of each class in the iteration's table `[n]`.
    fraction
        rlnClassDistribution `[n]`.
    resolution_A
        Estimated, as the model has it `[n]`; never part of a target.
    y
        Target score `[n]`, 0 to 1.
    label
        0 to 6 as in `targets`; UNKNOWN_LABEL where there is none `[n]` int64.
    w
        Share of the best resolution `[n]`, 0 to 1.
    job_score
        J.
    true_resolution_A
        Where the correlation with the truth falls below one half `[n]`; inf: nowhere above it.
    offset
        Distance of the target's centre from that of the box, in particle diameters `[n]`.
    neighbour
        Share of the signal inside the mask that neighbours carry `[n]`.
    counts
        Particles by tag `[n, 9]`, in the order of TAGS.
    rare
        Good particles of rare views: those with less than 3 % of the good ones `[n]`.
    totals
        All particles of the job by tag `[9]`, those of classes that are not scored included.

    Float64 but for the labels. What is not known is NaN.
    """

    job: str
    structure: str
    family: str
    part: str
    source: str
    seed: int
    configuration: str
    features: Features
    size: np.ndarray
    fraction: np.ndarray
    resolution_A: np.ndarray
    y: np.ndarray
    label: np.ndarray
    w: np.ndarray
    job_score: float
    true_resolution_A: np.ndarray
    offset: np.ndarray
    neighbour: np.ndarray
    counts: np.ndarray
    rare: np.ndarray
    totals: np.ndarray

    def __post_init__(self) -> None:
        if self.part not in PARTS or self.source not in SOURCES:
            raise RankerError(
                f"job {self.job}: part {self.part!r} and source {self.source!r} must be of "
                f"{PARTS} and {SOURCES}"
            )
        n = len(self.features)
        for name, shape in _shapes(n).items():
            found = np.shape(getattr(self, name))
            if found != shape:
                raise RankerError(f"job {self.job}: {name} has shape {found}, not {shape}")

    def __len__(self) -> int:
        return len(self.features)


def _shapes(n: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all arrays for n classes."""
    columns = ("size", "fraction", "resolution_A", "y", "label", "w", "true_resolution_A")
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys((*columns, "offset", "neighbour"), (n,))
    return shapes | {"rare": (n,), "counts": (n, len(TAGS)), "totals": (len(TAGS),)}


def write(path: Path, records: ClassRecords) -> None:
    """Write the records of a job in one step; a file is never half written."""
    arrays: dict[str, np.ndarray] = {_VERSION: np.array(VERSION)}
    for field in fields(records):
        value = getattr(records, field.name)
        if field.name == _FEATURES:
            value = np.frombuffer(packed(value), np.uint8)
        elif field.name in _TEXTS:
            value = np.frombuffer(str(value).encode(), np.uint8)
        arrays[field.name] = np.asarray(value)
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    atomic_write(path, content.getvalue(), durable=False)


def read(path: Path) -> ClassRecords:
    """Return the records of a job.

    Raises
    ------
    RankerError
        The file is none of records, is damaged, or is of another version.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays: Mapping[str, np.ndarray] = {name: file[name] for name in file.files}
        version = int(arrays[_VERSION])
        if version != VERSION:
            raise RankerError(f"{path} is of version {version}, not {VERSION}: make it again")
        features = unpacked(arrays[_FEATURES].tobytes())
        values = {name: arrays[name] for name in (*_shapes(0), "job_score", "seed")}
        texts = {name: arrays[name].tobytes().decode() for name in _TEXTS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, RankerError):
            raise
        raise RankerError(f"{path} holds no records of a job ({error}): make it again") from error
    if features is None:
        raise RankerError(f"{path}: the features cannot be read: make it again")
    numbers = {"job_score": float(values.pop("job_score")), "seed": int(values.pop("seed"))}
    return ClassRecords(features=features, **texts, **numbers, **values)


def listing(folder: Path) -> list[Path]:
    """Return the files of a set in the order of their names; hidden ones are not finished."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("."))
