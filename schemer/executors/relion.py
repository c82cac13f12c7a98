"""The executor `relion`: RELION's own programs, on this computer or through a queue.

Source: schemes.md section 9.
"""

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from algorithms.formats.atomic import atomic_write
from schemer.errors import SchemeError
from schemer.executors import JobRequest
from schemer.executors.attempt import program
from schemer.jobs import find
from schemer.jobs.commands import programs, with_mpi
from schemer.jobs.options import yes

_COMMAND = "XXXcommandXXX"


class RelionExecutor:
    """Does jobs with the command lines that RELION 5.0.1 forms.

    RELION's programs warn of a flag that they do not know and go on, so older installations do
    the jobs too, as far as their options go.

    Parameters
    ----------
    project
        Project folder.
    environ
        Environment variables that the options name, and RELION's own; None for those of this
        process.
    """

    name = "relion"

    def __init__(self, project: Path | None = None, environ: Mapping[str, str] | None = None):
        self.project = Path() if project is None else project
        self.environ = os.environ if environ is None else environ

    def commands(self, job: JobRequest) -> list[list[str]]:
        """Return RELION's command lines, or the one that hands their script to the queue.

        A queued job (`is_queued`) is at its end when its folder holds one of RELION's exit
        files, not when this command has ended: that only means that the queue has it.

        Raises
        ------
        SchemeError
            A type or options that have no command line, a program that is not installed, or a
            template for the queue that cannot be read.
        """
        lines = programs(job, self.environ)
        if is_queued(job):
            return [self._submission(job, lines)]
        found = [[self._program(job, line[0]), *line[1:]] for line in lines]
        started = [with_mpi(line, job, self.environ) for line in found]
        return [[self._program(job, line[0]), *line[1:]] for line in started]

    def _program(self, job: JobRequest, name: str) -> str:
        remedy = (
            f"{job.label} needs it: install RELION 5 and put it on the PATH, or choose the "
            "executor native or command:PROGRAM"
        )
        return program(name, self.project, remedy)

    def _submission(self, job: JobRequest, lines: Sequence[Sequence[str]]) -> list[str]:
        """Write the job's script and return the command line that submits it."""
        options = self._options(job)
        template = self.project / options["qsubscript"]
        try:
            text = template.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SchemeError(
                f"{job.process}: option 'qsubscript': {str(template)!r} cannot be read ({error}); "
                "name the site's template of a job script, or set do_queue to No"
            ) from None
        path = f"{job.process}run_submit.script"
        submit = shlex.split(options["qsub"])
        if not submit:
            raise SchemeError(f"{job.process}: option 'qsub' is empty; name the submitting command")
        submit[0] = self._program(job, submit[0])
        atomic_write(self.project / path, queue_script(text, job.process, options, lines))
        return [*submit, path]

    def _options(self, job: JobRequest) -> dict[str, str]:
        return find(job.label).on(self.environ).complete(job.options)[0]


def is_queued(job: JobRequest) -> bool:
    """Return whether the job is handed to a queue, so that its exit files tell its end."""
    return yes(job.options, "do_queue")


def queue_script(
    template: str, process: str, options: Mapping[str, str], lines: Sequence[Sequence[str]]
) -> str:
    """Return a queue's job script: the template with RELION's placeholders filled in.

    A template's line with the command (it may begin with mpirun) is repeated for each of
    RELION's programs; in a job with several MPI processes, programs without MPI stand alone.

    Parameters
    ----------
    template
        Text with `XXX<name>XXX`: command, mpinodes, threads, cores (mpinodes x threads),
        dedicated, nodes (cores / dedicated, rounded up), name, errfile, outfile, queue,
        extra<number>.
    process
        The job's folder, `Class2D/job007/`.
    options
        Complete options of the job.
    lines
        Command lines without mpirun.
    """
    processes = _whole(process, options, "nr_mpi")
    threads = _whole(process, options, "nr_threads")
    dedicated = _whole(process, options, "min_dedicated")
    values = {
        "mpinodes": processes,
        "threads": threads,
        "cores": processes * threads,
        "dedicated": dedicated,
        "nodes": math.ceil(processes * threads / dedicated),
        "name": process,
        "errfile": f"{process}run.err",
        "outfile": f"{process}run.out",
        "queue": options["queuename"],
    }
    for name, value in options.items():
        if name.startswith("qsub_extra"):
            values[name.removeprefix("qsub_")] = value
    script = []
    for row in template.splitlines():
        for name, value in values.items():
            row = row.replace(f"XXX{name}XXX", str(value))
        if _COMMAND in row:
            script += (_command_row(row, line, processes) for line in lines)
        else:
            script.append(row)
    return "\n".join(script) + "\n"


def _command_row(row: str, line: Sequence[str], processes: int) -> str:
    text = shlex.join(line)
    fits = "relion_" in text and (processes == 1 or line[0].endswith("_mpi"))
    return row.replace(_COMMAND, text) if fits else text


def _whole(process: str, options: Mapping[str, str], name: str) -> int:
    """Return a count, 1 in a type that does not have the option."""
    text = options.get(name, "1")
    try:
        count = int(float(text))
    except (ValueError, OverflowError):
        count = 0
    if count < 1:
        raise SchemeError(f"{process}: option {name!r}: {text!r} is not a count; write 1 or more")
    return count
