"""A person's word on micrographs, and drifting picks: proc's own decisions, over real journals."""

import time

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from algorithms.formats import star
from algorithms.picking.chart import BASELINE
from services.cli import app
from services.kit.commands import Command
from services.kit.errors import Code
from services.kit.events import PickingDrifted, ResultsOutdated
from services.kit.host import Arrived, Finished
from services.kit.journal import Journal, Reader
from services.kit.ledger import Ledger
from services.kit.work import Reply
from services.proc.build import build
from services.proc.decisions import KIND, Ruling, mailbox
from services.proc.requests import PickResult
from tests.bench import grown

COUNT = 5


class Proc:
    """proc of a project whose micrographs are all fitted, driven by hand."""

    def __init__(self, layout, session):
        self.layout = layout
        self.service, self.source = build(layout, session)
        self.driver = grown.Driver(
            self.service, Journal(layout.journal("proc"), "proc", session.name)
        )
        self.rng = np.random.default_rng(1)
        self.part = grown._particles_file(layout.project / "particles_of_one.star")
        self.asked = []

    @property
    def state(self):
        return self.driver.state

    def answer(self, task):
        self.asked.append(task.id)
        return grown.proc_result(task, self.rng, self.layout.project, self.part)

    def follow(self):
        reader = Reader(self.layout.journal("prep"))
        for event in reader.read():
            self.driver.handle([Arrived(event)])
            self.driver.work(self.answer)
        reader.close()
        self.driver.commit()

    def say(self, movie, keep, **more):
        self.driver.handle([Ruling(movie=movie, keep=keep, **more)])
        self.driver.work(self.answer)
        self.driver.commit()

    def tables(self):
        """Return the movies of the selected micrographs, of the coordinates, and the particles."""
        self.service.render(self.state, everything=True)
        names = {ctf.micrograph: movie for movie, ctf in self.state.imported.items()}

        def load(pattern, block):
            (path,) = self.layout.project.glob(pattern)
            return star.load(path).get(block, star.Table())

        def movies(pattern, block):
            table = load(pattern, block)
            return [names[n] for n in table.strings("rlnMicrographName")] if len(table) else []

        flags = load("Select/job*/backup_selection.star", "").ints("rlnSelected").tolist()
        quality = load("Select/job*/quality.star", "micrographs")
        assert quality.ints("rlnSelected").tolist() == flags
        selected = movies("Select/job*/micrographs.star", "micrographs")
        assert selected == movies("Select/job*/micrographs_selected.star", "micrographs")
        assert selected == [m for m, flag in zip(self.state.in_order(), flags, strict=True) if flag]
        picked = movies("AutoPick/job*/autopick.star", "coordinate_files")
        return selected, picked, len(load("Extract/job*/particles.star", "particles"))

    def ledger(self):
        ledger = Ledger(self.layout)
        ledger.update()
        counted = {movie for movie, e in ledger.entries["proc"].items() if e.status == "done"}
        assert set(ledger.particles) == counted
        return {movie: (e.status, e.code) for movie, e in ledger.entries["proc"].items()}


@pytest.fixture
def proc(tmp_path):
    layout, session = grown.set_up_grown(tmp_path / "project", tmp_path / "raw", COUNT)
    grown.grow_mdcatch(layout, session, COUNT).journal.close()
    grown.grow_prep(layout, session).journal.close()
    found = Proc(layout, session)
    yield found
    found.driver.journal.close()


def test_a_rejected_micrograph_leaves_all_tables_and_comes_back(proc):
    proc.follow()
    movies = proc.state.in_order()
    everything = (movies, movies, COUNT * grown.PARTICLES)
    assert proc.tables() == everything
    done = len(proc.asked)
    proc.say(movies[2], False, reason="empty hole", user="ann", command="c1")
    rest = [m for m in movies if m != movies[2]]
    assert proc.tables() == (rest, rest, (COUNT - 1) * grown.PARTICLES)
    assert proc.ledger()[movies[2]] == ("refused", Code.REJECTED)
    refused = proc.state.refused[movies[2]]
    assert refused.detail == "ann has rejected it: empty hole"
    proc.say(movies[2], None, command="c2")
    assert proc.tables() == everything
    assert proc.ledger()[movies[2]] == ("done", "")
    assert len(proc.asked) == done  # nothing was computed again
    assert movies[2] in proc.state.through


def test_a_word_said_before_the_micrograph_is_picked(proc):
    reader = Reader(proc.layout.journal("prep"))
    for event in reader.read():
        proc.driver.handle([Arrived(event)])
    reader.close()
    movies = proc.state.in_order()
    proc.say(movies[0], False, command="c1")
    proc.driver.work(proc.answer)
    assert not [task for task in proc.asked if movies[0] in task]
    assert proc.tables()[0] == movies[1:]
    proc.say(movies[0], True, command="c2")
    assert proc.tables() == (movies, movies, COUNT * grown.PARTICLES)


def test_a_kept_micrograph_stands_above_the_limits(proc, tmp_path):
    proc.follow()
    movies = proc.state.in_order()
    worst = max(movies, key=lambda m: proc.state.imported[m].max_resolution_A)
    limit = proc.state.imported[worst].max_resolution_A - 0.001
    options = proc.service._shell.options(proc.state, "select_mics")
    options.values["select_maxval"] = f"{limit}"
    proc.say(worst, True, command="c1")
    assert [set(body.movies) for body in proc.service.outdated(proc.state)] == []
    proc.say(worst, None, command="c2")  # the limits decide again
    assert proc.state.refused[worst].code == Code.CTF_RESOLUTION
    assert worst not in proc.tables()[0]
    proc.say(worst, True, command="c3")
    assert worst in proc.tables()[0]
    assert proc.ledger()[worst] == ("done", "")


def test_decisions_survive_a_restart(proc, tmp_path):
    proc.follow()
    movies = proc.state.in_order()
    proc.say(movies[1], False, command="c1")
    proc.driver.commit()
    again = proc.service.empty()
    reader = Reader(proc.layout.journal("proc"))
    for event in reader.read():
        proc.service.apply(again, event.body, event.at)
    reader.close()
    encoded = msgspec.msgpack.encode(again)
    assert encoded == msgspec.msgpack.encode(proc.state)
    assert msgspec.msgpack.decode(encoded, type=type(again)).overrides[movies[1]].keep is False


def test_another_diameter_touches_picking_and_extraction_only(proc):
    proc.follow()
    movies = set(proc.state.imported)
    assert list(proc.service.outdated(proc.state)) == []
    proc.service._diameter_A = lambda state: 300.0  # of the box: extraction follows from it
    (body,) = proc.service.outdated(proc.state)
    assert (body.stage, set(body.movies)) == ("extract", movies)
    proc.service._shell.options(proc.state, "autopick").values["log_diam_max"] = "300"
    (body,) = proc.service.outdated(proc.state)
    assert (body.stage, set(body.movies)) == ("autopick", movies)


def test_a_command_is_answered_when_the_decision_stands(proc):
    proc.follow()
    movies = proc.state.in_order()
    box = mailbox(proc.layout)
    name = movies[3].rpartition("/")[2]

    def send(command_id, keep, name=name, kind=KIND):
        arguments = {"name": name, "keep": keep, "reason": "r"}
        box.send(Command(id=command_id, kind=kind, arguments=arguments, sent_at=time.time()))

    send("a", False)
    send("b", None)
    proc.source.open(lambda: None)
    try:
        (ruling,), _ = proc.source.poll(0.0, proc.state)
        assert (ruling.movie, ruling.keep, ruling.command) == (movies[3], False, "a")
        # Asked again before the decision stands, as after a crash: the same, and no answer.
        assert proc.source.poll(0.0, proc.state)[0] == [ruling]
        assert box.answer("a") is None
        proc.driver.handle([ruling])
        (second,), _ = proc.source.poll(0.0, proc.state)
        answer = box.answer("a")
        assert answer is not None
        assert answer.done
        assert answer.text == f"{movies[3]} is rejected"
        proc.driver.handle([second])
        assert proc.source.poll(0.0, proc.state)[0] == []
        assert not proc.state.is_rejected(movies[3])
        wrong = [("c", "nothing"), ("d", "FoilHole"), ("e", "")]
        for command_id, other in wrong:
            send(command_id, True, other)
        send("f", True, kind="micrograph.paint")
        assert proc.source.poll(0.0, proc.state)[0] == []
        texts = [box.answer(command_id) for command_id in "cdef"]
        assert not any(text is None or text.done for text in texts)
        assert "none is known by that name" in texts[0].text
        assert f"{COUNT} micrographs match" in texts[1].text
        assert "is no command of proc" in texts[3].text
    finally:
        proc.source.close()


def test_drifting_picks_raise_an_alarm_once(proc):
    proc.follow()
    (movie, *_), state = proc.state.in_order(), proc.state
    told = []

    def pick(count, distance_A):
        task = proc.service.task(state, "autopick", movie)
        found = PickResult(
            n_particles=count, mean_figure_of_merit=1.0, nearest_neighbour_A=distance_A
        )
        state.inside.setdefault("autopick", {})[movie] = None
        state.left[state.pass_of.setdefault(movie, 99)] = 1
        finished = Finished(task, 1, Reply(msgspec.msgpack.encode(found)))
        for body in proc.service.decide(state, finished):
            proc.service.apply(state, body, 0.0)
            if isinstance(body, PickingDrifted):
                told.append(body)

    state.charts.clear()
    rng = np.random.default_rng(3)
    for count in rng.poisson(200, BASELINE + 20):
        pick(int(count), 150.0 * float(np.exp(rng.normal(0, 0.03))))
    assert told == []
    for count in rng.poisson(100, 10):
        pick(int(count), 150.0)
    (alarm,) = told
    assert (alarm.measure, alarm.active) == ("particles", True)
    assert alarm.value < alarm.low < alarm.expected < alarm.high
    level, fields = proc.service.explain(alarm)
    assert level == "WARNING"
    assert "particles is" in fields["detail"]
    for count in rng.poisson(200, 20):
        pick(int(count), 150.0)
    assert [body.active for body in told] == [True, False]
    # Picked by other rules: another beginning.
    proc.service.apply(state, ResultsOutdated(stage="autopick", movies=(movie,)), 0.0)
    assert state.charts == {}


def test_the_command_line(proc, monkeypatch):
    proc.follow()
    movies = proc.state.in_order()
    project = str(proc.layout.project)
    name = movies[1].rpartition("/")[2]

    def coldstream(*words):
        return CliRunner().invoke(app, ["micrograph", *words, "--project", project])

    noted = coldstream("reject", name, "--reason", "carbon")
    assert noted.exit_code == 0, noted.output
    assert noted.output == "noted; it is carried out when the session runs again\n"
    for wrong in ("nothing", "FoilHole", " "):
        refused = coldstream("keep", wrong)
        assert refused.exit_code == 2
        assert len(refused.output.strip().splitlines()) == 1
    proc.source.open(lambda: None)  # the session runs again
    try:
        (ruling,), _ = proc.source.poll(0.0, proc.state)
        assert ruling.movie == movies[1]
        assert ruling.user
        proc.driver.handle([ruling])
        proc.source.poll(0.0, proc.state)
        assert proc.state.refused[movies[1]].detail.endswith("has rejected it: carbon")
        late = coldstream("auto", name, "--wait", "0")
        assert late.exit_code == 0
        assert "will carry it out" in late.output
        (ruling,), _ = proc.source.poll(0.0, proc.state)
        assert ruling.keep is None
        proc.driver.handle([ruling])
        proc.source.poll(0.0, proc.state)
        assert movies[1] not in proc.state.refused
    finally:
        proc.source.close()
