"""Pipeline node labels of RELION 5.0 and 4.0.

A label is `TopLevel.extension.program[.details]`; coldstream speaks 5.0 and translates.
Source: schemes.md section 10, "Node labels by version".
"""

from typing import Literal

Generation = Literal["5.0", "4.0"]

STAR_VERSION: dict[Generation, int] = {"5.0": 50001, "4.0": 30001}

# (5.0, 4.0), longest first where one begins another.
_PREFIXES = (
    ("MicrographMovieGroupMetadata", "MicrographMoviesData"),
    ("MicrographGroupMetadata", "MicrographsData"),
    ("MicrographCoordsGroup", "MicrographsCoords"),
    ("ParticleGroupMetadata", "ParticlesData"),
    ("Image2DGroupMetadata", "ImagesData"),
    ("OptimiserData.star.relion", "ProcessData.star.relion.optimiser"),
    ("ParamsData.txt.relion.polish", "ProcessData.txt.relion.polish.params"),
    ("ParamsData.sav.topaz.model", "ProcessData.sav.topaz.model"),
    ("TomoOptimisationSet", "OptimisationSet"),
    ("TomogramGroupMetadata", "TomogramData"),
    ("TomoTrajectoryData", "TrajectoryData"),
)


def node_label(label: str, generation: Generation) -> str:
    """Return a node label of either generation in the words of `generation`."""
    for five, four in _PREFIXES:
        old, new = (four, five) if generation == "5.0" else (five, four)
        if label == old or label.startswith(old + "."):
            return new + label[len(old) :]
    return label
