"""The command lines that RELION 5.0.1 forms from a job's options, as lists of arguments.

Facts about flags and their order were read from RELION 5.0.1; no shell is involved.
Source: schemes.md sections 9 and 10.
"""

import os
import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from schemer.errors import SchemeError
from schemer.jobs.commands import classes, maps, movies, particles, selecting, volumes
from schemer.jobs.commands.external import external
from schemer.jobs.commands.line import Job
from schemer.jobs.environment import whole_number

if TYPE_CHECKING:
    from schemer.executors import JobRequest

__all__ = ["commands", "programs", "with_mpi"]

_MAX_LOCAL_MPI = 32  # RELION refuses more processes on one computer

_WRITERS: dict[str, Callable[[Job], list[list[str]]]] = {
    "relion.import": movies.import_,
    "relion.motioncorr": movies.motioncorr,
    "relion.ctffind": movies.ctffind,
    "relion.autopick": particles.autopick,
    "relion.extract": particles.extract,
    "relion.select": selecting.select,
    "relion.joinstar": selecting.joinstar,
    "relion.class2d": classes.class2d,
    "relion.initialmodel": classes.initialmodel,
    "relion.class3d": volumes.class3d,
    "relion.refine3d": volumes.refine3d,
    "relion.multibody": volumes.multibody,
    "relion.maskcreate": maps.maskcreate,
    "relion.postprocess": maps.postprocess,
    "relion.localres": maps.localres,
    "relion.subtract": maps.subtract,
    "relion.ctfrefine": maps.ctfrefine,
    "relion.polish": maps.polish,
    "relion.external": external,
}


def commands(job: "JobRequest", environ: Mapping[str, str] | None = None) -> list[list[str]]:
    """Return the command lines of a job that runs on this computer, one after another.

    Parameters
    ----------
    job
        Options filled in; missing ones have their defaults.
    environ
        Environment variables; None for those of this process.

    Raises
    ------
    SchemeError
        A type without command lines, options that contradict each other, an option that is
        needed and empty, a variable that the environment does not have.
    """
    environ = os.environ if environ is None else environ
    return [with_mpi(line, job, environ) for line in programs(job, environ)]


def programs(job: "JobRequest", environ: Mapping[str, str]) -> list[list[str]]:
    """Return the command lines without mpirun, which a queue's script has for itself."""
    asked = Job(job, environ)
    label = asked.type.label
    if label not in _WRITERS or asked.is_tomo:
        what = f"the tomography form of {label}" if label in _WRITERS else label
        known = ", ".join(sorted(_WRITERS))
        raise asked.wrong(
            f"no command lines are known for {what}, only for {known}; run it in RELION itself, "
            "or with a program of your own (executor command:PROGRAM)"
        )
    return _WRITERS[label](asked)


def with_mpi(line: list[str], job: "JobRequest", environ: Mapping[str, str]) -> list[str]:
    """Return a command line with mpirun before a program that uses MPI.

    Raises
    ------
    SchemeError
        More processes than RELION allows on one computer (RELION_ERROR_LOCAL_MPI).
    """
    processes = Job(job, environ).nr_mpi()
    if processes < 2 or not line[0].endswith("_mpi"):
        return line
    allowed = whole_number(environ, "RELION_ERROR_LOCAL_MPI", _MAX_LOCAL_MPI)
    if processes > allowed:
        raise SchemeError(
            f"{job.process}: nr_mpi {processes} is more than the {allowed} processes allowed on "
            "one computer; ask for fewer, set do_queue to Yes, or raise RELION_ERROR_LOCAL_MPI"
        )
    return [*shlex.split(environ.get("RELION_MPIRUN", "mpirun")), "-n", str(processes), *line]
