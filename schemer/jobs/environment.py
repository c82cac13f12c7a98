"""RELION's environment variables, which change the defaults of job options.

A pure function of the variables. `RELION_MPI_MAX` and `RELION_THREAD_MAX` only bound the sliders
of RELION's window; `RELION_MPIRUN` and `RELION_ERROR_LOCAL_MPI` belong to the start of a job
(`schemer.jobs.commands`). Source: schemes.md section 9.
"""

from collections.abc import Mapping

from msgspec import structs

from schemer.errors import SchemeError
from schemer.jobs.options import Option
from schemer.scheme import parse_bool

_VARIABLES = {
    "do_queue": "RELION_QUEUE_USE",
    "queuename": "RELION_QUEUE_NAME",
    "qsub": "RELION_QSUB_COMMAND",
    "qsubscript": "RELION_QSUB_TEMPLATE",
    "min_dedicated": "RELION_MINIMUM_DEDICATED",
    "nr_mpi": "RELION_QSUB_NRMPI",
    "nr_threads": "RELION_QSUB_NRTHREADS",
    "scratch_dir": "RELION_SCRATCH_DIR",
    "fn_ctffind_exe": "RELION_CTFFIND_EXECUTABLE",
    "fn_motioncor2_exe": "RELION_MOTIONCOR2_EXECUTABLE",
    "fn_resmap": "RELION_RESMAP_EXECUTABLE",
    "fn_batchtomo_exe": "RELION_BATCHTOMO_EXECUTABLE",
    "fn_aretomo_exe": "RELION_ARETOMO_EXECUTABLE",
}
_EXTRA = "RELION_QSUB_EXTRA"
_EXTRAS = 2  # how many RELION looks for where RELION_QSUB_EXTRA_COUNT is not set


def with_environment(
    options: Mapping[str, Option], environ: Mapping[str, str]
) -> dict[str, Option]:
    """Return the options with the site's defaults, and its own `qsub_extra<i>`, sorted.

    Parameters
    ----------
    options
        Of one job type.
    environ
        The environment, or the part of it that begins with `RELION_`.

    Raises
    ------
    SchemeError
        A variable that must be a number or a truth value is not; names it.
    """
    found = dict(options)
    for name, variable in _VARIABLES.items():
        if name in found and variable in environ:
            text = _checked(variable, found[name].kind, environ[variable])
            found[name] = structs.replace(found[name], default=text)
    for number in range(1, whole_number(environ, f"{_EXTRA}_COUNT", _EXTRAS) + 1):
        if f"{_EXTRA}{number}" in environ:
            default = environ.get(f"{_EXTRA}{number}_DEFAULT", "")
            found[f"qsub_extra{number}"] = Option("any", default)
    return dict(sorted(found.items()))


def whole_number(environ: Mapping[str, str], variable: str, otherwise: int) -> int:
    """Return a variable that holds a whole number, or `otherwise` where it is not set."""
    return int(_checked(variable, "slider", environ.get(variable, str(otherwise))))


def _checked(variable: str, kind: str, text: str) -> str:
    if kind == "boolean":
        truth = parse_bool(text)
        if truth is None:
            raise SchemeError(f"environment variable {variable}={text!r}: write yes or no")
        return "Yes" if truth else "No"
    if kind == "slider" and not text.isdecimal():
        raise SchemeError(f"environment variable {variable}={text!r}: write a whole number")
    return text
