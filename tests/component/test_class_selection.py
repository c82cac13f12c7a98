"""proc asks the ranker and takes its answer over: what passes wait for, and how they go on."""

import time

import pytest

from schemer.jobs import JobFile
from services.kit.events import (
    ClassesRanked,
    JobStarted,
    RankingRefused,
    SelectionAnswered,
    SelectionDue,
)
from services.kit.host import Arrived
from services.kit.iterations import Iteration
from services.kit.journal import Draft, Journal
from services.proc.classes import Ended, Told, Wanted
from services.stories import status_lines
from tests.component.test_live_classes import EACH, Session

JOB = "Select/job099/"


class Selected(Session):
    """proc, its classification ended by word alone, and a ranker whose answers a test writes."""

    def start(self) -> None:
        super().start()
        self.ranker = Journal(self.layout.journal("ranker"), "ranker", self.session.name)

    def end(self) -> None:
        super().end()
        self.ranker.close()

    def begin(self) -> str:
        process = self.classes.process
        self.driver.handle([Wanted(process)])
        self.act()
        return process

    def finish(self, root: str = "") -> str:
        """Let the classification that is due end; return its optimiser."""
        process = self.begin()
        root = root or f"{process}run_it008"
        one = Iteration(
            iteration=8,
            iterations=8,
            place=8.0,
            particles=EACH,
            total=EACH,
            particles_per_s=100.0,
            log_likelihood=1.0,
            resolution_A=10.0,
            classes_used=3,
            is_last=True,
            files=root,
        )
        self.driver.handle([Told(process, one), Ended(process, "", "", time.time())])
        self.act()
        return f"{root}_optimiser.star"

    def say(self, visit: int, outcomes=("keep", "drop"), particles=100, **changes) -> None:
        """Let the ranker answer for a classification."""
        about = {
            "order": 1,
            "process": "Class2D/job004/",
            "visit": visit,
            "iteration": 8,
            "is_final": True,
            "job": JOB,
        }
        body = ClassesRanked(
            **(about | changes),
            optimiser="x",
            stack="s",
            scores=(0.5, 0.1),
            outcomes=outcomes,
            threshold=0.15,
            ask_threshold=0.15,
            automatic=True,
            mode="relion",
            weights="w",
            weights_digest="d",
            total=EACH,
            particles=particles,
            sheet="s.png",
            took_s=0.1,
        )
        self.tell(body)

    def refuse(self, visit: int) -> None:
        """Let the ranker refuse."""
        self.tell(
            RankingRefused(
                order=1,
                process="Class2D/job004/",
                visit=visit,
                iteration=8,
                is_final=True,
                job=JOB,
                reason="no_model",
                detail="no weights",
            )
        )

    def tell(self, body) -> None:
        head = self.ranker.head
        self.ranker.commit([Draft(body, 1.0)])
        for event in self.ranker.read(head + 1):
            self.driver.handle([Arrived(event)])
        self.act()

    def status_lines(self) -> list[str]:
        return list(status_lines(self.ledger()))

    def nodes(self) -> list[str]:
        return sorted(one.node for one in self.driver.state.machine.passes.values())


@pytest.fixture
def live(tmp_path):
    session = Selected(tmp_path)
    yield session
    session.end()


def test_a_pass_waits_for_the_ranker_and_goes_on_with_its_particles(live):
    live.arrive(0, 1)
    optimiser = live.finish()
    (asked,) = live.events(SelectionDue)
    node = JobFile.load(live.layout.project / "Schemes/proc/select_parts/job.star")
    assert asked.options["rank_threshold"] == node.options["rank_threshold"] and asked.visit == 1
    assert asked.label == "relion.select.class2dauto" and asked.optimiser is None
    process = asked.process
    assert asked.options["fn_model"].startswith(process) and optimiser.startswith(process)
    assert live.nodes() == ["select_parts"] and live.ledger().selection.status == "due"
    live.say(1, is_final=False)  # of an iteration before the last
    assert live.nodes() == ["select_parts"]
    live.say(1)
    assert live.nodes() == [] and live.ledger().selection.status == "selected"
    (job,) = [one for one in live.events(JobStarted) if one.node == "select_parts"]
    assert job.process == JOB
    machine = live.driver.state.machine
    assert machine.jobs["select_parts"].current_name == JOB
    assert machine.floats["current_nr_parts"] == 100.0  # counted by COUNT_parts
    assert live.driver.state.through  # the way of its movies is not cut


def test_a_pass_waits_on_where_a_person_is_asked(live):
    live.arrive(0, 1)
    live.finish()
    live.say(1, ("ask", "drop"), particles=0)
    assert live.nodes() == ["select_parts"]
    assert live.ledger().selection.status == "asks"  # at rest: a person may never come
    assert "a person is asked" in "\n".join(live.status_lines())
    live.end()
    live.start()
    assert live.nodes() == ["select_parts"] and len(live.events(SelectionDue)) == 1
    live.say(1, ("keep", "drop"))
    assert live.nodes() == [] and len(live.events(SelectionAnswered)) == 2


def test_a_pass_ends_where_nothing_is_passed_on(live):
    live.arrive(0, 1)
    live.finish()
    live.refuse(1)
    (told,) = live.events(SelectionAnswered)
    assert told.outcome == "refused" and told.detail == "no weights"
    assert live.nodes() == [] and live.ledger().selection.status == "refused"
    # The next classification is asked for on its own, and its answer alone lets its pass go.
    live.arrive(1, 3)
    live.finish()
    assert live.events(SelectionDue)[-1].visit == 2 and live.nodes()[-1] == "select_parts"
    live.say(1)
    assert live.nodes()[-1] == "select_parts"
    live.say(2, ("drop", "drop"), particles=0)
    told = live.events(SelectionAnswered)[-1]
    assert (told.outcome, told.detail) == ("nothing", "no class is selected")
    assert "select_parts" not in live.nodes()


def test_other_options_are_told_at_the_next_start(live):
    live.arrive(0, 1)
    optimiser = live.finish()
    live.say(1)
    live.end()
    from schemer import templates

    settings = {"proc__select_parts__rank_threshold": "0.4"}
    templates.install(live.layout.project, "proc", settings)
    live.start()
    asked = live.events(SelectionDue)[-1]
    assert asked.options["rank_threshold"] == "0.4" and asked.visit == 1
    assert (asked.optimiser, asked.is_final, asked.iteration) == (optimiser, True, 8)
    assert live.ledger().selection.status == "due"
    live.say(1, particles=50)
    assert live.driver.state.selection.answer.particles == 50
    assert live.ledger().selection.status == "selected"
