"""proc: every micrograph with a good CTF becomes particles.

Runs the Scheme `proc` as far as extraction: select_mics is instant, picking and extraction are one
task per micrograph. Source: schemes.md section 15.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from schemer import machine
from services.kit.errors import Code
from services.kit.events import (
    Body,
    MicrographCtf,
    MicrographImported,
    MicrographRefused,
    MicrographSelected,
    OpticsGrouped,
    ParticlesExtracted,
    ParticlesPicked,
    ResultsOutdated,
)
from services.kit.flow import Flow, Shell, short
from services.kit.host import Finished
from services.kit.work import Task, content_key
from services.proc import plan
from services.proc.requests import ExtractRequest, ExtractResult, PickRequest, PickResult
from services.proc.state import ProcState
from services.proc.views import Views


class Proc(Flow):
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
    """

    name = "proc"
    consumes = ("prep",)
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
    ):
        super().__init__(shell, settings)
        self._views, self._options = views, shell.options
        self._diameter_A, self._auto_box = diameter_A, auto_box

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

    def instant(self, state: ProcState, node: str, movie: str) -> Iterator[Body]:
        """Select a micrograph or refuse it."""
        reason = plan.why_not(state.imported[movie], self._options(state, node))
        if reason is None:
            yield MicrographSelected(movie=movie)
        else:
            yield MicrographRefused(
                movie=movie, stage=node, code=Code.CTF_RESOLUTION, detail=reason
            )

    def fold(self, state: ProcState, body: Body) -> tuple[str, str] | None:
        """Fold an own event."""
        match body:
            case MicrographImported():
                state.imported[body.movie] = body.ctf
                self.again(state, body.movie)
            case MicrographSelected():
                state.selected[body.movie] = None
                return "select_mics", body.movie
            case ParticlesPicked():
                state.picked[body.movie] = body
                return "autopick", body.movie
            case ParticlesExtracted():
                state.extracted[body.movie] = body
                return "extract", body.movie
            case ResultsOutdated():
                self._drop(state, body)
        return None

    def _drop(self, state: ProcState, body: ResultsOutdated) -> None:
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
        select = self._options(state, "select_mics")
        gone = {m for m in state.selected if plan.why_not(state.imported[m], select) is not None}
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
            rows[f"{select.current_name}micrographs.star"] = len(state.selected)
        return rows

    def rebase(self, state: ProcState) -> tuple[tuple[str, ...], ...]:
        """Return the moves that make HAS_mics_increased see micrographs that come once more."""
        prev = state.machine.floats.get("prev_nr_mics")
        if prev is None or prev <= len(state.selected):
            return ()
        return (("set", "float", "prev_nr_mics", repr(float(len(state.selected)))),)

    # ---- tasks

    def task(self, state: ProcState, node: str, movie: str) -> Task:
        """Return the task of a micrograph at a node."""
        return self._pick(state, movie) if node == "autopick" else self._extract(state, movie)

    def _pick(self, state: ProcState, movie: str) -> Task:
        ctf = state.imported[movie]
        process = state.machine.jobs["autopick"].current_name
        ask = plan.pick_request(ctf, self._options(state, "autopick"), process)
        request = msgspec.msgpack.encode(ask)
        return Task(
            id=f"autopick:{movie}",
            stage="autopick",
            movie=movie,
            key=content_key("autopick", request, ctf.key),
            call="services.proc.tasks:autopick",
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
            ask = msgspec.msgpack.decode(done.task.request, type=PickRequest)
            got = msgspec.msgpack.decode(result, type=PickResult)
            return ParticlesPicked(
                **common,
                coordinates=ask.coordinates,
                n_particles=got.n_particles,
                mean_figure_of_merit=got.mean_figure_of_merit,
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

    def explain(self, body: Body) -> tuple[str, dict[str, object]] | None:
        """Return the log line of an event."""
        match body:
            case ParticlesPicked():
                return "DEBUG", {"movie": short(body.movie), "particles": body.n_particles}
            case ParticlesExtracted():
                return "INFO", {
                    "movie": short(body.movie),
                    "particles": body.n_particles,
                    "box_px": body.box_px,
                    "took_s": body.took_s,
                }
        return super().explain(body)
