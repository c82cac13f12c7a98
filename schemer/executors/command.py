"""The executor `command:PROGRAM`: a site's own program does every job.

The program is called with the job folder as its only argument and the project as working
directory. The folder holds `job.json` with `type`, `options` (variables and paths filled in),
`inputs` and `continue`. It leaves its outputs there and exits with 0, with 2 for aborted, with
anything else for failed.
"""

from pathlib import Path

from schemer.executors import JobRequest
from schemer.executors.attempt import program


class CommandExecutor:
    """Does jobs with one program.

    Parameters
    ----------
    path
        The program; with a slash relative to the project, without one looked up in PATH.
    project
        Project folder.

    Raises
    ------
    SchemeError
        There is no such program.
    """

    name = "command"

    def __init__(self, path: str, project: Path):
        self.program = program(path, project, "name an executable after `command:`")

    def commands(self, job: JobRequest) -> list[list[str]]:
        """Return the program's command line."""
        return [[self.program, job.process]]
