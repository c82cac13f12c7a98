"""What a finished job has left, read from RELION's files.

Source: refinement.md sections 7 and 8.
"""

import math
from pathlib import Path

from algorithms.formats import star
from services.refine.state import Result

# Label without its suffixes -> the map, and the file, block and labels of its numbers.
MAPS = {
    "relion.initialmodel": "initial_model.mrc",
    "relion.refine3d": "run_class001.mrc",
    "relion.maskcreate": "mask.mrc",
    "relion.postprocess": "postprocess.mrc",
}
_NUMBERS = {
    "relion.refine3d": ("run_model.star", "model_general", "rlnCurrentResolution", ""),
    "relion.postprocess": (
        "postprocess.star",
        "general",
        "rlnFinalResolution",
        "rlnBfactorUsedForSharpening",
    ),
}


def read(project: Path, process: str, label: str) -> Result | None:
    """Return the result of a job; None where its map is not there.

    Parameters
    ----------
    project
        Root of the RELION project.
    process
        Job folder below it, `Refine3D/job010/`.
    label
        Of the job, `relion.refine3d`.
    """
    name = MAPS.get(label)
    if name is None or not (project / process / name).is_file():
        return None
    file, block, *labels = _NUMBERS.get(label, ("", "", "", ""))
    found = [_number(project / process / file, block, one) if one else None for one in labels]
    resolution, bfactor = found
    is_known = resolution is not None and 0.0 < resolution < 1e6
    return Result(f"{process}{name}", resolution if is_known else None, bfactor)


def _number(path: Path, block: str, label: str) -> float | None:
    try:
        value = float(star.load(path, only=(block,))[block].columns[label][0])
    except (OSError, KeyError, IndexError, ValueError):
        return None
    return value if math.isfinite(value) else None
