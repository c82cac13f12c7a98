"""The state of both halves beside the files: a run that was killed goes on exactly where it was.

Each half's state is a file of its own. What is written last says which of them belong together.

Source: refinement.md section 5.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from algorithms.formats.atomic import atomic_write
from algorithms.refine import kept
from algorithms.refine.auto.rules import Changes, State
from algorithms.refine.kept import Kept


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What stands in the state files.

    Parameters
    ----------
    halves
        State of each half, with all particles.
    state
        Of the rules.
    curves
        FSC of each iteration, from the first one on.
    resolutions_A
        Of each iteration.
    """

    halves: tuple[Kept, Kept]
    state: State
    curves: list[list[float]]
    resolutions_A: list[float]


def save(root: Path, saved: Saved) -> None:
    """Write the state of an iteration of the run `root`; that of the one before goes away."""
    number = saved.halves[0].model.iteration
    for half, one in enumerate(saved.halves, 1):
        kept.save(_half(root, number, half), one)
    told = {
        "iteration": number,
        "state": asdict(saved.state),
        "curves": saved.curves,
        "resolutions_A": saved.resolutions_A,
    }
    atomic_write(_index(root), json.dumps(told).encode())
    for old in root.parent.glob(f".{root.name}_half?_it*.pt"):
        if not old.name.endswith(f"_it{number:03d}.pt"):
            old.unlink(missing_ok=True)


def load(root: Path) -> Saved | None:
    """Return the state of the run `root`, None when there is none."""
    if not _index(root).exists():
        return None
    told: dict[str, Any] = json.loads(_index(root).read_text())
    first, second = (kept.load(_half(root, told["iteration"], half)) for half in (1, 2))
    if first is None or second is None:
        return None
    fields = told["state"]
    for name in ("changes", "least"):
        fields[name] = Changes(**fields[name])
    return Saved(
        halves=(first, second),
        state=State(**fields),
        curves=told["curves"],
        resolutions_A=told["resolutions_A"],
    )


def _index(root: Path) -> Path:
    return root.with_name(f".{root.name}_state.json")


def _half(root: Path, number: int, half: int) -> Path:
    return root.with_name(f".{root.name}_half{half}_it{number:03d}.pt")
