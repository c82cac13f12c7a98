"""Latency: a simulated microscope writes movies more slowly than they are processed."""

import shutil
import time
from pathlib import Path

from algorithms.simulate.session import simulate_session
from services.kit.events import (
    Body,
    MicrographCorrected,
    MicrographCtf,
    MovieImported,
    MovieSettled,
    ParticlesExtracted,
    ParticlesPicked,
)
from tests.bench import data
from tests.bench.figures import Bench, median, percentile
from tests.bench.stories import PREP, PROC, Stories
from tests.system.sessions import Live

EXPOSURES, PACE_S, WORKERS, SETTLE_S = 20, 2.6, 2, 2.0
# What the services may add to settling and computing (preprocessing.md section 8).
GOAL_S = 0.3
LIMIT_S = 60.0


def run(bench: Bench) -> None:
    """Measure what each stage adds between the last byte of a movie and its results."""
    raw, project = bench.folder / "Simulated_live", bench.folder / "project"
    data.prepare(bench, raw)
    raw.mkdir()
    # An empty folder would be looked at every 5 s only: it may be a share that is not there.
    shutil.copy(data.gain(bench), raw / "gain.mrc")
    up = ["up", "--project", project, "--raw", raw, "--workers", str(WORKERS), *data.SETTINGS]
    live = Live(*up, "--settle", f"{SETTLE_S:g}", log=bench.folder / "log")
    try:
        bench.say("starting the services")
        _wait_for_services(bench.folder / "log")
        simulate_session(
            data.recipe(EXPOSURES, PACE_S),
            raw,
            seed=data.SEED,
            realtime=True,
            progress=lambda done, total, _: bench.say(f"exposure {done} of {total}"),
        )
        _wait_for_results(bench, project)
    finally:
        if live.popen.poll() is None:
            live.interrupt()
        live.end()
    stories = Stories(project)
    _stages(bench, stories)
    _whole(bench, stories)
    bench.note(
        "Medians where nothing else is said. "
        f"{len(stories.of(MicrographCtf))} movies of 1024 x 1024 x 16, one every {PACE_S:g} s, "
        f"{WORKERS} workers, files settle for {SETTLE_S:g} s; microscope and services share the "
        "cores."
    )


def _wait_for_services(log: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    while log.read_text().count("service.started") < 3:
        if time.monotonic() > deadline:
            raise RuntimeError("the services did not start:\n" + log.read_text()[-2000:])
        time.sleep(0.1)


def _wait_for_results(bench: Bench, project: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    while (ended := Stories(project).ended()) < EXPOSURES and time.monotonic() < deadline:
        bench.say(f"{ended} of {EXPOSURES} movies done")
        time.sleep(0.5)


def _stages(bench: Bench, stories: Stories) -> None:
    """Add what lies between the steps, and the steps."""
    settled, imported = stories.of(MovieSettled), stories.of(MovieImported)
    guard = [settled[m].at - at - SETTLE_S for m, at in stories.written().items()]
    seen = [1e3 * (imported[m].at - settled[m].at) for m in imported]
    bench.goal("last byte to settled, beyond settling", median(guard), "s", 0.2, "reliability.md 4")
    bench.add("the same, largest", max(guard), "s")
    bench.goal("settled to imported by prep", median(seen), "ms", 5, "reliability.md 4")
    bench.goal("the same, largest", max(seen), "ms", 50, "99 % of them")
    motion = {m: stories.task(MicrographCorrected, m) for m in stories.of(MicrographCorrected)}
    ctf = {m: stories.task(MicrographCtf, m) for m in stories.of(MicrographCtf)}
    begun = [task.begun - settled[m].at for m, task in motion.items()]
    bench.add("settled to motion correction begun", median(begun), "s")
    bench.add("motion correction", median([task.took_s for task in motion.values()]), "s")
    between = [task.begun - motion[m].done for m, task in ctf.items()]
    bench.add("corrected to CTF begun", median(between), "s")
    bench.add("CTF", median([task.took_s for task in ctf.values()]), "s")
    for name, kind in (("picking", ParticlesPicked), ("extraction", ParticlesExtracted)):
        bench.add(name, median([task.took_s for task in stories.tasks([kind])]), "s")


def _whole(bench: Bench, stories: Stories) -> None:
    """Add the whole way, and what of it is neither settling nor computing."""
    written = stories.written()
    fitted, cut = stories.of(MicrographCtf), stories.of(ParticlesExtracted)
    to_ctf = {m: event.at - written[m] for m, event in fitted.items()}
    to_particles = {m: event.at - written[m] for m, event in cut.items()}
    computed = {m: _computed(stories, PREP, m) for m in fitted}
    added = [to_ctf[m] - SETTLE_S - computed[m] for m in fitted]
    in_proc = [cut[m].at - fitted[m].at - _computed(stories, PROC, m) for m in cut]
    floor = SETTLE_S + median(list(computed.values()))
    least = "settling + motion correction + CTF"
    bench.floor("last byte to CTF", median(list(to_ctf.values())), "s", floor, least)
    bench.add("the same, largest", max(to_ctf.values()), "s")
    bench.goal("of this added by the services", median(added), "s", GOAL_S, "at most 0.3 s")
    bench.add("the same, 95 %", percentile(added, 95), "s")
    bench.add("added from CTF to particles", median(in_proc), "s")
    bench.add("last byte to particles", median(list(to_particles.values())), "s")
    bench.add("the same, largest", max(to_particles.values()), "s")


def _computed(stories: Stories, kinds: tuple[type[Body], ...], movie: str) -> float:
    return sum(stories.task(kind, movie).took_s for kind in kinds)
