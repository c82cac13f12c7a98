"""A ranker that follows a journal of proc which a test writes; its work is done in this process."""

import time
from pathlib import Path
from typing import Any

from schemer.project import Project
from services.kit.commands import Command, new_id
from services.kit.events import Body, ClassesAveraged, ClassesIterated, SelectionDue
from services.kit.host import Arrived, Started
from services.kit.journal import Draft, Journal, Reader
from services.kit.paths import Layout
from services.kit.session import Session, save
from services.kit.work import Reply, Task
from services.ranker.build import build
from services.ranker.overriding import KIND, mailbox
from services.ranker.tasks import rank
from tests.bench.grown import Driver
from tests.ranker_data import OPTIMISER

CLASSES = "Class2D/job001/"
JOB = "Select/job002/"


def options(threshold: float | str = 0.0, arguments: str = "--weights w.safetensors", **changes):
    """Return the options of a selection."""
    given = {"do_class_ranker": "Yes", "fn_model": OPTIMISER, "rank_threshold": f"{threshold}"}
    return given | {"other_args": arguments} | changes


def due(threshold: float | str = 0.0, visit: int = 1, **more: Any) -> SelectionDue:
    """Return proc's request."""
    told = {name: more.pop(name) for name in ("optimiser", "iteration", "is_final") if name in more}
    given = options(threshold, **more)
    return SelectionDue(
        node="select_parts",
        label="relion.select.class2dauto",
        process=CLASSES,
        visit=visit,
        options=given,
        key=repr(given),
        **told,
    )


def iterated(iteration: int = 25, optimiser: str | None = OPTIMISER) -> ClassesIterated:
    """Return an iteration with files."""
    return ClassesIterated(
        process=CLASSES,
        iteration=iteration,
        iterations=25,
        place=float(iteration),
        particles=300,
        total=300,
        particles_per_s=100.0,
        log_likelihood=1.0,
        resolution_A=10.0,
        classes=6,
        optimiser=optimiser,
    )


def averaged(optimiser: str = OPTIMISER) -> ClassesAveraged:
    """Return the end of a classification."""
    return ClassesAveraged(
        process=CLASSES, iteration=25, particles=300, optimiser=optimiser, montage="none.png"
    )


class Following:
    """The ranker of a project; use `come` for what proc tells."""

    def __init__(self, project: Path):
        self.project, self.layout = project, Layout(project)
        self.layout.make()
        self.session = Session(name="test", raw=str(project))
        save(self.layout, self.session)
        Project(project).init()
        self.proc = Journal(self.layout.journal("proc"), "proc", "test")
        self.calls = 0
        self.start()

    def start(self) -> None:
        """Start as after a kill: what it knows is in its journal."""
        self.service, self.source = build(self.layout, self.session)
        journal = Journal(self.layout.journal("ranker"), "ranker", "test")
        self.driver = Driver(self.service, journal)
        self.driver.state = self.service.empty()
        for event in journal.read():
            self.service.apply(self.driver.state, event.body, event.at)
        self.driver.handle([Started(time.time())])
        self.driver.commit()
        self.source.open(lambda: None)

    def end(self) -> None:
        self.driver.commit()
        self.source.close()
        self.driver.journal.close()

    def close(self) -> None:
        self.end()
        self.proc.close()

    def come(self, *bodies: Body) -> list[Body]:
        """Let events of proc arrive, and do all that follows; return the ranker's answers."""
        before, head = len(self.events()), self.proc.head
        self.proc.commit([Draft(body, 1.0) for body in bodies])
        for event in self.proc.read(head + 1):
            self.driver.handle([Arrived(event)])
        self.act()
        return self.events()[before:]

    def act(self) -> None:
        self.driver.work(self.answer)
        self.driver.commit()
        self.service.render(self.driver.state, everything=False)

    def answer(self, task: Task) -> Reply:
        self.calls += 1
        return Reply(rank(task.request, self.project, self.project).result, 0.1)

    def events(self) -> list[Body]:
        """Return all that the ranker has told."""
        reader = Reader(self.layout.journal("ranker"))
        found = [event.body for event in reader.read()]
        reader.close()
        return found

    def decide(self, number: int, keep: bool | None, stack: str, of: str = "job002") -> str:
        """Send a person's decision and let it be carried out; return the answer."""
        arguments = {"job": of, "number": number, "keep": keep, "stack": stack, "user": "me"}
        command = Command(id=new_id(), kind=KIND, arguments=arguments)
        box = mailbox(self.layout)
        box.send(command)
        while (found := box.answer(command.id)) is None:
            stimuli, _ = self.source.poll(0.0, self.driver.state)
            self.driver.handle(stimuli)
            self.driver.commit()
        self.act()
        return found.text

    def status(self, process: str = JOB) -> str | None:
        return Project(self.project).pipeline().status(process)
