"""Doing what operators ask for: files touched, copied, moved, deleted, and mail; without a shell.

A name is only a name, whatever signs it holds: wildcards and a leading `~` are expanded here, and
nothing else. Everything may be done again after a kill. Source: schemes.md section 3.
"""

import errno
import glob
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from algorithms.formats.atomic import sync_folder
from schemer.actions import CopyFile, DeleteFile, Effect, MoveFile, SendMail, TouchFile
from schemer.errors import SchemeError
from schemer.mail import send_mail

__all__ = ["perform", "send_mail"]


class _Refused(Exception):
    """A file cannot be copied, moved or deleted; the message says why."""


def perform(effect: Effect, root: Path, *, now: datetime | None = None) -> str:
    """Do what an operator asks for, and return one line that says what was done.

    Copies, moves and deletions that fail are only told in that line, as RELION goes on after them.

    Parameters
    ----------
    effect
        What to do.
    root
        The project folder, to which its paths are relative.
    now
        Date and time for a mail; None takes the clock's.

    Raises
    ------
    SchemeError
        A file cannot be touched, because its folder is missing or for another reason.
    """
    match effect:
        case TouchFile(path=path):
            return _touch(root, path)
        case CopyFile(source=source, target=target):
            return _transfer("copied", _copy, root, source, target)
        case MoveFile(source=source, target=target):
            return _transfer("moved", _move, root, source, target)
        case DeleteFile(pattern=pattern):
            return _delete(root, pattern)
        case SendMail():
            return send_mail(effect, now=now)


def _touch(root: Path, path: str) -> str:
    try:
        if not path:
            raise FileNotFoundError(errno.ENOENT, "an empty name")
        with open(root / path, "wb"):
            pass
    except (OSError, ValueError) as error:
        raise SchemeError(
            f"{path!r} in {root}: the file cannot be made: {_reason(error)}; touch_file needs a "
            "folder that is there"
        ) from None
    return f"touched {path!r}"


def _delete(root: Path, pattern: str) -> str:
    gone, problems = 0, []
    for path in _expand(root, pattern):
        try:
            (root / path).unlink()
            gone += 1
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            problems.append(f"{path!r}: {_reason(error)}")
    return _line(f"deleted {pattern!r}", gone, problems or ["nothing is there"] * (not gone))


def _transfer(
    word: str, one: Callable[[Path, Path], None], root: Path, source: str, target: str
) -> str:
    """Copy or move all that match `source`, as cp and mv do; return the line."""
    what = f"{word} {source!r} to {target!r}"
    if not source or not target:
        return _line(what, 0, ["a name is empty"])
    sources, targets = _expand(root, source), _expand(root, target)
    goal = targets[0] if len(targets) == 1 else target
    done, problems = 0, []
    try:
        if "/" in goal:
            (root / goal.rpartition("/")[0]).mkdir(parents=True, exist_ok=True)
        into = (root / goal).is_dir()
        if len(sources) > 1 and not into:
            raise _Refused(f"{len(sources)} files match and the target is no folder")
    except (OSError, ValueError, _Refused) as error:
        return _line(what, 0, [_reason(error)])
    for path in sources:
        place = root / goal / Path(path).name if into else root / goal
        try:
            one(root / path, place)
            done += 1
        except (OSError, ValueError, _Refused) as error:
            problems.append(f"{path!r}: {_reason(error)}")
    return _line(what, done, problems)


def _line(what: str, done: int, problems: list[str]) -> str:
    count = f" ({done} files)" if done > 1 else ""
    if not problems:
        return what + count
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    failed = "; ".join(" ".join(line.split()) for line in problems[:3]) + more
    return f"{what}{count}, not all: {failed}" if done else f"not {what}: {failed}"


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _expand(root: Path, pattern: str) -> list[str]:
    """Return the paths that match, sorted; the pattern itself if none does, as a shell does."""
    expanded = os.path.expanduser(pattern)
    try:
        return sorted(glob.glob(expanded, root_dir=root)) or [expanded]
    except ValueError:
        return [expanded]  # a name that cannot be


def _check_place(source: Path, place: Path) -> None:
    """Refuse what would lose a device or a folder, or copy a file onto itself."""
    if not os.path.lexists(place):
        return
    if place.exists() and source.exists() and place.samefile(source):
        raise _Refused("source and target are the same file")
    if place.is_dir() or (place.exists() and not stat.S_ISREG(place.stat().st_mode)):
        raise _Refused(f"{os.fspath(place)!r} is there and is no file")


def _copy(source: Path, place: Path) -> None:
    """Copy one file: the target is the old one or the new one, never half of one."""
    if not stat.S_ISREG(source.stat().st_mode):
        raise _Refused("is no file (folders are not copied)")
    _check_place(source, place)
    _write_copy(source, Path(os.path.realpath(place)))  # through a link, as cp does


def _write_copy(source: Path, place: Path) -> None:
    temporary = place.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        shutil.copyfile(source, temporary)
        shutil.copymode(source, temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, place)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(place.parent)


def _move(source: Path, place: Path) -> None:
    """Move one file or folder; a source that is gone beside a target that is there was moved."""
    if not os.path.lexists(source) and os.path.lexists(place):
        return
    if not (source.is_dir() and not source.is_symlink()):
        _check_place(source, place)
    try:
        os.rename(source, place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _move_across(source, place)
    sync_folder(place.parent)


def _move_across(source: Path, place: Path) -> None:
    """Move to another file system: a copy that appears at once, then the source goes."""
    if source.is_dir() and not source.is_symlink():
        temporary = place.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            shutil.copytree(source, temporary, symlinks=True)
            os.rename(temporary, place)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        shutil.rmtree(source)
    else:
        _copy(source, place)
        source.unlink()
