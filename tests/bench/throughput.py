"""Throughput: a back-log of movies, with one worker and with two, and RELION on the same movies."""

import time
from pathlib import Path

from services.kit.events import MicrographCtf, ParticlesExtracted
from tests.bench import data, relion
from tests.bench.figures import Bench
from tests.bench.stories import PREP, PROC, Stories, busy_s, steady_rate
from tests.system.sessions import Live

MOVIES = {2: 14}
GOAL_SHARE = 85.0
LIMIT_S = 300.0


def run(bench: Bench) -> None:
    """Measure movies per second and how busy the workers were."""
    note = relion.missing(relion.MOTION, relion.PICK, relion.EXTRACT)
    for workers, count in MOVIES.items():
        raw = data.session(bench, bench.folder / f"Simulated_backlog{workers}", count)
        ours = _ours(bench, raw, workers, count)
        name = f"movies to particles, {workers} worker{'s' if workers > 1 else ''}"
        if note:
            bench.add(name, ours, "movies/s")
        else:
            peer = _peer(bench, raw, workers)
            against = f"{relion.version()} without CTF, {workers} processes"
            bench.compare(name, ours, "movies/s", "peer", against, peer)
    bench.note(
        note
        or "RELION: relion_run_motioncorr --use_own, relion_autopick --LoG, relion_preprocess, one "
        "thread each, the movies dealt out to as many processes as we have workers; no CTFFIND is "
        "installed, so its share lacks the CTF while ours has it."
    )
    bench.note(
        "Ours: between the 5th and the last but 5 movie. Busy: computing time of results over "
        "workers x time between prep's first and last result; the rest is publishing files, "
        "waiting for the next task, and the services themselves, which use the same cores."
    )


def _ours(bench: Bench, raw: Path, workers: int, count: int) -> float:
    """Process a folder; add the shares of the workers' time and return the rate to the end."""
    project = bench.folder / f"project{workers}"
    live = Live("process", raw, "--project", project, "--workers", str(workers), *data.SETTINGS,
                log=bench.folder / f"log{workers}")  # fmt: skip
    deadline = time.monotonic() + LIMIT_S
    try:
        while live.popen.poll() is None and time.monotonic() < deadline:
            time.sleep(0.5)
            bench.say(f"{workers} workers: {Stories(project).ended()} of {count} movies done")
    finally:
        live.end()
    stories = Stories(project)
    prep, proc = stories.tasks(PREP), stories.tasks(PROC)
    begin, end = prep[0].done, prep[-1].done
    offered = workers * (end - begin)
    in_prep, in_proc = busy_s(prep, begin, end), busy_s(proc, begin, end)
    fitted = [event.at for event in stories.of(MicrographCtf).values()]
    bench.add(f"movies to CTF, {workers} workers", steady_rate(fitted), "movies/s")
    bench.compare(f"workers busy with prep and proc, {workers} workers",
                  100 * (in_prep + in_proc) / offered, "%", "goal", "above 85 %",
                  GOAL_SHARE)  # fmt: skip
    bench.add("of this prep", 100 * in_prep / offered, "%")
    bench.add("of this proc", 100 * in_proc / offered, "%")
    return steady_rate([event.at for event in stories.of(ParticlesExtracted).values()])


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
