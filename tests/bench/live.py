"""Latency: a simulated microscope writes movies more slowly than they are processed."""

import time
from pathlib import Path

from algorithms.simulate.session import simulate_session
from services.kit.events import (
    MicrographCorrected,
    MicrographCtf,
    MovieImported,
    MovieSettled,
    ParticlesExtracted,
    ParticlesPicked,
)
from tests.bench import data
from tests.bench.figures import Bench, median, percentile
from tests.bench.stories import Stories
from tests.system.sessions import Live

EXPOSURES, PACE_S, WORKERS, SETTLE_S = 8, 4.0, 2, 2.0
# What the services may add to settling and computing (preprocessing.md section 8).
GOAL_S = 0.3
LIMIT_S = 60.0


def run(bench: Bench) -> None:
    """Measure what each stage adds between the last byte of a movie and its results."""
    raw, project = bench.folder / "Simulated_live", bench.folder / "project"
    data.prepare(bench, raw)
    raw.mkdir()
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
    """Add what lies between the steps."""
    settled = stories.of(MovieSettled)
    imported = stories.of(MovieImported)
    corrected, fitted = stories.of(MicrographCorrected), stories.of(MicrographCtf)
    picked, cut = stories.of(ParticlesPicked), stories.of(ParticlesExtracted)
    written = {movie: body.mtime_ns * 1e-9 for movie, body in stories.settled().items()}
    guard = [settled[m].at - at - SETTLE_S for m, at in written.items()]
    seen = [imported[m].at - settled[m].at for m in imported]
    begun = [e.at - e.body.took_s - settled[m].at for m, e in corrected.items()]
    between = [e.at - e.body.took_s - corrected[m].at for m, e in fitted.items()]
    bench.compare("last byte to settled, beyond settling, median", median(guard), "s", "goal",
                  "reliability.md 4", 0.2)  # fmt: skip
    bench.add("the same, largest", max(guard), "s")
    bench.compare("settled to imported by prep, median", 1e3 * median(seen), "ms", "goal",
                  "reliability.md 4", 5)  # fmt: skip
    bench.compare("the same, largest", 1e3 * max(seen), "ms", "goal", "99 %", 50)
    bench.add("settled to motion correction begun, median", median(begun), "s")
    bench.add("motion correction, median", median(_took(corrected)), "s")
    bench.add("corrected to CTF begun, median", median(between), "s")
    bench.add("CTF, median", median(_took(fitted)), "s")
    bench.add("picking, median", median(_took(picked)), "s")
    bench.add("extraction, median", median(_took(cut)), "s")


def _whole(bench: Bench, stories: Stories) -> None:
    """Add the whole way, and what of it is neither settling nor computing."""
    corrected, fitted = stories.of(MicrographCorrected), stories.of(MicrographCtf)
    picked, cut = stories.of(ParticlesPicked), stories.of(ParticlesExtracted)
    written = {movie: body.mtime_ns * 1e-9 for movie, body in stories.settled().items()}
    to_ctf = {m: e.at - written[m] for m, e in fitted.items()}
    to_particles = {m: e.at - written[m] for m, e in cut.items()}
    computed = {m: corrected[m].body.took_s + e.body.took_s for m, e in fitted.items()}
    overhead = [to_ctf[m] - SETTLE_S - computed[m] for m in to_ctf]
    in_proc = [e.at - fitted[m].at - picked[m].body.took_s - e.body.took_s for m, e in cut.items()]
    floor = SETTLE_S + median(list(computed.values()))
    bench.compare("last byte to CTF, median", median(list(to_ctf.values())), "s", "floor",
                  "settling + motion correction + CTF", floor)  # fmt: skip
    bench.add("the same, largest", max(to_ctf.values()), "s")
    bench.compare("added by the services until the CTF, median", median(overhead), "s", "goal",
                  "at most 0.3 s", GOAL_S)  # fmt: skip
    bench.add("the same, 95 %", percentile(overhead, 95), "s")
    bench.add("added by the services from CTF to particles, median", median(in_proc), "s")
    bench.add("last byte to particles, median", median(list(to_particles.values())), "s")
    bench.add("the same, largest", max(to_particles.values()), "s")


def _took(events: dict) -> list[float]:
    return [event.body.took_s for event in events.values()]
