"""relion_it's defaults and rules: boxes from the diameter, keys that its window sets together.

All functions are pure; options are text by key. Source: schemes.md sections 16 and 17.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from algorithms.boxes import COARSEST_PIXEL_A, SCALED_SIZES, box_sizes
from schemer.errors import SchemeError
from schemer.scheme import parse_bool

# relion_it's own defaults. They win over what a Scheme says, as in relion_it.
DEFAULTS: dict[str, str] = {
    "do_prep": "True",
    "do_proc": "True",
    "do_auto_boxsize": "True",
    "prep__do_at_most": "50",
    "prep__importmovies__fn_in_raw": "Movies/*.tiff",
    "prep__importmovies__is_multiframe": "True",
    "prep__importmovies__kV": "200",
    "prep__importmovies__Cs": "1.4",
    "prep__importmovies__angpix": "0.885",
    "prep__motioncorr__fn_gain_ref": "Movies/gain.mrc",
    "prep__motioncorr__bin_factor": "1",
    "prep__motioncorr__dose_per_frame": "1.277",
    "prep__motioncorr__eer_grouping": "20",
    "prep__motioncorr__nr_threads": "16",
    "prep__ctffind__do_phaseshift": "False",
    "prep__ctffind__fn_ctffind_exe": "/public/EM/ctffind/ctffind.exe",
    "proc__ctffind_mics": "Schemes/prep/ctffind/micrographs_ctf.star",
    "proc__select_mics__select_maxval": "6",
    "proc__do_log": "True",
    "proc__topaz_model": "",
    "proc__iniref": "None",
    "proc__min_nr_parts_3d": "5000",
    "proc__autopick__log_diam_min": "150.0",
    "proc__autopick__log_diam_max": "180.0",
    "proc__autopick__log_adjust_thr": "0.0",
    "proc__autopick__use_gpu": "False",
    "proc__autopick__gpu_ids": "0",
    "proc__autopick__nr_mpi": "4",
    "proc__autopick__fn_topaz_exec": "/public/EM/RELION/topaz",
    "proc__autopick__topaz_other_args": "",
    "proc__extract__extract_size": "256",
    "proc__extract__do_rescale": "True",
    "proc__extract__rescale": "64",
    "proc__extract__do_fom_threshold": "False",
    "proc__extract__minimum_pick_fom": "0",
    "proc__class2d__particle_diameter": "200",
    "proc__class2d__gpu_ids": "0,1",
    "proc__select_parts__rank_threshold": "0.25",
    "proc__select_parts__select_nr_classes": "0",
    "proc__inimodel3d__particle_diameter": "200",
    "proc__inimodel3d__sym_name": "D2",
    "proc__refine3d__particle_diameter": "200",
    "proc__refine3d__sym_name": "D2",
}

_DIAMETER = "proc__autopick__log_diam_max"
_SHORTEST = "proc__autopick__log_diam_min"
_PIXEL = "prep__importmovies__angpix"
_BINNING = "prep__motioncorr__bin_factor"
_MASK = "proc__class2d__particle_diameter"
_GPUS = "proc__class2d__gpu_ids"

# Fields of relion_it's window that stand for several keys.
_ONE_FIELD = (
    ("proc__inimodel3d__sym_name", "proc__refine3d__sym_name"),
    (_DIAMETER, "proc__autopick__topaz_particle_diameter"),
    (_MASK, "proc__inimodel3d__particle_diameter", "proc__refine3d__particle_diameter"),
    (_GPUS, "proc__inimodel3d__gpu_ids"),
)


class WrongValue(SchemeError):
    """An option's text does not fit; the key is kept, for who knows its file."""

    def __init__(self, key: str, text: str, problem: str, remedy: str):
        super().__init__(f"key {key!r}: value {text!r} {problem}; {remedy}")
        self.key = key


def number(options: Mapping[str, str], key: str) -> float:
    """Return the number that an option must be; WrongValue if it is missing or no number."""
    text = options.get(key, "")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise WrongValue(key, text, "is not a number", "write one such as 1.5")
    return value


def switch(options: Mapping[str, str], key: str) -> bool:
    """Return whether an option is on; one that is missing is off."""
    text = options.get(key, "False")
    value = parse_bool(text)
    if value is None:
        raise WrongValue(key, text, "is not a truth value", "write True or False")
    return value


# "Calculate for me"


class Boxes(NamedTuple):
    """What follows from the particle diameter; px of the micrograph after binning."""

    mask_A: float
    box_px: int
    scaled_px: int
    log_min_A: float | None = None  # shortest diameter for the picker, where a rule sets it
    tube_A: float | None = None  # outer diameter of a helix


def relion_boxes(diameter_A: float, pixel_A: float) -> Boxes:
    """Return relion_it's boxes: 1.5 diameters, scaled so that Nyquist is better than 7.5 A.

    Parameters
    ----------
    diameter_A
        Longest diameter of the particle.
    pixel_A
        Pixel of the micrographs, after binning.
    """
    sizes = box_sizes(pixel_A, diameter_A)
    if sizes.scaled_px > SCALED_SIZES[-1]:
        raise WrongValue(
            _DIAMETER,
            f"{diameter_A:g}",
            f"needs a down-sampled box of more than {SCALED_SIZES[-1]} px",
            "check diameter and pixel, or set do_auto_boxsize to False and rescale by hand",
        )
    return Boxes(sizes.mask_diameter_A, sizes.box_px, sizes.scaled_px)


def mdcatch_boxes(diameter_A: float, pixel_A: float) -> Boxes:
    """Return MDCatch's boxes of single particles, in whole pixels; otherwise as `relion_boxes`."""
    size = diameter_A / pixel_A
    boxes = _mdcatch(1.1 * size, 1.5 * size, pixel_A)
    return boxes._replace(log_min_A=float(int(0.8333 * diameter_A)))


def mdcatch_helix_boxes(width_A: float, pixel_A: float) -> Boxes:
    """Return MDCatch's boxes of a helix with this width."""
    size = width_A / pixel_A
    boxes = _mdcatch(1.62 * size, 1.8 * size, pixel_A)
    return boxes._replace(tube_A=float(_up(1.2 * width_A)))


RULES: dict[str, Callable[[float, float], Boxes]] = {
    "relion": relion_boxes,
    "mdcatch": mdcatch_boxes,
    "mdcatch-helix": mdcatch_helix_boxes,
}


def _mdcatch(mask_px: float, box_px: float, pixel_A: float) -> Boxes:
    box = 2 * _up(box_px / 2)
    fine = (size for size in SCALED_SIZES if pixel_A * box_px / size < COARSEST_PIXEL_A)
    return Boxes(float(int(_up(mask_px) * pixel_A + 1e-6)), box, min(next(fine, box), box))


def _up(value: float) -> int:
    """Return the next whole number; 1.1 x 100 = 110.00000000000001 stays 110."""
    return math.ceil(value - 1e-6)


def calculated(options: Mapping[str, str], rules: str = "relion") -> dict[str, str]:
    """Return the keys that "Calculate for me" sets; none where do_auto_boxsize is off.

    Parameters
    ----------
    options
        With the particle diameter, the pixel of the movies, and binning 2 for super-resolution.
    rules
        One of `RULES`.
    """
    if not switch(options, "do_auto_boxsize"):
        return {}
    pixel_A = number(options, _PIXEL)
    if _BINNING in options and number(options, _BINNING) == 2:
        pixel_A *= 2
    diameter_A = number(options, _DIAMETER)
    for key, value in ((_PIXEL, pixel_A), (_DIAMETER, diameter_A)):
        if value <= 0:
            raise WrongValue(
                key,
                options[key],
                "is not above zero, so there is no box",
                "correct it or set do_auto_boxsize to False",
            )
    boxes = RULES[rules](diameter_A, pixel_A)
    found = {
        _MASK: f"{boxes.mask_A:g}",
        "proc__extract__extract_size": str(boxes.box_px),
        "proc__extract__rescale": str(boxes.scaled_px),
    }
    if boxes.log_min_A is not None:
        found[_SHORTEST] = f"{boxes.log_min_A:g}"
    if boxes.tube_A is not None:
        for job in ("autopick", "extract", "class2d"):
            found[f"proc__{job}__helical_tube_outer_diameter"] = f"{boxes.tube_A:g}"
    return found


# The fields of the window


def coupled(options: Mapping[str, str], named: Collection[str] = ()) -> dict[str, str]:
    """Return the keys that the fields of relion_it's window set along with others.

    Parameters
    ----------
    options
        Values by key; what depends on a missing one is left out.
    named
        Keys that a person gave. Of several that one field stands for, the first named one counts;
        the GPUs of picking and refinement stay as named unless those of 2D classes are named too.
    """
    found: dict[str, str] = {}
    if switch(options, "do_prep"):
        found["proc__ctffind_mics"] = DEFAULTS["proc__ctffind_mics"]
    for group in _ONE_FIELD:
        leader = next((key for key in group if key in named), group[0])
        if leader in options:
            found |= dict.fromkeys(group, options[leader])
    gpus = found.get(_GPUS)
    if gpus is not None:
        parts = {"autopick": gpus.split(",")[0], "refine3d": gpus.replace(",", ":")}
        for job, ids in parts.items():
            key = f"proc__{job}__gpu_ids"
            if key not in named or _GPUS in named:
                found[key] = ids
    if "proc__extract__rescale" in options:
        found["proc__extract__do_rescale"] = "True"
    if "proc__do_log" in options:
        topaz = not switch(options, "proc__do_log")
        found["proc__autopick__use_gpu"] = found["proc__extract__do_fom_threshold"] = str(topaz)
        if topaz:
            found["proc__autopick__nr_mpi"] = "1"
    return {key: value for key, value in found.items() if options.get(key) != value}


def doubts(options: Mapping[str, str], exists: Callable[[str], bool]) -> Iterator[str]:
    """Yield what is allowed and looks wrong, as relion_it asks about it.

    Parameters
    ----------
    options
        Values by key.
    exists
        Whether a path below the project is there.
    """
    if switch(options, "do_prep"):
        pattern = options.get("prep__importmovies__fn_in_raw")
        if pattern is not None and pattern.startswith(("/", "..")):
            yield f"the movies {pattern!r} lie outside the project; link their folder into it"
        if pattern is not None and "*" not in pattern:
            yield f"the movies {pattern!r} are one file: there is no * in it"
        gain = options.get("prep__motioncorr__fn_gain_ref", "")
        if gain and not exists(gain):
            yield f"the gain reference {gain!r} is not there"
        for key in ("prep__importmovies__kV", _PIXEL, "prep__motioncorr__dose_per_frame"):
            if key in options and number(options, key) <= 0:
                yield f"{key} is {options[key]}, not above zero"
    if _SHORTEST in options and _DIAMETER in options:
        short, long = number(options, _SHORTEST), number(options, _DIAMETER)
        if not 0 <= short <= long:
            yield f"the shortest diameter ({short:g} A) is not between 0 and the longest ({long:g})"
