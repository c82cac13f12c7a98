"""Are the folders of raw data there, readable, on what, and apart from each other?"""

import os
import stat
import threading
from collections.abc import Callable, Iterator
from itertools import combinations, islice
from pathlib import Path

from services.doctor.finding import Finding, Look
from services.kit.sitetables import Root

# A share that has not answered by then is down; a person waits no longer either.
ANSWER_S = 5.0
# How many folders and files are tried below a root.
_TRIED = 20
# Shares' clients cache sizes and times for seconds.
LEAST_NETWORK_SETTLE_S = 10.0


def roots(look: Look) -> Iterator[Finding]:
    """Yield what is found of each root."""
    for name, root in look.site.roots.items():
        subject, path = f"roots.{name}", Path(root.path)
        if path == Path("/"):
            detail = "would watch the whole machine"
            yield Finding.of("error", "root", subject, detail, "give the folder of the sessions")
            continue
        answer: list[Finding] = []
        if not answered(lambda path=path, s=subject, a=answer: a.extend(_reading(s, path))):
            look.asleep.add(root.path)
            detail = f"{path} does not answer within {ANSWER_S:g} s"
            yield Finding.of("error", "root", subject, detail, "check the share and its server")
            continue
        yield from answer
        if not any(finding.level == "error" for finding in answer):
            yield _observer(look, subject, root)


def answered(task: Callable[[], object]) -> bool:
    """Run a task that may hang on a dead share; return whether it ended in time.

    A thread that hangs stays behind until the share answers: nothing can end it.
    """
    thread = threading.Thread(target=task, name="coldstream-doctor", daemon=True)
    thread.start()
    thread.join(ANSWER_S)
    return not thread.is_alive()


def _reading(subject: str, path: Path) -> Iterator[Finding]:
    try:
        with os.scandir(path) as entries:
            first = list(islice(entries, _TRIED))
        for entry in first:
            _try(entry)
    except FileNotFoundError:
        detail, remedy = f"{path} is not there", "mount it, or correct the path"
    except NotADirectoryError:
        detail, remedy = f"{path} is not a folder", "give the folder that holds the sessions"
    except PermissionError as error:
        detail = f"{error.filename or path} cannot be read by this account"
        remedy = f"give the account read access: setfacl -R -m u:ACCOUNT:rX {path}"
    except OSError as error:
        detail, remedy = f"{path} cannot be read: {error.strerror}", "check the share"
    else:
        if first:
            yield Finding.of("ok", "root", subject, f"{path} can be read")
            return
        # A share that is not mounted looks like this; a new site does too.
        detail, remedy = f"{path} is empty", "mount the share, if it should hold sessions already"
        yield Finding.of("warning", "root", subject, detail, remedy)
        return
    yield Finding.of("error", "root", subject, detail, remedy)


def _try(entry: os.DirEntry[str]) -> None:
    """Open one entry as the watcher will; what vanishes meanwhile is no fault."""
    try:
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            with os.scandir(entry.path) as inner:
                next(inner, None)
        elif stat.S_ISREG(mode):
            os.close(os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK))
    except FileNotFoundError:
        return


def _observer(look: Look, subject: str, root: Root) -> Finding:
    _, kind = look.file_system(Path(root.path))
    if not look.is_network(Path(root.path)):
        how = f"is on {kind}: inotify and polling"
        return Finding.of("ok", "root", subject, how)
    how = f"is on {kind}: only polling, inotify tells nothing of other hosts' changes"
    settle_s = look.site.defaults.network_settle_s if root.settle_s is None else root.settle_s
    if settle_s >= LEAST_NETWORK_SETTLE_S:
        return Finding.of("ok", "root", subject, f"{how}; files settle for {settle_s:g} s")
    detail = f"{how}, and {settle_s:g} s of settling are less than its clients cache sizes"
    return Finding.of("warning", "root", subject, detail, "set settle_s to 20")


def nesting(look: Look) -> Iterator[Finding]:
    """Yield roots that lie in each other, or in the project: files would be met twice."""
    places = {f"roots.{name}": Path(root.path) for name, root in look.site.roots.items()}
    if look.project is not None:
        places["--project"] = look.project.absolute()
    real: dict[str, Path] = {}
    for name, path in places.items():
        if str(path) not in look.asleep:
            real[name] = Path(os.path.realpath(path))
    for (one, first), (other, second) in combinations(real.items(), 2):
        if first == second:
            detail = f"and {other} are one folder, {first}"
        elif first.is_relative_to(second):
            detail = f"{first} lies inside {other}, {second}"
        elif second.is_relative_to(first):
            detail = f"{first} holds {other}, {second}"
        else:
            continue
        yield Finding.of("error", "root", one, detail, "every movie would be met twice: keep one")
