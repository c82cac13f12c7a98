"""The service refine: what it starts, with which particles, what a kill and a failure cost."""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from algorithms.formats import mrc, star
from schemer import templates
from schemer.project import Project
from services.kit import session as config
from services.kit.errors import Misuse
from services.kit.events import (
    SCHEMA,
    Body,
    ClassesAveraged,
    Event,
    JobStarted,
    MapBegun,
    MapFailed,
    MapIterated,
    MapRefined,
    ParticlesTaken,
    SelectionAnswered,
    SettingsApplied,
)
from services.kit.host import Arrived, Started
from services.kit.jobprocess import PROGRAM, JobProcess
from services.kit.journal import Journal, Reader
from services.kit.ledger import Ledger
from services.kit.paths import Layout
from services.refine.build import build
from services.refine.lane import RefineLane
from services.refine.service import MAX_ATTEMPTS, Refine
from services.refine.shell import RefineShell
from services.refine.state import Ended, Result, Told, Wanted
from services.stories import status_lines
from tests import recorded_jobs
from tests.bench.grown import Driver
from tests.books import Books
from tests.shared import shared

LIMIT_S = 300.0


class Session:
    """refine of a project to which classifications and selections come."""

    def __init__(self, project: Path, *, selects: bool = False, **settings: str):
        self.project, self.selects, self.head = project, selects, 0
        self.layout = Layout(project)
        self.layout.make()
        Project(project).init()
        self.set(min_nr_parts_3d="400", **settings)
        self.books = Books(project)
        self.journal: Journal | None = None
        self.start()

    def set(self, **settings: str) -> None:
        """Change settings, as the start of a session does."""
        given = {f"refine__{name}": value for name, value in settings.items()}
        for name in templates.SHIPPED:
            templates.install(self.project, name, given)

    def start(self) -> None:
        """Start refine as after a kill: what it knows is in its journal."""
        if self.journal is not None:
            self.journal.close()
        self.shell = RefineShell(self.project)
        self.service = Refine(self.shell, selects=self.selects)
        self.journal = Journal(self.layout.journal("refine"), "refine", "session1")
        replayed = self.service.empty()
        for event in self.journal.read():
            self.service.apply(replayed, event.body, event.at)
        before, self.service.empty = self.service.empty, lambda: replayed
        self.driver = Driver(self.service, self.journal)
        self.service.empty = before
        self.act()

    @property
    def state(self):
        return self.driver.state

    def act(self) -> None:
        self.driver.work(lambda task: pytest.fail(f"a task: {task}"))
        self.driver.commit()
        self.service.render(self.state, everything=True)

    def hear(self, *bodies: Body) -> None:
        """Let events of proc arrive."""
        self.books.add("proc", *bodies)
        for body in bodies:
            self.head += 1
            event = Event(
                schema=SCHEMA, producer="proc", epoch=b"e" * 16, seq=self.head, uid=b"u" * 16,
                cause=None, session="session1", at=0.0, subject="session", body=body, prev=b"",
                hash=b"",
            )  # fmt: skip
            self.driver.handle([Arrived(event)])
            self.act()

    def averaged(self, number: int, particles: int) -> None:
        """Let a classification end."""
        self.hear(averaged(number, particles))

    def handle(self, *stimuli) -> None:
        self.driver.handle(stimuli)
        self.act()

    def finish(self, resolution_A: float | None = None) -> str:
        """Let the job that is due end well; return its node."""
        work = self.state.work
        result = Result(f"{work.process}map.mrc", resolution_A)
        self.handle(Wanted(work.process), Ended(work.process, "", "", time.time(), result))
        return work.node

    def events(self, kind) -> list:
        reader = Reader(self.layout.journal("refine"))
        found = [event.body for event in reader.read() if isinstance(event.body, kind)]
        reader.close()
        return found

    def ledger(self) -> Ledger:
        ledger = Ledger(self.layout)
        ledger.update()
        return ledger

    def status(self, process: str) -> str | None:
        return Project(self.project).pipeline().status(process)

    def options(self) -> dict[str, str]:
        """Return the options of the job that is due."""
        return self.shell.options(self.state, self.state.work.node).values

    def close(self) -> None:
        self.books.close()
        self.journal.close()


def averaged(number: int, particles: int) -> ClassesAveraged:
    """Return the end of a classification."""
    process = f"Class2D/job{number:03d}/"
    return ClassesAveraged(
        process=process,
        iteration=200,
        particles=particles,
        optimiser=f"{process}run_it200_optimiser.star",
        montage=f"{process}run_classes.png",
    )


def answered(number: int, outcome: str, particles: int = 0) -> SelectionAnswered:
    """Return the answer of a selection."""
    return SelectionAnswered(
        process=f"Class2D/job{number:03d}/",
        visit=number,
        job=f"Select/job{number:03d}/" if outcome == "selected" else None,
        outcome=outcome,
        particles=particles,
        detail="there are no weights" if outcome == "refused" else "",
    )


@pytest.fixture
def session(request, tmp_path):
    made = Session(tmp_path / "project", **getattr(request, "param", {}))
    yield made
    made.close()


def test_few_particles_wait_and_enough_go_through_all_jobs(session: Session) -> None:
    session.averaged(1, 399)
    assert session.state.work is None and session.state.is_tried
    assert session.state.machine.floats["current_nr_parts"] == 399.0
    session.averaged(2, 400)
    assert session.options()["fn_img"] == "Class2D/job002/run_it200_data.star"
    first = session.state.work.process
    _, options = session.shell.job(session.state, "refine3d")
    assert options["ref_correct_greyscale"] == "Yes"
    nodes = [session.finish(), session.finish(12.5), session.finish()]
    assert session.shell.job(session.state, "postprocess")[1]["do_auto_bfac"] == "No"
    nodes.append(session.finish(9.5))
    assert nodes == ["inimodel3d", "refine3d", "maskcreate", "postprocess"]
    assert session.state.work is None and not session.state.machine.passes
    started = [one.process for one in session.events(JobStarted)]
    assert len(set(started)) == 4 and started[0] == first == "InitialModel/job001/"
    refine3d = star.load(session.project / started[1] / "job.star")["joboptions_values"]
    columns = (refine3d.columns[f"rlnJobOption{name}"] for name in ("Variable", "Value"))
    options = dict(zip(*columns, strict=True))
    assert options["fn_ref"] == f"{first}initial_model.mrc"
    post = star.load(session.project / started[3] / "job_pipeline.star")
    inputs = post["pipeline_input_edges"].strings("rlnPipeLineEdgeFromNode")
    assert set(inputs) == {
        f"{started[1]}run_half1_class001_unfil.mrc",
        f"{started[2]}mask.mrc",
    }
    scheme = (session.project / "Schemes/refine/scheme.star").read_text()
    assert "Class2D/job002/run_it200_data.star" in scheme and started[3] in scheme
    assert (session.project / "Schemes/refine").is_dir()
    lines = "\n".join(status_lines(session.ledger()))
    assert f"  map {started[3]}map.mrc: 400 particles, 9.50 A" in lines


def test_it_begins_again_when_the_particles_have_grown_enough(session: Session) -> None:
    session.averaged(1, 400)
    for _ in range(4):
        session.finish()
    session.averaged(2, 599)
    assert session.state.work is None
    session.averaged(3, 600)
    assert session.state.work.node == "inimodel3d" and session.state.work.particles == 600
    assert session.state.work.process == "InitialModel/job005/"
    session.finish(), session.finish(5.0), session.finish()
    assert session.shell.job(session.state, "postprocess")[1]["do_auto_bfac"] == "Yes"


def test_what_waits_is_replaced_by_what_has_more_particles(session: Session) -> None:
    session.averaged(1, 400)
    session.averaged(2, 450)
    session.averaged(3, 900)
    assert session.state.work.particles == 400  # what is begun is finished
    session.finish()
    # One refinement, with all that there is, and none of the 450.
    assert session.options()["fn_img"] == "Class2D/job003/run_it200_data.star"
    assert session.state.work.particles == 900
    assert session.state.machine.floats["prev_nr_parts"] == 900.0
    session.averaged(4, 1000)
    for _ in range(3):
        session.finish()
    assert session.state.work is None and session.state.is_tried  # 1000 is not 1.5 times 900
    session.averaged(5, 1350)
    session.averaged(6, 700)  # a person has rejected micrographs
    session.finish()
    assert session.options()["fn_img"] == "Class2D/job005/run_it200_data.star"
    ledger = session.ledger()
    assert not ledger.at_rest()
    for _ in range(3):
        session.finish()
    ledger.update()
    assert ledger.at_rest()
    session.books.add("proc", averaged(7, 9000))  # refine has not heard of it
    ledger.update()
    assert not ledger.at_rest()
    ledger.close()


@pytest.mark.parametrize("session", [{"iniref": "given.mrc"}], indirect=True)
def test_a_reference_of_a_person_stands_for_the_initial_model(session: Session) -> None:
    (session.project / "given.mrc").touch()
    session.averaged(1, 400)
    _, options = session.shell.job(session.state, "refine3d")
    assert session.state.work.node == "refine3d" and options["fn_ref"] == "given.mrc"
    assert options["ref_correct_greyscale"] == "No"  # a person's map has grey values of its own
    assert session.state.machine.floats["prev_nr_parts"] == 400.0


@pytest.mark.parametrize("session", [{"selects": True}], indirect=True)
def test_the_selection_is_waited_for(session: Session) -> None:
    session.averaged(1, 5000)
    assert session.state.work is None and session.state.held.particles == 5000
    session.hear(answered(1, "asks"))
    assert session.state.work is None
    session.hear(answered(1, "selected", 700))
    assert session.options()["fn_img"] == "Select/job001/particles.star"
    for _ in range(4):
        session.finish()
    session.averaged(2, 9000)
    session.hear(answered(2, "refused"))
    taken = session.events(ParticlesTaken)[-1]
    assert (taken.is_selected, taken.particles) == (False, 9000)
    assert taken.detail == "not selected: there are no weights"
    assert session.options()["fn_img"] == "Class2D/job002/run_it200_data.star"


@pytest.mark.parametrize("session", [{"selects": True}], indirect=True)
def test_classes_that_were_not_kept_are_not_refined(session: Session) -> None:
    session.averaged(1, 5000)
    session.hear(answered(1, "selected", 300), answered(1, "refused"))  # made anew, in vain
    assert [one.is_selected for one in session.events(ParticlesTaken)] == [False, True]
    session.averaged(2, 5000)
    session.hear(answered(2, "nothing"))
    assert session.state.work is None and session.state.newest.particles == 300
    session.selects = False
    session.start()  # classes are not selected any more
    assert session.state.held is None and session.state.work.particles == 5000
    session.start()
    assert len(session.events(ParticlesTaken)) == 4


def test_a_job_that_fails_ends_the_pass_and_the_service_goes_on(session: Session) -> None:
    session.averaged(1, 400)
    process = session.state.work.process
    session.handle(Wanted(process), Ended(process, "failed", "the box is odd", time.time()))
    (failed,) = session.events(MapFailed)
    assert (failed.node, failed.detail) == ("inimodel3d", "the box is odd")
    assert session.state.work is None and not session.state.machine.passes
    assert "  the box is odd" in list(status_lines(session.ledger()))
    session.averaged(2, 500)
    assert session.state.work is None  # not for ever the same
    session.averaged(3, 600)
    second = session.state.work.process
    assert second != process
    session.handle(Ended(process, "", "", time.time(), Result("late.mrc")))  # of the first one
    assert not session.events(MapRefined)
    for _ in range(MAX_ATTEMPTS + 1):
        session.handle(Wanted(second))
    assert session.events(MapFailed)[-1].reason == "poison"
    assert session.state.given_up == second
    session.start()  # a person has seen to it
    assert session.state.work is not None and session.state.work.particles == 600
    # One more start, while the pass of that one is under way: what failed before it is no matter.
    session.state.has_failed = True
    told = list(session.service.decide(session.state, Started(0.0)))
    assert [type(body) for body in told] == [SettingsApplied]


def test_other_options_begin_a_job_anew_and_more_threads_do_not(session: Session) -> None:
    session.averaged(1, 400)
    process = session.state.work.process
    session.handle(Wanted(process), Told(process, recorded_jobs.iteration(1)))
    session.set(inimodel3d__nr_threads="2")
    session.start()
    assert session.state.work.process == process and session.state.work.iteration == 1
    session.set(inimodel3d__sym_name="C2")
    session.start()
    assert session.events(MapFailed)[-1].reason == "outdated"
    assert session.state.work.process != process
    assert session.options()["sym_name"] == "C2"
    session.finish()
    session.set(maskcreate__extend_inimask="4")
    session.start()
    assert session.state.work.node == "refine3d"  # the mask is still to come
    session.finish(), session.finish(), session.finish()
    made = len(session.events(JobStarted))
    session.set(postprocess__autob_lowres="12")
    session.start()
    assert session.state.work.node == "postprocess"  # and nothing before it
    session.finish()
    assert len(session.events(JobStarted)) == made + 1 and not session.state.machine.passes
    session.set(min_growth="1.1")
    session.start()
    assert session.state.work is None  # a variable makes nothing due again
    session.averaged(2, 441)
    assert session.state.work.particles == 441


def test_switched_off_it_takes_note_and_begins_nothing(session: Session) -> None:
    session.service = Refine(session.shell, selects=False, active=False)
    session.driver.service = session.service
    session.averaged(1, 5000)
    assert session.state.newest.particles == 5000 and session.state.work is None
    session.start()  # switched on
    assert session.state.work.particles == 5000
    session.set(inimodel3d__sym_name="C2")
    off = Refine(RefineShell(session.project), selects=False, active=False)
    assert not list(off.decide(session.state, Started(0.0)))
    session.state.work = None
    assert not list(off.perform(session.state))


def test_a_project_of_a_time_before_refine_gets_its_scheme(session: Session) -> None:
    given = config.Session(name="s", raw="/raw", settings={"proc__min_nr_parts_3d": "77"})
    shutil.rmtree(session.project / "Schemes/refine")
    (session.project / "Schemes/proc/select_parts/job.star").unlink()
    service, _ = build(session.layout, given)
    assert service.scheme.floats["min_nr_parts_3d"].value == 77.0
    (session.project / "Schemes/refine/refine3d/job.star").unlink()
    with pytest.raises(Misuse, match="refine3d"):
        build(session.layout, given)


def test_a_job_that_is_deleted_is_over(session: Session) -> None:
    table = session.project / "Class2D/job001/run_it200_data.star"
    table.parent.mkdir(parents=True)
    table.touch()
    session.averaged(1, 500)
    process = session.state.work.process
    lane = RefineLane(session.shell, JobProcess(session.project, 12, ("/bin/true",)))
    session.handle(*lane.poll(0.0, session.state)[0])
    shutil.rmtree(session.project / process)
    session.handle(*lane.poll(1.0, session.state)[0])
    (failed,) = session.events(MapFailed)
    assert failed.reason == "aborted" and session.state.work is None
    lane.close()


def test_what_proc_calls_its_three_dimensional_jobs_is_meant_for_refine() -> None:
    from services.kit.session import _for_refine

    given = {"proc__refine3d__sym_name": "D2", "proc__min_nr_parts_3d": "9", "prep__wait_sec": "1"}
    wanted = {"refine__refine3d__sym_name": "D2", "refine__min_nr_parts_3d": "9"}
    assert _for_refine(given) == wanted


class Live:
    """refine with its processes."""

    def __init__(self, session: Session, *, recorded: bool = True):
        self.session = session
        runs = str(shared("data/refinement"))
        program = (sys.executable, recorded_jobs.__file__, runs) if recorded else PROGRAM
        self.lane = RefineLane(session.shell, JobProcess(session.project, 12, program))

    def until(self, done) -> None:
        """Look after the process until something holds."""
        deadline = time.monotonic() + LIMIT_S
        while not done():
            assert time.monotonic() < deadline, list(status_lines(self.session.ledger()))
            assert not self.session.events(MapFailed), self.session.events(MapFailed)
            stimuli, _ = self.lane.poll(time.monotonic(), self.session.state)
            if stimuli:
                self.session.handle(*stimuli)
            time.sleep(0.02)


def test_a_job_keeps_its_particles_and_has_to_leave_a_map(session: Session) -> None:
    folder = session.project / "Class2D/job001"
    folder.mkdir(parents=True)
    table = folder / "run_it200_data.star"
    table.write_text("the first selection")
    session.averaged(1, 500)
    process = session.state.work.process
    lane = RefineLane(session.shell, JobProcess(session.project, 12, ("/bin/true",)))
    session.handle(*lane.poll(0.0, session.state)[0])
    lane.poll(1.0, session.state)
    (folder / "new").write_text("another selection")
    (folder / "new").replace(table)
    job = json.loads((session.project / process / "job.json").read_text())
    assert job["type"] == "relion.initialmodel" and job["continue"] is False
    assert (session.project / job["options"]["fn_img"]).read_text() == "the first selection"
    deadline = time.monotonic() + LIMIT_S
    while not session.events(MapFailed) and time.monotonic() < deadline:
        session.handle(*lane.poll(2.0, session.state)[0])
    (failed,) = session.events(MapFailed)
    assert failed.detail == "it has left no result" and session.status(process) == "Failed"
    lane.close()


@pytest.fixture
def in_path(monkeypatch):
    """Let programs import the checkout."""
    root = str(Path(__file__).resolve().parents[2])
    monkeypatch.setenv("PYTHONPATH", root)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_lost_and_nothing_doubled(session, in_path) -> None:
    live = Live(session)
    session.averaged(1, 500)
    process = session.state.work.process
    live.until(lambda: session.state.work.iteration >= 1)
    assert session.status(process) == "Running"
    os.kill(live.lane._process.pid, signal.SIGKILL)  # of the job alone
    live.until(lambda: session.state.work.process == process and session.state.work.iteration >= 2)
    live.lane.close()  # of all of refine
    session.start()
    live = Live(session)
    try:
        live.until(lambda: len(session.events(MapRefined)) == 2)
        live.lane.close()
        session.start()
        live = Live(session)
        live.until(lambda: len(session.events(MapRefined)) == 4)
    finally:
        live.lane.close()
    refined = {one.node: one for one in session.events(MapRefined)}
    assert list(refined) == ["inimodel3d", "refine3d", "maskcreate", "postprocess"]
    for node in ("inimodel3d", "refine3d"):
        told = [one.iteration for one in session.events(MapIterated) if one.node == node]
        assert told == list(range(1, recorded_jobs.ITERATIONS + 1)), node
    assert max(one.attempt for one in session.events(MapBegun)) == 1
    assert all(session.status(one.process) == "Succeeded" for one in refined.values())
    # What RELION's own run says: its resolution unmasked, ours in the mask.
    assert refined["refine3d"].resolution_A == pytest.approx(48.0, abs=0.1)
    sharpened = refined["postprocess"]
    assert sharpened.resolution_A == pytest.approx(48.0, abs=0.1)  # the mask adds nothing here
    assert (session.project / sharpened.map).stat().st_size > 100_000
    assert not session.ledger().refinement.passes


@pytest.mark.slow
@pytest.mark.parametrize("session", [{"inimodel3d__other_args": "--fail"}], indirect=True)
def test_what_a_job_says_of_its_failure_is_told(session, in_path) -> None:
    live = Live(session)
    session.averaged(1, 500)
    process = session.state.work.process
    try:
        while not session.events(MapFailed):
            session.handle(*live.lane.poll(time.monotonic(), session.state)[0])
    finally:
        live.lane.close()
    (failed,) = session.events(MapFailed)
    assert failed.detail == "option other_args asks for what cannot be"
    assert session.status(process) == "Failed"


REAL = {
    "inimodel3d__particle_diameter": "300",
    "inimodel3d__nr_classes": "1",
    "inimodel3d__nr_iter": "20",
    "refine3d__particle_diameter": "300",
    "refine3d__sampling": "15 degrees",
    "refine3d__auto_local_sampling": "7.5 degrees",
    "refine3d__ini_high": "60",
}
NODES = ["inimodel3d", "refine3d", "maskcreate", "postprocess"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("session", "nodes"),
    [(REAL | {"iniref": "reference.mrc"}, NODES[1:]), (REAL, NODES)],
    indirect=["session"],
    ids=["reference", "from nothing"],
)
def test_the_real_jobs_from_particles_to_a_sharpened_map(session, nodes, in_path) -> None:
    """The program's own jobs, the first of them killed once."""
    runs = shared("data/refinement/sim32")
    for name in ("particles.mrcs", "reference.mrc"):
        shutil.copy(runs / name, session.project / name)
    folder = session.project / "Class2D/job001"
    folder.mkdir(parents=True)
    shutil.copy(runs / "particles.star", folder / "run_it200_data.star")
    session.averaged(1, 500)
    live = Live(session, recorded=False)
    try:
        live.until(lambda: session.state.work.iteration >= 2)
        os.kill(live.lane._process.pid, signal.SIGKILL)
        live.until(lambda: len(session.events(MapRefined)) == len(nodes))
    finally:
        live.lane.close()
    refined = {one.node: one for one in session.events(MapRefined)}
    assert list(refined) == nodes
    for node in nodes[:-2]:
        told = [one for one in session.events(MapIterated) if one.node == node]
        assert [one.iteration for one in told] == list(range(1, len(told) + 1)) and len(told) > 2
        assert {one.total for one in told} == {500}
    table = star.load(session.project / refined["refine3d"].process / "run_data.star")
    assert len(table["particles"]) == 500
    assert all(session.status(one.process) == "Succeeded" for one in refined.values())
    if len(nodes) == 3:  # the same particles and reference as RELION's run
        paths = session.project / refined["refine3d"].map, runs.parent / "refine3d/run_class001.mrc"
        ours, theirs = (np.array(mrc.read(path)).ravel() for path in paths)
        assert np.corrcoef(ours, theirs)[0, 1] > 0.9
