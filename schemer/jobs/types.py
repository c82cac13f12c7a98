"""The registry of RELION's job types, found by label.

Options and their defaults are those of RELION 5.0.1. Source: schemes.md sections 9 and 10.
"""

from schemer.errors import SchemeError
from schemer.jobs import preprocessing, refinement, selecting, tomography
from schemer.jobs.jobtype import JobType, Nodes, takes
from schemer.jobs.nodes import MAP
from schemer.jobs.options import Option, Options, yes

__all__ = ["ALL", "JobType", "Nodes", "Option", "Options", "by_number", "find"]


def _dynamight_outputs(options: Options) -> Nodes:
    if not yes(options, "do_reconstruct"):
        return ()
    folder, label = "backprojection", f"{MAP}.relion.halfmap.dynamight"
    return (f"{folder}/map_half1.mrc", label), (f"{folder}/map_half2.mrc", label)


ALL = (
    *preprocessing.TYPES,
    *selecting.TYPES,
    *refinement.TYPES,
    JobType(
        "dynamight",
        "DynaMight",
        22,
        inputs=takes("fn_star", "fn_map"),
        outputs=_dynamight_outputs,
    ),
    JobType("modelangelo", "ModelAngelo", 23, inputs=takes("fn_map", "p_seq", "d_seq", "r_seq")),
    *tomography.TYPES,
    JobType(
        "relion.external",
        "External",
        99,
        inputs=takes("in_mov", "in_mic", "in_part", "in_coords", "in_3dref", "in_mask"),
    ),
)

_BY_LABEL = {one.label: one for one in ALL}
_TOMO = {one.label: one for one in tomography.FORMS}
_BY_NUMBER = {one.number: one for one in ALL}

# Files of alpha versions of 4.0 hold the folder; of two types in one folder it is the older one.
_BY_FOLDER = {one.folder: one for one in reversed(ALL)} | {
    "ImportTomo": _BY_LABEL["relion.importtomo"],
    "PseudoSubtomo": _BY_LABEL["relion.pseudosubtomo"],
    "CtfRefineTomo": _BY_LABEL["relion.ctfrefinetomo"],
    "FrameAlignTomo": _BY_LABEL["relion.framealigntomo"],
    "ReconstructParticleTomo": _BY_LABEL["relion.reconstructparticletomo"],
}


_LONGEST = 200  # letters of a label; one of a broken file may be anything


def find(label: str, *, tomo: bool = False) -> JobType:
    """Return the type of a label; unknown deeper parts are left off one at a time.

    Parameters
    ----------
    label
        `relion.import.movies`, or the folder's name, as alpha versions of 4.0 wrote it.
    tomo
        Return the tomography form, if the type has one (`rlnJobIsTomo`).

    Raises
    ------
    SchemeError
        No such type; the message lists all.
    """
    if label in _BY_FOLDER:
        label = _BY_FOLDER[label].label
    short = label[:_LONGEST]
    while short:
        if short in _BY_LABEL:
            return _TOMO.get(short, _BY_LABEL[short]) if tomo else _BY_LABEL[short]
        short = short.rpartition(".")[0]
    known = ", ".join(sorted(_BY_LABEL))
    raise SchemeError(f"{label[:_LONGEST]!r} is not a known job type; known are {known}")


def by_number(number: int) -> JobType | None:
    """Return the type with RELION's own number, which files of 3.x hold; None if there is none."""
    return _BY_NUMBER.get(number)
