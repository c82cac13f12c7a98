"""Command lines of what follows a refinement. Source: RELION 5.0.1."""

import math

from schemer.jobs.commands.line import Job, Line, number_text
from schemer.jobs.preprocessing import other_half

# How a CTF parameter is fitted -> RELION's letter for it.
_FITS = {"No": "f", "Per-micrograph": "m", "Per-particle": "p"}


def _halves(job: Job) -> tuple[str, str]:
    """Return both half-maps, of which the option names one."""
    one = job.need("fn_in")
    if other_half(one) == one:
        raise job.wrong(f"option 'fn_in': {one!r} names no half-map; it must hold half1 or half2")
    return one, other_half(one)


def postprocess(job: Job) -> list[list[str]]:
    """Return the line of sharpening and of the resolution in a mask."""
    job.need("fn_mask")
    line = Line(job, "relion_postprocess").options("--mask fn_mask").add("--i", _halves(job)[0])
    line.add("--o", f"{job.folder}postprocess").options("--angpix angpix")
    if job.text("fn_mtf"):
        line.options("--mtf fn_mtf --mtf_angpix mtf_angpix")
    if job.yes("do_auto_bfac"):
        line.add("--auto_bfac").options("--autob_lowres autob_lowres")
    if job.yes("do_adhoc_bfac"):
        line.options("--adhoc_bfac adhoc_bfac")
    if job.yes("do_skip_fsc_weighting"):
        line.add("--skip_fsc_weighting").options("--low_pass low_pass")
    return line.end()


def maskcreate(job: Job) -> list[list[str]]:
    """Return the line that makes a mask from a map."""
    job.need("fn_in")
    line = Line(job, "relion_mask_create").options("--i fn_in").add("--o", f"{job.folder}mask.mrc")
    line.positive("--lowpass", "lowpass_filter").positive("--angpix", "angpix")
    line.options("--ini_threshold inimask_threshold --extend_inimask extend_inimask")
    line.options("--width_soft_edge width_mask_edge")
    if job.yes("do_helix"):
        length = number_text(job.number("helical_z_percentage") / 100)
        line.add("--helix", "--z_percentage", length)
    return line.options("--j nr_threads").end()


def localres(job: Job) -> list[list[str]]:
    """Return the lines of local resolution, by RELION or by ResMap."""
    method = job.only_one("do_resmap_locres", "do_relion_locres")
    halves = _halves(job)
    if method == "do_resmap_locres":
        return _resmap(job, halves)
    line = Line(job, "relion_postprocess", mpi=True).add("--locres").options("--i fn_in")
    line.add("--o", f"{job.folder}relion").options("--angpix angpix --adhoc_bfac adhoc_bfac")
    return line.given("--mtf", "fn_mtf").given("--mask", "fn_mask").end()


def _resmap(job: Job, halves: tuple[str, str]) -> list[list[str]]:
    job.need("fn_mask")
    if job.yes("do_queue") or job.nr_mpi() > 1:
        raise job.wrong("ResMap talks to a person; set do_queue to No and nr_mpi to 1")
    links = [f"{job.folder}half{number}.mrc" for number in (1, 2)]
    lines = [["ln", "-s", f"../../{half}", link] for half, link in zip(halves, links, strict=True)]
    line = Line(job, job.need("fn_resmap")).add(f"--maskVol={job.text('fn_mask')}")
    line.add("--noguiSplit", *links)
    for flag, option in (
        ("vxSize", "angpix"),
        ("pVal", "pval"),
        ("minRes", "minres"),
        ("maxRes", "maxres"),
        ("stepRes", "stepres"),
    ):
        line.add(f"--{flag}={job.text(option)}")
    return [*lines, *line.end()]


def subtract(job: Job) -> list[list[str]]:
    """Return the line that takes a part of the signal away from the images, or gives it back."""
    if job.yes("do_fliplabel"):
        if job.nr_mpi() > 1:
            raise job.wrong("going back to the original particles needs nr_mpi 1")
        line = Line(job, "relion_particle_subtract").add("--revert", job.need("fn_fliplabel"))
        return line.add("--o", job.folder).end()
    job.need("fn_opt")
    line = Line(job, "relion_particle_subtract", mpi=True).options("--i fn_opt")
    line.given("--mask", "fn_mask")
    if job.yes("do_data"):
        line.add("--data", job.need("fn_data"))
    line.add("--o", job.folder)
    if job.yes("do_center_mask"):
        line.add("--recenter_on_mask")
    elif job.yes("do_center_xyz"):
        line.options("--center_x center_x --center_y center_y --center_z center_z")
    line.when("do_float16", "--float16").positive("--new_box", "new_box")
    return line.end()


def ctfrefine(job: Job) -> list[list[str]]:
    """Return the line that refines CTF parameters against a map."""
    job.need("fn_data")
    job.need("fn_post")
    line = Line(job, "relion_ctf_refine", mpi=True).options("--i fn_data --f fn_post")
    line.add("--o", job.folder)
    if job.yes("do_aniso_mag"):
        line.add("--fit_aniso").options("--kmin_mag minres")
    else:
        _aberrations(job, line)
    return line.unfinished().options("--j nr_threads").end()


def _aberrations(job: Job, line: Line) -> None:
    if not any(job.yes(option) for option in ("do_ctf", "do_tilt", "do_4thorder")):
        raise job.wrong("nothing to fit; set do_aniso_mag, do_ctf, do_tilt or do_4thorder to Yes")
    if job.yes("do_ctf"):
        line.add("--fit_defocus").options("--kmin_defocus minres").add("--fit_mode", _fits(job))
    if job.yes("do_tilt"):
        line.add("--fit_beamtilt").options("--kmin_tilt minres")
        line.when("do_trefoil", "--odd_aberr_max_n 3")
    line.when("do_4thorder", "--fit_aberr")


def _fits(job: Job) -> str:
    """Return five letters: phase shift, defocus, astigmatism, Cs (never fitted), B-factor."""
    letters = []
    for option in ("do_phase", "do_defocus", "do_astig", "do_bfactor"):
        if job.text(option) not in _FITS:
            choices = ", ".join(_FITS)
            raise job.wrong(f"option {option!r}: {job.text(option)!r} is not one of {choices}")
        letters.append(_FITS[job.text(option)])
    if set(letters) == {"f"}:
        raise job.wrong("do_ctf is Yes but fits nothing; choose a parameter, or set do_ctf to No")
    return "".join([*letters[:3], "f", letters[3]])


def polish(job: Job) -> list[list[str]]:
    """Return the line of Bayesian polishing, or of the training of its parameters."""
    task = job.only_one("do_param_optim", "do_polish")
    for option in ("fn_data", "fn_post", "fn_mic"):
        job.need(option)
    line = Line(job, "relion_motion_refine", mpi=True)
    line.options("--i fn_data --f fn_post --corr_mic fn_mic")
    line.options("--first_frame first_frame --last_frame last_frame").add("--o", job.folder)
    line.when("do_float16", "--float16")
    (_train if task == "do_param_optim" else _polish)(job, line)
    return line.unfinished().options("--j nr_threads").end()


def _train(job: Job, line: Line) -> None:
    tested = job.number("eval_frac")
    if not 0.1 < tested <= 0.9:
        raise job.wrong(f"option 'eval_frac': {tested:g} is not between 0.1 and 0.9")
    line.options("--min_p optim_min_part --eval_frac eval_frac")
    line.add("--align_frac", number_text(1 - tested))
    line.add("--params2" if job.number("sigma_acc") < 0 else "--params3")


def _polish(job: Job, line: Line) -> None:
    if job.yes("do_own_params"):
        line.options("--s_vel sigma_vel --s_div sigma_div --s_acc sigma_acc")
    else:
        job.need("opt_params")
        line.options("--params_file opt_params")
    line.add("--combine_frames").options("--bfac_minfreq minres --bfac_maxfreq maxres")
    window, scale = (math.floor(job.number(name) + 0.5) for name in ("extract_size", "rescale"))
    if window < 0 and scale < 0:
        return
    if not 0 < scale <= window or window % 2 or scale % 2:
        raise job.wrong(
            "extract_size and rescale must be even, rescale not larger; or leave both at -1"
        )
    line.options("--window extract_size --scale rescale")
