"""Classes that people have labelled: EMPIAR-10812's layout, and RELION projects.

A folder per job with run_classes.mrcs, run_model.star, backup_selection.star and job_score.txt, and
any of run_optimiser.star and run_data.star. What is missing is made up where that is possible, and
told. Not verified against the archive itself. Source: class-ranker.md section 5.6.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from algorithms.formats import mrc, star
from algorithms.formats.errors import FormatError
from algorithms.formats.star import StarError, Table
from algorithms.ranker import inputs
from algorithms.ranker.features import Features, features
from algorithms.ranker.inputs import UNKNOWN
from algorithms.ranker.scoring import features_of
from algorithms.ranker.targets import BASES, target_scores
from algorithms.ranker.trainingset.records import TAGS, ClassRecords
from algorithms.ranker.types import ClassSet, RankerError

CLASSES, MODEL, SELECTION = "run_classes.mrcs", "run_model.star", "backup_selection.star"
SCORE, OPTIMISER, DATA = "job_score.txt", "run_optimiser.star", "run_data.star"
# With so many jobs or more an archive is divided; real jobs of fewer are for tests only.
LEAST_TO_DIVIDE = 20
_SHARES = (("train", 0.70), ("validation", 0.85), ("test", 1.0))
_RARE_DEG, _RARE_A = 5.0, 8.0
_FEW_LABELLED = 6  # label of classes that a person set aside without looking closely

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """What an archive gave.

    Parameters
    ----------
    jobs
        Their records.
    skipped
        Folder -> why it gave none.
    """

    jobs: list[ClassRecords]
    skipped: dict[str, str]


def read_archive(root: Path, part: str = "auto", tell: Tell = lambda _: None) -> Found:
    """Read all jobs of a tree in EMPIAR-10812's layout.

    Parameters
    ----------
    root
        Folder of the tree, or its `data`.
    part
        Part of all jobs; "auto": real for fewer than LEAST_TO_DIVIDE, else by the job's name in
        70, 15 and 15 % to training, validation and test.
    tell
        Told what had to be made up.

    Raises
    ------
    RankerError
        There is no folder that looks like a job.
    """
    folders = sorted({path.parent for path in root.rglob(MODEL)} | _with_classes(root))
    if not folders:
        raise RankerError(f"{root} has no folder with {MODEL}: give the folder of EMPIAR-10812")
    is_divided = part == "auto" and len(folders) >= LEAST_TO_DIVIDE
    jobs, skipped = [], {}
    for folder, name in _named(folders, root).items():
        chosen = _divided(name) if is_divided else "real" if part == "auto" else part
        try:
            jobs.append(replace(read_job(folder, chosen, tell), job=name))
        except (RankerError, StarError, FormatError) as error:
            skipped[name] = str(error)
        except OSError as error:
            skipped[name] = f"{error.filename}: {error.strerror}"
    return Found(jobs=jobs, skipped=skipped)


def read_job(folder: Path, part: str, tell: Tell = lambda _: None) -> ClassRecords:
    """Return the records of one job's folder; see `read_archive`."""
    for name in (MODEL, CLASSES, SELECTION, SCORE):
        if not (folder / name).exists():
            raise RankerError(f"{folder / name} is missing")
    model = star.load(folder / MODEL)
    for block in ("model_general", "model_classes"):
        if block not in model:
            raise RankerError(f"{folder / MODEL} has no block data_{block}")
    model["model_classes"] = _in_place(model["model_classes"])
    name, diameter_A = str(folder / MODEL), _diameter(folder, model, tell)
    classes = inputs.class_set(folder, model, name, diameter_A, _particles(folder, model, tell))
    found = features(_accurate(classes, folder.name, tell), "coldstream")
    labels = _labels(folder / SELECTION, len(classes))
    return _records(folder.name, part, classes, found, labels, _job_score(folder / SCORE))


def read_project(project: Path, optimiser: str, job_score: float = math.nan) -> ClassRecords:
    """Return the records of a 2D classification with a person's selection beside its files.

    Parameters
    ----------
    project
        RELION project.
    optimiser
        Path of the iteration's optimiser below it; `backup_selection.star` lies beside.
    job_score
        J, when someone gave one; without it there are no target scores.
    """
    job = inputs.read(project, optimiser)
    labels = _labels((project / optimiser).parent / SELECTION, len(job.classes))
    found = features_of(job, "coldstream")
    return _records(project.name, "real", job.classes, found, labels, job_score)


def labelled_projects(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield projects below a folder, itself too, that have a labelled iteration."""
    for path in sorted(root.rglob("*_optimiser.star")):
        if not (path.parent / SELECTION).exists():
            continue
        for project in path.parents:
            if (project / "Class2D") in path.parents:
                yield project, str(path.relative_to(project))
                break


def _named(folders: list[Path], root: Path) -> dict[Path, str]:
    """Return the name of each job: its folder's, with those above it where two have the same."""
    often = Counter(folder.name for folder in folders)
    return {
        folder: folder.name if often[folder.name] == 1 else "_".join(folder.relative_to(root).parts)
        for folder in folders
    }


def _with_classes(root: Path) -> set[Path]:
    return {path.parent for path in root.rglob(CLASSES)}


def _divided(name: str) -> str:
    """Return the part of a job: by its name, so that it never changes."""
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2.0**64
    return next(part for part, upper in _SHARES if place <= upper)


def _in_place(table: Table) -> Table:
    """Return a table of classes whose averages lie beside it, wherever they once were."""
    if "rlnReferenceImage" not in table.columns:
        return table
    numbers = [name.partition("@")[0] for name in table.strings("rlnReferenceImage")]
    names = {"rlnReferenceImage": [f"{number}@{CLASSES}" for number in numbers]}
    return Table(table.columns | Table.of(names).columns)


def _diameter(folder: Path, model: dict[str, Table], tell: Tell) -> float:
    if (folder / OPTIMISER).exists():
        general = star.load(folder / OPTIMISER).get("optimiser_general")
        if general is not None and "rlnParticleDiameter" in general.columns:
            return float(general.floats("rlnParticleDiameter")[0])
    # Class2D sets everything outside of the mask to zero.
    stack = mrc.read(folder / CLASSES)
    n = stack.shape[-1]
    pixel_A = float(model["model_general"].floats("rlnPixelSize")[0])
    axis = np.arange(n) - n // 2
    reach = np.hypot(axis[:, None], axis[None])[np.abs(stack.reshape(-1, n, n)).max(0) > 0.0]
    diameter_A = float(2.0 * min(reach.max(initial=n / 2.0), n / 2.0) * pixel_A)
    tell(f"{folder.name}: no particle diameter; {diameter_A:.0f} A by the mask of the averages")
    return diameter_A


def _particles(folder: Path, model: dict[str, Table], tell: Tell) -> int:
    if (folder / DATA).exists():
        counts = star.count_rows(folder / DATA)
        found = next((counts[name] for name in ("particles", "images", "") if counts.get(name)), 0)
        if found:
            return found
    groups = model.get("model_groups")
    if groups is not None and "rlnGroupNrParticles" in groups.columns:
        tell(f"{folder.name}: no particles' table; counted by the groups of the model")
        return int(groups.floats("rlnGroupNrParticles").sum())
    raise RankerError(
        f"{folder} has neither {DATA} nor rlnGroupNrParticles in {MODEL}: the number of particles "
        "is not known"
    )


def _accurate(classes: ClassSet, name: str, tell: Tell) -> ClassSet:
    """Return classes with the usual accuracies of rare ones where Class2D gave none."""
    rare = (classes.accuracy_deg > UNKNOWN) | (classes.accuracy_A > UNKNOWN)
    if rare.any():
        tell(f"{name}: no accuracies of {int(rare.sum())} classes; {_RARE_DEG:g} and {_RARE_A:g} A")
    return replace(
        classes,
        accuracy_deg=np.where(rare, _RARE_DEG, classes.accuracy_deg),
        accuracy_A=np.where(rare, _RARE_A, classes.accuracy_A),
    )


def _labels(path: Path, n: int) -> np.ndarray:
    blocks = star.load(path)
    table = next((one for one in blocks.values() if "rlnSelected" in one.columns), None)
    if table is None:
        raise RankerError(f"{path} has no rlnSelected")
    labels = table.ints("rlnSelected")
    if len(labels) != n:
        raise RankerError(f"{path} has {len(labels)} labels for {n} classes")
    known = (*BASES, 0, _FEW_LABELLED)
    if not np.isin(labels, known).all():
        raise RankerError(f"{path}: rlnSelected must be of {sorted(known)}")
    return labels.astype(np.int64)


def _job_score(path: Path) -> float:
    words = path.read_text(errors="replace").split()
    try:
        score = float(words[0])
    except (IndexError, ValueError):
        raise RankerError(f"{path} holds no number") from None
    if not 0.0 <= score <= 1.0:
        raise RankerError(f"{path}: the score of a job is {score:g}, it must be from 0 to 1")
    return score


def _records(
    name: str,
    part: str,
    classes: ClassSet,
    found: Features,
    labels: np.ndarray,
    job_score: float,
) -> ClassRecords:
    n, places = len(found), found.places
    unknown = np.full(n, np.nan)
    if math.isfinite(job_score):
        y = target_scores(labels, classes.resolution_A, classes.sizes, job_score)[places]
    else:
        y = unknown
    return ClassRecords(
        job=name,
        structure=name,
        family=name,
        part=part,
        source="empiar10812",
        seed=0,
        configuration="{}",
        features=found,
        size=classes.sizes[places],
        fraction=classes.fractions[places],
        resolution_A=classes.resolution_A[places],
        y=y,
        label=labels[places],
        w=unknown,
        job_score=job_score,
        true_resolution_A=unknown,
        offset=unknown,
        neighbour=unknown,
        counts=np.full((n, len(TAGS)), np.nan),
        rare=unknown,
        totals=np.full(len(TAGS), np.nan),
    )
