"""The pipeline `relion`: a RELION project with Schemes that RELION, or `schemer`, runs.

Source: acquisition.md section 1.11; schemes.md sections 16 and 17.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from msgspec import structs

from algorithms.formats.atomic import atomic_write
from mdcatch.launch import cryolo_scheme, folder, options, parameters
from mdcatch.launch.known import Known
from mdcatch.launch.request import OpenRequest
from schemer import edit, optionfile, relionit, templates
from schemer.errors import ProjectError, SchemeError
from schemer.jobs import JobFile
from schemer.jobs.labels import STAR_VERSION
from schemer.project import Project
from schemer.settings import Definition
from services.kit.errors import Misuse

PREP, PROC = "prep", "proc"
MOVIES = "Movies"
CTFFIND = "RELION_CTFFIND_EXECUTABLE"
# A site's Schemes, as MDCatch names them, by picker; the first that is there is taken.
_PROC_NAMES = {
    "log": ("proc-log", "proc", "proc-topaz"),
    "topaz": ("proc-topaz", "proc"),
    "cryolo": ("proc-cryolo", "proc"),
}


class Schemes(NamedTuple):
    """The Schemes of a session by name; the second one picks."""

    prep: Definition
    proc: Definition

    @property
    def names(self) -> tuple[str, str]:
        """Return their names, prep first."""
        return self.prep.scheme.short_name, self.proc.scheme.short_name


def fill(project: Path, request: OpenRequest, known: Known) -> tuple[str, ...]:
    """Make a new project in a folder; return warnings.

    Raises
    ------
    Misuse
        An option or a Scheme does not fit; the folder is to be thrown away.
    """
    try:
        Project(project, generation=request.relion).init()
        (project / MOVIES).symlink_to(request.movie_root)
        copied = folder.copy_all(known.files, project)
        schemes = chosen(request, known)
        for definition in schemes:
            templates.write(project / "Schemes" / definition.scheme.short_name, definition)
        warnings = _set(project, request, known, schemes, copied)
    except (SchemeError, ProjectError) as error:
        raise Misuse(str(error)) from error
    atomic_write(project / parameters.file_name(known), parameters.text(request, known))
    atomic_write(project / ".gui_manualpickjob.star", _manual_picking(request, known))
    return warnings


def commands(project: Path, request: OpenRequest, relion_schemer: str) -> dict[str, list[str]]:
    """Return the command line of each Scheme of a project, by the Scheme's name."""
    found = {}
    for name in names(project):
        if request.runner == "relion_schemer":
            run = [relion_schemer, "--scheme", name, "--run"]
            found[name] = [*run, "--pipeline_control", f"Schemes/{name}/"]
        else:
            run = [sys.executable, "-m", "schemer", "run", "--project", str(project)]
            found[name] = [*run, "--scheme", name, "--executor", request.executor]
    return found


def names(project: Path) -> list[str]:
    """Return the Schemes of a project, prep first."""
    found = sorted(path.parent.name for path in project.glob("Schemes/*/scheme.star"))
    return sorted(found, key=lambda name: name != PREP)


def chosen(request: OpenRequest, known: Known) -> Schemes:
    """Return the Schemes to install, all variables at their reset values.

    Raises
    ------
    SchemeError, Misuse
        The site's folder has none that fits.
    """
    if request.schemes is None:
        prep, proc = templates.shipped(PREP), templates.shipped(PROC)
        if request.picker == "cryolo":
            given = cryolo_scheme.parameters(request, known.exposure)
            proc = cryolo_scheme.with_cryolo(proc, given)
    else:
        root = Path(request.schemes)
        there = [n for n in _PROC_NAMES[request.picker] if (root / n / "scheme.star").is_file()]
        if not there or not (root / PREP / "scheme.star").is_file():
            wanted = " or ".join(_PROC_NAMES[request.picker])
            raise Misuse(
                f"{root} has no Schemes prep and {wanted}: name another folder, or leave it out"
            )
        prep, proc = templates.read(root / PREP), templates.read(root / there[0])
        _check_picker(proc, request, root)
    return Schemes(*(Definition(edit.reset(one.scheme), one.jobs) for one in (prep, proc)))


def _check_picker(proc: Definition, request: OpenRequest, root: Path) -> None:
    """Refuse a site's Scheme whose picking job is of the other kind."""
    job = proc.jobs.get("autopick")
    is_external = job is not None and job.label.startswith(cryolo_scheme.LABEL)
    if job is None or is_external != (request.picker == "cryolo"):
        label = "no job autopick" if job is None else f"autopick as {job.label}"
        raise Misuse(
            f"{root / proc.scheme.short_name} has {label}, which does not pick with "
            f"{request.picker}: choose another picker, or another folder of Schemes"
        )


def _set(
    project: Path,
    request: OpenRequest,
    known: Known,
    schemes: Schemes,
    copied: Mapping[str, str],
) -> tuple[str, ...]:
    """Set all options of both Schemes, or none; write `relion_it_options.py`."""
    pattern = known.pattern(request.movie_root)
    if pattern is None:
        raise Misuse(f"no movie is in {request.movie_root} yet: wait for the first one")
    wanted = options.prep_options(request, known, copied, f"{MOVIES}/{pattern}")
    wanted |= options.proc_options(request, known)
    wanted |= options.ctffind_option(os.environ.get(CTFFIND) or shutil.which("ctffind"))
    wanted |= request.settings
    prep, proc = schemes.names
    renamed = {_renamed(key, prep, proc): value for key, value in wanted.items()}
    path = project / relionit.OPTIONS_FILE
    optionfile.write(path, renamed)
    plan = relionit.plan(project, [path], only_given=True)
    for name in plan.copied:  # the Schemes of relion_it that this session has others for
        del plan.definitions[name]
    if plan.unknown:
        key, hint = next(iter(plan.unknown.items()))
        raise Misuse(f"the Schemes have no option {key!r} ({len(plan.unknown)} such keys); {hint}")
    relionit.apply(project, plan)
    told = [*known.warnings, *plan.warnings]
    if "prep__ctffind__fn_ctffind_exe" not in wanted and request.executor != "native":
        told.append(f"CTFFIND was not found: set {CTFFIND}, or the option fn_ctffind_exe of prep")
    return tuple(dict.fromkeys(told))


def _renamed(key: str, prep: str, proc: str) -> str:
    scheme, mark, rest = key.partition("__")
    return {PREP: prep, PROC: proc}.get(scheme, scheme) + mark + rest


def _manual_picking(request: OpenRequest, known: Known) -> str:
    """Return the defaults of RELION's window for looking at picks."""
    pixel = known.exposure.processing_pixel_A
    values = {
        "angpix": options.text(pixel) or "-1",
        "diameter": options.text(request.particle_diameter_A) or "100",
        "do_startend": "Yes" if request.helical else "No",
    }
    job = JobFile("relion.manualpick", values)
    complete, _ = job.type.complete(values)
    return structs.replace(job, options=complete).dumps(STAR_VERSION[request.relion])
