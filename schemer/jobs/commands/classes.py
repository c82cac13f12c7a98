"""Command lines of relion_refine in two dimensions, and of the first model.

Source: RELION 5.0.1; schemes.md section 19 (initial model).
"""

from schemer.jobs.commands.line import Job, Line, number_text
from schemer.jobs.refinement import whole

# Additional arguments, with a value, that only our own classification knows.
OURS = ("--class_replacement",)
OVERSAMPLING = 1  # the steps in the options are those after oversampling, by 2 to this power


def start(job: Job, program: Line) -> Line:
    """Add what a run starts from: nothing, or the optimiser file of the run that goes on."""
    if job.is_continue:
        optimiser = job.need("fn_cont")
        if "_it" not in optimiser or "_optimiser" not in optimiser:
            raise job.wrong(
                f"option 'fn_cont': {optimiser!r} is no optimiser file of an iteration; give one "
                f"such as {job.folder}run_it010_optimiser.star"
            )
        program.add("--continue", optimiser)
    return program.add("--o", f"{job.folder}run")


def compute(job: Job, line: Line) -> Line:
    """Add how images are read and results are combined."""
    if not job.yes("do_combine_thru_disc"):
        line.add("--dont_combine_weights_via_disc")
    if not job.yes("do_parallel_discio"):
        line.add("--no_parallel_disc_io")
    if job.yes("do_preread_images"):
        line.add("--preread_images")
    else:
        line.given("--scratch_dir", "scratch_dir")
    return line.options("--pool nr_pool")


def ctf(job: Job, line: Line) -> Line:
    """Add the CTF correction."""
    if job.yes("do_ctf_correction"):
        line.add("--ctf").when("ctf_intact_first_peak", "--ctf_intact_first_peak")
    return line


def step(job: Job, option: str) -> str:
    """Return a search step before oversampling."""
    return number_text(job.number(option) * 2**OVERSAMPLING)


def third(job: Job, option: str) -> str:
    """Return the width of a prior in degrees; its option gives three widths, at most 90."""
    return number_text(min(max(job.number(option), 0), 90) / 3)


def class2d(job: Job) -> list[list[str]]:
    """Return the line of 2D classification."""
    line = start(job, Line(job, "relion_refine", mpi=True))
    if job.only_one("do_em", "do_grad") == "do_em":
        line.options("--iter nr_iter_em")
    else:
        if job.nr_mpi() > 1:
            raise job.wrong("VDAM does not work with MPI; set nr_mpi to 1, or do_em to Yes")
        line.add("--grad", "--class_inactivity_threshold", "0.1", "--grad_write_iter", "10")
        line.options("--iter nr_iter_grad")
    if not job.is_continue:
        job.need("fn_img")
        line.options("--i fn_img")
    compute(job, line).add("--pad", "2")
    if not job.is_continue:
        ctf(job, line)
    line.options("--tau2_fudge tau_fudge --particle_diameter particle_diameter")
    if not job.is_continue:
        line.options("--K nr_classes").add("--flatten_solvent").when("do_zero_mask", "--zero_mask")
        line.positive("--strict_highres_exp", "highres_limit")
    line.when("do_center", "--center_classes").add("--oversampling", str(OVERSAMPLING))
    _search2d(job, line)
    if not job.is_continue:
        line.add("--norm", "--scale")
    line.options("--j nr_threads").gpu().words("other_args")
    for name in OURS:
        while name in line.arguments:
            at = line.arguments.index(name)
            del line.arguments[at : at + 2]
    return [line.finish()]


def _search2d(job: Job, line: Line) -> None:
    aligns = job.yes("dont_skip_align")
    if aligns:
        line.add("--psi_step", step(job, "psi_sampling")).options("--offset_range offset_range")
        line.add("--offset_step", step(job, "offset_step"))
        line.when("allow_coarser", "--allow_coarser_sampling")
    else:
        line.add("--skip_align")
    if not job.yes("do_helix"):
        return
    line.options("--helical_outer_diameter helical_tube_outer_diameter")
    if aligns:
        line.when("do_bimodal_psi", "--bimodal_psi").add("--sigma_psi", third(job, "range_psi"))
        if job.yes("do_restrict_xoff"):
            line.add("--helix").options("--helical_rise_initial helical_rise")


def initialmodel(job: Job) -> list[list[str]]:
    """Return the lines of the first model: refinement from nothing, then symmetry.

    As in RELION the exit file of the first program goes away before the second one starts, so
    that no reader takes the job as finished in between.
    """
    if job.nr_mpi() > 1:
        raise job.wrong("VDAM does not work with MPI; set nr_mpi to 1")
    line = start(job, Line(job, "relion_refine")).options("--iter nr_iter")
    later = job.yes("do_run_C1")
    if not job.is_continue:
        job.need("fn_img")
        ctf(job, line.add("--grad", "--denovo_3dref").options("--i fn_img"))
        line.options("--K nr_classes").add("--sym", "C1" if later else job.text("sym_name"))
        line.when("do_solvent", "--flatten_solvent").add("--zero_mask")
    compute(job, line).add("--pad", "1").options("--particle_diameter particle_diameter")
    line.add("--oversampling", "1", "--healpix_order", "1", "--offset_range", "6")
    line.add("--offset_step", "2", "--auto_sampling").options("--tau2_fudge tau_fudge")
    line.options("--j nr_threads").gpu()
    last = f"{job.folder}run_it{whole(job.values, 'nr_iter'):03d}_model.star"
    align = Line(job, "relion_align_symmetry").add("--i", last)
    align.add("--o", f"{job.folder}initial_model.mrc")
    align.add("--sym", job.text("sym_name") if later and job.text("sym_name") != "c1" else "C1")
    align.add("--apply_sym", "--select_largest_class")
    success = f"{job.folder}RELION_JOB_EXIT_SUCCESS"
    return [*line.end(), ["rm", "-f", success], align.finish(), ["touch", success]]
