"""Opens a session: the command `session.open`, which can be repeated by its id.

The order is: check, build beside the place, rename, start. Killed in between, the same command
finds the project that it made and goes on; a failure takes back what was made. So a project is
there completely, or not at all.
"""

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from mdcatch.launch import checks, folder, native, relion, scipion
from mdcatch.launch import parameters as params
from mdcatch.launch.checks import Surroundings
from mdcatch.launch.known import Known, learn
from mdcatch.launch.programs import (
    AT_ONCE_S,
    Started,
    missing,
    native_command,
    schemer_of,
    start,
)
from mdcatch.launch.request import KIND, OpenRequest, from_arguments
from mdcatch.parsers.record import Record
from services.kit.commands import Command, Reply
from services.kit.errors import Misuse
from services.kit.paths import atomic_write, refuse_network_file_system
from services.kit.sitetables import Site

# Making a Scipion project loads all its plugins.
CREATE_S = 600.0
HOW_TO = "start_scipion.txt"


class Opener:
    """Does `session.open`; keeps what it has started only to see how it ends.

    Parameters
    ----------
    site
        The site's configuration.
    read
        Parses a metadata or movie file; default: a child process with limits.
    """

    def __init__(self, site: Site, read: Callable[[Path], Record] | None = None):
        self.site = site
        self._read = read
        self._started: list[subprocess.Popen[bytes]] = []

    def handle(self, command: Command, attempt: int) -> Reply:
        """Do a command; see `services.kit.commands.Handler`."""
        if command.kind != KIND:
            raise Misuse(f"{command.kind}: there is no such command; there is {KIND}")
        return self.open(command.id, from_arguments(command.arguments))

    def open(self, command_id: str, request: OpenRequest) -> Reply:
        """Open a session, or go on where an interrupted opening of the same id has ended.

        Raises
        ------
        Misuse
            It cannot be opened; says everything that stands against it, and nothing was made.
        """
        project = Path(request.project)
        before = folder.opened(project)
        if before is not None and before.command_id == command_id:
            warnings = before.warnings
        else:
            warnings = self._make(command_id, request)
        try:
            told = self._start(project, request) if request.start else ["nothing was started"]
        except Misuse:
            folder.take_back(project, command_id)
            raise
        text = f"{request.pipeline} session in {project}: {', '.join(told)}"
        facts = {"project": str(project), "pipeline": request.pipeline, "warnings": list(warnings)}
        return Reply(text, facts)

    def look(self, request: OpenRequest) -> tuple[Known, list[checks.Doubt]]:
        """Return what is known of a session, and all that stands against opening it."""
        known = learn(request, self.site, self._read)
        return known, list(checks.doubts(request, known, surroundings(request, self.site)))

    def reap(self) -> None:
        """Forget the programs that have ended."""
        self._started = [process for process in self._started if process.poll() is None]

    def let_go(self) -> None:
        """Leave the programs that run to themselves."""
        self.reap()
        for process in self._started:
            process.returncode = 0  # else Python warns of a child nobody waits for
        self._started = []

    def _make(self, command_id: str, request: OpenRequest) -> tuple[str, ...]:
        project = Path(request.project)
        known, doubts = self.look(request)
        if stops := checks.errors(doubts):
            raise Misuse("not opened: " + "; ".join(stops))
        told = [doubt.text for doubt in doubts]
        if request.pipeline == "native" and native.is_session(project):
            native.fill(project, request, known, self.site)
            folder.note(project, command_id, request, tuple(told), is_new=False)
            return tuple(told)
        with folder.built(project) as temporary:
            told += self._fill(temporary, request, known)
            warnings = tuple(dict.fromkeys(told))
            folder.note(temporary, command_id, request, warnings)
        return warnings

    def _fill(self, temporary: Path, request: OpenRequest, known: Known) -> tuple[str, ...]:
        if request.pipeline == "native":
            return native.fill(temporary, request, known, self.site)
        if request.pipeline == "relion":
            return relion.fill(temporary, request, known)
        name = Path(request.project).name
        copied = folder.copy_all(known.files, temporary)
        content = scipion.workflow(request, known, copied)
        atomic_write(temporary / f"{name}.json", scipion.dumps(content))
        atomic_write(temporary / params.file_name(known), params.text(request, known))
        return ()

    # ---- starting

    def _start(self, project: Path, request: OpenRequest) -> list[str]:
        """Start what processes the session; return one phrase for each program."""
        if request.pipeline == "scipion":
            return self._scipion(project)
        if request.pipeline == "native":
            native_output = project / ".coldstream"
            return self._run(project, {"coldstream": (native_command(project), native_output)})
        found = relion.commands(project, request, schemer_of(self.site.programs))
        schemes = project / "Schemes"
        return self._run(project, {name: (line, schemes / name) for name, line in found.items()})

    def _run(self, project: Path, commands: dict[str, tuple[list[str], Path]]) -> list[str]:
        """Start programs, all or none; each with the folder of its output."""
        begun: list[Started] = []
        try:
            for name, (command, output) in commands.items():
                begun.append(start(name, command, project, output))
            deadline = time.monotonic() + AT_ONCE_S
            for one in begun:
                one.check(deadline)
        except BaseException:
            for one in begun:
                one.end()
            raise
        self._started += [one.process for one in begun if one.process is not None]
        return [one.text for one in begun]

    def _scipion(self, project: Path) -> list[str]:
        program = self.site.programs.scipion
        create = scipion.create_command(program, project)
        schedule = scipion.schedule_command(program, project)
        if shutil.which(program) is None:
            lines = "".join(f"{shlex.join(command)}\n" for command in (create, schedule))
            atomic_write(project / HOW_TO, lines)
            return [f"{program} is not installed here; how to start where it is: {HOW_TO}"]
        if not (project / "project.sqlite").exists():
            _wait(create, project)
        return self._run(project, {"Scipion": (schedule, project)})


def surroundings(request: OpenRequest, site: Site) -> Surroundings:
    """Return what this host says to a request."""
    project = Path(request.project)
    problem = ""
    if request.pipeline != "native" or not native.is_session(project):
        problem = folder.why_not(project)
    if not problem and request.pipeline == "native":
        try:
            refuse_network_file_system(project)
        except Misuse as error:
            problem = str(error)
    folders = (request.raw, request.movies, request.schemes)
    files = (request.gain, request.defects, request.mtf, request.picker_model)
    absent = [one for one in folders if one is not None and not os.path.isdir(one)]
    absent += [one for one in files if one is not None and not os.path.isfile(one)]
    return Surroundings(missing(request, site.programs), frozenset(absent), problem)


def _wait(command: list[str], project: Path) -> None:
    """Run a program to its end, its output in the project's `run.out` and `run.err`."""
    with open(project / "run.out", "ab") as out, open(project / "run.err", "ab") as err:
        try:
            code = subprocess.run(
                command,
                cwd=project.parent,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                timeout=CREATE_S,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            raise Misuse(f"{command[0]} did not make the project within {CREATE_S:.0f} s") from None
    if code != 0:
        last = (project / "run.err").read_text(errors="replace").strip().splitlines()[-1:]
        raise Misuse(
            f"{shlex.join(command)} ended with exit code {code}: {' '.join(last) or 'no words'}"
        )
