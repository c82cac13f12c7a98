"""Pipeline node labels of RELION 5.0 and 4.0; 3.1 has numbers, see `schemer.pipeline31`.

A label is `TopLevel.extension.program[.details]`; coldstream speaks 5.0 and translates.
Source: schemes.md section 10, "Node labels by version".
"""

from functools import lru_cache
from typing import Literal, get_args

Generation = Literal["5.0", "4.0", "3.1"]
GENERATIONS: tuple[Generation, ...] = get_args(Generation)

STAR_VERSION: dict[Generation, int] = {"5.0": 50001, "4.0": 30001, "3.1": 30001}

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


@lru_cache(maxsize=4096)  # a project has few labels and many nodes
def node_label(label: str, generation: Generation) -> str:
    """Return a node label in the words of `generation`; in those of 5.0 for 3.1, which has none."""
    for five, four in _PREFIXES:
        old, new = (five, four) if generation == "4.0" else (four, five)
        if label == old or label.startswith(old + "."):
            return new + label[len(old) :]
    return label
