"""What ends a wait early: new data of the kind that the Scheme reads.

A Scheme says itself what it depends on: the raw files that its import jobs look for, the files
that its operators ask about, and results of other Schemes among its job options. What its own
jobs write is no news. Only times and sizes of files and of the folders that patterns look into
are compared, so the cost does not grow with the number of movies, and network disks are fine.
Source: schemes.md section 19 (wait).
"""

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from schemer.errors import SchemeError
from schemer.facts import World
from schemer.jobs import JobFile
from schemer.operators import OPERATORS
from schemer.resolve import resolve
from schemer.scheme import Scheme
from schemer.state import State

# A file that is still being written changes its size: data count when two looks agree.
SETTLE_S = 1.0
_READING = ("file_exists", "read_star", "count_images", "star_table", "glob")


class Arrivals:
    """Looks out for new data while a Scheme waits.

    Parameters
    ----------
    root
        Project folder.
    scheme
        The Scheme that waits.
    world
        Answers where the jobs of other Schemes are.
    known
        What a former process had seen, from `mark`; empty if there was none.
    """

    def __init__(self, root: Path, scheme: Scheme, world: World, known: str = ""):
        self._root, self._scheme, self._world = root, scheme, world
        self._known = self._last = known
        self._last_at = 0.0
        self._paths: tuple[str, ...] | None = None

    def mark(self, state: State) -> str:
        """Remember what there is now: what comes later is new. Return it as a word."""
        self._paths = None
        self._known = self._last = self._stamp(state)
        return self._known

    def came(self, state: State, at: float) -> bool:
        """Return whether new data are there, complete as far as can be seen; `at` in seconds."""
        if not self._known:
            self.mark(state)
            return False
        now = self._stamp(state)
        if now == self._known:
            return False
        if now != self._last:
            self._last, self._last_at = now, at
        return at - self._last_at >= SETTLE_S

    def _stamp(self, state: State) -> str:
        """Return a digest of the times and sizes of all that the Scheme reads from outside."""
        if self._paths is None:
            # The job files are read once in a wait, the folders and files at every look.
            own = [one.current_name for one in state.jobs.values() if one.current_name[-1:] == "/"]
            found = {path for text in self._texts(state) for path in _folders(text, self._root)}
            self._paths = tuple(
                sorted(path for path in found if not any(map(path.startswith, own)))
            )
        look = [_stat(self._root, path) for path in self._paths]
        return hashlib.blake2b(repr(look).encode(), digest_size=12).hexdigest()

    def _texts(self, state: State) -> Iterator[str]:
        """Yield the paths and patterns that operators and jobs read, resolved."""
        reachable = self._scheme.reachable()
        for name in reachable & set(self._scheme.operators):
            operator = self._scheme.operators[name]
            if any(word in operator.type for word in _READING) and operator.type in OPERATORS:
                text = state.strings.get(operator.input1, "")
                yield from self._resolved(text.partition(",")[0], state)
        for name in reachable & set(self._scheme.jobs):
            for text in self._inputs(name):
                yield from self._resolved(text, state)

    def _inputs(self, job: str) -> Iterable[str]:
        path = self._root / self._scheme.name / job / "job.star"
        try:
            file = JobFile.load(path)
            kind = file.type
        except SchemeError:
            return ()  # the job says so itself, when its turn comes
        options, _ = kind.complete(file.options)
        if kind.label == "relion.import":
            return (options["fn_in_raw" if options["do_raw"] == "Yes" else "fn_in_other"],)
        return tuple(path for path, _ in kind.input_nodes(options))

    def _resolved(self, text: str, state: State) -> Iterator[str]:
        if not text or "$$" in text or f"{self._scheme.name}" in text:
            return  # a variable's value is looked at where an operator reads it; own jobs are none
        try:
            found = resolve(text, self._scheme.name, state.jobs, self._world)
        except SchemeError:
            return  # the other Scheme is not there yet
        yield found.text


def _folders(text: str, root: Path) -> Iterator[str]:
    """Yield the path itself, or the folders that a pattern looks into."""
    if not glob.has_magic(text):
        yield text
        return
    head, _ = os.path.split(text)
    if glob.has_magic(head):
        yield from glob.glob(head + "/", root_dir=root)
        yield from _folders(os.path.dirname(head), root)
    else:
        yield head or "."


def _stat(root: Path, path: str) -> tuple[str, int, int]:
    try:
        status = os.stat(root / path)
    except OSError:
        return path, 0, 0
    return path, status.st_mtime_ns, status.st_size
