"""The running process's side of `scheme.star`: where a run goes on, and each transition's write.

The file may be changed from outside while the Scheme runs (`schemer set`, a RELION window that
takes no lock): before each write the sheet looks whether it is still the file it wrote, and takes
over what others have changed. Source: schemes.md section 7, architecture.md section 5.
"""

import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from msgspec import structs

from algorithms.formats import star
from algorithms.formats.atomic import atomic_write
from schemer import starfile, store
from schemer.errors import SchemeError
from schemer.scheme import UNDEFINED, JobRow, Kind, Scheme
from schemer.walk import Walk, begin

_RUN, _FLOATS = store.BLOCKS
_NONE = "none"
_LOOKS, _LOOK_S = 20, 0.05
_KINDS: tuple[tuple[str, Kind], ...] = (
    ("floats", "float"),
    ("bools", "bool"),
    ("strings", "string"),
)


class Opened(NamedTuple):
    """Where a run begins or goes on.

    `run` is its name, `serial` the number of its last transition, `remark` is for people, `data`
    the word for what it had seen when its last wait ended (`schemer.arrivals`). `ended`: the run
    had come to its end, and this is how.
    """

    scheme: Scheme
    walk: Walk
    run: str
    serial: int
    resumed: bool
    remark: str = ""
    data: str = ""
    ended: bool = False


class Sheet:
    """`scheme.star` in the hands of the process that runs the Scheme.

    Parameters
    ----------
    folder
        The Scheme's folder.
    strict
        Read the file as RELION does.
    """

    def __init__(self, folder: Path, *, strict: bool = False):
        self.folder, self._strict = folder, strict
        self.path = folder / "scheme.star"
        self._stamp: tuple[int, ...] = ()
        self._written: Scheme | None = None

    def open(self, *, killed: bool) -> Opened:
        """Read and check the Scheme, and find out whether a run of it was interrupted.

        Parameters
        ----------
        killed
            The process before did not live to say how its run ended: a run that had ended is
            opened as such, where otherwise a new one begins.

        Raises
        ------
        SchemeError
            The Scheme cannot run; names file, block, row, value and remedy.
        """
        scheme = starfile.load(self.folder, strict=self._strict)
        self._stamp, self._written = self._look(), scheme
        table = store.table_of(scheme, _RUN)
        if table is not None:
            try:
                opened = _interrupted(scheme, table)
            except (ValueError, KeyError, IndexError, star.StarError) as error:
                raise SchemeError(
                    f"{self.path}: block data_{_RUN} is damaged ({error}); remove the block to "
                    "begin a new run at the current node"
                ) from None
            if opened is not None and (killed or not opened.ended):
                return opened
        remark = ""
        operator = scheme.operators.get(scheme.current_node)
        if operator is not None and operator.type == "exit" and not self._strict:
            remark = f"it had ended at {scheme.current_node}"
            scheme = structs.replace(scheme, current_node=scheme.start)
        return Opened(scheme, begin(scheme), uuid.uuid4().hex, 0, False, remark)

    def save(self, scheme: Scheme, walk: Walk, run: str, serial: int, data: str) -> None:
        """Write the Scheme as the walk stands, in one durable step. Take the edit lock before."""
        more = {_RUN: _run_table(walk, run, serial, data), _FLOATS: _float_table(walk)}
        unknown = tuple(block for block in scheme.unknown if block.name not in store.BLOCKS)
        scheme = structs.replace(scheme, unknown=unknown)
        # Not looked up afterwards: somebody may have written in between.
        self._stamp = _stamp(atomic_write(self.path, starfile.dump(scheme, walk.state, more)))
        self._written = _as_written(scheme, walk)

    def is_changed(self) -> bool:
        """Return whether somebody else has written the file since we did."""
        return self._look() != self._stamp

    def theirs(self) -> "Changes | None":
        """Return what others have changed; None if the file cannot be used as it is now.

        RELION writes the file in place: it is read when it has stopped changing.
        """
        for _ in range(_LOOKS):
            stamp = self._look()
            time.sleep(_LOOK_S)
            if stamp != self._look():
                continue
            try:
                scheme = starfile.load(self.folder, strict=self._strict)
            except SchemeError:
                continue
            base, self._stamp, self._written = self._written, stamp, scheme
            return _compare(base, scheme) if base is not None else Changes(scheme)
        return None

    def _look(self) -> tuple[int, ...]:
        try:
            return _stamp(os.stat(self.path))
        except FileNotFoundError:
            return ()


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mtime_ns, status.st_size, status.st_ino


class Changes(NamedTuple):
    """What others changed in the file: the graph as it is now, values, job rows, current node."""

    scheme: Scheme
    values: tuple[tuple[Kind, str, float | bool | str], ...] = ()  # kind, name, value
    jobs: Mapping[str, JobRow] = {}
    node: str = ""

    def text(self) -> str:
        """Return the changes on one line."""
        parts = [f"{name} = {value}" for _, name, value in self.values]
        parts += [f"job {name}" for name in self.jobs]
        return ", ".join(parts + ([f"current node {self.node}"] if self.node else [])) or "graph"


def _compare(base: Scheme, now: Scheme) -> Changes:
    values: list[tuple[Kind, str, float | bool | str]] = []
    for field, kind in _KINDS:
        before = getattr(base, field)
        for name, variable in getattr(now, field).items():
            old = before.get(name)
            if old is None or _text(old.value) != _text(variable.value):
                values.append((kind, name, variable.value))
    jobs = {name: row for name, row in now.jobs.items() if base.jobs.get(name) != row}
    node = now.current_node if now.current_node != base.current_node else ""
    return Changes(now, tuple(values), jobs, node)


def _text(value: float | bool | str) -> str:
    return star.format_float(value) if isinstance(value, float) else str(value)


def _as_written(scheme: Scheme, walk: Walk) -> Scheme:
    """Return the Scheme that reading our own file would give, as far as `_compare` looks."""
    state = walk.state

    def now(field: str) -> dict[str, object]:
        return {
            name: structs.replace(variable, value=getattr(state, field)[name])
            for name, variable in getattr(scheme, field).items()
        }

    ended_nowhere = state.current_node == UNDEFINED
    return structs.replace(
        scheme,
        current_node=scheme.start if ended_nowhere else state.current_node,
        floats=now("floats"),
        bools=now("bools"),
        strings=now("strings"),
        jobs=dict(state.jobs),
    )


def _time(value: float | None) -> str:
    return _NONE if value is None else repr(value)


def _run_table(walk: Walk, run: str, serial: int, data: str) -> star.Table:
    state = walk.state
    return star.Table.of(
        {
            "coldstreamRun": run,
            "coldstreamSerial": serial,
            "coldstreamNode": state.current_node,
            "coldstreamPhase": walk.phase,
            "coldstreamEnded": state.ended,
            "coldstreamVisit": walk.visit,
            "coldstreamContinues": int(walk.continues),
            "coldstreamSleepUntil": _time(walk.sleep_until),
            "coldstreamWaitEndedAt": _time(state.wait_ended_at),
            "coldstreamExitAt": _time(state.exit_at),
            "coldstreamData": data,
        },
        loop=False,
    )


def _float_table(walk: Walk) -> star.Table:
    """Return the numbers that six decimals do not say exactly."""
    floats = walk.state.floats
    names = [n for n, value in sorted(floats.items()) if float(star.format_float(value)) != value]
    return star.Table.of(
        {"coldstreamFloat": names, "coldstreamValue": [repr(floats[name]) for name in names]}
    )


def _interrupted(scheme: Scheme, table: star.Table) -> Opened | None:
    """Return the walk that the blocks tell of; None if the current node was changed since."""
    row = table.row(0)
    node = row["coldstreamNode"]
    if (scheme.start if node == UNDEFINED else node) != scheme.current_node:
        return None

    def time_of(label: str) -> float | None:
        return None if row[label] == _NONE else float(row[label])

    walk = begin(scheme)
    state = walk.state
    walk.phase, walk.initial = row["coldstreamPhase"], int(row["coldstreamSerial"]) == 0
    walk.visit, walk.continues = int(row["coldstreamVisit"]), row["coldstreamContinues"] == "1"
    walk.sleep_until = time_of("coldstreamSleepUntil")
    state.wait_ended_at = time_of("coldstreamWaitEndedAt")
    state.exit_at = time_of("coldstreamExitAt")
    state.ended, state.current_node = row["coldstreamEnded"], node
    exact = store.table_of(scheme, _FLOATS)
    if exact is not None:
        pairs = zip(exact.strings("coldstreamFloat"), exact.strings("coldstreamValue"), strict=True)
        for name, text in pairs:
            # Six decimals that no longer agree were written by somebody else, later.
            if _text(float(text)) == _text(state.floats.get(name, 0.0)):
                state.floats[name] = float(text)
    serial = int(row["coldstreamSerial"])
    data, ended = row["coldstreamData"], bool(state.ended)
    return Opened(scheme, walk, row["coldstreamRun"], serial, True, data=data, ended=ended)
