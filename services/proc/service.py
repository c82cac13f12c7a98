"""proc: every micrograph with a good CTF becomes particles, and these become classes.

Runs the Scheme `proc` as far as 2D classification: select_mics is instant, picking and extraction
are one task per micrograph, a classification is a process. Source: schemes.md section 15.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from schemer import machine
from services.kit.events import (
    Body,
    MicrographCtf,
    MicrographImported,
    MicrographOverridden,
    MicrographRefused,
    MicrographSelected,
    OpticsGrouped,
    ParticlesExtracted,
    ParticlesPicked,
    PickingDrifted,
    ResultsOutdated,
)
from services.kit.flow import Shell, short
from services.kit.host import Finished, Started
from services.kit.work import Task, content_key
from services.proc import classes, plan, ranking, rulings, selecting
from services.proc.classes import Classifying, Ended, Told, Wanted
from services.proc.decisions import Ruling
from services.proc.requests import Coordinates, ExtractRequest, ExtractResult, PickResult
from services.proc.state import ProcState
from services.proc.topazask import topaz_request, uses_topaz
from services.proc.views import Views


class Proc(Classifying):
    """The proc service.

    Parameters
    ----------
    shell, settings
        See `Flow`.
    views
        Writer of proc's STAR files.
    diameter_A
        Particle diameter.
    auto_box
        Compute box sizes from the diameter instead of taking the extract job's options.
    classify
        Carry out 2D classification; else passes end before it.
    rank
        Let the ranker select classes; else passes end after 2D classification.
    """

    name = "proc"
    consumes = ("prep", "ranker")
    state_type = ProcState
    instant_nodes = ("select_mics",)
    task_nodes = ("autopick", "extract")
    last_node = "extract"

    def __init__(
        self,
        shell: Shell,
        settings: str,
        views: Views,
        *,
        diameter_A: Callable[[Any], float],
        auto_box: bool,
        classify: bool = True,
        rank: bool = True,
    ):
        super().__init__(shell, settings)
        self._views, self._options = views, shell.options
        self._diameter_A, self._auto_box = diameter_A, auto_box
        is_done = {classes.NODE: classify, ranking.NODE: classify and rank}
        self.set_nodes = tuple(node for node in self.set_nodes if is_done[node])

    def empty(self) -> ProcState:
        """Return the state before any event."""
        return ProcState(machine=machine.initial(self.scheme, reset=True))

    # ---- events in

    def arrived(self, state: ProcState, body: Body) -> Iterator[Body]:
        """Take over micrographs and optics groups from prep."""
        match body:
            case MicrographCtf():
                before = state.imported.get(body.movie)
                if before is not None and before.key == body.key:
                    return
                if before is not None:
                    again = ResultsOutdated(stage="select_mics", movies=(body.movie,))
                    yield from self._due_again(state, again, "select_mics")
                yield MicrographImported(movie=body.movie, ctf=body)
            case OpticsGrouped():
                if body.optics_group not in state.optics:
                    yield body
            case _:
                yield from self.answered(state, body)

    def decide(self, state: ProcState, stimulus: Any) -> Iterator[Body]:
        """Yield the events a stimulus leads to."""
        if isinstance(stimulus, Ruling):
            yield from self._ruled(state, stimulus)
            return
        if isinstance(stimulus, Started | Wanted | Told | Ended):
            yield from self.classified(state, stimulus)
        yield from super().decide(state, stimulus)
        if isinstance(stimulus, Finished) and stimulus.task.stage == "autopick":
            yield from rulings.drifted(state, stimulus.task.movie)

    def _ruled(self, state: ProcState, ruling: Ruling) -> Iterator[Body]:
        """Carry out a person's decision; what was computed is kept either way."""
        movie, was_rejected = ruling.movie, state.is_rejected(ruling.movie)
        body = rulings.overridden(ruling)
        yield body
        if body.keep is False:
            if not was_rejected:
                yield from self._set_aside(state, rulings.rejection(body))
        elif rulings.is_freed(state, movie):
            if movie in state.extracted:
                yield MicrographSelected(movie=movie)
                yield state.extracted[movie]  # for those who count: it is done again
            else:
                yield ResultsOutdated(stage="select_mics", movies=(movie,))
        elif state.is_kept(movie) and (reason := self._why_not(state, movie)) is not None:
            yield from self._set_aside(state, rulings.unselected(movie, reason))

    def _set_aside(self, state: ProcState, body: MicrographRefused) -> Iterator[Body]:
        """Take a micrograph out of passes and counts; its results stay."""
        yield body
        yield from self._take_out(state, (body.movie,))
        yield from self._moved(state, self.rebase(state))

    def _why_not(self, state: ProcState, movie: str) -> str | None:
        """Return why the selection leaves a micrograph out; a person's word stands above it."""
        if movie in state.overrides and state.overrides[movie].keep is not None:
            return None
        return selecting.why_not(state.imported[movie], self._options(state, "select_mics"))

    def instant(self, state: ProcState, node: str, movie: str) -> Iterator[Body]:
        """Select a micrograph or refuse it."""
        reason = self._why_not(state, movie)
        if state.is_rejected(movie):
            yield rulings.rejection(state.overrides[movie])
        elif reason is None:
            yield MicrographSelected(movie=movie)
        else:
            yield rulings.unselected(movie, reason)

    def fold(self, state: ProcState, body: Body) -> tuple[str, str] | None:
        """Fold an own event."""
        match body:
            case MicrographImported():
                state.imported[body.movie] = body.ctf
                self.again(state, body.movie)
            case MicrographOverridden():
                state.overrides[body.movie] = body
                if body.keep is False:
                    for line in (state.pool, state.fresh):
                        line.pop(body.movie, None)
            case PickingDrifted():
                state.alarms[body.measure] = body.active
            case MicrographSelected():
                state.selected[body.movie] = None
                if state.refused.pop(body.movie, None) and body.movie in state.extracted:
                    state.through[body.movie] = None
                return "select_mics", body.movie
            case ParticlesPicked():
                state.picked[body.movie] = body
                rulings.measured(state, body)
                return "autopick", body.movie
            case ParticlesExtracted():
                state.extracted[body.movie] = body
                return "extract", body.movie
            case ResultsOutdated():
                self._drop(state, body)
        return None

    def _drop(self, state: ProcState, body: ResultsOutdated) -> None:
        if body.stage == "autopick":  # picked by other rules: another beginning
            state.charts.clear()
            state.alarms.clear()
        for movie in body.movies:
            state.extracted.pop(movie, None)
            if body.stage in ("autopick", "select_mics", "refused"):
                state.picked.pop(movie, None)
            if body.stage in ("select_mics", "refused"):
                state.selected.pop(movie, None)
            self.again(state, movie)

    def has_result(self, state: ProcState, node: str, movie: str) -> bool:
        """Say whether a micrograph has its result at a node."""
        match node:
            case "select_mics":
                return movie in state.selected
            case "autopick":
                return movie in state.picked
        return movie in state.extracted

    def outdated(self, state: ProcState) -> Iterator[ResultsOutdated]:
        """Yield the results that are other ones under the present settings."""
        if not self._is_open(state, "select_mics"):
            return
        gone = {m for m in state.selected if self._why_not(state, m) is not None}
        if gone:
            yield ResultsOutdated(stage="select_mics", movies=tuple(gone))
        if not self._is_open(state, "autopick"):
            return
        kept = [m for m in state.picked if m not in gone]
        picks = [m for m in kept if state.picked[m].key != self._pick(state, m).key]
        if picks:
            yield ResultsOutdated(stage="autopick", movies=tuple(picks))
        gone |= set(picks)
        if not self._is_open(state, "extract"):
            return
        kept = [m for m in state.extracted if m not in gone]
        parts = [m for m in kept if state.extracted[m].key != self._extract(state, m).key]
        if parts:
            yield ResultsOutdated(stage="extract", movies=tuple(parts))

    def rows(self, state: ProcState) -> dict[str, int]:
        """Return how many rows the tables have that operators ask about."""
        rows = {}
        first = next(iter(state.imported.values()), None)
        if first is not None:
            # CtfFind/job003/Movies/...: the table of the job that made it
            job = "/".join(first.ctf_image.split("/")[:2])
            rows[f"{job}/micrographs_ctf.star"] = len(state.imported)
        select = state.machine.jobs["select_mics"]
        if select.has_started:
            rows[f"{select.current_name}micrographs.star"] = self._kept(state)
        return rows | self.selected_rows(state)

    def rebase(self, state: ProcState) -> tuple[tuple[str, ...], ...]:
        """Return the moves that make HAS_mics_increased see micrographs that come once more."""
        prev = state.machine.floats.get("prev_nr_mics")
        if prev is None or prev <= self._kept(state):
            return ()
        return (("set", "float", "prev_nr_mics", repr(float(self._kept(state)))),)

    def _kept(self, state: ProcState) -> int:
        """Return how many micrographs are in the table of the selected ones."""
        return sum(state.is_kept(movie) for movie in state.selected)

    # ---- tasks

    def task(self, state: ProcState, node: str, movie: str) -> Task:
        """Return the task of a micrograph at a node."""
        return self._pick(state, movie) if node == "autopick" else self._extract(state, movie)

    def _pick(self, state: ProcState, movie: str) -> Task:
        ctf, options = state.imported[movie], self._options(state, "autopick")
        process = state.machine.jobs["autopick"].current_name
        if uses_topaz(options):
            request = msgspec.msgpack.encode(
                topaz_request(ctf, options, process, self._views.project)
            )
            call = "services.proc.topaz:autopick"
        else:
            request = msgspec.msgpack.encode(plan.pick_request(ctf, options, process))
            call = "services.proc.tasks:autopick"
        return Task(
            id=f"autopick:{movie}",
            stage="autopick",
            movie=movie,
            key=content_key("autopick", request, ctf.key),
            call=call,
            request=request,
            urgency=2,  # after prep's two, on the same workers
        )

    def _extract(self, state: ProcState, movie: str) -> Task:
        ctf, picked = state.imported[movie], state.picked[movie]
        options = self._options(state, "extract")
        box = plan.box_of(ctf.pixel_size_A, self._diameter_A(state), options, auto=self._auto_box)
        process = state.machine.jobs["extract"].current_name
        ask = plan.extract_request(ctf, picked.coordinates, options, box, process)
        request = msgspec.msgpack.encode(ask)
        return Task(
            id=f"extract:{movie}",
            stage="extract",
            movie=movie,
            key=content_key("extract", request, picked.key),
            call="services.proc.tasks:extract",
            request=request,
            urgency=3,
        )

    def accept(self, state: ProcState, done: Finished) -> Body:
        """Return the event of a delivered result."""
        result = done.reply.result or b""
        common = {"movie": done.task.movie, "key": done.task.key, "token": done.token}
        if done.task.stage == "autopick":
            ask = msgspec.msgpack.decode(done.task.request, type=Coordinates)
            got = msgspec.msgpack.decode(result, type=PickResult)
            return ParticlesPicked(
                **common,
                coordinates=ask.coordinates,
                n_particles=got.n_particles,
                mean_figure_of_merit=got.mean_figure_of_merit,
                nearest_neighbour_A=got.nearest_neighbour_A,
                took_s=done.reply.took_s,
            )
        ask = msgspec.msgpack.decode(done.task.request, type=ExtractRequest)
        got = msgspec.msgpack.decode(result, type=ExtractResult)
        return ParticlesExtracted(
            **common,
            stack=f"{ask.root}.mrcs" if got.n_particles else None,
            metadata_star=f"{ask.root}_extract.star",
            n_particles=got.n_particles,
            box_px=got.box_px,
            pixel_size_A=got.pixel_size_A,
            took_s=done.reply.took_s,
        )

    # ---- shell

    def render(self, state: ProcState, *, everything: bool) -> None:
        """Write scheme.star; with `everything` also the micrograph and particle tables."""
        self._views.scheme(self.scheme, state.machine)
        if everything:
            self._views.tables(state)

    def finish(self, state: ProcState) -> None:
        """Leave tables in order, and the jobs finished where nothing is undecided in them."""
        self._views.tables(state, in_order=True)
        super().finish(state)

    def explain(self, body: Body) -> tuple[str, dict[str, object]] | None:
        """Return the log line of an event."""
        match body:
            case MicrographOverridden():
                said = msgspec.structs.asdict(body)
                return "INFO", {k: said[k] for k in ("movie", "keep", "reason", "user")}
            case PickingDrifted():
                detail = (
                    f"{body.measure} is {body.value:.4g} on average, "
                    f"{'outside' if body.active else 'again within'} {body.low:.4g} to "
                    f"{body.high:.4g}, at the beginning {body.expected:.4g}"
                )
                level = "WARNING" if body.active else "INFO"
                return level, {"movie": short(body.movie), "detail": detail}
            case ParticlesPicked():
                return "DEBUG", {"movie": short(body.movie), "particles": body.n_particles}
            case ParticlesExtracted():
                return "INFO", {
                    "movie": short(body.movie),
                    "particles": body.n_particles,
                    "box_px": body.box_px,
                    "took_s": body.took_s,
                }
        return self.explain_classes(body) or super().explain(body)
