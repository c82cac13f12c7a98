"""The options of RELION's Schemes that follow from a session, as relion_it names them. Pure.

Keys are `prep__JOB__OPTION` and `proc__JOB__OPTION`, values RELION's text; the Scheme's own
defaults stay where nothing is known. Source: acquisition.md sections 1.9 and 1.11, schemes.md 16.
"""

from collections.abc import Mapping
from pathlib import Path

from mdcatch.derive import Suggestion
from mdcatch.launch.checks import suggestion
from mdcatch.launch.known import Known
from mdcatch.launch.request import OpenRequest
from schemer.relionit_rules import coupled

# The shortest diameter of a particle that is not round, as MDCatch and relion_it assume.
ROUNDNESS = 0.8333
DEFAULT_CS_MM = 2.7  # of all current TFS Krios and Glacios
# No helix is refined without its twist and rise: a session of filaments ends with 2D classes.
NEVER = "1e9"
GROUP_NAME = "opticsGroup1"
_ROTATIONS = ("No rotation (0)", "90 degrees (1)", "180 degrees (2)", "270 degrees (3)")
_FLIPS = ("No flipping (0)", "Flip upside down (1)", "Flip left to right (2)")
# The long side of Gatan's sensors takes more patches.
_LONG_SENSORS = ("k2", "k3")


def prep_options(
    request: OpenRequest, known: Known, copied: Mapping[str, str], pattern: str
) -> dict[str, str]:
    """Return the options of the Scheme prep.

    Parameters
    ----------
    request, known
        With voltage, pixel, dose and frames known.
    copied
        gain, defects, mtf -> path below the project.
    pattern
        Of the movies, below the project.
    """
    exposure, files = known.exposure, known.files
    cs = exposure.spherical_aberration_mm
    found = {
        "prep__do_at_most": str(request.batch),
        "prep__importmovies__fn_in_raw": pattern,
        "prep__importmovies__is_multiframe": "Yes",
        "prep__importmovies__optics_group_name": GROUP_NAME,
        "prep__importmovies__angpix": text(exposure.pixel_size_A),
        "prep__importmovies__kV": text(exposure.voltage_kV),
        "prep__importmovies__Cs": text(DEFAULT_CS_MM if cs is None else cs),
        "prep__importmovies__Q0": text(request.amplitude_contrast),
        "prep__importmovies__fn_mtf": copied.get("mtf", ""),
        "prep__motioncorr__fn_gain_ref": copied.get("gain", ""),
        "prep__motioncorr__gain_rot": _ROTATIONS[files.gain_rotation],
        "prep__motioncorr__gain_flip": _FLIPS[files.gain_flip],
        "prep__motioncorr__fn_defect": copied.get("defects", ""),
        "prep__motioncorr__bin_factor": str(exposure.bin_factor),
        "prep__motioncorr__dose_per_frame": text(frame_dose(known)),
        "prep__motioncorr__group_frames": str(exposure.group_frames),
        "prep__motioncorr__patch_x": str(patches(known)),
        "prep__ctffind__do_phaseshift": _yes(has_phase_plate(known)),
    }
    if exposure.eer is not None:
        found["prep__motioncorr__eer_grouping"] = str(exposure.eer.group)
    return found


def proc_options(request: OpenRequest, known: Known) -> dict[str, str]:
    """Return the options of the Scheme proc."""
    found = {
        "proc__inimodel3d__sym_name": request.symmetry,
        "proc__refine3d__sym_name": request.symmetry,
    }
    sizes, diameter = suggestion(request, known), request.particle_diameter_A
    if sizes is not None and diameter is not None and known.exposure.processing_pixel_A:
        found |= _sizes(sizes, known.exposure.processing_pixel_A)
        if request.helical:
            found |= _helix(sizes, known.exposure.processing_pixel_A)
        if request.picker != "cryolo":
            found |= _diameters(diameter)
    found |= _picker(request)
    if request.gpus:
        found |= {f"proc__{job}__use_gpu": "Yes" for job in ("class2d", "inimodel3d", "refine3d")}
        found["proc__class2d__gpu_ids"] = request.gpus
        found |= _only(coupled({**found, "do_prep": "False"}, found), "gpu_ids")
        if request.picker == "log":  # the Laplacian of Gaussian refuses GPUs
            found["proc__autopick__use_gpu"] = "No"
        if request.picker == "cryolo":
            found.pop("proc__autopick__gpu_ids", None)
            found["proc__autopick__param1_value"] = request.gpus
    return found


def _sizes(sizes: Suggestion, pixel_A: float) -> dict[str, str]:
    boxes = sizes.boxes
    mask = {
        f"proc__{job}__particle_diameter": text(boxes.mask_A)
        for job in ("class2d", "inimodel3d", "refine3d")
    }
    return mask | {
        "proc__extract__extract_size": str(boxes.box_px),
        "proc__extract__do_rescale": "Yes",
        "proc__extract__rescale": str(boxes.scaled_px),
        "proc__extract__bg_diameter": str(background_px(sizes, pixel_A)),
    }


def background_px(sizes: Suggestion, pixel_A: float) -> int:
    """Return the diameter of the background circle in px of the unscaled box: that of the mask."""
    return min(round(sizes.boxes.mask_A / pixel_A), sizes.boxes.box_px)


def _helix(sizes: Suggestion, pixel_A: float) -> dict[str, str]:
    """Return the switches of filaments; one asymmetrical unit moves by the boxes' distance."""
    tube, distance = text(sizes.boxes.tube_A), sizes.distance_px or 1
    rise = text(distance * pixel_A)
    return {
        "proc__extract__do_extract_helix": "Yes",
        "proc__extract__do_extract_helical_tubes": "Yes",
        "proc__extract__do_cut_into_segments": "Yes",
        "proc__extract__helical_nr_asu": "1",
        "proc__extract__helical_rise": rise,
        "proc__extract__helical_tube_outer_diameter": tube,
        "proc__class2d__do_helix": "Yes",
        "proc__class2d__do_bimodal_psi": "Yes",
        "proc__class2d__helical_rise": rise,
        "proc__class2d__helical_tube_outer_diameter": tube,
        "proc__min_nr_parts_3d": NEVER,
    }


def _diameters(diameter_A: float) -> dict[str, str]:
    return {
        "proc__autopick__log_diam_min": str(int(ROUNDNESS * diameter_A)),
        "proc__autopick__log_diam_max": text(diameter_A),
        "proc__autopick__topaz_particle_diameter": text(diameter_A),
    }


def _picker(request: OpenRequest) -> dict[str, str]:
    """Return the choice of the picker; crYOLO's model is an option of its own job."""
    model = request.picker_model or ""
    if request.picker == "cryolo":
        return {"proc__cryolo_model": model or "None"}
    is_log = request.picker == "log"
    return {
        "proc__do_log": _truth(is_log),
        "proc__topaz_model": "" if is_log else model,
        "proc__autopick__use_gpu": _yes(not is_log),
        "proc__extract__do_fom_threshold": _yes(not is_log),
    }


def frame_dose(known: Known) -> float | None:
    """Return e/A^2 per frame as motion correction reads it: per fraction for EER."""
    eer = known.exposure.eer
    return known.exposure.dose_per_frame_e_A2 if eer is None else eer.dose_per_fraction_e_A2


def patches(known: Known) -> int:
    """Return how many patches motion correction makes along the long side."""
    model = known.detector.lower()
    return 7 if any(name in model for name in _LONG_SENSORS) else 5


def has_phase_plate(known: Known) -> bool:
    """Tell whether the newest exposure was taken with a phase plate."""
    return bool(known.metadata is not None and known.metadata.get("phase_plate"))


def ctffind_option(program: Path | str | None) -> dict[str, str]:
    """Return the option that names CTFFIND, where a host has it."""
    return {} if program is None else {"prep__ctffind__fn_ctffind_exe": str(program)}


def text(value: float | None) -> str:
    """Return a number as RELION's files have it, "" for none."""
    return "" if value is None else f"{value:.6g}"


def _yes(value: bool) -> str:
    return "Yes" if value else "No"


def _truth(value: bool) -> str:
    return "True" if value else "False"


def _only(found: Mapping[str, str], ending: str) -> dict[str, str]:
    return {key: value for key, value in found.items() if key.endswith(ending)}
