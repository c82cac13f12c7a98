"""One task on a worker: compute in a private folder, publish in one motion, leave a manifest.

Results are found by content: a task whose manifest exists and whose files are all there is not
computed again, its result is adopted. The manifest is written last, so there is never a manifest
without its files. Source: reliability.md section 2.5, architecture.md section 5.
"""

import errno
import hashlib
import importlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from services.kit.errors import Code, Refused
from services.kit.faults import crash_point, name_process
from services.kit.paths import Layout, atomic_write, sync_folder

# Changes when an algorithm changes its results: part of every content key.
CODE_VERSION = "3"
SURROUNDINGS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Task(msgspec.Struct, frozen=True):
    """A piece of work, described completely: same description, same result."""

    id: str  # stage:movie, unique among what a service wants at one time
    stage: str
    movie: str
    key: str
    call: str  # "package.module:function"
    request: bytes  # MessagePack, decoded by the function
    urgency: int = 0  # of tasks in line the one furthest down the graph goes first, then the oldest


class Output(msgspec.Struct, frozen=True):
    """What a task function returns."""

    result: bytes  # MessagePack of a Struct the service knows
    files: dict[str, str]  # name in the private folder -> path below the project


class Manifest(msgspec.Struct, frozen=True):
    """The record that makes a finished task adoptable."""

    key: str
    stage: str
    movie: str
    result: bytes
    files: dict[str, int]  # path below the project -> size in bytes
    took_s: float


class Reply(msgspec.Struct, frozen=True):
    """What a worker answers: a result, or a refusal that is nobody's fault but the data's."""

    result: bytes | None = None
    took_s: float = 0.0
    adopted: bool = False
    code: str = ""
    detail: str = ""


def content_key(stage: str, *parts: bytes | str) -> str:
    """Return the key of a piece of work: SHA-256 over stage, code version, inputs, parameters."""
    digest = hashlib.sha256()
    for part in (stage, CODE_VERSION, *parts):
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def manifest_path(layout: Layout, stage: str, key: str) -> Path:
    """Return where the manifest of a key is."""
    return layout.done / stage / key[:2] / f"{key}.msgpack"


def private_folder(layout: Layout, key: str, token: int) -> Path:
    """Return where an attempt works; it is there from the attempt's beginning to its end."""
    return layout.tmp / f"{key}.{token}"


def adopt(layout: Layout, stage: str, key: str) -> Manifest | None:
    """Return the manifest of a finished task whose files are all present, or None."""
    path = manifest_path(layout, stage, key)
    try:
        manifest = msgspec.msgpack.decode(path.read_bytes(), type=Manifest)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    for name, size in manifest.files.items():
        try:
            if (layout.project / name).stat().st_size != size:
                return None
        except OSError:
            return None
    return manifest


_once = threading.Lock()
_ready = False


def prepare_worker(threads: int = 1) -> None:
    """Set up this worker process: name, arithmetic threads; load what every task needs."""
    global _ready
    with _once:
        if _ready:
            return
        name_process("worker")
        import torch

        torch.set_num_threads(threads)
        for module in ("services.prep.tasks", "services.proc.tasks"):
            importlib.import_module(module)
        _ready = True


def execute(project: str, task_bytes: bytes, token: int) -> bytes:
    """Carry out one task; what Dask calls. Returns an encoded Reply.

    Parameters
    ----------
    project
        Root of the RELION project.
    task_bytes
        Encoded Task.
    token
        Fencing token of this attempt; names the private folder.
    """
    prepare_worker()
    task = msgspec.msgpack.decode(task_bytes, type=Task)
    layout = Layout(project)
    found = adopt(layout, task.stage, task.key)
    if found is not None:
        return msgspec.msgpack.encode(Reply(found.result, found.took_s, adopted=True))
    crash_point("work-before-compute")
    folder = private_folder(layout, task.key, token)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    start = time.perf_counter()
    try:
        output = _function(task.call)(task.request, folder, layout.project)
        took_s = time.perf_counter() - start
        crash_point("work-after-compute-before-rename")
        _publish(layout, task, folder, output, took_s)
        crash_point("work-after-manifest-before-result")
        reply = Reply(output.result, took_s)
    except Refused as refused:
        reply = Reply(code=refused.code, detail=refused.detail)
    except OSError as error:
        # The task touches only its own movie and its own folder: a file could not be read, unless
        # it is the machine that has no room or no handles left.
        if error.errno in (None, *SURROUNDINGS) or isinstance(error, ConnectionError):
            raise
        reply = Reply(code=Code.READ_ERROR, detail=f"{task.movie}: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return msgspec.msgpack.encode(reply)


def _function(call: str) -> Callable[[bytes, Path, Path], Output]:
    module, _, name = call.partition(":")
    return getattr(importlib.import_module(module), name)


def _publish(layout: Layout, task: Task, folder: Path, output: Output, took_s: float) -> None:
    sizes: dict[str, int] = {}
    targets: set[Path] = set()
    for name, path in output.files.items():
        source, target = folder / name, layout.project / path
        descriptor = os.open(source, os.O_RDONLY)
        try:
            sizes[path] = os.fstat(descriptor).st_size
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        target.parent.mkdir(parents=True, exist_ok=True)
        targets.add(target.parent)
        os.replace(source, target)
    for parent in targets:
        sync_folder(parent)
    crash_point("work-after-rename-before-manifest")
    manifest = Manifest(task.key, task.stage, task.movie, output.result, sizes, took_s)
    atomic_write(manifest_path(layout, task.stage, task.key), msgspec.msgpack.encode(manifest))


def sweep(layout: Layout) -> int:
    """Remove private folders that a killed worker left behind; return how many."""
    left = [entry for entry in layout.tmp.iterdir() if entry.is_dir()]
    for entry in left:
        shutil.rmtree(entry, ignore_errors=True)
    return len(left)
