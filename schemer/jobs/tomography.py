"""Tomography: its job types, and its forms of the others. Source: schemes.md section 10."""

from collections.abc import Callable

from schemer.jobs.jobtype import JobType, Nodes, leaves, takes
from schemer.jobs.nodes import (
    IMAGES,
    LOG,
    MAP,
    OPTIMISATION_SET,
    PARTICLES,
    TOMOGRAMS,
    TRAJECTORIES,
)
from schemer.jobs.options import Options, yes
from schemer.jobs.refinement import (
    REFINE3D_OUTPUTS,
    class3d_outputs,
    helical,
    initialmodel_outputs,
)

_POWER_SPECTRA = ("power_spectra_fits.star", f"{IMAGES}.ctffind.power_spectra")


def _sets(*more: str) -> Callable[[Options], tuple[str, ...]]:
    """Return the inputs of a type that reads an optimisation set or its parts, and `more`."""

    def inputs(options: Options) -> tuple[str, ...]:
        parts = ("in_particles", "in_tomograms", "in_trajectories")
        return (*(parts if yes(options, "use_direct_entries") else ("in_optimisation",)), *more)

    return inputs


def _set(last: str, name: str = "optimisation_set.star") -> tuple[str, str]:
    return name, f"{OPTIMISATION_SET}.{last}"


def _run_set(last: str) -> tuple[str, str]:
    return _set(last, "run_optimisation_set.star")


def _class3d_outputs(options: Options) -> Nodes:
    nodes = class3d_outputs(options)
    last = nodes[0][0].removesuffix("_data.star")
    return (*nodes, _set("class3d", f"{last}_optimisation_set.star"), _run_set("class3d"))


def _import_outputs(options: Options) -> Nodes:
    if yes(options, "do_coords"):
        return (("particles.star", f"{PARTICLES}.tomo.import"),)
    return (("tilt_series.star", f"{TOMOGRAMS}.import"),)


def _align_outputs(options: Options) -> Nodes:
    with_ctf = yes(options, "do_aretomo2") and yes(options, "do_aretomo_ctf")
    return (
        *((_POWER_SPECTRA,) if with_ctf else ()),
        ("aligned_tilt_series.star", f"{TOMOGRAMS}.aligntiltseries"),
        ("logfile.pdf", f"{LOG}.tomo.aligntiltseries"),
    )


def _framealign_outputs(options: Options) -> Nodes:
    motion = ("motion.star", f"{TRAJECTORIES}.polish")
    return (
        _set("tomo.polish"),
        ("tomograms.star", f"{TOMOGRAMS}.polish"),
        ("particles.star", f"{PARTICLES}.tomo.polish"),
        *((motion,) if yes(options, "do_motion") else ()),
        ("logfile.pdf", f"{LOG}.tomo.polish"),
    )


def _reconstruct_outputs(options: Options) -> Nodes:
    half, merged = (f"{MAP}.relion.tomo.{kind}.reconstruct" for kind in ("halfmap", "map"))
    helix = (("helical_half1.mrc", half), ("helical_merged.mrc", merged))
    return (
        ("merged.mrc", merged),
        ("half1.mrc", half),
        _set("tomo.reconstruct"),
        *(helix if yes(options, "do_helix") else ()),
    )


def _pick_inputs(options: Options) -> tuple[str, ...]:
    starts = options.get("pick_mode") == "particles"
    return (*(("in_star_file",) if starts else ()), "in_tomoset")


def _pick_outputs(options: Options) -> Nodes:
    mode = options.get("pick_mode", "particles")
    return (
        ("particles.star", f"{PARTICLES}.tomo.manualpick.{mode}"),
        _set("tomo.manualpick"),
    )


# The forms that a type takes with rlnJobIsTomo.
FORMS = (
    JobType(
        "relion.motioncorr",
        "MotionCorr",
        1,
        suffix=lambda options: ".own" if yes(options, "do_own_motioncor") else ".motioncor2",
        inputs=takes("input_star_mics"),
        outputs=leaves(
            ("corrected_tilt_series.star", f"{TOMOGRAMS}.motioncorr"),
            ("logfile.pdf", f"{LOG}.motioncorr"),
        ),
        tomo=True,
    ),
    JobType(
        "relion.ctffind",
        "CtfFind",
        2,
        suffix=lambda _: ".ctffind4",
        inputs=takes("input_star_mics"),
        outputs=leaves(
            ("tilt_series_ctf.star", f"{TOMOGRAMS}.ctffind"),
            ("logfile.pdf", f"{LOG}.ctffind"),
            _POWER_SPECTRA,
        ),
        tomo=True,
    ),
    JobType(
        "relion.class3d",
        "Class3D",
        9,
        suffix=helical,
        inputs=_sets("fn_ref", "fn_mask"),
        outputs=_class3d_outputs,
        tomo=True,
    ),
    JobType(
        "relion.refine3d",
        "Refine3D",
        10,
        suffix=lambda options: ".tomo" + helical(options),
        inputs=_sets("fn_ref", "fn_mask"),
        outputs=leaves(*REFINE3D_OUTPUTS, _run_set("refine3d")),
        tomo=True,
    ),
    JobType(
        "relion.initialmodel",
        "InitialModel",
        18,
        suffix=lambda _: ".tomo",
        inputs=_sets(),
        outputs=lambda options: (_run_set("initialmodel"), *initialmodel_outputs(options)),
        tomo=True,
    ),
)

TYPES = (
    JobType("relion.importtomo", "Import", 50, outputs=_import_outputs),
    JobType(
        "relion.pseudosubtomo",
        "Extract",
        51,
        inputs=_sets(),
        outputs=leaves(_set("tomo.extract"), ("particles.star", f"{PARTICLES}.tomo.extract")),
    ),
    JobType(
        "relion.ctfrefinetomo",
        "CtfRefine",
        52,
        inputs=_sets("in_halfmaps", "in_refmask", "in_post"),
        outputs=leaves(
            _set("tomo.ctfrefine"),
            ("tomograms.star", f"{TOMOGRAMS}.ctfrefine"),
            ("logfile.pdf", f"{LOG}.tomo.ctfrefine"),
        ),
    ),
    JobType(
        "relion.framealigntomo",
        "Polish",
        53,
        inputs=_sets("in_halfmaps", "in_refmask", "in_post"),
        outputs=_framealign_outputs,
    ),
    JobType(
        "relion.reconstructparticletomo",
        "Reconstruct",
        54,
        inputs=_sets(),
        outputs=_reconstruct_outputs,
    ),
    JobType(
        "relion.aligntiltseries",
        "AlignTiltSeries",
        55,
        inputs=takes("in_tiltseries"),
        outputs=_align_outputs,
    ),
    JobType(
        "relion.reconstructtomograms",
        "Tomograms",
        56,
        inputs=takes("in_tiltseries"),
        outputs=leaves(("tomograms.star", f"{TOMOGRAMS}.reconstruct")),
    ),
    JobType(
        "relion.excludetilts",
        "ExcludeTiltImages",
        57,
        inputs=takes("in_tiltseries"),
        outputs=leaves(("selected_tilt_series.star", f"{TOMOGRAMS}.excludeimages")),
    ),
    JobType(
        "relion.denoisetomo",
        "Denoise",
        58,
        inputs=takes("in_tomoset"),
        outputs=leaves(("tomograms.star", f"{TOMOGRAMS}.denoise")),
    ),
    JobType(
        "relion.picktomo",
        "Picks",
        59,
        inputs=_pick_inputs,
        outputs=_pick_outputs,
    ),
)
