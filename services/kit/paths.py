"""Where everything of a project is: one place that knows the layout of `.coldstream/`."""

import hashlib
import os
import re
import stat
from pathlib import Path

from algorithms.formats.atomic import atomic_write, remove_abandoned, sync_folder
from services.kit.errors import Misuse

__all__ = ["Layout", "atomic_write", "file_system_of", "is_network", "refuse_network_file_system"]
__all__ += ["sync_folder"]

# SQLite's locks and write order are not reliable on these (reliability.md W38).
_NETWORK = frozenset(
    "nfs nfs3 nfs4 cifs smb3 smbfs lustre beegfs gpfs afs ceph glusterfs 9p sshfs".split()
)


class Layout:
    """The folders of one project.

    Parameters
    ----------
    project
        Root of the RELION project.
    """

    def __init__(self, project: str | os.PathLike[str]):
        self.project = Path(project).absolute()
        self.hidden = self.project / ".coldstream"
        self.journals = self.hidden / "journal"
        self.snapshots = self.hidden / "snapshot"
        self.logs = self.hidden / "log"
        self.done = self.hidden / "done"
        self.tmp = self.hidden / "tmp"
        self.session_file = self.hidden / "session.json"
        self.cluster_file = self.hidden / "cluster.json"

    def make(self) -> None:
        """Create the folders that are missing."""
        for folder in (self.journals, self.snapshots, self.logs, self.done, self.tmp):
            folder.mkdir(parents=True, exist_ok=True)
        self.sockets.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.sockets, *list(self.sockets.parents)[:2]):
            _refuse_foreign(folder)

    @property
    def sockets(self) -> Path:
        """Folder of the ipc sockets; short, because a socket path may have 107 bytes at most."""
        base = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/coldstream-{os.getuid()}"  # noqa: S108
        name = hashlib.sha256(os.fsencode(self.project)).hexdigest()[:12]
        return Path(base) / "coldstream" / name

    def journal(self, producer: str) -> Path:
        """Return the journal file of a producer."""
        return self.journals / f"{producer}.sqlite"

    def bell(self, producer: str) -> str:
        """Return the doorbell endpoint of a producer."""
        return f"ipc://{self.sockets}/{producer}.bell"

    def desk(self, producer: str) -> str:
        """Return the fetch endpoint of a producer."""
        return f"ipc://{self.sockets}/{producer}.desk"


# Where tables, Schemes and our own files are written; images come from folders of the workers.
_WRITTEN = (".", "*/job*", "Schemes/*", "Schemes/*/*", ".coldstream", ".coldstream/*")


def remove_unfinished(layout: Layout) -> int:
    """Remove what writers of a project left that were killed in the middle; return how many."""
    found = (path for where in _WRITTEN for path in layout.project.glob(f"{where}/.*.tmp"))
    return remove_abandoned(found)


def file_system_of(path: Path, mounts: str) -> tuple[str, str]:
    """Return (mount point, file system type) of a path, given the text of /proc/mounts."""
    best = ("/", "unknown")
    target = str(path.resolve())
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1])
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and (len(point) >= len(best[0]) or best[1] == "unknown"):
            best = (point, fields[2])
    return best


def is_network(kind: str) -> bool:
    """Tell whether a type of file system is that of a share; any FUSE may be one."""
    return kind in _NETWORK or kind == "fuse" or kind.startswith("fuse.")


def refuse_network_file_system(path: Path, mounts: str | None = None) -> None:
    """Raise Misuse when `path` is on a file system that cannot hold a journal."""
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text()
        except OSError:
            return  # not Linux: nothing known, nothing claimed
    point, kind = file_system_of(path, mounts)
    if is_network(kind):
        raise Misuse(
            f"the journal {path} would be on a network file system ({kind}, mounted at {point}), "
            "where SQLite cannot keep its promises; put the project on a local disk"
        )


def _refuse_foreign(folder: Path) -> None:
    """Raise Misuse when another user could put sockets of their own in place of ours."""
    status = folder.lstat()
    is_sticky = status.st_mode & stat.S_ISVTX  # as in /tmp, others cannot touch what is ours
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not is_sticky
    is_foreign = status.st_uid not in (0, os.getuid())
    if is_foreign or others_write or not stat.S_ISDIR(status.st_mode):
        raise Misuse(f"{folder} has to be yours alone: remove it, or set XDG_RUNTIME_DIR")
