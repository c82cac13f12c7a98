"""Command lines of relion_refine in three dimensions. Source: RELION 5.0.1."""

from schemer.jobs.commands.classes import OVERSAMPLING, compute, ctf, start, step, third
from schemer.jobs.commands.line import Job, Line, number_text
from schemer.jobs.refinement import whole


def _reference(job: Job, line: Line) -> None:
    job.need("fn_img")
    job.need("fn_ref")
    line.options("--i fn_img --ref fn_ref")
    if not job.yes("ref_correct_greyscale"):
        line.add("--firstiter_cc")
    line.when("trust_ref_size", "--trust_ref_size").positive("--ini_high", "ini_high")


def _pad(job: Job, line: Line) -> None:
    line.add("--pad", "1" if job.yes("do_pad1") else "2")


def class3d(job: Job) -> list[list[str]]:
    """Return the line of 3D classification."""
    line = start(job, Line(job, "relion_refine", mpi=True))
    if not job.is_continue:
        _reference(job, line)
    compute(job, line)
    _pad(job, line)
    if not job.is_continue:
        ctf(job, line)
    line.options("--iter nr_iter --tau2_fudge tau_fudge --particle_diameter particle_diameter")
    if not job.is_continue:
        line.when("do_fast_subsets", "--fast_subsets").options("--K nr_classes")
        line.add("--flatten_solvent").when("do_zero_mask", "--zero_mask")
        line.positive("--strict_highres_exp", "highres_limit")
    line.when("do_blush", "--blush").given("--solvent_mask", "fn_mask")
    aligns = job.yes("dont_skip_align")
    if aligns:
        _search3d(job, line)
    else:
        line.add("--skip_align")
    if not job.is_continue:
        line.options("--sym sym_name").add("--norm", "--scale")
        if job.yes("do_helix"):
            _helix(job, line)
            line.when("keep_tilt_prior_fixed", "--helical_keep_tilt_prior_fixed")
            if aligns and not job.yes("do_local_ang_searches"):
                _helix_priors(job, line)
                _helix_distance(job, line)
    line.options("--j nr_threads")
    if job.yes("use_gpu") and not aligns:
        raise job.wrong("without alignment graphics cards cannot be used; set use_gpu to No")
    return line.gpu().end()


def _search3d(job: Job, line: Line) -> None:
    line.add("--oversampling", str(OVERSAMPLING))
    line.add("--healpix_order", str(job.sampling("sampling") - OVERSAMPLING))
    if job.yes("do_local_ang_searches"):
        line.add("--sigma_ang", number_text(job.number("sigma_angles") / 3))
        line.given("--relax_sym", "relax_sym")
    line.options("--offset_range offset_range").add("--offset_step", step(job, "offset_step"))
    line.when("allow_coarser", "--allow_coarser_sampling")


def refine3d(job: Job) -> list[list[str]]:
    """Return the line of 3D auto-refinement."""
    line = start(job, Line(job, "relion_refine", mpi=True))
    if not job.is_continue:
        line.add("--auto_refine", "--split_random_halves")
        _reference(job, line)
    line.when("do_blush", "--blush")
    compute(job, line)
    _pad(job, line)
    line.when("auto_faster", "--auto_ignore_angles --auto_resol_angles")
    if not job.is_continue:
        ctf(job, line)
    line.options("--particle_diameter particle_diameter")
    if not job.is_continue:
        line.add("--flatten_solvent").when("do_zero_mask", "--zero_mask")
    if job.text("fn_mask"):
        line.options("--solvent_mask fn_mask").when("do_solvent_fsc", "--solvent_correct_fsc")
    if not job.is_continue:
        _auto_search(job, line)
    line.given("--relax_sym", "relax_sym").options("--j nr_threads")
    return line.gpu().end()


def _auto_search(job: Job, line: Line) -> None:
    first, local = job.sampling("sampling"), job.sampling("auto_local_sampling")
    line.add("--oversampling", str(OVERSAMPLING))
    line.add("--healpix_order", str(first - OVERSAMPLING))
    line.add("--auto_local_healpix_order", str(local - OVERSAMPLING))
    line.options("--offset_range offset_range").add("--offset_step", step(job, "offset_step"))
    line.options("--sym sym_name").add("--low_resol_join_halves", "40", "--norm", "--scale")
    if job.yes("do_helix"):
        _helix(job, line)
        if first != local:
            _helix_priors(job, line)
        _helix_distance(job, line)
        line.when("keep_tilt_prior_fixed", "--helical_keep_tilt_prior_fixed")


def _helix(job: Job, line: Line) -> None:
    line.add("--helix").positive("--helical_inner_diameter", "helical_tube_inner_diameter")
    line.options("--helical_outer_diameter helical_tube_outer_diameter")
    if not job.yes("do_apply_helical_symmetry"):
        line.add("--ignore_helical_symmetry")
        return
    for option in ("helical_nr_asu", "helical_twist_initial", "helical_rise_initial"):
        line.options(f"--{option} {option}")
    line.add("--helical_z_percentage", number_text(job.number("helical_z_percentage") / 100))
    if job.yes("do_local_search_helical_symmetry"):
        line.add("--helical_symmetry_search")
        for what in ("helical_twist", "helical_rise"):
            line.options(f"--{what}_min {what}_min --{what}_max {what}_max")
            line.positive(f"--{what}_inistep", f"{what}_inistep")


def _helix_priors(job: Job, line: Line) -> None:
    for angle in ("tilt", "psi", "rot"):
        line.add(f"--sigma_{angle}", third(job, f"range_{angle}"))


def _helix_distance(job: Job, line: Line) -> None:
    distance = job.number("helical_range_distance")
    if distance > 0:
        line.add("--helical_sigma_distance", number_text(distance / 3))


def multibody(job: Job) -> list[list[str]]:
    """Return the lines of multi-body refinement and of the analysis of its motions."""
    bodies = job.need("fn_bodies")
    optimiser = job.text("fn_cont") if job.is_continue else job.need("fn_in")
    root, lines = f"{job.folder}run", []
    if optimiser:
        if job.is_continue:
            root += f"_ct{_iteration(job, optimiser)}"
        line = Line(job, "relion_refine", mpi=True).add("--continue", optimiser, "--o", root)
        if not job.is_continue:
            _bodies(job, line, bodies)
        line.when("do_blush", "--blush")
        line.when("do_subtracted_bodies", "--reconstruct_subtracted_bodies")
        compute(job, line)
        _pad(job, line)
        lines += line.options("--j nr_threads").gpu().end()
    if job.yes("do_analyse"):
        lines.append(_analysis(job, root, bodies))
    if not lines:
        raise job.wrong("nothing to do; give fn_cont, or set do_analyse to Yes")
    return lines


def _iteration(job: Job, optimiser: str) -> int:
    """Return the iteration in the name of an optimiser file."""
    digits = optimiser.rpartition("_it")[2].partition("_optimiser")[0]
    if not digits.isdecimal():
        raise job.wrong(f"option 'fn_cont': {optimiser!r} is no optimiser file of an iteration")
    return int(digits)


def _bodies(job: Job, line: Line, bodies: str) -> None:
    order = str(job.sampling("sampling") - OVERSAMPLING)
    line.add("--solvent_correct_fsc", "--multibody_masks", bodies)
    line.add("--oversampling", str(OVERSAMPLING), "--healpix_order", order)
    line.add("--auto_local_healpix_order", order)
    line.options("--offset_range offset_range").add("--offset_step", step(job, "offset_step"))


def _analysis(job: Job, root: str, bodies: str) -> list[str]:
    line = Line(job, "relion_flex_analyse").add("--PCA_orient", "--model", f"{root}_model.star")
    line.add("--data", f"{root}_data.star", "--bodies", bodies, "--o", f"{job.folder}analyse")
    if whole(job.values, "nr_movies") > 0:
        line.add("--do_maps").options("--k nr_movies")
    if job.yes("do_select"):
        if job.number("eigenval_min") >= job.number("eigenval_max"):
            raise job.wrong("eigenval_min must be less than eigenval_max")
        line.options("--select_eigenvalue select_eigenval --select_eigenvalue_min eigenval_min")
        line.options("--select_eigenvalue_max eigenval_max")
    return line.finish()
