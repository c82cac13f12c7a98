"""Job types of classification and refinement, and what follows them.

Source: schemes.md section 10.
"""

import math

from schemer.errors import SchemeError
from schemer.jobs.jobtype import JobType, Nodes, leaves, takes
from schemer.jobs.nodes import (
    LOCAL_RESOLUTION,
    LOG,
    MAP,
    MASK,
    OPTIMISER,
    PARTICLES,
    POLISH_PARAMETERS,
    POSTPROCESS,
)
from schemer.jobs.options import Options, yes


def whole(options: Options, name: str) -> int:
    """Return an option that is a whole number.

    Raises
    ------
    SchemeError
        It is missing or is not a number.
    """
    text = options.get(name, "")
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        raise SchemeError(
            f"option {name!r}: {text!r} is not a number; write one such as 3"
        ) from None


def helical(options: Options) -> str:
    """Return the sub-label of a classification or refinement of helices."""
    return ".helical" if yes(options, "do_helix") else ""


def class2d_outputs(options: Options) -> Nodes:
    """Return what 2D classification leaves: the files of its last iteration."""
    root = _last(options, "nr_iter_em" if yes(options, "do_em") else "nr_iter_grad")
    return (
        (f"{root}_data.star", f"{PARTICLES}.class2d"),
        (f"{root}_optimiser.star", f"{OPTIMISER}.class2d"),
    )


def class3d_outputs(options: Options) -> Nodes:
    """Return what 3D classification leaves; RELION gives its particles the label of refine3d."""
    root = _last(options, "nr_iter")
    return (
        (f"{root}_data.star", f"{PARTICLES}.refine3d"),
        (f"{root}_optimiser.star", f"{OPTIMISER}.class3d"),
        *_maps(root, options, f"{MAP}.relion.class3d"),
    )


def initialmodel_outputs(options: Options) -> Nodes:
    """Return the initial model, and each class where there are several."""
    label = f"{MAP}.relion.initialmodel"
    each = _maps(_last(options, "nr_iter"), options, label)
    return (("initial_model.mrc", label), *(each if len(each) > 1 else ()))


def _last(options: Options, iterations: str) -> str:
    return f"run_it{whole(options, iterations):03d}"


def _maps(root: str, options: Options, label: str) -> Nodes:
    classes = range(1, whole(options, "nr_classes") + 1)
    return tuple((f"{root}_class{number:03d}.mrc", label) for number in classes)


REFINE3D_OUTPUTS = (
    ("run_data.star", f"{PARTICLES}.refine3d"),
    ("run_optimiser.star", f"{OPTIMISER}.refine3d"),
    ("run_half1_class001_unfil.mrc", f"{MAP}.relion.halfmap.refine3d"),
    ("run_class001.mrc", f"{MAP}.relion.refine3d"),
)


def _multibody_outputs(options: Options) -> Nodes:
    if not yes(options, "do_analyse"):
        return ()
    log = ("analyse_logfile.pdf", f"{LOG}.flexanalysis")
    if not yes(options, "do_select"):
        return (log,)
    low, high = (_rounded(options, f"eigenval_{end}") for end in ("min", "max"))
    name = f"analyse_eval{whole(options, 'select_eigenval'):03d}_select"
    name += f"_min{low}" if low > -99998 else ""
    name += f"_max{high}" if high < 99998 else ""
    return ((f"{name}.star", f"{PARTICLES}.flexanalysis.eigenselected"), log)


def _rounded(options: Options, name: str) -> int:
    value = float(options[name])
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def _subtract_inputs(options: Options) -> tuple[str, ...]:
    if yes(options, "do_fliplabel"):
        return ("fn_fliplabel",)
    return "fn_opt", "fn_mask", *(("fn_data",) if yes(options, "do_data") else ())


def _subtract_outputs(options: Options) -> Nodes:
    if yes(options, "do_fliplabel"):
        return (("original.star", PARTICLES),)
    return (("particles_subtracted.star", f"{PARTICLES}.subtracted"),)


def _localres_outputs(options: Options) -> Nodes:
    if yes(options, "do_resmap_locres"):
        return (("half1_resmap.mrc", LOCAL_RESOLUTION),)
    histogram = ("histogram.pdf", f"{LOG}.localres")
    return (
        *((histogram,) if options.get("fn_mask") else ()),
        ("relion_locres_filtered.mrc", f"{MAP}.relion.localresfiltered"),
        ("relion_locres.mrc", LOCAL_RESOLUTION),
    )


def _polish_outputs(options: Options) -> Nodes:
    if yes(options, "do_param_optim"):
        return (("opt_params_all_groups.txt", POLISH_PARAMETERS),)
    return ("logfile.pdf", f"{LOG}.polish"), ("shiny.star", f"{PARTICLES}.polished")


def _ctfrefine_outputs(options: Options) -> Nodes:
    what = "anisomagrefine" if yes(options, "do_aniso_mag") else "ctfrefine"
    return (
        ("logfile.pdf", f"{LOG}.ctfrefine"),
        ("particles_ctf_refine.star", f"{PARTICLES}.{what}"),
    )


TYPES = (
    JobType(
        "relion.class2d",
        "Class2D",
        8,
        suffix=helical,
        inputs=takes("fn_img"),
        outputs=class2d_outputs,
    ),
    JobType(
        "relion.class3d",
        "Class3D",
        9,
        suffix=helical,
        inputs=takes("fn_img", "fn_ref", "fn_mask"),
        outputs=class3d_outputs,
    ),
    JobType(
        "relion.refine3d",
        "Refine3D",
        10,
        suffix=helical,
        inputs=takes("fn_img", "fn_ref", "fn_mask"),
        outputs=leaves(*REFINE3D_OUTPUTS),
    ),
    JobType(
        "relion.initialmodel",
        "InitialModel",
        18,
        inputs=takes("fn_img"),
        outputs=initialmodel_outputs,
    ),
    JobType(
        "relion.multibody",
        "MultiBody",
        19,
        inputs=takes("fn_in"),
        outputs=_multibody_outputs,
    ),
    JobType(
        "relion.maskcreate",
        "MaskCreate",
        12,
        inputs=takes("fn_in"),
        outputs=leaves(("mask.mrc", f"{MASK}.relion")),
    ),
    JobType(
        "relion.postprocess",
        "PostProcess",
        15,
        inputs=takes("fn_mask", "fn_in"),
        outputs=leaves(
            ("postprocess.mrc", f"{MAP}.relion.postprocess"),
            ("postprocess_masked.mrc", f"{MAP}.relion.postprocess.masked"),
            ("logfile.pdf", f"{LOG}.postprocess"),
            ("postprocess.star", POSTPROCESS),
        ),
    ),
    JobType(
        "relion.localres",
        "LocalRes",
        16,
        suffix=lambda options: ".resmap" if yes(options, "do_resmap_locres") else ".own",
        inputs=lambda options: (
            "fn_in",
            *(("fn_mask",) if yes(options, "do_resmap_locres") else ()),
        ),
        outputs=_localres_outputs,
    ),
    JobType(
        "relion.subtract",
        "Subtract",
        14,
        suffix=lambda options: ".revert" if yes(options, "do_fliplabel") else "",
        inputs=_subtract_inputs,
        outputs=_subtract_outputs,
    ),
    JobType(
        "relion.polish",
        "Polish",
        20,
        suffix=lambda options: ".train" if yes(options, "do_param_optim") else "",
        inputs=takes("fn_data", "fn_post"),
        outputs=_polish_outputs,
    ),
    JobType(
        "relion.ctfrefine",
        "CtfRefine",
        21,
        suffix=lambda options: ".anisomag" if yes(options, "do_aniso_mag") else "",
        inputs=takes("fn_data", "fn_post"),
        outputs=_ctfrefine_outputs,
    ),
)
