"""The log lines of all services, merged by time and filtered: what `coldstream tail` prints.

Source: architecture.md section 9.
"""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import msgspec

from services.kit.errors import Misuse
from services.kit.logs import LEVELS

_LINE = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) (\S+) (DEBUG|INFO|WARNING|ERROR) (\S+) ?(.*)"
)
_PAIR = re.compile(r'(\w+)=("[^"]*"|\S*)')
_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Line(NamedTuple):
    """One log line in its parts; `text` is all of it."""

    at: str
    service: str
    level: str
    event: str
    rest: str
    text: str

    def as_json(self) -> str:
        """Return the line as one JSON object; values stay text, as they are shown."""
        fields = {name: value.strip('"') for name, value in _PAIR.findall(self.rest)}
        head = {"at": self.at, "service": self.service, "level": self.level, "event": self.event}
        return msgspec.json.encode({**head, "fields": fields}).decode()


class Filter(NamedTuple):
    """Which lines are shown; empty lets everything pass."""

    services: tuple[str, ...] = ()
    level: str = "DEBUG"
    events: tuple[str, ...] = ()  # with wildcards: `movie.*`
    words: tuple[str, ...] = ()  # all of them are in the line, whatever their case
    since: str = ""  # as the lines write it

    def lets(self, line: Line) -> bool:
        """Tell whether a line is shown."""
        return (
            (not self.services or line.service in self.services)
            and LEVELS.index(line.level) >= LEVELS.index(self.level)
            and (not self.events or any(fnmatchcase(line.event, one) for one in self.events))
            and all(word.lower() in line.text.lower() for word in self.words)
            and line.at >= self.since
        )


def make_filter(
    services: list[str], level: str, events: list[str], words: list[str], since: str | None
) -> Filter:
    """Return the filter that a person asked for.

    Raises
    ------
    Misuse
        The level or the time is none.
    """
    if level.upper() not in LEVELS:
        raise Misuse(f"--level {level}: it must be one of {', '.join(LEVELS)}")
    start = _time(since) if since else ""
    return Filter(tuple(services), level.upper(), tuple(events), tuple(words), start)


class LogTail:
    """The log files of a project, merged by time.

    Parameters
    ----------
    folder
        Log folder.
    wanted
        Which lines are shown; default: all.
    """

    def __init__(self, folder: Path, wanted: Filter | None = None):
        self._folder, self._wanted = folder, wanted or Filter()
        self._read: dict[Path, int] = {}

    def last(self, count: int) -> list[Line]:
        """Return the last `count` lines that are shown."""
        lines = self.new()
        return lines[-count:] if count > 0 else []

    def new(self) -> list[Line]:
        """Return the complete lines since the last call."""
        lines = [line for path in sorted(self._folder.glob("*.log")) for line in self._file(path)]
        return sorted(filter(self._wanted.lets, lines), key=lambda line: line.at)

    def _file(self, path: Path) -> Iterator[Line]:
        start = self._read.get(path, 0)
        with open(path, "rb") as file:
            file.seek(start)
            data = file.read()
        whole = data.rpartition(b"\n")[0]
        if not whole:
            return
        self._read[path] = start + len(whole) + 1
        before = Line("", path.stem, "INFO", "", "", "")
        for text in whole.decode(errors="replace").split("\n"):
            found = _LINE.fullmatch(text)
            # What is no line of ours, a traceback for instance, belongs to the line above it.
            if found:
                before = Line(found[1], found[2], found[3], found[4], found[5], text)
            else:
                before = before._replace(text=text)
            yield before


def _time(text: str) -> str:
    """Return a time as the lines write it: of `10m`, or of a date and time in UTC."""
    ago = _AGO.fullmatch(text)
    if ago is not None:
        back = timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
        return _stamp(datetime.fromtimestamp(time.time(), UTC) - back)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Misuse(
            f"--since {text}: give a duration (30s, 10m, 2h, 1d) or a time (2026-11-20T10:15:02Z)"
        ) from None
    return _stamp(moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC))


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
