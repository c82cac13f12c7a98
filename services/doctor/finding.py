"""One thing that was looked at, and all that a look needs."""

from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import msgspec

from services.kit.errors import Misuse
from services.kit.paths import file_system_of, refuse_network_file_system
from services.kit.sitetables import Site

Level = Literal["error", "warning", "ok"]
LEVELS: tuple[Level, ...] = ("error", "warning", "ok")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found; `remedy` is empty where nothing is to be done."""

    level: Level
    check: str
    subject: str
    detail: str
    remedy: str = ""

    @classmethod
    def of(cls, level: Level, check: str, subject: str, detail: str, remedy: str = "") -> Self:
        """Return a finding; one that is sound has no remedy."""
        return cls(
            level=level,
            check=check,
            subject=subject,
            detail=" ".join(detail.split()),
            remedy="" if level == "ok" else " ".join(remedy.split()),
        )

    @property
    def line(self) -> str:
        """All of it in one line."""
        end = f": {self.remedy}" if self.remedy else ""
        return f"{self.level:7s} {self.check:8s} {self.subject} {self.detail}{end}"


class Look:
    """What the checks are given.

    Parameters
    ----------
    site
        The site's configuration.
    config
        Its file, None for the built-in one.
    project
        The project to look at, None for none.
    proc
        What the kernel tells.
    """

    def __init__(self, site: Site, config: Path | None, project: Path | None, proc: Path):
        self.site, self.config, self.project, self.proc = site, config, project, proc
        self.asleep: set[str] = set()  # roots that do not answer: not to be asked again

    @cached_property
    def mounts(self) -> str:
        """What is mounted where; empty where the kernel does not tell."""
        try:
            return (self.proc / "mounts").read_text()
        except OSError:
            return ""

    def file_system(self, path: Path) -> tuple[str, str]:
        """Return mount point and type of what a path lies on."""
        return file_system_of(path, self.mounts)

    def is_network(self, path: Path) -> bool:
        """Tell whether a path lies on a share, by the same rule that keeps journals off shares."""
        try:
            refuse_network_file_system(path, self.mounts)
        except Misuse:
            return True
        return False


def existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that is there."""
    return next(one for one in (path, *path.parents) if one.exists())
