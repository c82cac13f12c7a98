"""Importing: raw movies and micrographs by a pattern, other files by copying.

Source: schemes.md section 10, preprocessing.md section 7.2, and RELION 3.1.3's own behaviour.
"""

import glob
import os
import re
import shutil
from pathlib import Path, PurePosixPath

from algorithms.formats import star
from services.jobs.job import Failed, Job
from services.jobs.tables import GROUP, ORIGINAL_PIXEL, PIXEL, Images, save
from services.kit.errors import Misuse

GROUP_NAME, MTF = "rlnOpticsGroupName", "rlnMtfFileName"
HALF = re.compile(r"half([12])")


def import_movies(job: Job) -> None:
    """Import movies or micrographs: a row for each file that the pattern finds.

    A continued job keeps the rows that it has, and appends files that are new, with the optics
    group of this name, or a new one.
    """
    job.extra_arguments({})
    options = job.options
    if options.switch("is_multiframe", True):
        name, block, label = "movies.star", "movies", "rlnMicrographMovieName"
    else:
        name, block, label = "micrographs.star", "micrographs", "rlnMicrographName"
    files = _files(job, options.text("fn_in_raw"))
    group = _group(job, is_movie=block == "movies")
    groups: list[dict[str, str]] = []
    old: list[tuple[str, str]] = []
    if job.is_continue and (job.folder / name).exists():
        before = Images(job.project, f"{job.process}{name}", block)
        groups = [before.optics.row(i) for i in range(len(before.optics))]
        old = list(zip(before.texts(label), before.texts(GROUP), strict=True))
    number = next((g[GROUP] for g in groups if g[GROUP_NAME] == group[GROUP_NAME]), None)
    if number is None:
        number = str(1 + max((int(g[GROUP]) for g in groups), default=0))
        groups.append({GROUP_NAME: group[GROUP_NAME], GROUP: number, **group})
    known = {path for path, _ in old}
    rows = old + [(path, number) for path in files if path not in known]
    # A column that only some groups have says "none" in the others.
    labels = dict.fromkeys(label for one in groups for label in one)
    none = {label: "" if label == MTF else star.format_float(0.0) for label in labels}
    optics = star.Table({k: [one.get(k, none[k]) for one in groups] for k in labels})
    columns = {label: [path for path, _ in rows], GROUP: [number for _, number in rows]}
    save(job, name, optics, block, star.Table(columns))
    job.say(f"{len(rows)} {block} in {job.process}{name}, {len(rows) - len(old)} of them new")


def _files(job: Job, pattern: str) -> list[str]:
    """Return the files of a pattern, sorted; names that no STAR file can hold are told."""
    if pattern.startswith(("/", "~")) or ".." in PurePosixPath(pattern).parts:
        raise Misuse(
            f"option fn_in_raw of {job.options.job} is {pattern!r}: it must lie in the project "
            "folder; make a link there to the folder with the files, and name that"
        )
    usable, others = [], []
    for path in sorted(glob.glob(pattern, root_dir=job.project)):
        (others if re.search(r"[\s\"'#]", path) else usable).append(path)
    for path in others:
        job.warn(f"not imported: {path!r} has a blank, quote or # in its name: rename it")
    if others and not usable:
        raise Failed(f"none of the {len(others)} files of {pattern} can be imported")
    return usable


def _group(job: Job, *, is_movie: bool) -> dict[str, str]:
    """Return the optics group that the options describe."""
    options = job.options
    name = options.text("optics_group_name", "opticsGroup1")
    if not re.fullmatch(r"[A-Za-z0-9-]+", name):
        raise Misuse(
            f"option optics_group_name of {options.job} is {name!r}: it may have letters, digits "
            "and hyphens"
        )
    pixel = star.format_float(options.number("angpix", 1.4, 0.05, 100.0))
    tilt = [options.number(f"beamtilt_{axis}", 0.0, -1e3, 1e3) for axis in "xy"]
    mtf = options.text("fn_mtf")
    if mtf and not (job.project / mtf).exists():
        raise Misuse(f"{mtf}, option fn_mtf of {options.job}, does not exist")
    return {
        GROUP_NAME: name,
        **({MTF: mtf} if mtf else {}),
        **({} if is_movie else {PIXEL: pixel}),
        ORIGINAL_PIXEL: pixel,
        "rlnVoltage": star.format_float(options.number("kV", 300.0, 10.0, 1500.0)),
        "rlnSphericalAberration": star.format_float(options.number("Cs", 2.7, 0.0, 20.0)),
        "rlnAmplitudeContrast": star.format_float(options.number("Q0", 0.1, 0.0, 1.0)),
        **(
            {f"rlnBeamTilt{a}": star.format_float(t) for a, t in zip("XY", tilt, strict=True)}
            if any(tilt)
            else {}
        ),
    }


def import_other(job: Job) -> None:
    """Import anything else: a copy of the file under its own name."""
    job.extra_arguments({})
    kind = job.options.text("node_type")
    pattern = job.options.text("fn_in_other")
    if kind.startswith("Particle coordinates"):
        _coordinates(job, pattern)
        return
    name = job.need("fn_in_other")
    rename = job.options.text("optics_group_particles")
    if kind.startswith("Unfiltered half-map"):
        _copy(job, _other_half(job, name))
    elif kind.startswith("Particles") and rename:
        _renamed(job, name, rename)
        return
    _copy(job, name)


def _coordinates(job: Job, pattern: str) -> None:
    """Copy coordinate files, their folders kept, with RELION's suffix file beside them."""
    if "*" not in pattern:
        raise Misuse(
            f"option fn_in_other of {job.options.job} is {pattern!r}: coordinates need a * in "
            "place of the micrograph's name, such as Micrographs/*_pick.star"
        )
    found = sorted(glob.glob(pattern, root_dir=job.project))
    if not found:
        raise Failed(f"no file is found by {pattern}, option fn_in_other of {job.options.job}")
    for path in found:
        _copy(job, path, keep_folder=True)
    before, _, suffix = pattern.rpartition("*")
    (job.folder / f"coords_suffix{suffix}").write_text(f"{before}*.mrc\n")


def _copy(job: Job, name: str, *, keep_folder: bool = False) -> None:
    target = job.folder / (name if keep_folder else Path(name).name)
    if keep_folder and (os.path.isabs(name) or ".." in PurePosixPath(name).parts):
        raise Misuse(f"{name} must lie in the project folder; make a link to its folder there")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.tmp")
    shutil.copyfile(job.project / name, part)
    os.replace(part, target)
    job.say(f"{name} is imported as {target.relative_to(job.project)}")


def _other_half(job: Job, name: str) -> str:
    """Return the name of the other half-map."""
    path = PurePosixPath(name)
    found = HALF.search(path.name)
    other = "" if found is None else HALF.sub(f"half{3 - int(found[1])}", path.name, count=1)
    if not other or not (job.project / path.with_name(other)).exists():
        raise Misuse(
            f"{name}, option fn_in_other of {job.options.job}: the other half-map is not beside "
            "it; the two are told by half1 and half2 in their names"
        )
    return str(path.with_name(other))


def _renamed(job: Job, name: str, group: str) -> None:
    """Import particles with another name of their optics group."""
    images = Images(job.project, name, "particles")
    if len(images.optics) != 1:
        raise Misuse(
            f"option optics_group_particles of {job.options.job} is {group!r}, and {name} has "
            f"{len(images.optics)} optics groups: one can be renamed, several cannot"
        )
    images.optics.columns[GROUP_NAME] = [group]
    save(job, Path(name).name, images.optics, images.block, images.rows)
    job.say(f"{name} is imported with the optics group {group}")
