"""Flow under random arrivals, results, refusals, crashes and changed settings.

The world outside is a model: it hands movies in, carries out the tasks that are wanted, and can
stop the service at any point between two commits. Everything the service decides is recorded and
folded again, as a journal would.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from schemer import machine
from schemer.scheme import BoolVariable, Edge, FloatVariable, JobRow, Operator, Scheme
from services.kit.errors import Code
from services.kit.events import (
    SCHEMA,
    Body,
    Event,
    MicrographRefused,
    MicrographSelected,
    MovieSeen,
    ParticlesExtracted,
    ParticlesPicked,
    ResultsOutdated,
    SchemeMoved,
    decode,
    encode,
    kind_of,
)
from services.kit.flow import MOVES, Flow, FlowState
from services.kit.host import Arrived, Failed, Finished, Paused, Started, Ticked
from services.kit.options import Options
from services.kit.work import Reply, Task, content_key

NODES = ("select", "pick", "extract")


class ToyState(FlowState, kw_only=True):
    """What the toy knows of each movie."""

    known: dict[str, None] = {}
    selected: dict[str, None] = {}
    picked: dict[str, ParticlesPicked] = {}
    extracted: dict[str, ParticlesExtracted] = {}


def scheme(*, tail: bool) -> Scheme:
    """Return WAIT, select, pick, extract and, behind a fork, a job that nobody carries out."""
    edges = [
        Edge("WAIT", "select"),
        Edge("select", "pick"),
        Edge("pick", "extract"),
        Edge("extract", "WAIT"),
    ]
    if tail:
        edges[-1] = Edge("extract", "MAYBE")
        fork = Edge("MAYBE", "WAIT", is_fork=True, if_true="class2d", boolean="is_odd")
        edges += [fork, Edge("class2d", "WAIT")]
    return Scheme(
        name="Schemes/toy/",
        current_node="WAIT",
        floats={"wait_sec": FloatVariable(100.0, 100.0)},
        bools={"is_odd": BoolVariable(False, False)},
        operators={
            "WAIT": Operator("wait", input1="wait_sec"),
            "MAYBE": Operator("bool=not", output="is_odd", input1="is_odd"),
        },
        jobs={node: JobRow(node, "continue") for node in (*NODES, "class2d")},
        edges=tuple(edges),
    )


class World:
    """Operators ask it about tables; the toy's Scheme has none that does."""

    rows: Any = None


class Shell:
    """Job folders as a project would give them: the same one when asked again."""

    def __init__(self, *, tail: bool, folders: dict[str, str]):
        self.scheme, self.world, self.folders = scheme(tail=tail), World(), folders

    def options(self, state: Any, node: str) -> Options:
        return Options(node, {})

    def make_job(self, state: Any, node: str, visit: str = "") -> tuple[str, str]:
        return self.folders.setdefault(node, f"Job/job{len(self.folders) + 1:03d}/"), "label"

    def show_running(self, state: Any) -> None:
        return None

    def show_finished(self, state: Any) -> None:
        return None


class Toy(Flow):
    """select refuses every movie whose name ends in `x`; pick and extract are tasks."""

    name = "toy"
    instant_nodes = ("select",)
    task_nodes = ("pick", "extract")
    last_node = "extract"

    def empty(self) -> ToyState:
        return ToyState(machine=machine.initial(self.scheme, reset=True))

    def arrived(self, state: ToyState, body: Body) -> Iterator[Body]:
        if isinstance(body, MovieSeen) and body.movie not in state.known:
            yield body

    def instant(self, state: ToyState, node: str, movie: str) -> Iterator[Body]:
        if movie.endswith("x"):
            yield MicrographRefused(movie=movie, stage=node, code=Code.CTF_RESOLUTION, detail="x")
        else:
            yield MicrographSelected(movie=movie)

    def fold(self, state: ToyState, body: Body) -> tuple[str, str] | None:
        match body:
            case MovieSeen():
                state.known[body.movie] = None
                self.again(state, body.movie)
            case MicrographSelected():
                state.selected[body.movie] = None
                return "select", body.movie
            case ParticlesPicked():
                state.picked[body.movie] = body
                return "pick", body.movie
            case ParticlesExtracted():
                state.extracted[body.movie] = body
                return "extract", body.movie
            case ResultsOutdated():
                for movie in body.movies:
                    state.extracted.pop(movie, None)
                    if body.stage != "extract":
                        state.picked.pop(movie, None)
                    if body.stage == "refused":
                        state.selected.pop(movie, None)
                    self.again(state, movie)
        return None

    def has_result(self, state: ToyState, node: str, movie: str) -> bool:
        tables = {"select": state.selected, "pick": state.picked, "extract": state.extracted}
        return movie in tables[node]

    def outdated(self, state: ToyState) -> Iterator[ResultsOutdated]:
        for node, table in (("pick", state.picked), ("extract", state.extracted)):
            movies = tuple(m for m, r in table.items() if r.key != self.task(state, node, m).key)
            if movies:
                yield ResultsOutdated(stage=node, movies=movies)

    def task(self, state: ToyState, node: str, movie: str) -> Task:
        # Settings are "<pick><extract>": extract's results depend on both, pick's on the first.
        part = self.settings if node == "extract" else self.settings[:1]
        key = content_key(node, part, movie)
        return Task(f"{node}:{movie}", node, movie, key, "module:function", b"")

    def accept(self, state: ToyState, done: Finished) -> Body:
        movie, key = done.task.movie, done.task.key
        common: dict[str, Any] = {"movie": movie, "key": key, "token": 1, "took_s": 0.0}
        if done.task.stage == "pick":
            return ParticlesPicked(
                coordinates="c", n_particles=1, mean_figure_of_merit=0.0, **common
            )
        return ParticlesExtracted(
            stack=None, metadata_star="s", n_particles=1, box_px=8, pixel_size_A=1.0, **common
        )


class FlowUnderTest(RuleBasedStateMachine):
    """Drives a toy as the host does, with a model of what has to come out."""

    @initialize(tail=st.booleans())
    def begin(self, tail: bool) -> None:
        self.tail = tail
        self.folders: dict[str, str] = {}
        self.bodies: list[bytes] = []
        self.running: dict[str, Task] = {}
        self.arrivals: dict[str, None] = {}
        self.ends: dict[str, str] = {}
        self.selected: set[str] = set()
        self.now = 1000.0
        self.start_service("aa")

    # ---- the host's part

    def start_service(self, digest: str) -> None:
        self.flow = Toy(Shell(tail=self.tail, folders=self.folders), digest)
        self.running = {}
        self.state = self.replayed()
        self.handle(Started(self.now))
        self.act()

    def replayed(self) -> ToyState:
        state = self.flow.empty()
        for data in self.bodies:
            self.flow.apply(state, decode(data), 0.0)
        return state

    def handle(self, *stimuli: Any) -> None:
        for stimulus in (*stimuli, Paused(self.now)):
            for body in self.flow.decide(self.state, stimulus):
                self.flow.apply(self.state, body, self.now)
                self.bodies.append(encode(body))
                self.account(body)

    def account(self, body: Body) -> None:
        """Keep the model: a movie ends once, and again only after it was made due again."""
        match body:
            case MicrographRefused():
                assert self.ends.setdefault(body.movie, "refused") == "refused"
                refusals = [b for b in self.since_due(body.movie) if kind_of(b) == kind_of(body)]
                assert len(refusals) == 1, "refused once"
            case ParticlesExtracted():
                assert body.movie not in self.ends, "no movie ends twice"
                self.ends[body.movie] = "through"
            case MicrographSelected():
                assert body.movie not in self.selected, "no movie is decided twice at a node"
                self.selected.add(body.movie)
            case ResultsOutdated():
                for movie in body.movies:
                    self.ends.pop(movie, None)
                if body.stage == "refused":
                    self.selected -= set(body.movies)
            case SchemeMoved():
                assert len(body.moves) <= MOVES

    def since_due(self, movie: str) -> list[Body]:
        found: list[Body] = []
        for body in map(decode, self.bodies):
            if isinstance(body, ResultsOutdated) and movie in body.movies:
                found.clear()
            elif getattr(body, "movie", None) == movie:
                found.append(body)
        return found

    def act(self) -> None:
        for _ in range(20):
            deeds = list(self.flow.perform(self.state))
            if not deeds:
                break
            self.handle(*deeds)
        else:
            raise AssertionError("local deeds without end")
        for name, task in list(self.running.items()):
            if not self.flow.still_wanted(self.state, task):
                del self.running[name]
        room = 4 - len(self.running)
        if room > 0:
            wanted = self.flow.want(self.state, room, self.running)
            assert len(wanted) <= room
            for task in wanted:
                assert task.id not in self.running
                self.running[task.id] = task

    # ---- what can happen

    @rule(
        names=st.lists(st.sampled_from("abcdefghijklmnop"), max_size=6),
        bad=st.booleans(),
        killed=st.sampled_from(["no", "no", "before commit", "after commit"]),
    )
    def movies_arrive(self, names: list[str], bad: bool, killed: str) -> None:
        movies = [f"{name}{'x' if bad else ''}" for name in names]
        self.arrivals.update(dict.fromkeys(movies))
        events = [Arrived(_event(MovieSeen(movie=m, path=m))) for m in movies]
        if killed == "before commit":
            committed = len(self.bodies), dict(self.ends), set(self.selected)
            self.handle(*events)
            length, self.ends, self.selected = committed
            del self.bodies[length:]
            self.start_service(self.flow.settings)  # and the cursor brings them again
        self.handle(*events)
        if killed == "after commit":
            self.start_service(self.flow.settings)
        self.act()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), how=st.sampled_from(["done", "done", "done", "refused", "failed"]))
    def tasks_end(self, data: st.DataObject, how: str) -> None:
        ids = data.draw(st.lists(st.sampled_from(sorted(self.running)), unique=True, min_size=1))
        stimuli = []
        for task in [self.running.pop(name) for name in ids]:
            match how:
                case "done":
                    stimuli.append(Finished(task, 1, Reply(result=b"")))
                case "refused":
                    reply = Reply(code=Code.TOO_FEW_FRAMES, detail="1 frame")
                    stimuli.append(Finished(task, 1, reply))
                case _:
                    stimuli.append(Failed(task, 3, "a worker died"))
        self.handle(*stimuli)
        self.act()

    @rule(data=st.data())
    def a_result_comes_that_nobody_waits_for(self, data: st.DataObject) -> None:
        if not self.arrivals:
            return
        movie = data.draw(st.sampled_from(sorted(self.arrivals)))
        node = data.draw(st.sampled_from(self.flow.task_nodes))
        task = self.flow.task(self.state, node, movie)
        if self.flow.still_wanted(self.state, task):
            return
        before = len(self.bodies)
        self.handle(Finished(task, 1, Reply(result=b"")))
        assert len(self.bodies) == before

    @rule(wait_s=st.sampled_from([0.5, 50.0, 200.0]))
    def time_passes(self, wait_s: float) -> None:
        self.now += wait_s
        self.handle(Ticked(self.now))
        self.act()

    @rule()
    def the_service_is_killed(self) -> None:
        self.start_service(self.flow.settings)

    @rule(digest=st.sampled_from(["aa", "ab", "ba"]))
    def the_settings_change(self, digest: str) -> None:
        self.start_service(digest)

    # ---- what always holds

    @invariant()
    def the_fold_of_the_journal_is_the_state(self) -> None:
        if not hasattr(self, "state"):
            return
        again = self.replayed()
        assert msgspec.msgpack.encode(again) == msgspec.msgpack.encode(self.state)
        stored = msgspec.msgpack.decode(msgspec.msgpack.encode(self.state), type=ToyState)
        assert stored == self.state, "a snapshot is the state"

    @invariant()
    def every_movie_is_somewhere_exactly_once(self) -> None:
        if not hasattr(self, "state"):
            return
        state = self.state
        assert set(state.known) == set(self.arrivals)
        in_passes = [m for one in state.machine.passes.values() for m in one.items]
        assert len(in_passes) == len(set(in_passes))
        assert set(in_passes) == set(state.pass_of)
        assert not set(state.pool) & (set(in_passes) | set(state.refused) | set(state.through))
        assert not set(state.refused) & set(state.through)
        assert {m for m, end in self.ends.items() if end == "refused"} == set(state.refused)
        pending = set(in_passes) | set(state.pool)
        assert set(self.arrivals) == pending | set(state.refused) | set(state.through)
        for movie in state.through:
            assert self.ends[movie] == "through" and movie not in state.pass_of

    @invariant()
    def indices_agree_with_the_passes(self) -> None:
        if not hasattr(self, "state"):
            return
        state, flow = self.state, self.flow
        machine.validate(flow.scheme, state.machine)
        undecided: dict[str, set[str]] = {}
        assert set(state.left) == set(state.at_node) == set(state.machine.passes)
        for number, one in state.machine.passes.items():
            assert state.at_node[number] == one.node
            assert state.items_of[number] == list(one.items)
            open_here = {m for m in one.items if not flow._is_decided(state, one.node, m)}
            assert state.left[number] == len(open_here)
            undecided.setdefault(one.node, set()).update(open_here)
        inside = {node: set(movies) for node, movies in state.inside.items() if movies}
        assert inside == {node: movies for node, movies in undecided.items() if movies}

    @invariant()
    def what_is_wanted_is_what_is_undecided(self) -> None:
        if not hasattr(self, "state"):
            return
        wanted = self.flow.want(self.state, 10_000, ())
        assert len({task.id for task in wanted}) == len(wanted)
        for task in wanted:
            assert task.movie not in self.state.refused
            assert not self.flow.has_result(self.state, task.stage, task.movie)
            assert self.flow.still_wanted(self.state, task)
        expected = {f"{n}:{m}" for n in self.flow.task_nodes for m in self.state.inside.get(n, {})}
        assert {task.id for task in wanted} == expected

    def teardown(self) -> None:
        """Carry everything out: nothing may be left pending."""
        if not hasattr(self, "state"):
            return
        for _ in range(200):
            if not self.running:
                break
            done = [Finished(task, 1, Reply(result=b"")) for task in self.running.values()]
            self.running = {}
            self.handle(*done)
            self.act()
        assert not self.state.machine.passes and not self.state.pool
        assert set(self.state.refused) | set(self.state.through) == set(self.arrivals)
        assert set(self.ends) == set(self.arrivals)
        self.the_fold_of_the_journal_is_the_state()
        self.indices_agree_with_the_passes()


def _event(body: Body) -> Event:
    return Event(
        schema=SCHEMA,
        producer="mdcatch",
        epoch=b"",
        seq=1,
        uid=b"",
        cause=None,
        session="s",
        at=0.0,
        subject="",
        body=body,
        prev=b"",
        hash=b"",
    )


TestFlow = FlowUnderTest.TestCase
TestFlow.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
