"""The stimulus log of a Scheme: everything that happened to it, in order.

One JSON line per stimulus in `Schemes/<name>/.coldstream/log.jsonl`, with the moves it led to.
Folding the moves of a run into its beginning gives the walk again (`schemer.walk.apply`). The log
is written before `scheme.star`; lines that a crash left beyond it are cut off on the next start.
"""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from schemer.state import Move
from schemer.store import HIDDEN

# Months of a Scheme that waits a minute at a time.
_MAX_BYTES = 32 * 2**20


class Entry(Struct, frozen=True, omit_defaults=True):
    """One stimulus: run and number of its transition, time (Unix s), kind, what it led to.

    `text` holds what the kind needs to be understood: the reason of a wait's end, a job's folder,
    a warning, the end of the run.
    """

    run: str
    serial: int
    at: float
    kind: str
    node: str = ""
    text: str = ""
    moves: tuple[Move, ...] = ()


_DECODER = msgspec.json.Decoder(Entry)


class RunLog:
    """The log of one Scheme, open for its running process.

    Parameters
    ----------
    folder
        The Scheme's folder.
    """

    def __init__(self, folder: Path):
        self.path = folder / HIDDEN / "log.jsonl"
        self.path.parent.mkdir(exist_ok=True)
        if self.path.exists() and self.path.stat().st_size > _MAX_BYTES:
            self.path.replace(self.path.with_suffix(".1.jsonl"))
        self._file = open(self.path, "ab", buffering=0)

    def append(self, entry: Entry) -> None:
        """Add a line; whole or not at all for a process that reads along."""
        self._file.write(msgspec.json.encode(entry) + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def cut(self, run: str, serial: int) -> list[Entry]:
        """Drop what was never made visible; return what is left of a run.

        Parameters
        ----------
        run, serial
            The run in `scheme.star` and the number of its last transition there.
        """
        kept, end = [], 0
        with open(self.path, "rb") as file:
            for line in file:
                entry = _decode(line)
                if entry is None or (entry.run == run and entry.serial > serial):
                    break
                end += len(line)
                if entry.run == run:
                    kept.append(entry)
        self._file.truncate(end)
        return kept


def _decode(line: bytes) -> Entry | None:
    try:
        return _DECODER.decode(line) if line.endswith(b"\n") else None
    except msgspec.MsgspecError:
        return None


def read(folder: Path) -> list[Entry]:
    """Return the entries of a Scheme's log, oldest first; none if it never ran here."""
    try:
        lines = (folder / HIDDEN / "log.jsonl").read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [entry for entry in map(_decode, lines) if entry is not None]


def visited(entries: Iterable[Entry]) -> list[str]:
    """Return the nodes of a run in the order in which they became the current one."""
    nodes: list[str] = []
    for entry in entries:
        if entry.kind in ("Began", "Restarted"):
            nodes.append(entry.node)
        nodes += [move[1] for move in entry.moves if move[0] == "at"]
    return [node for node in nodes if node != "undefined"]


def story(entries: Iterable[Entry]) -> list[str]:
    """Return what happened as lines for people, with times in UTC."""
    return [
        f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(entry.at))} {line}"
        for entry in entries
        for line in _lines(entry)
    ]


def _lines(entry: Entry) -> Iterator[str]:
    if entry.kind in ("Began", "Resumed", "Restarted"):
        yield f"{entry.kind.lower()} at {entry.node}{entry.text and ': ' + entry.text}"
    elif entry.kind == "Warning":
        yield f"{entry.node}: warning: {entry.text}"
    elif entry.kind == "Edited":
        yield f"changed from outside: {entry.text}"
    elif entry.text:
        yield f"{entry.node}: {entry.text}"
    for move in entry.moves:
        match move:
            case ("set", _, name, value):
                yield f"{entry.node}: {name} = {value}"
            case ("made", node, process):
                yield f"{node}: new job {process}"
            case ("sleep", until):
                at = time.strftime("%H:%M:%SZ", time.gmtime(float(until)))
                yield f"{entry.node}: waits until {at}"
            case ("at", node):
                yield f"{entry.node} -> {node}"
            case ("stop", reason):
                yield f"ended: {reason}"
            case ("phantom", name):
                yield f"{entry.node}: RELION's phantom job {name!r}"
