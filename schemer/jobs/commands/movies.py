"""Command lines from the import to the CTF. Source: RELION 5.0.1."""

import math
import re

from schemer.jobs.commands.line import Job, Line
from schemer.jobs.preprocessing import (
    COORDINATE_FILES,
    HALF_MAP_FILE,
    PARTICLE_FILE,
    imported_name,
)


def import_(job: Job) -> list[list[str]]:
    """Return the line of an import."""
    raw = job.only_one("do_raw", "do_other") == "do_raw"
    line = Line(job, "relion_import")
    if raw:
        _import_raw(job, line)
    else:
        _import_other(job, line)
    line.quoted("--i", "fn_in_raw" if raw else "fn_in_other")
    line.add("--odir", job.folder, "--ofile", imported_name(job.values))
    if job.is_continue:
        line.add("--continue")
    return [line.finish()]  # RELION gives an import no additional arguments


def _import_raw(job: Job, line: Line) -> None:
    pattern = job.need("fn_in_raw")
    if pattern.startswith("/") or "../" in pattern:
        raise job.wrong(
            f"option 'fn_in_raw': {pattern!r} is outside the project; make a link to the folder "
            "in the project and give the path through it"
        )
    line.add("--do_movies" if job.yes("is_multiframe") else "--do_micrographs")
    _group_name(job, job.need("optics_group_name"))
    line.quoted("--optics_group_name", "optics_group_name")
    line.given("--optics_group_mtf", "fn_mtf")
    line.options("--angpix angpix --kV kV --Cs Cs --Q0 Q0")
    line.options("--beamtilt_x beamtilt_x --beamtilt_y beamtilt_y")


def _import_other(job: Job, line: Line) -> None:
    job.need("fn_in_other")
    kind = job.text("node_type")
    flags = {
        COORDINATE_FILES: "--do_coordinates",
        HALF_MAP_FILE: "--do_halfmaps",
        PARTICLE_FILE: "--do_particles",
    }
    line.add(flags.get(kind, "--do_other"))
    group = job.text("optics_group_particles")
    if kind == PARTICLE_FILE and group:
        _group_name(job, group)
        line.quoted("--particles_optics_group_name", "optics_group_particles")


def _group_name(job: Job, name: str) -> None:
    if not re.fullmatch(r"[0-9A-Za-z-]+", name):
        raise job.wrong(f"optics group {name!r}: use only digits, letters and hyphens")


def motioncorr(job: Job) -> list[list[str]]:
    """Return the line of motion correction, by RELION or by MotionCor2."""
    job.need("input_star_mics")
    line = Line(job, "relion_run_motioncorr", mpi=True)
    line.options("--i input_star_mics").add("--o", job.folder)
    line.options("--first_frame_sum first_frame_sum --last_frame_sum last_frame_sum")
    if job.yes("do_own_motioncor"):
        line.add("--use_own").options("--j nr_threads").when("do_float16", "--float16")
        if job.yes("do_float16") and not job.yes("do_save_ps"):
            raise job.wrong("do_float16 needs do_save_ps Yes: CTFFIND reads no float16 images")
    else:
        _motioncor2(job, line)
    line.given("--defect_file", "fn_defect")
    line.options("--bin_factor bin_factor --bfactor bfactor --dose_per_frame dose_per_frame")
    line.options("--preexposure pre_exposure --patch_x patch_x --patch_y patch_y")
    line.options("--eer_grouping eer_grouping")
    if job.number("group_frames") > 1:
        line.options("--group_frames group_frames")
    _gain(job, line)
    if job.yes("do_dose_weighting"):
        line.add("--dose_weighting").when("do_save_noDW", "--save_noDW")
    if job.yes("do_save_ps"):
        line.add("--grouping_for_ps", str(_spectra_group(job)))
    return line.unfinished().end()


def _motioncor2(job: Job, line: Line) -> None:
    for option in ("do_float16", "do_save_ps"):
        if job.yes(option):
            raise job.wrong(f"MotionCor2 cannot do {option}; set it to No, or do_own_motioncor Yes")
    line.add("--use_motioncor2").options("--motioncor2_exe fn_motioncor2_exe")
    if job.text("other_motioncor2_args"):
        line.add("--other_motioncor2_args", f" {job.text('other_motioncor2_args')} ")
    line.quoted("--gpu", "gpu_ids")


def _gain(job: Job, line: Line) -> None:
    if not job.text("fn_gain_ref"):
        return
    line.options("--gainref fn_gain_ref")
    for option in ("gain_rot", "gain_flip"):
        choices = job.type.options[option].choices
        if job.text(option) not in choices:
            problem = f"option {option!r}: {job.text(option)!r} is not one of {', '.join(choices)}"
            raise job.wrong(problem)
        line.add(f"--{option}", str(choices.index(job.text(option))))


def _spectra_group(job: Job) -> int:
    """Return how many frames are summed for one power spectrum."""
    dose, per_frame = job.number("group_for_ps"), job.number("dose_per_frame")
    if dose <= 0 or per_frame <= 0:
        raise job.wrong("do_save_ps needs group_for_ps and dose_per_frame above zero")
    return max(1, math.floor(dose / per_frame + 0.5))


def ctffind(job: Job) -> list[list[str]]:
    """Return the line of CTF estimation by CTFFIND."""
    job.need("input_star_mics")
    line = Line(job, "relion_run_ctffind", mpi=True)
    line.options("--i input_star_mics").add("--o", job.folder)
    line.options("--Box box --ResMin resmin --ResMax resmax --dFMin dfmin --dFMax dfmax")
    line.options("--FStep dfstep --dAst dast").when("use_noDW", "--use_noDW")
    if job.yes("do_phaseshift"):
        line.add("--do_phaseshift")
        line.options("--phase_min phase_min --phase_max phase_max --phase_step phase_step")
    line.options("--ctffind_exe fn_ctffind_exe --ctfWin ctf_win").add("--is_ctffind4")
    if not job.yes("slow_search"):
        line.add("--fast_search")
    line.when("use_given_ps", "--use_given_ps")
    return line.unfinished().end()
