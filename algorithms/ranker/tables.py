"""The STAR files that a selection consists of, as RELION writes and reads them.

Source: class-ranker.md sections 2.5 and 6.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from algorithms.formats.star import StarError, Table
from algorithms.ranker.features import Features
from algorithms.ranker.inputs import Classified
from algorithms.ranker.selection import Overrides, Selection
from algorithms.ranker.types import ClassSet, RankerError

_MOMENTS = ("Sum", "Mean", "Stddev", "Skew", "Kurt")
# Of features.star, in its order.
_COLUMNS = (
    "WeightedResolution",
    "RelativeResolution",
    "ParticleNr",
    *(f"Ring{moment}" for moment in _MOMENTS[1:]),
    "ProteinArea",
    *(f"Protein{moment}" for moment in _MOMENTS),
    "SolventArea",
    *(f"Solvent{moment}" for moment in _MOMENTS),
    "RelativeSignalIntensity",
    "ScatteredSignal",
    "EdgeSignal",
    "ProteinCAR",
    *(f"LowpassFilteredImage{number}" for number in ("Mean", "Stddev", "Min", "Max")),
    "LBP",
    "ProteinLBP",
    "SolventLBP",
    "TotalEntropy",
    "ProteinEntropy",
    "SolventEntropy",
    "ProteinHaralick",
    "SolventHaralick",
    "ZernikeMoments",
    "Granulo",
)
_STACK = "rlnColdstreamClassStack"

Blocks = dict[str, Table]


def features_blocks(
    classes: ClassSet,
    found: Features,
    selected: Sequence[int],
    *,
    sub_images: str = "",
    targets: np.ndarray | None = None,
) -> Blocks:
    """Return features.star.

    Parameters
    ----------
    classes, found
        All classes, and the features of the scored ones.
    selected
        0 or 1, or a person's label, of each class `[K]`.
    sub_images
        Path of the stack of `found.images`, below the project; empty: there is none.
    targets
        Scores that a person gave, for training `[K]`.
    """
    places = found.places
    columns: dict[str, object] = {"ReferenceImage": [classes.names[place] for place in places]}
    if targets is not None:
        columns["ClassScore"] = targets[places]
    columns |= {
        "IsSelected": [int(selected[place]) for place in places],
        "ClassIndex": [int(place) + 1 for place in places],
        "ClassDistribution": classes.fractions[places],
        "AccuracyRotations": found.accuracy_deg[places],
        "AccuracyTranslations": found.accuracy_A[places],
        "EstimatedResolution": classes.resolution_A[places],
    }
    given = {"ParticleNr": classes.sizes[places]} | found.columns
    for name in _COLUMNS:
        if name in given:
            columns[name] = _lists(given[name]) if given[name].ndim == 2 else given[name]
    if sub_images:
        columns["SubImageStack"] = _sub_images(len(found), sub_images)
    return {"class_features": _loop(columns)}


def normalized_blocks(
    classes: ClassSet, found: Features, vector: np.ndarray, scores: np.ndarray, sub_images: str
) -> Blocks:
    """Return features_normalized.star: what the network was given."""
    return {
        "normalized_class_features": _loop(
            {
                "ReferenceImage": [classes.names[place] for place in found.places],
                "ClassScore": scores[found.places],
                "SubImageStack": _sub_images(len(found), sub_images),
                "NormalizedFeatureVector": _lists(vector),
            }
        )
    }


def rank_model(job: Classified, scores: np.ndarray) -> Blocks:
    """Return rank_model.star: all classes with their scores, other values as in the model."""
    classes = job.classes
    return {
        "model_classes": _loop(
            {
                "ReferenceImage": classes.names,
                "ClassScore": scores,
                "ClassDistribution": classes.fractions,
                "AccuracyRotations": classes.accuracy_deg,
                "AccuracyTranslationsAngst": classes.accuracy_A,
                "EstimatedResolution": job.listed_resolution_A,
                "OverallFourierCompleteness": job.completeness,
                "ClassPriorOffsetX": job.prior_offset_A[:, 0],
                "ClassPriorOffsetY": job.prior_offset_A[:, 1],
            }
        )
    }


def rank_optimiser(job: Classified, model: str, data: str) -> Blocks:
    """Return rank_optimiser.star: the optimiser with other paths, below the project."""
    columns = dict(job.general.columns)
    columns["rlnModelStarFile"], columns["rlnExperimentalDataStarFile"] = [model], [data]
    return {"optimiser_general": Table(columns, loop=False)}


def backup_selection(chosen: Selection) -> Blocks:
    """Return backup_selection.star, from which RELION's display preloads a choice."""
    return {"": _loop({"Selected": chosen.flags()})}


def class_averages(
    job: Classified, found: Features, scores: np.ndarray, chosen: Selection
) -> Blocks:
    """Return class_averages.star: the selected classes, accuracies as they were found."""
    classes, order = job.classes, np.array(chosen.order, np.int64)
    return {
        "": _loop(
            {
                "ReferenceImage": [classes.names[place] for place in chosen.order],
                "PredictedClassScore": scores[order],
                "ClassDistribution": classes.fractions[order],
                "AccuracyRotations": found.accuracy_deg[order],
                "AccuracyTranslationsAngst": found.accuracy_A[order],
                "EstimatedResolution": classes.resolution_A[order],
            }
        )
    }


def particles(job: Classified, chosen: Selection) -> Blocks:
    """Return particles.star: the rows of the selected classes, in their order, all columns.

    Raises
    ------
    RankerError
        The particles have no class numbers.
    """
    rows = job.data["particles"]
    try:
        numbers = rows.ints("rlnClassNumber")
    except StarError as error:
        raise RankerError(f"{job.data_name}: {error}") from error
    keep = np.flatnonzero(np.isin(numbers, np.array(chosen.order, np.int64) + 1)).tolist()
    columns = {label: [values[i] for i in keep] for label, values in rows.columns.items()}
    return {**job.data, "particles": Table(columns)}


def decisions(
    classes: ClassSet, scores: np.ndarray, chosen: Selection, about: Mapping[str, object]
) -> Blocks:
    """Return our own table: what was decided of each class, and why.

    Parameters
    ----------
    classes, scores, chosen
        Of all classes.
    about
        What the decision rests on: label without `rlnColdstream` -> value.
    """
    general = {f"rlnColdstream{name}": value for name, value in about.items()}
    return {
        "class_selection": Table.of(general, loop=False),
        "class_decisions": _loop(
            {
                "ReferenceImage": classes.names,
                "ClassNumber": list(range(1, len(classes) + 1)),
                "ClassScore": scores,
                "ParticleNr": classes.sizes,
                "EstimatedResolution": classes.resolution_A,
                "Selected": chosen.flags(),
                "ColdstreamOutcome": list(chosen.outcomes),
                "ColdstreamReason": chosen.reasons,
            }
        ),
    }


def overrides_blocks(overrides: Overrides) -> Blocks:
    """Return a file of a person's decisions."""
    numbers = sorted(overrides.kept)
    return {
        "class_overrides_general": Table.of({_STACK: overrides.stack}, loop=False),
        "class_overrides": _loop(
            {
                "ClassNumber": numbers,
                "Selected": [int(overrides.kept[number]) for number in numbers],
            }
        ),
    }


def read_overrides(blocks: Mapping[str, Table], name: str) -> Overrides:
    """Return a person's decisions from a file of `overrides_blocks`.

    Raises
    ------
    RankerError
        The file is another.
    """
    try:
        stack = blocks["class_overrides_general"].strings(_STACK)[0]
        table = blocks.get("class_overrides", Table())
        if not len(table):
            return Overrides(stack=stack)
        numbers, flags = table.ints("rlnClassNumber"), table.ints("rlnSelected")
    except (KeyError, StarError) as error:
        raise RankerError(
            f"{name} is no file of overrides: it needs data_class_overrides_general with {_STACK} "
            "and data_class_overrides with rlnClassNumber and rlnSelected"
        ) from error
    return Overrides(
        stack=stack, kept={int(n): bool(f) for n, f in zip(numbers, flags, strict=True)}
    )


def _sub_images(n: int, stack: str) -> list[str]:
    return [f"{number:06d}@{stack}" for number in range(1, n + 1)]


def _lists(values: np.ndarray) -> list[str]:
    return [f"[{','.join(f'{value:.9g}' for value in row)}]" for row in values.tolist()]


def _loop(columns: Mapping[str, object]) -> Table:
    return Table.of({f"rln{name}": values for name, values in columns.items()})
