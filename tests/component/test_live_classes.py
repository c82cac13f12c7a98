"""2D classification while a session runs: its process is killed, and particles join it."""

import os
import signal
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from algorithms.formats import mrc, star
from algorithms.refine.run import Run
from algorithms.refine.sampling import Sampling
from algorithms.refine.types import Options
from schemer import templates
from schemer.project import Project
from services.kit.events import (
    ClassesAveraged,
    ClassesFailed,
    ClassesIterated,
    MicrographCtf,
    OpticsGrouped,
)
from services.kit.host import Arrived, Started
from services.kit.journal import Journal, Reader
from services.kit.ledger import Ledger
from services.kit.work import Reply
from services.proc.build import build
from services.proc.classes import Ended, Wanted
from services.proc.classlane import ClassLane
from services.proc.particles import LABELS
from services.proc.requests import ExtractRequest, ExtractResult, PickResult
from services.stories import status_lines
from tests.bench import grown
from tests.refine_data import particle_set

# More particles than are in a mini-batch: files are not written after every iteration.
COUNT, EACH, PIXEL_A = 3, 220, 4.0
ITERATIONS = 8
SETTINGS = {
    "nr_classes": "3",
    "nr_iter_grad": f"{ITERATIONS}",
    "particle_diameter": "100",
    "offset_range": "3",
    "other_args": "--random_seed 1",
}
LIMIT_S = 240.0


class Session:
    """proc of a project whose micrographs are fitted; picks and particles are made up."""

    def __init__(self, folder: Path, **settings: str):
        project = folder / "project"
        self.layout, self.session = grown.set_up_grown(project, folder / "raw", COUNT)
        given = {f"proc__class2d__{name}": v for name, v in (SETTINGS | settings).items()}
        templates.install(project, "proc", given)
        grown.grow_mdcatch(self.layout, self.session, COUNT).journal.close()
        grown.grow_prep(self.layout, self.session).journal.close()
        self.images = particle_set(COUNT * EACH)[0].images.images.numpy()
        self.cut = 0
        self.start()

    def start(self) -> None:
        """Start proc as after a kill: what it knows is in its journal."""
        self.service, self.source = build(self.layout, self.session)
        journal = Journal(self.layout.journal("proc"), "proc", self.session.name)
        self.driver = grown.Driver(self.service, journal)
        self.driver.state = self.service.empty()
        for event in journal.read():
            self.service.apply(self.driver.state, event.body, event.at)
        self.driver.handle([Started(time.time())])
        self.lane = ClassLane(self.layout, self.service._shell)
        self.act()

    def act(self) -> None:
        self.driver.work(self.answer)
        self.driver.commit()

    def end(self) -> None:
        self.lane.close()
        self.driver.journal.close()

    def answer(self, task) -> Reply:
        result: msgspec.Struct = PickResult(n_particles=EACH, mean_figure_of_merit=1.0)
        if task.stage == "extract":
            ask = msgspec.msgpack.decode(task.request, type=ExtractRequest)
            columns = {label: np.zeros(EACH) for label in LABELS}
            columns["rlnImageName"] = [f"{n + 1:08d}@{ask.root}.mrcs" for n in range(EACH)]
            columns["rlnMicrographName"] = [ask.micrograph] * EACH
            columns["rlnOpticsGroup"] = [ask.optics_group] * EACH
            columns["rlnCtfScalefactor"] = np.ones(EACH)
            columns |= {f"rlnDefocus{axis}": np.full(EACH, 15_000.0) for axis in "UV"}
            path = self.layout.project / f"{ask.root}_extract.star"
            path.parent.mkdir(parents=True, exist_ok=True)
            star.save(path, {"images": star.Table.of(columns)}, durable=False)
            images = self.images[self.cut : self.cut + EACH]
            mrc.write(self.layout.project / f"{ask.root}.mrcs", images, PIXEL_A, is_stack=True)
            self.cut += EACH
            result = ExtractResult(n_particles=EACH, box_px=32, pixel_size_A=PIXEL_A)
        return Reply(msgspec.msgpack.encode(result), 0.1)

    def arrive(self, first: int, last: int) -> None:
        """Let fitted micrographs come from prep."""
        reader = Reader(self.layout.journal("prep"))
        events = list(reader.read())
        reader.close()
        optics = [event for event in events if isinstance(event.body, OpticsGrouped)]
        fitted = [event for event in events if isinstance(event.body, MicrographCtf)]
        for event in (*optics, *fitted[first:last]):
            self.driver.handle([Arrived(event)])
            self.act()

    def classify(self, done) -> None:
        """Look after the process until something holds."""
        deadline = time.monotonic() + LIMIT_S
        while not done():
            assert time.monotonic() < deadline, list(status_lines(self.ledger()))
            stimuli, _ = self.lane.poll(time.monotonic(), self.driver.state)
            if stimuli:
                self.driver.handle(stimuli)
                self.act()
            time.sleep(0.02)

    @property
    def classes(self):
        return self.driver.state.classes

    def events(self, kind) -> list:
        reader = Reader(self.layout.journal("proc"))
        found = [event.body for event in reader.read() if isinstance(event.body, kind)]
        reader.close()
        return found

    def ledger(self) -> Ledger:
        ledger = Ledger(self.layout)
        ledger.update()
        return ledger

    def status(self, process: str) -> str | None:
        return Project(self.layout.project).pipeline().status(process)


@pytest.fixture
def live(request, tmp_path):
    session = Session(tmp_path, **getattr(request, "param", {}))
    yield session
    session.end()


def test_a_batch_is_the_same_however_often_it_is_killed(live: Session, tmp_path: Path) -> None:
    live.arrive(0, COUNT)
    assert live.classes.is_due and list(live.classes.parts) == live.driver.state.in_order()[:1]
    first = live.classes.process
    live.classify(lambda: live.classes.iteration >= 3)
    assert live.status(first) == "Running"
    lines = list(status_lines(live.ledger()))
    assert f"2D classes: {first} is running, {EACH} particles" in lines
    assert live.lane._job.pid is not None
    os.kill(live.lane._job.pid, signal.SIGKILL)  # of the classification alone
    live.classify(lambda: live.classes.iteration >= 5)
    live.end()  # of all of proc
    live.start()
    live.classify(lambda: live.classes.is_averaged or live.classes.process != first)
    averaged = live.events(ClassesAveraged)[0]
    root = f"{first}run_it{ITERATIONS:03d}"
    assert (averaged.process, averaged.particles) == (first, EACH)
    assert averaged.optimiser == f"{root}_optimiser.star"
    told = [one.iteration for one in live.events(ClassesIterated) if one.process == first]
    assert told == list(range(1, ITERATIONS + 1))
    assert live.status(first) == "Succeeded"
    project = live.layout.project
    assert (project / averaged.montage).stat().st_size > 1000
    (tmp_path / "again").mkdir()
    Run(
        project / first / ".coldstream/particles.star",
        tmp_path / "again" / "run",
        f"{first}run",
        project,
        Options(
            n_classes=3, iterations=ITERATIONS, particle_diameter_A=100.0, gradient=True, seed=1
        ),
        Sampling(psi_step_deg=12.0, offset_range_A=3 * PIXEL_A, offset_step_A=2 * PIXEL_A),
    ).run()
    for path in (tmp_path / "again").glob("run_it*"):
        assert path.read_bytes() == (project / first / path.name).read_bytes(), path.name
    # As in RELION the passes that came in the meantime begin a new job with all there is.
    second = live.classes.process
    assert second != first and len(live.classes.parts) == COUNT


@pytest.mark.parametrize("live", [{"other_args": "--random_seed 1 --streaming Yes"}], indirect=True)
def test_particles_join_a_run_and_none_is_lost_or_doubled(live: Session) -> None:
    live.arrive(0, 1)
    process = live.classes.process
    live.classify(lambda: live.classes.iteration >= 2)
    live.arrive(1, COUNT)
    assert live.lane._job.pid is not None
    os.kill(live.lane._job.pid, signal.SIGKILL)
    live.classify(lambda: live.classes.total == COUNT * EACH)
    live.end()
    live.start()
    live.classify(lambda: live.classes.is_averaged and not live.classes.is_due)
    assert live.classes.process == process  # one job for the whole session
    (averaged,) = live.events(ClassesAveraged)
    assert averaged.particles == COUNT * EACH
    told = [one.iteration for one in live.events(ClassesIterated)]
    assert told == list(range(1, averaged.iteration + 1)) and averaged.iteration > ITERATIONS / 2
    project = live.layout.project
    table = project / averaged.optimiser.replace("_optimiser", "_data")
    rows = star.load(table)["particles"]
    images = rows.strings("rlnImageName")
    assert len(set(images)) == len(images) == COUNT * EACH
    assert set(rows.ints("rlnClassNumber")) <= {1, 2, 3}
    assert live.status(process) == "Succeeded"
    outputs = Project(project).pipeline().outputs(process)
    if averaged.iteration != ITERATIONS:
        assert averaged.optimiser in outputs


@pytest.mark.parametrize("live", [{"ctf_intact_first_peak": "Yes"}], indirect=True)
def test_a_job_that_fails_says_why_and_is_not_tried_for_ever(live: Session) -> None:
    live.arrive(0, 2)
    live.classify(lambda: not live.classes.is_due)
    (failed,) = live.events(ClassesFailed)
    assert failed.reason == "failed" and "ctf_intact_first_peak" in failed.detail
    assert live.status(failed.process) == "Failed"
    live.arrive(2, COUNT)
    assert not live.classes.is_due and not live.driver.state.machine.passes
    assert "is failed" in "".join(status_lines(live.ledger()))


def test_a_person_ends_a_run_and_then_all_classification(live: Session) -> None:
    """RELION's file ends a run after an iteration, `--no-classify` the one that follows."""
    live.arrive(0, 1)
    first = live.classes.process
    live.classify(lambda: live.classes.iteration >= 2)
    (live.layout.project / first / "RELION_JOB_ABORT_NOW").touch()
    live.classify(lambda: not live.classes.is_due)
    (failed,) = live.events(ClassesFailed)
    assert (failed.process, failed.reason) == (first, "aborted")
    assert live.status(first) == "Aborted" and not live.events(ClassesAveraged)
    assert len(live.events(ClassesIterated)) < ITERATIONS
    live.arrive(1, 2)
    second = live.classes.process
    assert live.classes.is_due and second != first and live.status(second) != "Aborted"
    live.end()
    live.session = msgspec.structs.replace(live.session, classify=False)
    live.start()
    assert not live.classes.is_due
    failed = live.events(ClassesFailed)[-1]
    assert (failed.process, failed.reason) == (second, "outdated")
    assert "switched off" in failed.detail
    live.arrive(2, COUNT)
    assert len(live.driver.state.extracted) == COUNT and not live.driver.state.machine.passes
    assert live.source.poll(time.monotonic(), live.driver.state)[0] == []
    assert live.status(second) == "Aborted"


@pytest.mark.parametrize("live", [{"nr_classes": "12"}], indirect=True)
def test_what_is_decided_without_a_process(live: Session) -> None:
    """Few particles wait, deaths without progress end, new pictures of particles begin anew."""
    live.arrive(0, 1)
    assert not live.classes.is_due and live.driver.state.machine.passes  # 220 of 240
    live.arrive(1, COUNT)
    first = live.classes.process
    for _ in range(11):
        live.driver.handle([Wanted(first)])
    live.driver.commit()
    (failed,) = live.events(ClassesFailed)
    assert failed.reason == "poison"
    live.driver.handle([Ended(first, "", "", time.time())])  # news of a run that is over
    assert not live.events(ClassesAveraged)
    live.end()
    live.start()  # a person has seen to it
    live.arrive(0, COUNT)
    assert len(live.events(ClassesFailed)) == 2 and live.classes.failed_key == ""
