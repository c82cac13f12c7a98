"""`coldstream doctor`: what would stop a session, or spoil it, and what to do about each.

Nothing is changed: folders are listed, files read, limits asked for. Every check is told in one
line; an error is something to be put right before the next session, a warning can wait.
Source: architecture.md section 9; users.md W40.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from services.doctor import files, machine, projects, roots
from services.doctor.finding import LEVELS, Finding, Look
from services.kit import site as sites
from services.kit.errors import Misuse
from services.kit.sitetables import Site

__all__ = ["Finding", "doctor", "run"]

# The wall clock may be corrected by so much while we look.
_STEP_S = 0.5

_CHECKS: tuple[Callable[[Look], Iterator[Finding]], ...] = (
    projects.places,
    roots.roots,
    roots.nesting,
    projects.project,
    files.gains,
    files.mtfs,
    files.models,
    files.keys,
    machine.space,
    machine.limits,
    machine.inotify,
    machine.programs,
    machine.gpus,
    machine.cluster,
    machine.clock,
)


def run(
    config: Path | None = None, project: Path | None = None, proc: Path = Path("/proc")
) -> list[Finding]:
    """Return what was found, sound or not.

    Parameters
    ----------
    config
        The site's file; None finds it as the services do.
    project
        Also look at this project, and at the session in it.
    proc
        What the kernel tells.
    """
    before = time.time() - time.monotonic()
    path, site, found = _configuration(config)
    look = Look(site=site, config=path, project=project, proc=proc)
    for check in _CHECKS:
        found += check(look)
    moved = time.time() - time.monotonic() - before
    found.append(
        Finding.of(
            "error" if abs(moved) > _STEP_S else "ok",
            "clock",
            "steps",
            f"was set by {moved:+.1f} s while we looked" if abs(moved) > _STEP_S else "none seen",
            "let ntpd or chronyd slew it",
        )
    )
    return found


def _configuration(config: Path | None) -> tuple[Path | None, Site, list[Finding]]:
    """Return the site, the built-in one where it cannot be used, and what is wrong with it."""
    try:
        path = sites.locate(config)
        site = sites.load(path)
    except sites.SiteError as error:
        found = [
            Finding.of("error", "config", str(error.path), str(m).rpartition("; ")[0], m.remedy)
            for m in error.misfits
        ]
        return error.path, Site(), found
    except Misuse as error:
        problem, _, remedy = str(error).rpartition(": ")
        return None, Site(), [Finding.of("error", "config", "file", problem, remedy)]
    if path is None:
        nothing = f"there is no {sites.PLACE}: everything is built-in"
        return None, site, [Finding.of("ok", "config", "file", nothing)]
    if path.stat().st_mode & 0o022:
        problem, remedy = "can be changed by others than its owner", f"chmod go-w {path}"
        return path, site, [Finding.of("warning", "config", str(path), problem, remedy)]
    return path, site, [Finding.of("ok", "config", str(path), "is read")]


def doctor(
    config: Annotated[
        Path | None, typer.Option("--config", help="The site's file, instead of the usual one.")
    ] = None,
    project: Annotated[
        Path | None, typer.Option("--project", "-p", help="Look at this project too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")] = False,
) -> int:
    """Look for what would stop a session: paths, shares, clock, keys, disk, GPU, programs.

    Exit codes: 0 no errors (there may be warnings), 1 something has to be put right.
    """
    found = run(config, project)
    errors, warnings = (sum(f.level == level for f in found) for level in ("error", "warning"))
    if as_json:
        answer = {"findings": found, "errors": errors, "warnings": warnings}
        typer.echo(msgspec.json.format(msgspec.json.encode(answer)).decode())
    else:
        for one in sorted(found, key=lambda f: LEVELS.index(f.level)):
            typer.echo(one.line)
        typer.echo(f"{len(found)} checks as {_user()}: {errors} errors, {warnings} warnings")
    return 1 if errors else 0


def _user() -> str:
    """Name who looks: what the account of the services may do is what counts."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"
