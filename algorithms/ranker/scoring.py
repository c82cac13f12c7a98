"""From an iteration of a 2D classification to scores. Source: class-ranker.md sections 0 and 7."""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from algorithms.ranker.accuracy import Accuracies
from algorithms.ranker.constants import Constants, network_input
from algorithms.ranker.contrast import Optics, to_first_peak
from algorithms.ranker.features import Features, features
from algorithms.ranker.inputs import Classified
from algorithms.ranker.types import UNSCORED, Mode, RankerError
from algorithms.ranker.weights import Weights

# To be raised when the features of the same classes change: what was kept is then made anew.
VERSION = 1
_COLUMN = "column "
# Protein of Class2D's averages varies by 0.74 +- 0.59 between good and bad classes.
_USUAL_DEVIATION = (0.05, 2.5)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores of all classes of an iteration.

    Parameters
    ----------
    scores
        `[K]`; UNSCORED for classes that are too small or not usable.
    vector
        Normalised features of the scored ones `[n, 24]` float32.
    """

    scores: np.ndarray
    vector: np.ndarray


def features_of(
    job: Classified, mode: Mode = "relion", *, opening: bool = True, with_texture: bool = False
) -> Features:
    """Return the features of an iteration, accuracies that its model lacks included.

    Parameters
    ----------
    job
        The iteration.
    mode
        Whose accidents to keep.
    opening
        Whether to compute granulometry.
    with_texture
        Whether to add what is only written.
    """
    classes = job.classes
    if job.flag("rlnDoIgnoreCtfUntilFirstPeak"):
        # RELION takes the defocus of its last particle, though it computes the mean.
        rows = slice(-1, None) if mode == "relion" else slice(None)
        optics = Optics.of(job.data, rows)
        flat = classes.images.copy()
        usable = classes.finite
        flat[usable] = to_first_peak(flat[usable], classes.pixel_A, optics)
        classes = replace(classes, images=flat)
    return features(
        classes, mode, opening=opening, with_texture=with_texture, fallback=Accuracies(job)
    )


def scored(found: Features, n_classes: int, weights: Weights) -> Scored:
    """Return scores of features; milliseconds, with no look at the classes."""
    images, vector = network_input(found, weights.constants)
    scores = np.full(n_classes, UNSCORED)
    if len(found):
        given = weights.network(images, vector).astype(np.float64)
        if not np.isfinite(given).all():
            raise RankerError(
                f"{weights.source} gives scores that are not finite: it is not usable"
            )
        scores[found.places] = given
    return Scored(scores=scores, vector=vector)


def score(job: Classified, weights: Weights) -> Scored:
    """Return the scores of an iteration."""
    constants = weights.constants
    found = features_of(job, constants.mode, opening=constants.needs_opening)
    return scored(found, len(job.classes), weights)


def contract_remarks(found: Features, constants: Constants) -> list[str]:
    """Return what speaks against the averages: their sign and their grey scale.

    The network knows averages of particles that were normalised to a background of mean 0 and
    deviation 1, protein bright.
    """
    if not len(found):
        return []
    columns, remarks = found.columns, []
    bright = (columns["ProteinArea"] > 0) & (columns["ProteinMean"] > columns["SolventMean"])
    # The mask takes what is bright, so an inverted average may have one, of solvent.
    bright &= columns["LowpassFilteredImageMax"] > -columns["LowpassFilteredImageMin"]
    if bright.mean() < 0.5:
        remarks.append(
            f"protein is bright in only {int(bright.sum())} of {len(found)} classes: is the "
            "contrast of the particles inverted? Scores may be wrong"
        )
    deviation = float(np.median(columns["ProteinStddev"]))
    low, high = _USUAL_DEVIATION
    if constants.grey == "as_is" and not low <= deviation <= high:
        remarks.append(
            f"grey values of the protein vary by {deviation:.3g}, usual is {low:g} to {high:g}: "
            "were the particles normalised? Scores may be wrong"
        )
    return remarks


def packed(found: Features) -> bytes:
    """Return features as the bytes of a file, to be kept."""
    plain = {name: getattr(found, name) for name in ("places", "images", "accuracy_deg")}
    plain["accuracy_A"] = found.accuracy_A
    columns = {_COLUMN + name: values for name, values in found.columns.items()}
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **plain, **columns)
    return content.getvalue()


def unpacked(content: bytes) -> Features | None:
    """Return features that were kept; None when they cannot be read."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays: Mapping[str, np.ndarray] = {name: file[name] for name in file.files}
        return Features(
            places=arrays["places"],
            columns={
                name.removeprefix(_COLUMN): values
                for name, values in arrays.items()
                if name.startswith(_COLUMN)
            },
            images=arrays["images"],
            accuracy_deg=arrays["accuracy_deg"],
            accuracy_A=arrays["accuracy_A"],
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
