"""The Scheme proc with crYOLO in place of RELION's own pickers. Pure.

RELION knows crYOLO as an external job: its node `autopick` keeps the name, so that everything after
it stays as it is. The program of the job is `mdcatch.launch.cryolo_job`. Source: schemes.md 16.
"""

import shlex
import sys
from collections.abc import Mapping

from msgspec import structs

from mdcatch.launch.request import OpenRequest
from mdcatch.reconcile import Exposure
from schemer.jobs import JobFile, find
from schemer.scheme import Edge, StringVariable
from schemer.settings import Definition

LABEL = "relion.external"
MODEL = "cryolo_model"
# Less confident picks are dropped: crYOLO's own default.
THRESHOLD = "0.3"
# Shorter filaments are noise more often than not.
FEWEST_BOXES = "6"
_GONE = {"do_log", "do_topaz", "has_topaz_model", "topaz_model", "SET_do_topaz", "HAS_topaz_model"}


def with_cryolo(definition: Definition, parameters: Mapping[str, str]) -> Definition:
    """Return the Scheme with crYOLO as its picker.

    Parameters
    ----------
    definition
        The shipped Scheme proc.
    parameters
        Of crYOLO's job: name -> value, at most nine; the model is added.
    """
    scheme, jobs = definition
    edges = tuple(
        structs.replace(edge, target="autopick") if edge.target == "SET_do_topaz" else edge
        for edge in scheme.edges
        if edge.source != "SET_do_topaz"
    )
    options = {
        "fn_exe": program(),
        "in_mic": f"{scheme.name}select_mics/micrographs.star",
    }
    for number, (name, value) in enumerate({**parameters, "model": f"$${MODEL}"}.items(), 1):
        options |= {f"param{number}_label": name, f"param{number}_value": value}
    complete, _ = find(LABEL).complete(options)
    changed = structs.replace(
        scheme,
        bools=_without(scheme.bools),
        strings=_without(scheme.strings) | {MODEL: StringVariable("None", "None")},
        operators=_without(scheme.operators),
        edges=_checked(edges),
    )
    return Definition(changed, jobs | {"autopick": JobFile(LABEL, complete)})


def parameters(request: OpenRequest, exposure: Exposure) -> dict[str, str]:
    """Return the parameters of crYOLO's job: box 0 lets crYOLO estimate it."""
    found = {"gpu": request.gpus or "0", "box_size": "0", "threshold": THRESHOLD}
    pixel_A, width_A = exposure.processing_pixel_A, request.particle_diameter_A
    sizes = exposure.suggest(width_A, is_helix=True) if width_A else None
    if request.helical and pixel_A and width_A and sizes is not None:
        found |= {
            "box_size": str(sizes.boxes.box_px),
            "filament_width": str(round(width_A / pixel_A)),
            "box_distance": str(sizes.distance_px or 1),
            "minimum_number_boxes": FEWEST_BOXES,
        }
    return found


def program() -> str:
    """Return the words that start crYOLO's job in this environment."""
    return shlex.join([sys.executable, "-m", "mdcatch.launch.cryolo_job"])


def _without(named: Mapping[str, object]) -> dict:
    return {name: value for name, value in named.items() if name not in _GONE}


def _checked(edges: tuple[Edge, ...]) -> tuple[Edge, ...]:
    """Return the edges, sure that the picker is reached."""
    if not any(edge.target == "autopick" for edge in edges):
        raise ValueError("the Scheme proc has no node SET_do_topaz before its picker")
    return edges
