"""Command line of a site's own program. Source: schemes.md section 10."""

from schemer.jobs.commands.line import Job, Line

_INPUTS = (
    ("--in_movies", "in_mov"),
    ("--in_mics", "in_mic"),
    ("--in_parts", "in_part"),
    ("--in_coords", "in_coords"),
    ("--in_3dref", "in_3dref"),
    ("--in_mask", "in_mask"),
)
_PARAMETERS = 10


def external(job: Job) -> list[list[str]]:
    """Return the line of an external program.

    The program and the parameters' values are split into words as a shell does it, but wildcards
    are left to the program.
    """
    job.need("fn_exe")
    line = Line(job).words("fn_exe").add("--o", job.folder)
    for flag, option in _INPUTS:
        line.given(flag, option)
    for number in range(1, _PARAMETERS + 1):
        label = job.text(f"param{number}_label")
        if label:
            line.add(f"--{label}").words(f"param{number}_value")
    return line.options("--j nr_threads").end()
