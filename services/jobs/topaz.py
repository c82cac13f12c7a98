"""Picking with Topaz as a job: new micrographs go through it many at a time.

Its start takes seconds, so what each call finds is kept in the job folder, and the micrographs'
coordinates are made of that one by one, as every job does. Source: preprocessing.md section 4.2.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from msgspec import structs

from algorithms.formats.atomic import atomic_write
from services.jobs.job import HIDDEN, Aborted, Job
from services.jobs.planning import Item
from services.jobs.progress import Progress
from services.kit.errors import Refused
from services.proc.plan import Image
from services.proc.topaz import pick_many, write_found
from services.proc.topazask import TopazRequest, program_of, topaz_request

# Micrographs of one call: its start is short beside that, and little is lost when it is killed.
TOGETHER = 16


def topaz_items(job: Job, images: Sequence[Image]) -> list[Item]:
    """Return the items of a Topaz job; Topaz is called for those that it has not seen.

    Raises
    ------
    Misuse
        Topaz is not installed, or an option cannot be used.
    Aborted
        The job was told to stop.
    """
    asks = [topaz_request(image, job.options, job.process, job.project) for image in images]
    if asks:
        _note_model(job, asks[0])
    found = {ask.micrograph: _kept(job, ask) for ask in asks}
    todo = [
        ask
        for ask in asks
        if not (job.project / found[ask.micrograph]).exists()
        and (job.project / ask.micrograph).exists()
    ]
    _call(job, todo, found)
    asks = [structs.replace(ask, found=found[ask.micrograph]) for ask in asks]
    return [
        Item(
            ask.micrograph,
            (ask.micrograph,),
            "services.proc.topaz:autopick",
            ask,
            facts=(ask.pixel_size_A, ask.model_sha256),
        )
        for ask in asks
    ]


def _note_model(job: Job, ask: TopazRequest) -> None:
    """Keep which model and program made the picks."""
    note = {
        "program": program_of(ask.program),
        "model": ask.model or "Topaz's general model",
        "sha256": ask.model_sha256 or None,
        "diameter_A": ask.diameter_A,
    }
    atomic_write(job.folder / "topaz_model.json", json.dumps(note, indent=1) + "\n")


def _kept(job: Job, ask: TopazRequest) -> str:
    """Return where the findings in a micrograph are kept: another model, another place."""
    path = job.project / ask.micrograph
    status = path.stat() if path.exists() else None
    facts = structs.asdict(ask)
    facts["file"] = (status.st_size, status.st_mtime_ns) if status else None
    digest = hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:32]
    return f"{job.process}{HIDDEN}/topaz/{digest}.txt"


def _call(job: Job, todo: Sequence[TopazRequest], found: dict[str, str]) -> None:
    """Call Topaz for micrographs; where a call fails, each of its micrographs goes alone."""
    folder = job.folder / HIDDEN / "topaz"
    folder.mkdir(parents=True, exist_ok=True)
    by_pixel: dict[float, list[TopazRequest]] = {}
    for ask in todo:
        by_pixel.setdefault(ask.pixel_size_A, []).append(ask)
    bar = Progress(len(todo), "micrographs")
    for asks in by_pixel.values():
        for start in range(0, len(asks), TOGETHER):
            if job.stop.asked():
                raise Aborted(f"{job.process} was told to stop, and has; what is done is kept")
            part = asks[start : start + TOGETHER]
            if not _one_call(job, part, found, folder) and len(part) > 1:
                for ask in part:
                    _one_call(job, [ask], found, folder)
            for _ in part:
                bar.step()
    bar.end()


def _one_call(job: Job, asks: Sequence[TopazRequest], found: dict[str, str], folder: Path) -> bool:
    try:
        results = pick_many(asks, job.project, folder)
    except Refused as refused:
        job.warn(str(refused))
        return False
    for ask, picks in zip(asks, results, strict=True):
        path = job.project / found[ask.micrograph]
        temporary = path.with_suffix(".tmp")
        write_found(temporary, [ask], [picks])
        temporary.replace(path)
    return True
