"""Job types that choose from tables and join them. Source: schemes.md section 10."""

from schemer.jobs.jobtype import JobType, Nodes
from schemer.jobs.nodes import IMAGES, LOG, MICROGRAPHS, MOVIES, OPTIMISER, PARTICLES
from schemer.jobs.options import Options, yes

# In the order in which RELION looks at them.
_TASKS = {
    "do_filaments": ".filamentsdendrogram",
    "do_remove_duplicates": ".removeduplicates",
    "do_select_values": ".onvalue",
    "do_discard": ".discard",
    "do_split": ".split",
    "do_class_ranker": ".class2dauto",
}

_JOINS = {
    "do_part": (".particles", "fn_part", "join_particles.star", PARTICLES),
    "do_mic": (".micrographs", "fn_mic", "join_mics.star", MICROGRAPHS),
    "do_mov": (".movies", "fn_mov", "join_movies.star", MOVIES),
}


def select_suffix(options: Options) -> str:
    """Return the sub-label of a selection: which task it does."""
    return next((text for name, text in _TASKS.items() if yes(options, name)), ".interactive")


def _select_inputs(options: Options) -> tuple[str, ...]:
    suffix = select_suffix(options)
    if suffix in (".filamentsdendrogram", ".class2dauto"):
        return ("fn_model",)
    if suffix == ".removeduplicates":
        return ("fn_data",)
    given = (name for name in ("fn_model", "fn_mic", "fn_data") if options.get(name))
    return tuple(given)[:1]


def _select_outputs(options: Options) -> Nodes:
    suffix = select_suffix(options)
    particles = ("particles.star", PARTICLES)
    averages = ("class_averages.star", f"{IMAGES}.classaverages")
    if suffix == ".class2dauto":
        return particles, averages, ("rank_optimiser.star", f"{OPTIMISER}.select")
    if suffix == ".filamentsdendrogram":
        return ("run_optimiser.star", f"{OPTIMISER}.select"), ("logfile.pdf", f"{LOG}.select")
    if suffix == ".split":
        return ()  # declared by RELION_OUTPUT_NODES.star
    model = options.get("fn_model", "") if suffix == ".interactive" else ""
    if model:
        return (particles, averages) if "Class2D/" in model else (particles,)
    if options.get("fn_mic"):
        return (("micrographs.star", MICROGRAPHS),)
    return (particles,)


def _joined(options: Options) -> tuple[str, str, str, str]:
    """Return (sub-label, begin of the options' names, output, node label), empty if none is on."""
    return next((join for name, join in _JOINS.items() if yes(options, name)), ("", "", "", ""))


def _joinstar_inputs(options: Options) -> tuple[str, ...]:
    _, begin, _, _ = _joined(options)
    return tuple(f"{begin}{number}" for number in range(1, 5)) if begin else ()


def _joinstar_outputs(options: Options) -> Nodes:
    _, begin, name, label = _joined(options)
    return ((name, label),) if begin else ()


TYPES = (
    JobType(
        "relion.select",
        "Select",
        7,
        suffix=select_suffix,
        inputs=_select_inputs,
        outputs=_select_outputs,
    ),
    JobType(
        "relion.joinstar",
        "JoinStar",
        13,
        suffix=lambda options: _joined(options)[0],
        inputs=_joinstar_inputs,
        outputs=_joinstar_outputs,
    ),
)
