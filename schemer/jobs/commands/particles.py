"""Command lines of picking and extraction. Source: RELION 5.0.1."""

from schemer.jobs.commands.line import Job, Line, number_text


def autopick(job: Job) -> list[list[str]]:
    """Return the line of picking: LoG, Topaz, templates, or going on by hand."""
    if job.is_continue and job.yes("continue_manual"):
        return _by_hand(job)
    method = job.only_one("do_log", "do_topaz", "do_refs")
    job.need("fn_input_autopick")
    line = Line(job, "relion_autopick", mpi=True)
    line.options("--fn_topaz_exe fn_topaz_exe --i fn_input_autopick")
    line.add("--odir", job.folder, "--pickname", "autopick")
    if method == "do_topaz":
        _topaz(job, line)
        return line.unfinished().end()
    (_log if method == "do_log" else _templates)(job, line)
    line.when("do_write_fom_maps", "--write_fom_maps").when("do_read_fom_maps", "--read_fom_maps")
    if not (job.yes("do_write_fom_maps") or job.yes("do_read_fom_maps")):
        line.unfinished()
    return line.end()


def _by_hand(job: Job) -> list[list[str]]:
    """Return the line of RELION's picking window, with the view it has in a new project.

    RELION takes the view from the project's last ManualPick settings, which no option names.
    """
    line = Line(job, "relion_manualpick").options("--i fn_input_autopick")
    line.add("--odir", job.folder, "--pickname", "autopick", "--allow_save")
    line.add("--selection", f"{job.folder}micrographs_selected.star")
    line.add("--scale", "0.25", "--sigma_contrast", "3", "--lowpass", "20")
    return line.add("--particle_diameter", "100").end()


def _topaz(job: Job, line: Line) -> None:
    task = job.only_one("do_topaz_train", "do_topaz_pick")
    line.positive("--particle_diameter", "topaz_particle_diameter")
    if task == "do_topaz_train":
        if not job.yes("use_gpu"):
            raise job.wrong("training needs a graphics card; set use_gpu to Yes")
        line.add("--topaz_train").positive("--topaz_nr_particles", "topaz_nr_particles")
        what = "parts" if job.yes("do_topaz_train_parts") else "picks"
        line.options(f"--topaz_train_{what} topaz_train_{what}")
    else:
        line.add("--topaz_extract").given("--topaz_model", "topaz_model")
        if job.yes("do_topaz_filaments"):
            line.add("--helix").options("--topaz_threshold topaz_filament_threshold")
            line.positive("--helical_tube_length_min", "topaz_hough_length")
    if job.text("topaz_other_args"):
        line.add("--topaz_args", f" {job.text('topaz_other_args')} ")
    line.gpu()


def _log(job: Job, line: Line) -> None:
    if job.yes("use_gpu"):
        raise job.wrong("LoG picking does not work on graphics cards; set use_gpu to No")
    line.add("--LoG").options("--LoG_diam_min log_diam_min --LoG_diam_max log_diam_max")
    line.add("--shrink", "0").options("--lowpass log_maxres")
    line.options("--LoG_adjust_threshold log_adjust_thr")
    if job.number("log_upper_thr") < 999:
        line.options("--LoG_upper_threshold log_upper_thr")
    line.when("log_invert", "--Log_invert")


def _templates(job: Job, line: Line) -> None:
    if job.yes("do_ref3d"):
        job.need("fn_ref3d_autopick")
        line.options("--ref fn_ref3d_autopick --sym ref3d_symmetry")
        line.add("--healpix_order", str(job.sampling("ref3d_sampling")))
    else:
        job.need("fn_refs_autopick")
        line.options("--ref fn_refs_autopick")
    line.when("do_invert_refs", "--invert")
    if job.yes("do_ctf_autopick"):
        line.add("--ctf").when("do_ignore_first_ctfpeak_autopick", "--ctf_intact_first_peak")
    line.options("--ang psi_sampling_autopick --shrink shrink")
    for option in ("lowpass", "highpass", "angpix", "angpix_ref"):
        line.positive(f"--{option}", option)
    line.options("--threshold threshold_autopick")
    helix = job.yes("do_pick_helical_segments")
    if helix:
        distance = job.number("helical_nr_asu") * job.number("helical_rise")
        line.add("--min_distance", number_text(distance))
    else:
        line.options("--min_distance mindist_autopick")
    line.options("--max_stddev_noise maxstddevnoise_autopick")
    if job.number("minavgnoise_autopick") > -900:
        line.options("--min_avg_noise minavgnoise_autopick")
    if helix:
        line.add("--helix").when("do_amyloid", "--amyloid")
        for option in ("outer_diameter", "kappa_max", "length_min"):
            line.options(f"--helical_tube_{option} helical_tube_{option}")
    line.gpu()


def extract(job: Job) -> list[list[str]]:
    """Return the line of extraction, from coordinates or again from refined particles."""
    job.need("star_mics")
    line = Line(job, "relion_preprocess", mpi=True).options("--i star_mics")
    again = job.yes("do_reextract")
    (_from_particles if again else _from_coordinates)(job, line)
    line.add("--part_star", f"{job.folder}particles.star")
    if again:
        line.add("--pick_star", f"{job.folder}extractpick.star")
    if job.yes("do_extract_helix") and job.yes("do_extract_helical_tubes"):
        line.add("--pick_star", f"{job.folder}extractpick.star")
    line.add("--part_dir", job.folder, "--extract").options("--extract_size extract_size")
    if job.yes("do_fom_threshold"):
        line.options("--minimum_pick_fom minimum_pick_fom")
    line.when("do_float16", "--float16")
    if job.yes("do_rescale"):
        line.options("--scale rescale")
    if job.yes("do_norm"):
        line.add("--norm", "--bg_radius", number_text(_background_radius(job)))
        line.options("--white_dust white_dust --black_dust black_dust")
    line.when("do_invert", "--invert_contrast")
    _segments(job, line)
    return line.unfinished().end()


def _from_particles(job: Job, line: Line) -> None:
    job.need("fndata_reextract")
    line.options("--reextract_data_star fndata_reextract")
    if job.yes("do_reset_offsets") and job.yes("do_recenter"):
        raise job.wrong("set only one of do_reset_offsets and do_recenter to Yes")
    line.when("do_reset_offsets", "--reset_offsets")
    if job.yes("do_recenter"):
        line.add("--recenter").options("--recenter_x recenter_x --recenter_y recenter_y")
        line.options("--recenter_z recenter_z")


def _from_coordinates(job: Job, line: Line) -> None:
    """Name the list of coordinate files; before 4.0 an empty file's name gave their suffix."""
    coordinates = job.need("coords_suffix")
    folder, _, name = coordinates.rpartition("/")
    if "coords_suffix" in coordinates:
        line.add("--coord_dir", f"{folder}/", "--coord_suffix", name.replace("coords_suffix", ""))
    else:
        line.add("--coord_list", coordinates)


def _background_radius(job: Job) -> int:
    """Return the radius of the normalisation circle in pixels of the extracted image."""
    size, diameter = job.number("extract_size"), job.number("bg_diameter")
    if size <= 0:
        raise job.wrong(f"option 'extract_size': {size:g} is not above zero")
    radius = (0.75 * size if diameter < 0 else diameter) / 2
    return int(radius * job.number("rescale") / size if job.yes("do_rescale") else radius)


def _segments(job: Job, line: Line) -> None:
    if not job.yes("do_extract_helix"):
        return
    line.add("--helix").options("--helical_outer_diameter helical_tube_outer_diameter")
    line.when("helical_bimodal_angular_priors", "--helical_bimodal_angular_priors")
    if not job.yes("do_extract_helical_tubes"):
        return
    line.add("--helical_tubes")
    if job.yes("do_cut_into_segments"):
        line.add("--helical_cut_into_segments")
        line.options("--helical_nr_asu helical_nr_asu --helical_rise helical_rise")
    else:
        line.add("--helical_nr_asu", "1", "--helical_rise", "1")
