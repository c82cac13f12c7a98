"""Job types from the movies to the particles. Source: schemes.md section 10."""

from schemer.jobs.jobtype import JobType, Nodes, leaves, takes
from schemer.jobs.nodes import (
    COORDINATES,
    HALF_MAP,
    IMAGES,
    LOG,
    MAP,
    MASK,
    MICROGRAPHS,
    MOVIES,
    PARTICLES,
)
from schemer.jobs.options import Options, yes

COORDINATE_FILES = "Particle coordinates (*.box, *_pick.star)"
PARTICLE_FILE = "Particles STAR file (.star)"
HALF_MAP_FILE = "Unfiltered half-map (unfil.mrc)"

_IMPORTED = {
    PARTICLE_FILE: PARTICLES,
    "Multiple (2D or 3D) references (.star or .mrcs)": IMAGES,
    "Micrographs STAR file (.star)": MICROGRAPHS,
    "3D reference (.mrc)": MAP,
    "3D mask (.mrc)": MASK,
    HALF_MAP_FILE: HALF_MAP,
}


def other_half(path: str) -> str:
    """Return the name of the other half-map; the same name if it says neither half1 nor half2."""
    folder, slash, name = path.rpartition("/")
    one, other = ("half1", "half2") if "half1" in name else ("half2", "half1")
    return folder + slash + name.replace(one, other)


def imported_name(options: Options) -> str:
    """Return the name that an import gives to its result in the job folder."""
    if yes(options, "do_raw"):
        return "movies.star" if yes(options, "is_multiframe") else "micrographs.star"
    path = options.get("fn_in_other", "")
    if options.get("node_type") == COORDINATE_FILES:
        return "coords_suffix" + path.rpartition("*")[2]
    return path.rpartition("/")[2]


def _import_outputs(options: Options) -> Nodes:
    name = imported_name(options)
    if yes(options, "do_raw"):
        return ((name, MOVIES if yes(options, "is_multiframe") else MICROGRAPHS),)
    node_type = options.get("node_type", "")
    label = COORDINATES if node_type == COORDINATE_FILES else _IMPORTED.get(node_type)
    if not yes(options, "do_other") or label is None:
        return ()
    names = (name, other_half(name)) if node_type == HALF_MAP_FILE else (name,)
    return tuple((one, label) for one in names)


def _manualpick_outputs(options: Options) -> Nodes:
    ends = ".helixstartend" if yes(options, "do_startend") else ""
    return (
        ("micrographs_selected.star", MICROGRAPHS),
        ("manualpick.star", f"{COORDINATES}.manualpick{ends}"),
    )


def _autopick_suffix(options: Options) -> str:
    if yes(options, "continue_manual"):
        return ".continuemanual"
    if yes(options, "do_topaz"):
        return ".topaz.train" if yes(options, "do_topaz_train") else ".topaz.pick"
    if yes(options, "do_log"):
        return ".log"
    if yes(options, "do_refs"):
        return ".ref3d" if yes(options, "do_ref3d") else ".ref2d"
    return ""


def _autopick_inputs(options: Options) -> tuple[str, ...]:
    if not yes(options, "do_refs"):
        return ("fn_input_autopick",)
    references = "fn_ref3d_autopick" if yes(options, "do_ref3d") else "fn_refs_autopick"
    return "fn_input_autopick", references


def _autopick_outputs(options: Options) -> Nodes:
    suffix = _autopick_suffix(options)
    picks = ("autopick.star", f"{COORDINATES}.autopick")
    if suffix == ".continuemanual":
        return picks, ("micrographs_selected.star", MICROGRAPHS)
    if suffix == ".topaz.train":
        trains_on_particles = yes(options, "do_topaz_train_parts")
        return (("input_training_coords.star", COORDINATES),) if trains_on_particles else ()
    return picks, ("logfile.pdf", f"{LOG}.autopick")


def _extract_suffix(options: Options) -> str:
    again = ".reextract" if yes(options, "do_reextract") else ""
    return again + (".helical" if yes(options, "do_extract_helix") else "")


def _extract_inputs(options: Options) -> tuple[str, ...]:
    return "star_mics", "fndata_reextract" if yes(options, "do_reextract") else "coords_suffix"


def _extract_outputs(options: Options) -> Nodes:
    helix = yes(options, "do_extract_helix")
    again = f"{COORDINATES}.reextract" if yes(options, "do_reextract") else ""
    tubes = helix and yes(options, "do_extract_helical_tubes")
    ends = f"{COORDINATES}.helixstartend" if tubes else ""
    particles = f"{PARTICLES}.helicalsegments" if helix else PARTICLES
    nodes = (
        ("extractpick.star", again or ends),
        ("particles.star", particles),
        ("reextract.star", again),
        ("helix_segments.star", ends),
    )
    return tuple(node for node in nodes if node[1])


TYPES = (
    JobType(
        "relion.import",
        "Import",
        0,
        suffix=lambda options: ".movies" if yes(options, "do_raw") else ".other",
        outputs=_import_outputs,
    ),
    JobType(
        "relion.motioncorr",
        "MotionCorr",
        1,
        suffix=lambda options: ".own" if yes(options, "do_own_motioncor") else ".motioncor2",
        inputs=takes("input_star_mics"),
        outputs=leaves(
            ("corrected_micrographs.star", f"{MICROGRAPHS}.motioncorr"),
            ("logfile.pdf", f"{LOG}.motioncorr"),
        ),
    ),
    JobType(
        "relion.ctffind",
        "CtfFind",
        2,
        suffix=lambda _: ".ctffind4",
        inputs=takes("input_star_mics"),
        outputs=leaves(
            ("micrographs_ctf.star", f"{MICROGRAPHS}.ctf"),
            ("logfile.pdf", f"{LOG}.ctffind"),
        ),
    ),
    JobType(
        "relion.manualpick",
        "ManualPick",
        3,
        suffix=lambda options: ".helical" if yes(options, "do_startend") else "",
        inputs=takes("fn_in"),
        outputs=_manualpick_outputs,
    ),
    JobType(
        "relion.autopick",
        "AutoPick",
        4,
        suffix=_autopick_suffix,
        inputs=_autopick_inputs,
        outputs=_autopick_outputs,
    ),
    JobType(
        "relion.extract",
        "Extract",
        5,
        suffix=_extract_suffix,
        inputs=_extract_inputs,
        outputs=_extract_outputs,
    ),
)
