"""RELION 3.1's numbers for job types, statuses and node types, and the labels they stand for.

Numbers say less than labels. Reading derives a label from the number, the job's folder and the
file name; what a number cannot give back is kept in `Remembered`, beside the pipeline file.
Sources: schemes.md sections 10 and 11; runs of RELION 3.1.3's `relion_pipeliner`.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from msgspec import Struct

from algorithms.formats.star import Table
from schemer.errors import ProjectError, SchemeError
from schemer.jobs.labels import Generation
from schemer.jobs.types import by_number, find

STATUSES = ("Running", "Scheduled", "Succeeded", "Failed", "Aborted")  # RELION 4 dies of others

_EXTERNAL = 99  # 3.1 can open a job of an unknown type as one of these
_JOB_WORD = "relion31.type"  # with the number: a job type that only 3.1 had

_HALF, _MAP, _FINAL, _NO_NODE = 10, 6, 11, -1
_NODES = {
    0: "MicrographMovieGroupMetadata.star.relion",
    1: "MicrographGroupMetadata.star.relion",
    2: "MicrographCoordsGroup.star.relion",
    3: "ParticleGroupMetadata.star.relion",
    5: "Image2DGroupMetadata.star.relion",
    _MAP: "DensityMap.mrc",
    7: "Mask3D.mrc",
    8: "ProcessData.star.relion.model",
    9: "OptimiserData.star.relion",
    _HALF: "DensityMap.mrc.halfmap",
    _FINAL: "DensityMap.mrc.relion.postprocess",
    12: "Image3D.mrc.resmap.localresmap",
    13: "LogFile.pdf.relion",
    14: "ProcessData.star.relion.postprocess",
    15: "ParamsData.txt.relion.polish",
}
_NODE_WORD = "Relion31Node"  # with the number: a node type that only 3.1 had
# What the job's folder adds to the label: the files of its usual outputs.
_DETAILS = {
    (1, "MotionCorr"): ".motioncorr",
    (1, "CtfFind"): ".ctf",
    (2, "ManualPick"): ".manualpick",
    (2, "AutoPick"): ".autopick",
    (3, "Class2D"): ".class2d",
    (3, "Class3D"): ".refine3d",  # so it is called in RELION
    (3, "Refine3D"): ".refine3d",
    (3, "Polish"): ".polished",
    (3, "CtfRefine"): ".ctfrefine",
    (5, "Select"): ".classaverages",
    (_MAP, "Class3D"): ".relion.class3d",
    (_MAP, "Refine3D"): ".relion.refine3d",
    (_MAP, "InitialModel"): ".relion.initialmodel",
    (7, "MaskCreate"): ".relion",
    (9, "Class2D"): ".class2d",
    (9, "Class3D"): ".class3d",
    (9, "Refine3D"): ".refine3d",
    (9, "InitialModel"): ".initialmodel",
    (9, "Select"): ".select",
    (13, "MotionCorr"): ".motioncorr",
    (13, "CtfFind"): ".ctffind",
    (13, "AutoPick"): ".autopick",
    (13, "PostProcess"): ".postprocess",
    (13, "LocalRes"): ".localres",
    (13, "MultiBody"): ".flexanalysis",
    (13, "Polish"): ".polish",
    (13, "CtfRefine"): ".ctfrefine",
    (13, "Select"): ".select",
}
_WHOLE = {
    (_HALF, "Refine3D"): "DensityMap.mrc.relion.halfmap.refine3d",
    (_HALF, "MultiBody"): "DensityMap.mrc.relion.halfmap.multibody",
    (_FINAL, "LocalRes"): "DensityMap.mrc.relion.localresfiltered",
}
_FILES = {
    (_FINAL, "postprocess_masked.mrc"): "DensityMap.mrc.relion.postprocess.masked",
    (3, "particles_subtracted.star"): "ParticleGroupMetadata.star.relion.subtracted",
}
# The first prefix that fits gives the number.
_NODE_NUMBERS = (
    ("MicrographMovieGroupMetadata", 0),
    ("MicrographGroupMetadata", 1),
    ("MicrographCoordsGroup", 2),
    ("ParticleGroupMetadata", 3),
    ("Image2DGroupMetadata", 5),
    ("DensityMap.mrc.halfmap", _HALF),
    ("DensityMap.mrc.relion.halfmap", _HALF),
    ("DensityMap.mrc.relion.postprocess", _FINAL),
    ("DensityMap.mrc.relion.localresfiltered", _FINAL),
    ("DensityMap", _MAP),
    ("Mask3D", 7),
    ("ProcessData.star.relion.model", 8),
    ("OptimiserData", 9),
    ("Image3D", 12),
    ("LogFile", 13),
    ("ProcessData.star.relion.postprocess", 14),
    ("ParamsData.txt.relion.polish", 15),
)


class Remembered(Struct):
    """What a pipeline file cannot say: its generation while it is empty, and lost label details.

    `jobs` and `nodes` hold labels by name, only those that do not follow from number and name.
    """

    generation: Generation | None = None
    jobs: dict[str, str] = {}
    nodes: dict[str, str] = {}


class _Coding(NamedTuple):
    """How one column is written in numbers, and in labels."""

    number: str
    label: str
    to_label: Callable[[int, str], str]  # number, name of the row
    to_number: Callable[[str], int]


def job_label(number: int) -> str:
    """Return the base label of a job type."""
    job_type = by_number(number)
    return f"{_JOB_WORD}{number}" if job_type is None else job_type.label


@lru_cache(maxsize=4096)
def job_number(label: str) -> int:
    """Return the number of a process label, that of an external job for an unknown one."""
    if (number := _number_in(label, _JOB_WORD)) is not None:
        return number
    try:
        return find(label).number
    except SchemeError:
        return _EXTERNAL


def node_label(number: int, name: str) -> str:
    """Return the label of the file `name` (`MotionCorr/job002/logfile.pdf`) of a node type."""
    return _node_label(number, name.partition("/")[0], name.rpartition("/")[2])


@lru_cache(maxsize=4096)  # a project has many nodes of few kinds
def _node_label(number: int, folder: str, file: str) -> str:
    whole = _FILES.get((number, file)) or _WHOLE.get((number, folder))
    base = _NODES.get(number, f"{_NODE_WORD}{number}")
    return whole or base + _DETAILS.get((number, folder), "")


@lru_cache(maxsize=4096)
def node_number(label: str) -> int:
    """Return the node type of a label of RELION 5; -1, as RELION does, where 3.1 has none."""
    if (number := _number_in(label, _NODE_WORD)) is not None:
        return number
    return next(
        (n for start, n in _NODE_NUMBERS if label == start or label.startswith(start + ".")),
        _NO_NODE,
    )


def _status_label(number: int, _: str) -> str:
    return STATUSES[number] if 0 <= number < len(STATUSES) else str(number)


def _status_number(label: str) -> int:
    if label in STATUSES:
        return STATUSES.index(label)
    try:
        return int(label)
    except ValueError:
        words = ", ".join(STATUSES)
        raise ProjectError(f"status {label!r} has no number in RELION 3.1; use {words}") from None


_JOB_CODING = _Coding(
    "rlnPipeLineProcessType",
    "rlnPipeLineProcessTypeLabel",
    lambda number, _: job_label(number),
    job_number,
)
_STATUS_CODING = _Coding(
    "rlnPipeLineProcessStatus", "rlnPipeLineProcessStatusLabel", _status_label, _status_number
)
_NODE_CODING = _Coding("rlnPipeLineNodeType", "rlnPipeLineNodeTypeLabel", node_label, node_number)


def jobs_to_labels(table: Table, names: str, remembered: Remembered) -> bool:
    """Replace a process table's numbers by labels; return whether there were any.

    Parameters
    ----------
    table
        Changed in place.
    names
        Label of the column with the names of the rows.
    remembered
        Labels that the numbers do not give.
    """
    found = _to_labels(table, names, _JOB_CODING, remembered.jobs)
    return _to_labels(table, names, _STATUS_CODING, {}) or found


def nodes_to_labels(table: Table, names: str, remembered: Remembered) -> bool:
    """Replace a node table's numbers by labels; see `jobs_to_labels`."""
    return _to_labels(table, names, _NODE_CODING, remembered.nodes)


def jobs_to_numbers(columns: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return a process table's columns in numbers."""
    return _to_numbers(_to_numbers(columns, _JOB_CODING), _STATUS_CODING)


def nodes_to_numbers(columns: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return a node table's columns in numbers."""
    return _to_numbers(columns, _NODE_CODING)


def remember(jobs: Mapping[str, str], nodes: Mapping[str, str]) -> Remembered:
    """Return what numbers lose of these labels, given by name."""
    return Remembered(
        "3.1",
        {name: label for name, label in jobs.items() if label != job_label(job_number(label))},
        {
            name: label
            for name, label in nodes.items()
            if label != node_label(node_number(label), name)
        },
    )


def _to_labels(table: Table, names: str, coding: _Coding, known: Mapping[str, str]) -> bool:
    columns = table.columns
    if coding.label in columns or coding.number not in columns or names not in columns:
        return False
    labels = []
    for text, name in zip(columns[coding.number], columns[names], strict=True):
        try:
            number = int(text)
        except ValueError:
            raise ProjectError(
                f"row {name!r}: _{coding.number} is {text!r}; write a whole number"
            ) from None
        label = known.get(name)
        # Another program may have changed the row since its label was remembered.
        fits = label is not None and coding.to_number(label) == number
        labels.append(label if fits else coding.to_label(number, name))
    table.columns = {
        coding.label if label == coding.number else label: labels
        if label == coding.number
        else values
        for label, values in columns.items()
    }
    return True


def _to_numbers(columns: Mapping[str, list[str]], coding: _Coding) -> dict[str, list[str]]:
    converted: dict[str, list[str]] = {}
    for label, values in columns.items():
        if label == coding.label:
            converted[coding.number] = [str(coding.to_number(value)) for value in values]
        else:
            converted[label] = values
    return converted


def _number_in(label: str, word: str) -> int | None:
    """Return the number behind `word`, None if the label is another one."""
    digits = label.removeprefix(word)
    return int(digits) if digits != label and digits.lstrip("-").isdecimal() else None
