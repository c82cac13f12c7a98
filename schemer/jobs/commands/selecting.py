"""Command lines that select from tables and join them. Source: RELION 5.0.1."""

from schemer.jobs.commands.line import Job, Line
from schemer.jobs.selecting import select_suffix

_ONE_TASK = ("do_select_values", "do_discard", "do_split", "do_remove_duplicates", "do_filaments")

# Option that is switched on -> begin of the options with the files, key column, output.
_JOINS = {
    "do_part": ("fn_part", "rlnImageName", "join_particles.star"),
    "do_mic": ("fn_mic", "rlnMicrographName", "join_mics.star"),
    "do_mov": ("fn_mov", "rlnMicrographMovieName", "join_movies.star"),
}


def select(job: Job) -> list[list[str]]:
    """Return the line of a selection, whichever of its tasks is switched on."""
    if not any(job.text(option) for option in ("fn_model", "fn_mic", "fn_data")):
        raise job.wrong("nothing to select from; give one of fn_model, fn_mic, fn_data")
    if sum(job.yes(option) for option in _ONE_TASK) > 1:
        raise job.wrong(f"set only one of {', '.join(_ONE_TASK)} to Yes")
    line = _TASKS.get(select_suffix(job.values), _star_handler)(job)
    if job.yes("do_regroup"):
        job.need("fn_model")
        line.options("--regroup nr_groups")
    return line.end()


def _input(job: Job, wanted: str) -> str:
    """Return the only input that a task takes; it is an error to give another."""
    for option in ("fn_model", "fn_mic", "fn_data"):
        if option != wanted and job.text(option):
            raise job.wrong(f"option {option!r} must be empty; this task reads {wanted!r}")
    return job.need(wanted)


def _filaments(job: Job) -> Line:
    line = Line(job, "relion_filament_selection").add("-i", _input(job, "fn_model"))
    return line.add("-o", job.folder).options("-t dendrogram_threshold -c dendrogram_minclass")


def _duplicates(job: Job) -> Line:
    line = Line(job, "relion_star_handler").add("--i", _input(job, "fn_data"))
    line.add("--o", f"{job.folder}particles.star")
    line.options("--remove_duplicates duplicate_threshold")
    return line.positive("--image_angpix", "image_angpix")


def _star_handler(job: Job) -> Line:
    """Return the line of the tasks that look at rows: values, image statistics, subsets."""
    if job.text("fn_model"):
        raise job.wrong("option 'fn_model' must be empty; this task reads fn_mic or fn_data")
    option, name = ("fn_mic", "micrographs") if job.text("fn_mic") else ("fn_data", "particles")
    line = Line(job, "relion_star_handler").options(f"--i {option}")
    line.add("--o", f"{job.folder}{name}.star")
    if job.yes("do_select_values"):
        return line.options("--select select_label --minval select_minval --maxval select_maxval")
    if job.yes("do_discard"):
        line.add("--discard_on_stats")
        return line.options("--discard_label discard_label --discard_sigma discard_sigma")
    if job.number("nr_split") <= 0 and job.number("split_size") <= 0:
        raise job.wrong("do_split needs nr_split or split_size above zero")
    line.add("--split").when("do_random", "--random_order")
    return line.positive("--nr_split", "nr_split").positive("--size_split", "split_size")


def _class_ranker(job: Job) -> Line:
    job.need("fn_model")
    if job.yes("do_regroup") or job.yes("do_recenter"):
        raise job.wrong("automatic class selection can neither regroup nor recenter; say No")
    line = Line(job, "relion_class_ranker").options("--opt fn_model").add("--o", job.folder)
    line.add("--fn_sel_parts", "particles.star", "--fn_sel_classavgs", "class_averages.star")
    if job.number("select_nr_parts") > 0:
        line.options("--select_min_nr_particles select_nr_parts")
    else:
        line.positive("--select_min_nr_classes", "select_nr_classes")
    line.add("--fn_root", "rank", "--do_granularity_features", "--auto_select")
    return line.options("--min_score rank_threshold")


def _interactive(job: Job) -> Line:
    """Return the line of RELION's display, in which a person selects."""
    line = Line(job, "relion_display").add("--gui")
    model = job.text("fn_model")
    if not model:
        option, name = ("fn_mic", "micrographs") if job.text("fn_mic") else ("fn_data", "particles")
        line.options(f"--i {option}")
        return line.add("--allow_save", "--fn_imgs", f"{job.folder}{name}.star")
    line.add("--i", model, "--allow_save", "--fn_parts", f"{job.folder}particles.star")
    if "Class2D/" in model:
        line.add("--fn_imgs", f"{job.folder}class_averages.star")
        line.when("do_recenter", "--recenter")
    return line


_TASKS = {
    ".filamentsdendrogram": _filaments,
    ".removeduplicates": _duplicates,
    ".class2dauto": _class_ranker,
    ".interactive": _interactive,
}


def joinstar(job: Job) -> list[list[str]]:
    """Return the line that joins two to four tables of one kind."""
    begin, key, output = _JOINS[job.only_one(*_JOINS)]
    files = [job.need(f"{begin}{number}") for number in (1, 2)]
    files += [job.text(f"{begin}{number}") for number in (3, 4) if job.text(f"{begin}{number}")]
    line = Line(job, "relion_star_handler").add("--combine", "--i", f" {' '.join(files)} ")
    return line.add("--check_duplicates", key, "--o", job.folder + output).end()
