"""Reading a 2D classification: optimiser, model, particles and averages.

Layouts from RELION 1.3 on are accepted. Source: class-ranker.md section 1.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from algorithms.formats import mrc, star
from algorithms.formats.errors import FormatError
from algorithms.formats.star import StarError, Table
from algorithms.ranker.types import LEAST_PARTICLES, ClassSet, RankerError

UNKNOWN = 99.0  # accuracies above it are not known
# Anything else that the system refuses is a fault of the machine, which may pass.
UNREADABLE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


@dataclass(frozen=True, kw_only=True)
class Classified:
    """An iteration of a 2D classification.

    Parameters
    ----------
    folder
        What the paths inside are relative to: the project.
    optimiser
        Its path, below the folder.
    classes
        The averages.
    general
        The optimiser's table.
    model
        All blocks of the model's file.
    data_name
        Path of the particles' table, below the folder.
    completeness, prior_offset_A
        Of each class, as the model has them: `[K]`, `[K, 2]`.
    listed_resolution_A
        rlnEstimatedResolution as the model has it, 0 where it has none `[K]`.
    """

    folder: Path
    optimiser: str
    classes: ClassSet
    general: Table
    model: dict[str, Table] = field(repr=False)
    data_name: str
    completeness: np.ndarray
    prior_offset_A: np.ndarray
    listed_resolution_A: np.ndarray

    @cached_property
    def data(self) -> dict[str, Table]:
        """The blocks of the particles' file, in the present layout; read when asked for."""
        from algorithms.ranker.oldfiles import modern

        return modern(star.load(self.folder / self.data_name), self.classes.pixel_A)

    def flag(self, label: str) -> bool:
        """Return a switch of the optimiser, False when it has none."""
        return bool(_number(self.general, label, self.optimiser, 0.0))


def read(folder: Path, optimiser: str) -> Classified:
    """Read an iteration.

    Parameters
    ----------
    folder
        The project.
    optimiser
        `.../run_itNNN_optimiser.star`, below it.

    Raises
    ------
    RankerError
        A file or a column is missing, or they do not fit together.
    """
    try:
        return _read(folder, optimiser)
    except (StarError, FormatError) as error:
        raise RankerError(str(error)) from error
    except UNREADABLE as error:
        raise RankerError(f"{error.filename}: {error.strerror}") from error


def _read(folder: Path, optimiser: str) -> Classified:
    general = _block(star.load(folder / optimiser, ["optimiser_general"]), optimiser)
    model_name = _text(general, "rlnModelStarFile", optimiser)
    data_name = _text(general, "rlnExperimentalDataStarFile", optimiser)
    diameter_A = _number(general, "rlnParticleDiameter", optimiser)
    model = star.load(folder / model_name)
    if "model_general" not in model:
        raise RankerError(f"{model_name} has no block data_model_general: it is no model file")
    n_particles = _count(folder, data_name, model["model_general"], model_name)
    classes = class_set(folder, model, model_name, diameter_A, n_particles)
    rows = _Rows(model_name, model["model_classes"])
    classes.remarks.extend(_without_ctf(general, optimiser) + _unusable(classes))
    return Classified(
        folder=folder,
        optimiser=optimiser,
        classes=classes,
        general=general,
        model=model,
        data_name=data_name,
        completeness=rows.floats("rlnOverallFourierCompleteness", 0.0),
        prior_offset_A=np.stack(
            [rows.floats(f"rlnClassPriorOffset{axis}", 0.0) for axis in "XY"], axis=1
        ),
        listed_resolution_A=rows.floats("rlnEstimatedResolution", 0.0),
    )


def class_set(
    folder: Path,
    model: dict[str, Table],
    model_name: str,
    diameter_A: float,
    n_particles: int,
) -> ClassSet:
    """Return the averages of a model and what it says of them.

    Parameters
    ----------
    folder
        What the paths of the averages are relative to.
    model, model_name
        All blocks of its file, and its name for messages.
    diameter_A
        Of the particle mask, A.
    n_particles
        Rows in the particles' table.
    """
    for block in ("model_general", "model_classes"):
        if block not in model:
            raise RankerError(f"{model_name} has no block data_{block}: it is no model file")
    rows = _Rows(model_name, model["model_classes"])
    pixel_A = _number(model["model_general"], "rlnPixelSize", model_name)
    if not (pixel_A > 0.0 and diameter_A > 0.0):
        raise RankerError(
            f"the particle diameter is {diameter_A:g} A and rlnPixelSize of {model_name} "
            f"{pixel_A:g} A: both must be above 0"
        )
    names = rows.texts("rlnReferenceImage")
    box = int(_number(model["model_general"], "rlnOriginalImageSize", model_name, 0.0))
    return ClassSet(
        images=_images(folder, names, box),
        names=names,
        pixel_A=pixel_A,
        diameter_A=diameter_A,
        n_particles=n_particles,
        fractions=rows.floats("rlnClassDistribution"),
        accuracy_deg=rows.floats("rlnAccuracyRotations"),
        accuracy_A=_translations(rows, pixel_A),
        resolution_A=_resolutions(model, rows, pixel_A),
    )


class _Rows:
    """The table of the classes."""

    def __init__(self, name: str, table: Table):
        self.name, self.table = name, table

    def texts(self, label: str) -> list[str]:
        try:
            return self.table.strings(label)
        except StarError as error:
            raise RankerError(f"{self.name}, block data_model_classes: {error}") from None

    def floats(self, label: str, default: float | None = None) -> np.ndarray:
        if default is not None and label not in self.table.columns:
            return np.full(len(self.table), default)
        try:
            return self.table.floats(label)
        except StarError as error:
            raise RankerError(f"{self.name}, block data_model_classes: {error}") from None


def _block(blocks: dict[str, Table], optimiser: str) -> Table:
    if "optimiser_general" not in blocks:
        raise RankerError(
            f"{optimiser} has no block data_optimiser_general: give the run_itNNN_optimiser.star "
            "of a 2D classification"
        )
    return blocks["optimiser_general"]


def _text(table: Table, label: str, name: str) -> str:
    if label not in table.columns:
        raise RankerError(f"{name} has no {label}: it is not complete")
    return table.columns[label][0]


def _number(table: Table, label: str, name: str, default: float | None = None) -> float:
    if default is not None and label not in table.columns:
        return default
    text = _text(table, label, name)
    try:
        return float(text)
    except ValueError:
        raise RankerError(f"{name}: {label} is {text!r}: it must be a number") from None


def _translations(rows: _Rows, pixel_A: float) -> np.ndarray:
    if "rlnAccuracyTranslationsAngst" in rows.table.columns:
        return rows.floats("rlnAccuracyTranslationsAngst")
    return rows.floats("rlnAccuracyTranslations") * pixel_A


def _images(folder: Path, names: list[str], box: int) -> np.ndarray:
    """Return the averages `[K, n, n]`; they may lie in several stacks."""
    out: list[np.ndarray] = []
    stacks: dict[str, np.ndarray] = {}
    for name in names:
        number, at, path = name.partition("@")
        if not at or not number.isdecimal():
            raise RankerError(f"rlnReferenceImage {name!r} is not NUMBER@STACK: is it a 3D model?")
        if path not in stacks:
            stack = mrc.read(folder / path)
            stacks[path] = stack.reshape(-1, *stack.shape[-2:])
        stack = stacks[path]
        if not 1 <= int(number) <= len(stack):
            raise RankerError(f"{path} has {len(stack)} images; {name} is not there")
        shape = stack.shape[1:]
        wanted = (box, box) if box else (shape[0], shape[0])
        if shape != wanted:
            raise RankerError(
                f"{path}: images of {shape[1]} x {shape[0]} px, but the model says "
                f"{wanted[1]} x {wanted[0]} (rlnOriginalImageSize): the stack is of another job"
            )
        out.append(stack[int(number) - 1])
    if not out:
        raise RankerError("the model has no classes")
    return np.stack(out).astype(np.float32)


def _count(folder: Path, data_name: str, about: Table, model_name: str) -> int:
    counts = star.count_rows(folder / data_name)
    found = next((counts[b] for b in ("particles", "images", "") if counts.get(b)), 0)
    if not found:
        raise RankerError(f"{data_name} has no particles")
    groups = int(_number(about, "rlnNrOpticsGroups", model_name, 0.0))
    there = counts.get("optics", groups)
    if groups and there != groups:
        raise RankerError(
            f"{data_name} has {there} optics groups, {model_name} says {groups} "
            "(rlnNrOpticsGroups): the two are not of one iteration"
        )
    return found


def _resolutions(model: dict[str, Table], rows: _Rows, pixel_A: float) -> np.ndarray:
    """Return the estimated resolutions; old files have spectra instead."""
    if "rlnEstimatedResolution" in rows.table.columns:
        return rows.floats("rlnEstimatedResolution")
    out = np.zeros(len(rows.table))
    for place in range(len(out)):
        block = model.get(f"model_class_{place + 1}")
        if block is None:
            raise RankerError(
                f"{rows.name} has neither rlnEstimatedResolution nor data_model_class_{place + 1}"
            )
        ssnr, shells_A = block.floats("rlnSsnrMap"), block.floats("rlnAngstromResolution")
        below = np.flatnonzero(ssnr[1:] < 1.0)
        out[place] = shells_A[below[0]] if len(below) else 2.0 * pixel_A
    return out


def _without_ctf(general: Table, optimiser: str) -> list[str]:
    if _number(general, "rlnDoCorrectCtf", optimiser, 1.0):
        return []
    return [
        f"{optimiser}: rlnDoCorrectCtf is 0: the classes were made without the CTF, "
        "scores may be wrong"
    ]


def _unusable(classes: ClassSet) -> list[str]:
    usable = np.isin(np.arange(len(classes)), classes.scored)
    large = classes.sizes > LEAST_PARTICLES
    bad = np.flatnonzero(~usable & (large | ~np.isfinite(classes.sizes)))
    return [
        f"{classes.names[place]} has values that are not finite, or no resolution: it is not scored"
        for place in bad
    ]
