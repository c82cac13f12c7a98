"""A project folder that is there completely or not at all, and says what it was opened with.

It is filled beside its place under a hidden name and renamed. What a killed opening has left is
removed by the next one. Source: acquisition.md section 1.11; reliability.md section 1 (ALICE).
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from mdcatch.launch.files import Files
from mdcatch.launch.request import OpenRequest
from services.kit.errors import Misuse
from services.kit.faults import crash_point
from services.kit.paths import atomic_write, sync_folder

POINTS = ("before-project-rename", "after-project-rename")
_MARK = "opening"


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """What a project was opened with, in `.coldstream/opened.json`."""

    command_id: str
    at: float  # Unix time, s
    request: OpenRequest
    is_new: bool  # False: a project that was there was opened again
    warnings: tuple[str, ...] = ()


def record_path(project: Path) -> Path:
    """Return where a project says what it was opened with."""
    return project / ".coldstream" / "opened.json"


def opened(project: Path) -> Opened | None:
    """Return what a project was opened with; None if it was not, or not by a command."""
    try:
        return msgspec.json.decode(record_path(project).read_bytes(), type=Opened)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except msgspec.MsgspecError:
        return None  # another version's: not ours to go on with


def note(
    folder: Path,
    command_id: str,
    request: OpenRequest,
    warnings: tuple[str, ...],
    *,
    is_new: bool = True,
) -> None:
    """Write down what a project is opened with."""
    record = Opened(
        command_id=command_id, at=time.time(), request=request, is_new=is_new, warnings=warnings
    )
    atomic_write(record_path(folder), msgspec.json.format(msgspec.json.encode(record)))


def take_back(project: Path, command_id: str) -> bool:
    """Remove a project that a command has made and that holds no work yet; return whether."""
    found = opened(project)
    if found is None or found.command_id != command_id or not found.is_new or _has_work(project):
        return False
    shutil.rmtree(project, ignore_errors=True)
    return True


def _has_work(project: Path) -> bool:
    """Tell whether something was processed: journals, RELION's jobs, Scipion's runs."""
    signs = (".coldstream/journal/*", "*/job[0-9]*", "Runs/*")
    return any(next(project.glob(sign), None) is not None for sign in signs)


def why_not(project: Path) -> str:
    """Return why a project folder cannot be made, "" if it can."""
    parent = project.parent
    if not parent.is_dir():
        return f"{parent} is not a folder: make it first, or choose another place"
    if not os.access(parent, os.W_OK | os.X_OK):
        return f"{parent} cannot be written to: choose another place"
    if project.is_symlink() or (project.exists() and not project.is_dir()):
        return f"{project} is there and is no folder: choose another name"
    try:
        if project.is_dir() and any(project.iterdir()):
            return f"{project} is there and is not empty: choose another name"
    except OSError as error:
        return f"{project} cannot be read: {error.strerror}"
    return ""


@contextmanager
def built(project: Path) -> Iterator[Path]:
    """Give a folder to fill, which then becomes the project; on an error it is removed.

    Parameters
    ----------
    project
        Is not there, or is empty.

    Raises
    ------
    Misuse
        The project cannot be made; nothing is left.
    """
    if problem := why_not(project):
        raise Misuse(problem)
    _sweep(project)
    temporary = project.with_name(f".{project.name}.{_MARK}-{os.getpid()}-{time.time_ns():x}")
    try:
        temporary.mkdir()
        with _held(temporary):
            yield temporary
            _sync(temporary)
            crash_point("before-project-rename")
            os.rename(temporary, project)
        sync_folder(project.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        where = error.filename or project
        raise Misuse(f"{where}: {error.strerror}; no project was made") from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    crash_point("after-project-rename")


def copy_all(files: Files, folder: Path) -> dict[str, str]:
    """Copy gain, defects and MTF into a project; return what each is called there."""
    found = {}
    for what, source in (("gain", files.gain), ("defects", files.defects), ("mtf", files.mtf)):
        if source is not None:
            target = folder / source.name
            if target.exists():  # two of them, or one and a file of the project, have one name
                target = folder / f"{what}_{source.name}"
            shutil.copyfile(source, target)
            found[what] = target.name
    return found


def _sync(folder: Path) -> None:
    """Make everything in a new folder survive a power cut."""
    for path, _, files in os.walk(folder):
        for name in files:
            file = os.path.join(path, name)
            if not os.path.islink(file):
                descriptor = os.open(file, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        sync_folder(path)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, which says that its maker lives; it is renamed with the folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _sweep(project: Path) -> None:
    """Remove what killed openings of this project have left."""
    for left in project.parent.glob(f".{_escaped(project.name)}.{_MARK}-*"):
        with suppress(OSError), _held(left):
            shutil.rmtree(left, ignore_errors=True)


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
