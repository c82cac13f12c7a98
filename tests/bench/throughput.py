"""Throughput: a back-log of movies, with one worker and with two, and RELION on the same movies."""

import time
from pathlib import Path

from services.kit.events import MicrographCtf, ParticlesExtracted
from tests.bench import data, relion
from tests.bench.figures import Bench
from tests.bench.stories import PREP, PROC, Stories, busy_s, steady_rate
from tests.system.sessions import Live

MOVIES = {1: 24, 2: 40}  # by workers
GOAL_SHARE = 85.0
LIMIT_S = 300.0


def run(bench: Bench) -> None:
    """Measure movies per second and how busy the workers were."""
    absent = relion.missing(relion.MOTION, relion.PICK, relion.EXTRACT)
    for workers, count in MOVIES.items():
        raw = data.session(bench, bench.folder / f"Simulated_backlog{workers}", count)
        with_n = f"{workers} worker{'s' if workers > 1 else ''}"
        stories = _process(bench, raw, workers, count)
        ours = _rates(bench, stories, workers, with_n)
        what = f"movies to particles, {with_n}, first to last"
        if absent:
            bench.add(what, ours, "movies/s")
        else:
            name = f"{relion.version()} without CTF, {workers} at a time"
            bench.peer(what, ours, "movies/s", _peer(bench, raw, workers), name)
    bench.note(
        "Steady: between the 5th and the last but 5 movie. First to last: from the beginning of "
        "the first task to the last result. Busy: computing time of results over workers x time "
        "from prep's first to its last result; the rest is publishing files, waiting for the next "
        "task, and the services themselves, which use the same cores."
    )
    bench.note(
        absent
        or "RELION: relion_run_motioncorr --use_own, relion_autopick --LoG, relion_preprocess, one "
        "thread each (faster here than --j 2), the movies dealt out to as many processes as we "
        "have workers. No CTFFIND is installed: its time lacks the CTF, ours has it."
    )


def _process(bench: Bench, raw: Path, workers: int, count: int) -> Stories:
    """Process a folder."""
    project = bench.folder / f"project{workers}"
    log = bench.folder / f"log{workers}"
    options = ["--project", project, "--workers", str(workers), *data.SETTINGS]
    live = Live("process", raw, *options, log=log)
    deadline = time.monotonic() + LIMIT_S
    try:
        while live.popen.poll() is None and time.monotonic() < deadline:
            time.sleep(0.5)
            bench.say(f"{workers} workers: {Stories(project).ended()} of {count} movies done")
    finally:
        live.end()
    stories = Stories(project)
    if stories.ended() < count:
        raise RuntimeError(f"only {stories.ended()} movies were done:\n{log.read_text()[-2000:]}")
    return stories


def _rates(bench: Bench, stories: Stories, workers: int, with_n: str) -> float:
    """Add rates and shares of the workers' time; return movies per second from first to last."""
    prep, proc = stories.tasks(PREP), stories.tasks(PROC)
    fitted = [event.at for event in stories.of(MicrographCtf).values()]
    cut = [event.at for event in stories.of(ParticlesExtracted).values()]
    begin, end = prep[0].done, prep[-1].done
    offered = 0.01 * workers * (end - begin)
    shares = {
        "prep": busy_s(prep, begin, end) / offered,
        "of prep the CTF": busy_s(stories.tasks([MicrographCtf]), begin, end) / offered,
        "proc": busy_s(proc, begin, end) / offered,
    }
    bench.add(f"movies to CTF, {with_n}, steady", steady_rate(fitted), "movies/s")
    bench.add(f"movies to particles, {with_n}, steady", steady_rate(cut), "movies/s")
    both = shares["prep"] + shares["proc"]
    bench.goal(f"workers busy, {with_n}", both, "%", GOAL_SHARE, "above 85 %")
    for name, share in shares.items():
        bench.add(f"  {name}", share, "%")
    return len(cut) / (max(cut) - min(task.begun for task in prep))


def _peer(bench: Bench, raw: Path, processes: int) -> float:
    """Run RELION's three programs over the movies; return movies per second."""
    folder = bench.folder / f"relion{processes}"
    folder.mkdir()
    (folder / "Movies").symlink_to(raw)
    movies = [f"Movies/{path.relative_to(raw)}" for path in data.movies(raw)]
    bench.say(f"RELION on the same movies with {processes} processes")
    parts = relion.shares(movies, processes)
    tables = [relion.movies_star(folder / f"movies{i}.star", part) for i, part in enumerate(parts)]
    took_s = relion.run(
        [relion.motion(t, f"MotionCorr{i}/", "Movies/gain.mrc") for i, t in enumerate(tables)],
        folder,
    )
    corrected = [Path(f"MotionCorr{i}/corrected_micrographs.star") for i in range(processes)]
    took_s += relion.run([relion.pick(t, f"AutoPick{i}/") for i, t in enumerate(corrected)], folder)
    took_s += relion.run(
        [relion.extract(t, f"AutoPick{i}/", f"Extract{i}/") for i, t in enumerate(corrected)],
        folder,
    )
    made = len(list(folder.glob("Extract*/**/*.mrcs")))
    if made != len(movies):
        bench.note(f"RELION extracted particles from {made} of {len(movies)} micrographs.")
    return len(movies) / took_s
