"""How a job is done: an executor turns a job, ready to run, into command lines.

Whoever runs them (`schemer.executors.attempt`) owns the processes, so a job that dies without a
word is known at once. Source: schemes.md sections 9 and 19.
"""

from typing import Protocol

from msgspec import Struct


class JobRequest(Struct, frozen=True, kw_only=True):
    """A job that is ready to run.

    `process` is its folder below the project, `MotionCorr/job002/`; `label` its process label,
    `relion.motioncorr.own`; `options` are complete, with variables and paths filled in; `inputs`
    are the files it reads; `is_continue` says that the folder holds results to go on with.
    """

    process: str
    label: str
    options: dict[str, str]
    inputs: tuple[str, ...] = ()
    is_continue: bool = False


class Executor(Protocol):
    """A way of doing jobs."""

    name: str

    def commands(self, job: JobRequest) -> list[list[str]]:
        """Return the command lines that do the job, to be run in the project one after another.

        Raises
        ------
        SchemeError
            This executor cannot do the job; says which would.
        """
        ...
