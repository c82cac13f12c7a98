"""What is due in a job: items that have a result, items refused before, and items to do.

An item is known by its content key: the digest of its input files, of what tables say about it, of
the options and of the code. What has a manifest under its key is not done again, whether the job is
continued or was killed. A continued job keeps what other options made, as RELION does; with other
input an item is done again. The job folder keeps a list of what was decided, so that a refused item
is not tried at each call, and one whose raw file has been moved away since keeps its result.
Source: decisions/0004, schemes.md section 6.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from algorithms.formats.atomic import atomic_write
from services.jobs.job import HIDDEN, Job
from services.kit.errors import Code
from services.kit.work import Manifest, Task, adopt, content_key

LIST = f"{HIDDEN}/items.msgpack"
# The surroundings may have been at fault: tried again at the next call, after the others.
TRY_AGAIN = (Code.READ_ERROR, Code.POISON)


class Item(NamedTuple):
    """One thing to do.

    `name` is that of the table, `inputs` are its files; `facts` is all else that its result
    follows from and that is no option. `fits` tells whether a result that other options made can
    stand in a table beside new ones.
    """

    name: str
    inputs: tuple[str, ...]
    call: str
    request: msgspec.Struct
    facts: tuple[object, ...] = ()
    fits: Callable[[Manifest], bool] = lambda manifest: True


class Entry(msgspec.Struct, frozen=True):
    """What was decided about an item: done under a key, or refused under one."""

    key: str
    source: str
    code: str = ""
    detail: str = ""


class Plan(msgspec.Struct):
    """The items of a call: with their results, how many of these other options made, and to do."""

    done: dict[str, bytes] = {}
    entries: dict[str, Entry] = {}
    todo: list[tuple[Item, Task, str]] = []
    kept: int = 0


def make_plan(job: Job, items: Sequence[Item]) -> Plan:
    """Return what is due; items that were tried before come after those that were not."""
    known = read_list(job.folder)
    plan, again = Plan(), []
    for item in items:
        before = known.get(item.name)
        source = _source(job.project, item, before)
        task = _task(job, item, source)
        found = adopt(job.layout, task.stage, task.key)
        entry = Entry(task.key, source)
        if found is None and before is not None and job.is_continue:
            found, entry = _made_otherwise(job, item, task, source, before), before
            plan.kept += found is not None
        if found is not None:
            plan.done[item.name], plan.entries[item.name] = found.result, entry
        elif missing := _missing(job.project, item):
            detail = f"{missing} does not exist"
            plan.entries[item.name] = Entry(task.key, "", Code.READ_ERROR, detail)
        elif before is None:
            plan.todo.append((item, task, source))
        else:
            plan.entries[item.name] = before
            if not before.code or before.key != task.key or before.code in TRY_AGAIN:
                again.append((item, task, source))
    plan.todo.extend(again)
    if plan.entries != known:
        write_list(job.folder, plan.entries)
    return plan


def read_list(folder: Path) -> dict[str, Entry]:
    """Return what was decided in earlier calls, by item; nothing when the list is not there."""
    try:
        return msgspec.msgpack.decode((folder / LIST).read_bytes(), type=dict[str, Entry])
    except (FileNotFoundError, msgspec.MsgspecError):
        return {}


def write_list(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Keep what was decided for the next call."""
    atomic_write(folder / LIST, msgspec.msgpack.encode(entries), durable=False)


def _source(project: Path, item: Item, before: Entry | None) -> str:
    """Return what tells the input of an item from other input.

    A raw file that was moved away after its movie had been done is still its source.
    """
    facts = hashlib.sha256(repr(item.facts).encode()).hexdigest()[:32]
    try:
        found = [os.stat(project / name) for name in item.inputs]
    except OSError:
        return before.source if before and before.source.startswith(facts) else facts
    files = (f"{status.st_size}:{status.st_mtime_ns}" for status in found)
    return ",".join((facts, *files))


def _missing(project: Path, item: Item) -> str:
    return next((name for name in item.inputs if not (project / name).exists()), "")


def _task(job: Job, item: Item, source: str) -> Task:
    stage = job.label.split(".")[1]
    request = msgspec.msgpack.encode(item.request)
    key = content_key(stage, request, source)
    return Task(f"{stage}:{item.name}", stage, item.name, key, item.call, request)


def _made_otherwise(
    job: Job, item: Item, task: Task, source: str, before: Entry
) -> Manifest | None:
    """Return the result that other options made of the same input, if there is one that fits."""
    if before.code or before.source != source:
        return None
    found = adopt(job.layout, task.stage, before.key)
    return found if found is not None and item.fits(found) else None
