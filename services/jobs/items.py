"""The items of a job: movies or micrographs, done once or refused with a reason."""

import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from algorithms.formats.atomic import atomic_write
from services.jobs.job import Aborted, Failed, Job
from services.jobs.planning import Entry, Item, Plan, make_plan, write_list
from services.jobs.pool import Pool
from services.jobs.progress import Progress
from services.kit.errors import Misuse
from services.kit.session import default_workers
from services.kit.work import Reply, Task

REFUSED = "refused.txt"


def identity(path: str) -> str:
    """Return what a movie's random numbers are seeded with, from the path of any of its files.

    The same for the movie and for all that is made of it, here and in a live session: the path
    below the raw folder, which the project shows under a name of its own, without suffix.
    """
    inside = PurePosixPath(path)
    if len(inside.parts) > 2 and inside.parts[1].startswith("job"):
        inside = PurePosixPath(*inside.parts[2:])
    if len(inside.parts) > 1:
        inside = PurePosixPath(*inside.parts[1:])
    return str(inside.with_suffix("")).removesuffix("_noDW").removesuffix("_fractions")


def do_items(
    job: Job,
    items: Sequence[Item],
    noun: str,
    write: Callable[[dict[str, bytes]], None],
    *,
    at_most: int | None = None,
) -> None:
    """Bring all items of a job up to date, then its tables.

    Parameters
    ----------
    job
        Its folder gets the results and `refused.txt`.
    items
        In the order of the table.
    noun
        What they are, in plural.
    write
        Writes the tables; called with the encoded result of each item that has one.
    at_most
        How many are begun in this call.

    Raises
    ------
    Misuse
        An item is there twice.
    Failed
        All were refused, or none can be done.
    Aborted
        The job was told to stop; what is done is in the tables.
    """
    names = Counter(item.name for item in items)
    if len(names) < len(items):
        raise Misuse(f"{names.most_common(1)[0][0]} is more than once in the table of {noun}")
    plan = make_plan(job, items)
    before, todo = len(plan.done), plan.todo[:at_most]
    if before:
        job.say(f"{before} of {len(items)} {noun} have their result already")
    if plan.kept:
        job.say(
            f"note: {plan.kept} of these are kept from other options; a new job makes them anew"
        )
    tried = _carry_out(job, plan, todo, noun) if todo else 0
    refused = {i.name: plan.entries[i.name] for i in items if _is_refused(plan, i.name)}
    _write_refused(job, refused)
    if refused and not plan.done and tried == len(todo):
        raise Failed(f"all {len(refused)} {noun} were refused; see {job.process}{REFUSED}")
    write({item.name: plan.done[item.name] for item in items if item.name in plan.done})
    done, left = len(plan.done), len(plan.todo) - tried
    job.say(f"{done - before} {noun} done, {done} in all, {len(refused)} refused, {left} left")
    if tried < len(todo):
        raise Aborted(f"{job.process} was told to stop, and has; what is done is kept")


def _is_refused(plan: Plan, name: str) -> bool:
    return name not in plan.done and name in plan.entries and plan.entries[name].code != ""


def _carry_out(job: Job, plan: Plan, todo: Sequence[tuple[Item, Task, str]], noun: str) -> int:
    """Do the items that are due; return how many were decided."""
    sources = {task.key: (item.name, source) for item, task, source in todo}
    bar = Progress(len(todo), noun)
    try:
        for task, reply in _replies(job, [task for _, task, _ in todo]):
            name, source = sources[task.key]
            plan.entries[name] = Entry(task.key, source, reply.code, reply.detail)
            if reply.result is None:
                bar.end()
                job.say(f"refused: {name}: {reply.code}: {reply.detail}")
            else:
                plan.done[name] = reply.result
            bar.step()
    finally:
        took_s = bar.end()
        write_list(job.folder, plan.entries)
    job.say(f"{took_s:.1f} s, {bar.done / took_s:.2f} {noun} per second")
    return bar.done


def _replies(job: Job, tasks: list[Task]) -> Iterator[tuple[Task, Reply]]:
    # The job's own number: private folders that an earlier call left when it was killed are its
    # own, and nobody else's.
    token = (1 << 40) | zlib.crc32(job.process.encode())
    for left in job.layout.tmp.glob(f"*.{token}"):
        shutil.rmtree(left, ignore_errors=True)
    asked = job.options.whole("nr_mpi", 1, 1) * job.options.whole("nr_threads", 1, 1)
    size = min(asked, default_workers(), len(tasks))
    with Pool(job.project, size, token) as pool:
        yield from pool.run(tasks, job.stop)


def _write_refused(job: Job, refused: Mapping[str, Entry]) -> None:
    """Write `refused.txt`, one line each; tell run.err of those that are new in it."""
    path = job.folder / REFUSED
    lines = [f"{name}\t{e.code}\t{' '.join(e.detail.split())}" for name, e in refused.items()]
    old = set(path.read_text().splitlines()) if path.exists() else set()
    for line in lines:
        if line not in old:
            job.warn("refused: " + ": ".join(line.split("\t")))
    if lines:
        atomic_write(path, "\n".join(lines) + "\n", durable=False)
    else:
        path.unlink(missing_ok=True)
