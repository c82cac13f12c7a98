"""RELION's external job for crYOLO: `python -m mdcatch.launch.cryolo_job --in_mics M --o JOB/`.

Micrographs that have coordinates are skipped, so the job can be continued and killed at any
moment. crYOLO sees links with names of our own, because two grid squares may hold micrographs of
one name. It leaves `autopick.star`, as RELION's own picker does. Source: schemes.md 7 and 16.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from algorithms.formats import star
from algorithms.formats.atomic import atomic_write
from algorithms.picking.cbox import read_cbox
from schemer.errors import ProjectError
from schemer.jobfolder import ABORT_NOW, write_exit
from schemer.jobs.labels import STAR_VERSION, Generation, node_label
from schemer.project import Project

COORDINATES = "MicrographCoordsGroup.star.relion.autopick"
FILAMENTS = "MicrographCoordsGroup.star.relion.helixstartend"
# crYOLO's own way with its general model: low-pass filtered micrographs of 1024 px.
CONFIGURATION = {"architecture": "PhosaurusNet", "input_size": 1024, "max_box_per_image": 700}
LOW_PASS = 0.1
_NO_PICKS = {"rlnCoordinateX": [], "rlnCoordinateY": []}


class Failed(Exception):
    """The job cannot be done; the message says why."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job in the project folder; return the exit code."""
    arguments = _parser().parse_args(argv)
    folder = Path(arguments.o)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        generation = _generation()
        aborted = _pick(arguments, folder)
        _declare(arguments, folder, generation)
    except (Failed, OSError, star.StarError) as error:
        print(f"crYOLO job: {error}", file=sys.stderr)
        write_exit(folder, "Failed")
        return 1
    write_exit(folder, "Aborted" if aborted else "Succeeded")
    return 2 if aborted else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cryolo_job", allow_abbrev=False)
    parser.add_argument("--in_mics", required=True, help="micrographs STAR file")
    parser.add_argument("--o", required=True, help="job folder")
    parser.add_argument("--model", required=True, help="crYOLO model (.h5)")
    parser.add_argument("--gpu", default="0", help="GPUs, with commas")
    parser.add_argument("--box_size", type=int, default=0, help="px; 0: crYOLO estimates it")
    parser.add_argument("--threshold", type=float, default=0.3, help="least confidence")
    parser.add_argument("--filament_width", type=int, default=0, help="px; 0: no filaments")
    parser.add_argument("--box_distance", type=int, default=1, help="px between a filament's boxes")
    parser.add_argument("--minimum_number_boxes", type=int, default=1, help="of a filament")
    parser.add_argument("--j", type=int, default=1, help="processor cores")
    parser.add_argument("--program", default="cryolo_predict.py", help="crYOLO itself")
    parser.add_argument("--pipeline_control", help="not used here")
    return parser


def _pick(arguments: argparse.Namespace, folder: Path) -> bool:
    """Pick in the new micrographs and list all of them; return whether that was aborted."""
    table = star.load(arguments.in_mics).get("micrographs", star.Table())
    micrographs = table.strings("rlnMicrographName") if len(table) else []
    todo = {name: at for at, name in enumerate(micrographs) if not _target(folder, name).exists()}
    aborted = (folder / ABORT_NOW).exists()
    if todo and not aborted:
        _run(arguments, folder, todo)
    done = [name for name in micrographs if _target(folder, name).exists()]
    rows = {
        "rlnMicrographName": done,
        "rlnMicrographCoordinates": [str(_target(folder, name)) for name in done],
    }
    star.save(folder / "autopick.star", {"coordinate_files": star.Table.of(rows)})
    print(f"{len(todo)} new micrographs, {len(done)} of {len(micrographs)} have coordinates")
    return aborted


def _target(folder: Path, micrograph: str) -> Path:
    """Return the coordinates of a micrograph: below the job, as RELION's picker names them."""
    parts = Path(micrograph).parts
    inner = parts[2:] if len(parts) > 2 and parts[1].startswith("job") else parts
    return folder / Path(*inner).with_name(f"{Path(micrograph).stem}_autopick.star")


def _run(arguments: argparse.Namespace, folder: Path, todo: dict[str, int]) -> None:
    work = folder / ".cryolo"
    shutil.rmtree(work, ignore_errors=True)
    (work / "input").mkdir(parents=True)
    for name, at in todo.items():
        if not Path(name).is_file():
            raise Failed(f"{name} is not there")
        (work / "input" / f"m{at:06d}{Path(name).suffix}").symlink_to(Path(name).resolve())
    atomic_write(work / "config.json", json.dumps(_configuration(arguments, work), indent=1))
    _note_model(arguments, folder)
    command = _command(arguments, work)
    print("running", " ".join(command), flush=True)
    try:
        code = subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode
    except OSError as error:
        raise Failed(
            f"{arguments.program} cannot be run: {error.strerror}; put crYOLO on the PATH"
        ) from None
    if code != 0:
        raise Failed(f"{arguments.program} ended with exit code {code}")
    found = work / "output" / ("STAR_START_END" if arguments.filament_width else "STAR")
    for name, at in todo.items():
        boxes = work / "output" / "CBOX" / f"m{at:06d}.cbox"
        if boxes.exists() and not arguments.filament_width:
            # Unlike crYOLO's STAR files these have the confidence, as figure of merit.
            table = read_cbox(boxes, arguments.threshold)
            star.save(_target(folder, name), {"": table})
        else:
            _keep(found / f"m{at:06d}.star", _target(folder, name))
    shutil.rmtree(work)


def _note_model(arguments: argparse.Namespace, folder: Path) -> None:
    """Keep which model made the picks."""
    model = Path(arguments.model)
    digest = None
    if model.is_file():
        with open(model, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    note = {"program": arguments.program, "model": arguments.model, "sha256": digest}
    atomic_write(folder / "cryolo_model.json", json.dumps(note, indent=1) + "\n")


def _configuration(arguments: argparse.Namespace, work: Path) -> dict[str, object]:
    model: dict[str, object] = {**CONFIGURATION, "filter": [LOW_PASS, f"{work}/filtered/"]}
    if arguments.box_size:
        model["anchors"] = [arguments.box_size, arguments.box_size]
    return {"model": model}


def _command(arguments: argparse.Namespace, work: Path) -> list[str]:
    command = [arguments.program, "--conf", f"{work}/config.json", "--weights", arguments.model]
    command += ["--input", f"{work}/input/", "--output", f"{work}/output"]
    command += ["--threshold", f"{arguments.threshold:g}", "--gpu", *arguments.gpu.split(",")]
    command += ["--num_cpu", str(arguments.j if arguments.j > 1 else -1)]
    if arguments.filament_width:
        command += ["--filament", "--filament_width", str(arguments.filament_width)]
        command += ["--box_distance", str(arguments.box_distance)]
        command += ["--minimum_number_boxes", str(arguments.minimum_number_boxes)]
    elif arguments.box_size:
        command += ["--distance", str(arguments.box_size // 2)]
    return command


def _keep(found: Path, target: Path) -> None:
    """Put crYOLO's file in its place; one without picks is empty, and is not asked for again."""
    if found.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(found, target)
    else:
        star.save(target, {"": star.Table.of(_NO_PICKS)})


def _declare(arguments: argparse.Namespace, folder: Path, generation: Generation) -> None:
    """Tell RELION of the job's output."""
    label = node_label(FILAMENTS if arguments.filament_width else COORDINATES, generation)
    rows = {
        "rlnPipeLineNodeName": [str(folder / "autopick.star")],
        "rlnPipeLineNodeTypeLabel": [label],
    }
    nodes = star.dumps({"output_nodes": star.Table.of(rows)}, STAR_VERSION[generation])
    atomic_write(folder / "RELION_OUTPUT_NODES.star", nodes)


def _generation() -> Generation:
    try:
        return Project(Path()).generation
    except ProjectError as error:
        raise Failed(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
