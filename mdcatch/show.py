"""What mdcatch writes into a project: links to the roots, and the status as one JSON file.

Both follow from the ledger and are written again whenever they are missing.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from mdcatch.ledger import State
from mdcatch.status import overview
from services.kit.errors import Misuse
from services.kit.paths import Layout, atomic_write

EVERY_S = 5.0  # between two writings; counting ten thousand exposures takes a tenth of a second


class Shower:
    """Shows the state of a project's session.

    Parameters
    ----------
    layout
        The project's folders.
    clock
        Monotonic time, s.
    """

    def __init__(self, layout: Layout, clock: Callable[[], float] = time.monotonic):
        self._layout, self._clock = layout, clock
        self._last = float("-inf")

    def __call__(self, state: State, *, everything: bool) -> None:
        """Make the links; with `everything` also write the status, now and then."""
        link_roots(self._layout.project, state)
        if not everything or (self._clock() - self._last < EVERY_S and not state.closed):
            return
        content = msgspec.json.encode(overview(state, time.time()))
        atomic_write(status_file(self._layout), msgspec.json.format(content), durable=False)
        self._last = self._clock()


def status_file(layout: Layout) -> Path:
    """Return where the status is written."""
    return layout.hidden / "mdcatch.json"


def link_roots(project: Path, state: State) -> None:
    """Make the links by which movies on other roots are found; `Movies` is there already.

    Raises
    ------
    Misuse
        Something else has the name of a link.
    """
    for root in state.roots.values():
        link = project / root.link
        if root.link == "Movies" or root.role == "metadata":
            continue
        if link.is_symlink() and os.readlink(link) == root.path:
            continue
        if os.path.lexists(link):
            raise Misuse(f"{link} is in the way: {root.path} has to appear under this name")
        with contextlib.suppress(FileExistsError):
            link.symlink_to(root.path)
