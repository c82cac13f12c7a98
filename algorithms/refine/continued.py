"""Going on from an iteration of another run, RELION's or ours, by its optimiser file.

As in RELION what the images were weighted and masked with, the classes and the seed are those of
the file; the steps, the diameter, T and the number of iterations may be other ones.

Source: refinement.md section 8; RELION 4 and 5.
"""

import re
from pathlib import Path
from typing import NamedTuple

from algorithms.formats import star
from algorithms.formats.star import StarError, Table
from algorithms.refine import files
from algorithms.refine.types import Model, RefineError

_NAME = re.compile(r"_(?:it|ct)(\d+)_optimiser\.star$")
# What a run may have been told that this engine does not do: label -> what it is.
_NOT_DONE = {
    "rlnDoSkipAlign": "without alignment",
    "rlnDoHelicalRefine": "of helical segments",
    "rlnDoSplitRandomHalves": "in two halves",
    "rlnDoAutoSampling": "with automatic sampling",
    "rlnDoIgnoreCtfUntilFirstPeak": "with a CTF that is 1 up to its first peak",
}


class Before(NamedTuple):
    """The iteration that a run goes on from.

    `root` is `.../run_itNNN`; the others are what its optimiser file says.
    """

    root: Path
    n_classes: int
    gradient: bool
    ctf: bool
    zero_mask: bool
    strict_highres_A: float
    seed: int
    has_high_fsc: bool

    @property
    def data(self) -> Path:
        """The table of its particles."""
        return self.root.with_name(f"{self.root.name}_data.star")

    def model(self) -> Model:
        """Return its model."""
        model = files.read_model(self.root)
        model.has_high_fsc = self.has_high_fsc
        return model


def is_optimiser(path: Path) -> bool:
    """Tell whether a file has the name of an optimiser's."""
    return path.name.endswith("_optimiser.star")


def read(path: Path) -> Before:
    """Return what an optimiser file says; the files of its iteration are beside it.

    Raises
    ------
    RefineError
        It is not that of a two-dimensional classification, or a file of its iteration is missing.
    """
    if _NAME.search(path.name) is None:
        raise RefineError(
            f"{path} is no optimiser file of an iteration; "
            "give one such as run_it010_optimiser.star"
        )
    root = path.with_name(path.name.removesuffix("_optimiser.star"))
    for part in ("optimiser.star", "data.star", "model.star", "classes.mrcs", "sampling.star"):
        if not root.with_name(f"{root.name}_{part}").exists():
            raise RefineError(
                f"{root}_{part} is not there: an iteration can be continued with all of its files"
                + (", not the state before the first one" if part == "sampling.star" else "")
            )
    try:
        said = star.load(path)["optimiser_general"]
    except (StarError, KeyError) as error:
        raise RefineError(f"{path} is no optimiser file: {error}") from error
    for label, what in _NOT_DONE.items():
        if _number(said, label) > 0.0:
            raise RefineError(f"{path}: a classification {what} is not continued here ({label})")
    general = star.load(root.with_name(f"{root.name}_model.star"))["model_general"]
    if _number(general, "rlnReferenceDimensionality", 2.0) != 2.0:
        raise RefineError(f"{path} is of a refinement in three dimensions: give one in two")
    gradient = _number(said, "rlnDoGradientRefine") > 0.0
    if gradient and not root.with_name(f"{root.name}_2moment.mrcs").exists():
        raise RefineError(f"{root}_2moment.mrcs is not there: VDAM goes on with its moments only")
    return Before(
        root,
        int(_number(general, "rlnNrClasses")),
        gradient,
        _number(said, "rlnDoCorrectCtf") > 0.0,
        _number(said, "rlnDoZeroMask") > 0.0,
        max(0.0, _number(said, "rlnHighresLimitExpectation", -1.0)),
        int(_number(said, "rlnRandomSeed")),
        _number(said, "rlnHasHighFscAtResolLimit") > 0.0,
    )


def _number(table: Table, label: str, default: float = 0.0) -> float:
    return float(table.floats(label)[0]) if label in table.columns else default
