"""From an iteration's files to scores; features are kept by what they follow from.

A changed threshold, other minima or other weights of the same mode compute none again.
Source: class-ranker.md section 7.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from algorithms.ranker import scoring
from algorithms.ranker.features import Features
from algorithms.ranker.inputs import Classified
from algorithms.ranker.scoring import Scored
from algorithms.ranker.selection import stack_digest
from algorithms.ranker.types import Mode
from algorithms.ranker.weights import Weights
from services.kit.digest import file_digest
from services.kit.paths import Layout, atomic_write

# Of so many iterations features are kept, some megabytes each; the oldest go first.
KEPT = 40


@dataclass(frozen=True)
class Ranked:
    """What is known of the classes before a choice is made."""

    job: Classified
    weights: Weights
    found: Features
    scored: Scored
    stack: str
    adopted: bool  # features were there already
    remarks: list[str]


def ranked(layout: Layout, job: Classified, used: Weights) -> Ranked:
    """Return features and scores of an iteration.

    Raises
    ------
    RankerError
        The classes or the weights cannot be used.
    """
    stack, mode = stack_digest(job.classes), used.constants.mode
    found, adopted = features_of(layout, job, stack, mode)
    remarks = [*job.classes.remarks, *scoring.contract_remarks(found, used.constants)]
    scored = scoring.scored(found, len(job.classes), used)
    return Ranked(job, used, found, scored, stack, adopted, remarks)


def features_of(layout: Layout, job: Classified, stack: str, mode: Mode) -> tuple[Features, bool]:
    """Return the features of an iteration, and whether they were kept from an earlier time."""
    key = _key(job, stack, mode)
    folder = layout.hidden / "ranker"
    path = folder / f"{key}.npz"
    with suppress(OSError):
        kept = scoring.unpacked(path.read_bytes())
        if kept is not None:
            return kept, True
    # All of them: features.star has what the network does not look at, too.
    found = scoring.features_of(job, mode, with_texture=True)
    atomic_write(path, scoring.packed(found), durable=False)
    _forget_oldest(folder)
    return found, False


def _key(job: Classified, stack: str, mode: str) -> str:
    """Return what the features follow from, as a digest."""
    folder = job.folder
    model = job.general.columns["rlnModelStarFile"][0]
    parts = [stack, mode, str(scoring.VERSION), file_digest(folder / job.data_name)]
    digest = hashlib.sha256(repr(parts).encode())
    for name in (job.optimiser, model):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def _forget_oldest(folder: Path) -> None:
    found = [(path.stat().st_mtime_ns, path) for path in folder.glob("*.npz")]
    for _, path in sorted(found)[:-KEPT]:
        path.unlink(missing_ok=True)
