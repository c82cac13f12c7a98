"""A session of any length as its services would have left it, made without computing anything.

The journals are written by the services' own decisions: movies settle, tasks are asked for and are
answered with made-up results. State and journals are therefore those of a real run.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from algorithms.formats import star
from algorithms.simulate.epu import Exposure, exposure_xml, plan_session
from algorithms.simulate.recipe import Recipe
from mdcatch.config import MdcatchConfig
from mdcatch.parsers import Field, Record, parse
from mdcatch.service import Mdcatch
from mdcatch.stimuli import Header, Noticed, Opened, Ready
from services.kit.events import MicrographCtf, MovieSettled
from services.kit.host import Arrived, Finished, Paused, Started
from services.kit.journal import Cursor, Draft, Journal, Reader
from services.kit.paths import Layout
from services.kit.session import Session
from services.kit.work import Reply, Task
from services.prep.build import build as build_prep
from services.prep.requests import CtfResult, MotionResult
from services.proc.build import build as build_proc
from services.proc.particles import LABELS
from services.proc.requests import ExtractRequest, ExtractResult, PickResult
from services.setup import set_up
from tests.bench import data

SEED = 4
PARTICLES = 40  # per micrograph
COMMIT_EVERY = 250  # stimuli; only a faster way to the same rows


class Driver:
    """Lets a service decide and fold as its host does, and commits what it says."""

    def __init__(self, service: Any, journal: Journal):
        self.service, self.journal = service, journal
        self.state = service.empty()
        self._drafts: list[Draft] = []
        self._cursors: dict[str, Cursor] = {}
        self._stimuli = 0
        self.handle([Started(time.time())])

    def handle(self, stimuli: Iterable[Any]) -> None:
        """Decide on stimuli and on the pause after them."""
        for stimulus in (*stimuli, Paused(time.time())):
            for body in self.service.decide(self.state, stimulus):
                at = time.time()
                self.service.apply(self.state, body, at)
                self._drafts.append(Draft(body, at))
            if isinstance(stimulus, Arrived):
                event = stimulus.event
                self._cursors[event.producer] = Cursor(event.epoch, event.seq)
        self._stimuli += 1
        if self._stimuli % COMMIT_EVERY == 0:
            self.commit()

    def commit(self) -> None:
        """Write what was decided."""
        self.journal.commit(self._drafts, self._cursors)
        self._drafts = []

    def work(self, result: Callable[[Task], Reply]) -> None:
        """Do deeds and tasks until the service wants no more."""
        while True:
            deeds = list(self.service.perform(self.state))
            tasks = [] if deeds else self.service.want(self.state, 4, ())
            if not deeds and not tasks:
                return
            self.handle(deeds or [Finished(task, 1, result(task)) for task in tasks])


def set_up_grown(project: Path, raw: Path, count: int) -> tuple[Layout, Session]:
    """Make a project whose raw folder has `count` exposures; all their files are empty."""
    for exposure in plan(count):
        place = raw / exposure.movie
        place.parent.mkdir(parents=True, exist_ok=True)
        place.with_name(f"{exposure.stem}_fractions.tiff").touch()
        place.with_name(f"{exposure.stem}.xml").touch()
    changes = {"particle_diameter_A": data.DIAMETER_A, "workers": 1}
    return set_up(project, raw, changes, {"proc__select_mics__select_maxval": "30"})


def plan(count: int) -> list[Exposure]:
    """Return the exposures of the session."""
    return plan_session(long_recipe(count), SEED)


def long_recipe(count: int) -> Recipe:
    """Return a session with squares of a usual size."""
    return replace(data.recipe(count), exposures_per_square=200, areas_per_hole=4)


def grow_mdcatch(layout: Layout, session: Session, count: int) -> Driver:
    """Settle `count` movies."""
    service = Mdcatch(MdcatchConfig(raw=session.raw, name=session.name))
    driver = Driver(service, Journal(layout.journal("mdcatch"), "mdcatch", session.name))
    driver.handle([Opened(name=session.name, raw=session.raw)])
    for ready in _ready(count):
        driver.handle([Noticed(movie=ready.movie, path=str(ready.metadata_path))])
        driver.handle([ready])
    driver.commit()
    return driver


def _ready(count: int) -> Iterator[Ready]:
    recipe = long_recipe(count)
    exposures = plan(count)
    first = parse(exposure_xml(recipe, exposures[0], 15000.0, SEED).encode(), "first.xml")
    for exposure in exposures:
        yield Ready(
            movie=exposure.movie,
            path=f"{exposure.movie}_fractions.tiff",
            size_bytes=8_600_000,
            mtime_ns=int(exposure.acquired_at.timestamp() * 1e9),
            header=_header(recipe, exposure),
            metadata_path=f"{exposure.movie}.xml",
            record=_metadata(first, exposure),
            gain_path="gain.mrc",
        )


def _header(recipe: Recipe, exposure: Exposure) -> Header:
    record = Record(format="tiff", kind="movie")
    record.put("n_frames", recipe.n_frames, "header")
    record.put("movie_size_px", (recipe.nx, recipe.ny), "header")
    return Header(
        format="tiff",
        width_px=recipe.nx,
        height_px=recipe.ny,
        n_frames=recipe.n_frames,
        compression="lzw",
        record=msgspec.msgpack.encode(record),
        digest=f"{exposure.index:064x}",
    )


def _metadata(first: Record, exposure: Exposure) -> bytes:
    own = {
        "acquisition_time": Field(exposure.acquired_at.isoformat(), "xml"),
        "beam_shift": Field(exposure.beam_shift, "xml"),
    }
    fields = first.fields | own
    return msgspec.msgpack.encode(Record(format=first.format, kind=first.kind, fields=fields))


def grow_prep(layout: Layout, session: Session, pace: list[float] | None = None) -> Driver:
    """Let prep take every settled movie over and answer all its tasks.

    `pace` gets the seconds that every movie took.
    """
    service, _ = build_prep(layout, session)
    driver = Driver(service, Journal(layout.journal("prep"), "prep", session.name))
    rng = np.random.default_rng(SEED)
    _follow(driver, layout, "mdcatch", lambda task: prep_result(task, rng), pace)
    service.render(driver.state, everything=False)  # proc asks prep's Scheme for its jobs
    return driver


def grow_proc(layout: Layout, session: Session, pace: list[float] | None = None) -> Driver:
    """Let proc take every micrograph over; each has the same particles on disk."""
    service, _ = build_proc(layout, session)
    driver = Driver(service, Journal(layout.journal("proc"), "proc", session.name))
    rng = np.random.default_rng(SEED)
    part = _particles_file(layout.project / "particles_of_one.star")
    return _follow(
        driver, layout, "prep", lambda task: proc_result(task, rng, layout.project, part), pace
    )


def _follow(
    driver: Driver,
    layout: Layout,
    producer: str,
    result: Callable[[Task], Reply],
    pace: list[float] | None,
) -> Driver:
    reader = Reader(layout.journal(producer))
    for event in reader.read():
        begun = time.perf_counter()
        driver.handle([Arrived(event)])
        driver.work(result)
        if pace is not None and isinstance(event.body, MovieSettled | MicrographCtf):
            pace.append(time.perf_counter() - begun)
    driver.commit()
    reader.close()
    return driver


def prep_result(task: Task, rng: np.random.Generator) -> Reply:
    """Answer a task of prep."""
    if task.stage == "motioncorr":
        total = float(rng.gamma(9.0, 0.9))
        result: msgspec.Struct = MotionResult(
            width_px=1024,
            height_px=1024,
            pixel_size_A=2.0,
            motion_total_px=total,
            motion_early_px=0.3 * total,
            motion_late_px=0.7 * total,
            converged=True,
            hot_pixels=20,
        )
    else:
        defocus = float(rng.uniform(8_000, 24_000))
        result = CtfResult(
            defocus_u_A=defocus + 90,
            defocus_v_A=defocus - 90,
            defocus_angle_deg=float(rng.uniform(-90, 90)),
            phase_shift_deg=0.0,
            figure_of_merit=float(rng.uniform(0.05, 0.2)),
            max_resolution_A=float(rng.uniform(3.0, 6.0)),
            reliable=True,
        )
    return Reply(msgspec.msgpack.encode(result), float(rng.uniform(0.5, 2.0)))


def proc_result(task: Task, rng: np.random.Generator, project: Path, part: Path) -> Reply:
    """Answer a task of proc; the particles of every micrograph are links to `part`."""
    result: msgspec.Struct = PickResult(n_particles=PARTICLES, mean_figure_of_merit=1.4)
    if task.stage == "extract":
        ask = msgspec.msgpack.decode(task.request, type=ExtractRequest)
        path = project / f"{ask.root}_extract.star"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(part)
        result = ExtractResult(n_particles=PARTICLES, box_px=128, pixel_size_A=3.06)
    return Reply(msgspec.msgpack.encode(result), float(rng.uniform(0.05, 0.2)))


def _particles_file(path: Path) -> Path:
    """Write the particles of one micrograph; every other one is a link to it."""
    columns: dict[str, Any] = {label: np.linspace(1.0, 900.0, PARTICLES) for label in LABELS}
    name = "MotionCorr/job002/Movies/Images-Disc1/GridSquare_18540796/Data/m.mrc"
    columns["rlnMicrographName"] = [name] * PARTICLES
    columns["rlnImageName"] = [f"{i + 1:08d}@{name}s" for i in range(PARTICLES)]
    columns["rlnOpticsGroup"] = [1] * PARTICLES
    star.save(path, {"images": star.Table.of(columns)}, durable=False)
    return path
