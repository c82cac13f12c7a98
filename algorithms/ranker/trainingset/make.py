"""Making the jobs of a plan, one after another or several at once; what is there is not made again.

A record appears whole or not at all, so the work may be stopped or killed at any moment. A file
named STOP in the folder ends it after the jobs in hand.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from algorithms.formats.atomic import atomic_write, remove_abandoned
from algorithms.ranker.trainingset import records
from algorithms.ranker.trainingset.labels import relabelled
from algorithms.ranker.trainingset.plan import default_plan, split_text, written_split
from algorithms.ranker.trainingset.settings import Setting, parsed
from algorithms.ranker.types import RankerError

STOP = "STOP"
PLAN, SPLIT = "plan.jsonl", "split.txt"

__all__ = ["default_plan", "make", "make_one", "relabel"]


def make(
    folder: Path,
    plan: list[Setting],
    workers: int = 1,
    tell: Callable[[str], None] = print,
) -> tuple[int, int]:
    """Make the jobs of a plan that are not there; return how many were made, and how many failed.

    Parameters
    ----------
    folder
        Where records go, as `JOB.npz` and, of an earlier look at it, `JOBe.npz`, with the plan and
        the split beside them.
    plan
        What is to be made, in this order.
    workers
        Processes; 1: this one.
    tell
        Is called with a line for each job.

    Raises
    ------
    RankerError
        The folder has one of the jobs with another setting, or the split is not the one that
        was written down.
    """
    _begin(folder, plan)
    left = [one for one in plan if not path_of(folder, one).exists()]
    tell(f"{len(plan)} jobs, {len(plan) - len(left)} of them are there")
    done = failed = 0
    for setting, fault, took_s in _each(folder, left, workers):
        done += not fault
        failed += bool(fault)
        told = f"failed: {fault}" if fault else f"{took_s:.0f} s of the processor"
        tell(f"{setting.job} {setting.part} {setting.structure}: {told}")
    if (folder / STOP).exists():
        tell(f"stopped: {folder / STOP} is there")
    return done, failed


def relabel(folder: Path) -> int:
    """Give all simulated jobs of a set the labels of the present rule; return how many changed."""
    changed = 0
    for path in records.listing(folder):
        before = records.read(path)
        if before.source == "simulated":
            after = relabelled(before)
            changed += not np.array_equal(before.label, after.label)
            records.write(path, after)
    return changed


def path_of(folder: Path, setting: Setting) -> Path:
    """Return the file of a job's record."""
    return folder / f"{setting.job}{records.SUFFIX}"


def make_one(folder: Path, setting: Setting) -> tuple[str, float]:
    """Make a job; return what went wrong, or nothing, and the processor time in seconds."""
    import torch

    from algorithms.ranker.trainingset.job import made

    torch.set_num_threads(1)
    begun = time.process_time()
    place = folder / f".{setting.job}"  # here, so that what a killed one left is found again
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        for one in made(setting, place):
            records.write(folder / f"{one.records.job}{records.SUFFIX}", one.records)
    except Exception as error:  # noqa: BLE001 - one job may not end the work on all others
        return f"{type(error).__name__}: {error}", time.process_time() - begun
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return "", time.process_time() - begun


def _begin(folder: Path, plan: list[Setting]) -> None:
    """Write the plan and the split down, or check that they are those of before."""
    if split_text() != written_split():
        raise RankerError(
            "the split of the families is not the one that was written down before: the catalogue "
            "of structures has changed, and jobs made before would be in other parts"
        )
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder.glob(".*.tmp"))
    path = folder / PLAN
    lines = path.read_text().splitlines() if path.exists() else []
    known = {parsed(line).job: line for line in lines}
    for one in plan:
        if known.setdefault(one.job, one.text()) != one.text():
            raise RankerError(
                f"{path} has another plan for {one.job}: use another folder, or the same seed"
            )
    if len(known) > len(lines):
        atomic_write(path, "".join(line + "\n" for line in known.values()), durable=False)
    atomic_write(folder / SPLIT, split_text(), durable=False)


def _each(folder: Path, plan: list[Setting], workers: int) -> Iterator[tuple[Setting, str, float]]:
    """Make jobs; yield each when it is done."""
    wanted = _until_stopped(folder, plan)
    if workers <= 1:
        for setting in wanted:
            yield setting, *make_one(folder, setting)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        hand: dict[Future[tuple[str, float]], Setting] = {}
        for setting in wanted:
            hand[pool.submit(make_one, folder, setting)] = setting
            if len(hand) >= workers:
                yield from _done(hand, wait(hand, return_when=FIRST_COMPLETED).done)
        yield from _done(hand, wait(hand).done)


def _done(
    hand: dict[Future[tuple[str, float]], Setting], ready: Iterable[Future[tuple[str, float]]]
) -> Iterator[tuple[Setting, str, float]]:
    for one in list(ready):
        yield hand.pop(one), *one.result()


def _until_stopped(folder: Path, plan: list[Setting]) -> Iterator[Setting]:
    for setting in plan:
        if (folder / STOP).exists():
            return
        yield setting
