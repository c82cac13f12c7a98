"""RELION's file set of an auto-refinement: writing.

An iteration has one table of particles and two models; the last one a single model, and names
without a number. The optimiser's file comes last, so what it belongs to is complete.

Source: refinement.md section 8.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from algorithms.formats import mrc, star
from algorithms.formats.atomic import atomic_write
from algorithms.formats.star import Table
from algorithms.refine import written
from algorithms.refine.auto.course import Course
from algorithms.refine.auto.step import Half, Made

_CLASSES = 9_999_999  # RELION writes this change as a whole number


def write(root: Path, name: str, blocks: dict[str, Table], course: Course, made: Made) -> None:
    """Write the present iteration.

    Parameters
    ----------
    root
        `.../run`.
    name
        The same as the project names it.
    blocks
        The particles' file, each particle's half included: all of its columns are kept.
    course, made
        Where the refinement is, and what its last iteration made.
    """
    is_last = course.state.converged
    suffix = "" if is_last else f"_it{course.model.iteration:03d}"
    place = root.with_name(f"{root.name}{suffix}")
    for half, one in enumerate(made.unfiltered, 1):
        _write_map(place.with_name(f"{place.name}_half{half}_class001_unfil.mrc"), one, course)
    shown = course.pair[:1] if is_last else course.pair
    for half, one in enumerate(shown, 1):
        own = "" if is_last else f"_half{half}"
        _write_map(
            place.with_name(f"{place.name}{own}_class001.mrc"), one.model.references[0], course
        )
        members = np.arange(len(course.data)) if is_last else one.members
        _save(place, f"{own}_model", model_blocks(f"{name}{suffix}{own}", one, members, course))
    _save(place, "_data", written.data_blocks(blocks, course.data.particles))
    _save(place, "_sampling", written.sampling_blocks(course.model))
    told = optimiser(name, suffix, course)
    _save(place, "_optimiser", {"optimiser_general": written.as_list(told)})


def model_blocks(name: str, half: Half, members: np.ndarray, course: Course) -> dict[str, Table]:
    """Return the blocks of the model of some particles."""
    model = half.model
    out = written.model_blocks(name, model, course.data)
    if model.fsc is not None:
        _set(out["model_class_1"], "rlnGoldStandardFsc", model.fsc.tolist())
    groups = course.data.particles.group[members]
    counts = np.bincount(groups, minlength=len(model.scales))
    _set(out["model_groups"], "rlnGroupNrParticles", counts.tolist())
    return out


def optimiser(name: str, suffix: str, course: Course) -> dict[str, object]:
    """Return what the optimiser's file says."""
    state, settings, model = course.state, course.settings, course.model
    root, rules = f"{name}{suffix}", settings.rules
    is_last = state.converged
    models = {"rlnModelStarFile": f"{root}_model.star"}
    if not is_last:
        models = {
            "rlnModelStarFile": f"{root}_half1_model.star",
            "rlnModelStarFile2": f"{root}_half2_model.star",
        }
    return (
        written.optimiser(root, model, course.options)
        | models
        | {
            "rlnOutputRootName": name,
            "rlnCurrentIteration": -1 if is_last else model.iteration,
            "rlnDoSplitRandomHalves": int(not is_last),
            "rlnJoinHalvesUntilThisResolution": settings.join_A,
            "rlnDoSolventFscCorrection": int(settings.solvent_fsc),
            "rlnIncrementImageSize": state.increment,
            "rlnDoAutoRefine": 1,
            "rlnDoAutoSampling": 1,
            "rlnAutoLocalSearchesHealpixOrder": rules.local_order,
            "rlnNumberOfIterWithoutResolutionGain": state.no_gain,
            "rlnBestResolutionThusFar": state.best,
            "rlnNumberOfIterWithoutChangingAssignments": state.no_change,
            "rlnChangesOptimalOrientations": state.changes.turned_deg,
            "rlnChangesOptimalOffsets": state.changes.shifted_A,
            "rlnChangesOptimalClasses": state.changes.reclassed,
            "rlnSmallestChangesOrientations": state.least.turned_deg,
            "rlnSmallestChangesOffsets": state.least.shifted_A,
            "rlnSmallestChangesClasses": int(min(state.least.reclassed, _CLASSES)),
            "rlnHasConverged": int(is_last),
            "rlnHasHighFscAtResolLimit": int(state.high_fsc),
        }
    )


def halves_of(blocks: dict[str, Table], subset: np.ndarray) -> dict[str, Table]:
    """Return the particles' file with each particle's half."""
    columns = dict(blocks["particles"].columns)
    columns["rlnRandomSubset"] = [str(half) for half in subset]
    return {**blocks, "particles": Table(columns)}


def _write_map(path: Path, volume: Tensor, course: Course) -> None:
    values = volume.to(torch.float32).cpu().numpy()
    atomic_write(path, mrc.encode(values, course.model.pixel_A))


def _set(table: Table, label: str, values: Sequence[float]) -> None:
    table.columns[label] = [f"{value:.9g}" for value in values]


def _save(place: Path, part: str, blocks: dict[str, Table]) -> None:
    atomic_write(place.with_name(f"{place.name}{part}.star"), star.dumps(blocks).encode())
