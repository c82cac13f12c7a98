"""prep: every settled movie becomes a micrograph with a fitted CTF.

Runs the Scheme `prep`: importmovies, motioncorr, ctffind. Importing is instant; motion correction
and CTF estimation are one task per movie. Source: schemes.md section 14.
"""

from collections.abc import Iterator

import msgspec

from schemer import machine
from services.kit.digest import file_digest
from services.kit.events import (
    Body,
    MicrographCorrected,
    MicrographCtf,
    MovieImported,
    MovieMoved,
    MovieSettled,
    OpticsGrouped,
    ResultsOutdated,
)
from services.kit.flow import Flow, Shell, short
from services.kit.host import Finished
from services.kit.work import Task, content_key
from services.prep import plan
from services.prep.ctf import Pictures, ctf_request, fitted_root
from services.prep.requests import CtfRequest, CtfResult, MotionRequest, MotionResult
from services.prep.state import PrepState
from services.prep.views import Views


class Prep(Flow):
    """The prep service.

    Parameters
    ----------
    shell, settings
        See `Flow`.
    views
        Writer of prep's STAR files.
    """

    name = "prep"
    consumes = ("mdcatch",)
    state_type = PrepState
    instant_nodes = ("importmovies",)
    task_nodes = ("motioncorr", "ctffind")
    last_node = "ctffind"

    def __init__(
        self,
        shell: Shell,
        settings: str,
        views: Views,
    ):
        super().__init__(shell, settings)
        self._views, self._options = views, shell.options
        self._said: set[str] = set()

    def empty(self) -> PrepState:
        """Return the state before any event."""
        return PrepState(machine=machine.initial(self.scheme, reset=True))

    # ---- events in

    def arrived(self, state: PrepState, body: Body) -> Iterator[Body]:
        """Take over movies and optics groups from mdcatch."""
        match body:
            case MovieSettled():
                before = state.imported.get(body.movie)
                if before == body:
                    return
                if before is not None:
                    # The file was replaced after it had been processed: start over with it.
                    again = ResultsOutdated(stage="motioncorr", movies=(body.movie,))
                    yield from self._due_again(state, again, "importmovies")
                yield MovieImported(movie=body.movie, settled=body)
            case MovieMoved() if body.movie in state.imported:
                yield from self._relocated(state, body)
            case OpticsGrouped():
                if body.optics_group not in state.optics:
                    yield body

    def _relocated(self, state: PrepState, moved: MovieMoved) -> Iterator[Body]:
        """Read a movie where it lies now; one that is corrected is not read again."""
        before = state.imported[moved.movie]
        path = moved.below or moved.path
        if moved.movie in state.corrected or (before.link, before.path) == (moved.link, path):
            return
        again = ResultsOutdated(stage="motioncorr", movies=(moved.movie,))
        yield from self._due_again(state, again, "importmovies")
        settled = msgspec.structs.replace(before, path=path, link=moved.link)
        yield MovieImported(movie=moved.movie, settled=settled)

    def instant(self, state: PrepState, node: str, movie: str) -> Iterator[Body]:
        """Nothing is left to do for an imported movie."""
        return iter(())

    def fold(self, state: PrepState, body: Body) -> tuple[str, str] | None:
        """Fold an own event."""
        match body:
            case MovieImported():
                state.imported[body.movie] = body.settled
                state.first_gain = state.first_gain or body.settled.gain_path
                self.again(state, body.movie)
            case MicrographCorrected():
                state.corrected[body.movie] = body
                return "motioncorr", body.movie
            case MicrographCtf():
                state.ctf[body.movie] = body
                return "ctffind", body.movie
            case ResultsOutdated():
                for movie in body.movies:
                    if body.stage in ("motioncorr", "ctffind"):
                        state.ctf.pop(movie, None)
                    if body.stage == "motioncorr":
                        state.corrected.pop(movie, None)
                    self.again(state, movie)
        return None

    def has_result(self, state: PrepState, node: str, movie: str) -> bool:
        """Say whether a movie has its result at a node."""
        match node:
            case "importmovies":
                return movie in state.imported
            case "motioncorr":
                return movie in state.corrected
        return movie in state.ctf

    def outdated(self, state: PrepState) -> Iterator[ResultsOutdated]:
        """Yield the results whose key is another one under the present settings."""
        motion = [m for m, r in state.corrected.items() if r.key != self._motion(state, m).key]
        if motion:
            yield ResultsOutdated(stage="motioncorr", movies=tuple(motion))
        gone = set(motion)
        kept = (m for m in state.ctf if m not in gone)
        ctf = [m for m in kept if state.ctf[m].key != self._ctf(state, m).key]
        if ctf:
            yield ResultsOutdated(stage="ctffind", movies=tuple(ctf))

    # ---- tasks

    def task(self, state: PrepState, node: str, movie: str) -> Task:
        """Return the task of a movie at a node."""
        return self._motion(state, movie) if node == "motioncorr" else self._ctf(state, movie)

    def _motion(self, state: PrepState, movie: str) -> Task:
        settled = state.imported[movie]
        options = self._options(state, "motioncorr")
        process = state.machine.jobs["motioncorr"].current_name
        gain_name = plan.gain_of(settled, options)
        path = plan.movie_path(settled)
        ask = plan.motion_request(settled, path, gain_name, options, process)
        ask = plan.as_taken(ask, settled, options)
        if gain_name is not None and not options.text("fn_gain_ref"):
            is_usual = settled.gain_path == state.first_gain
            copy = plan.gain_copy(gain_name, process, is_usual=is_usual)
            ask = msgspec.structs.replace(ask, gain_name=copy)
        request = msgspec.msgpack.encode(ask)
        planes = [p for p in (ask.gain_path, ask.defect_path) if p]
        digests = [file_digest(self._views.project / path) for path in planes] or [""]
        return Task(
            id=f"motioncorr:{movie}",
            stage="motioncorr",
            movie=movie,
            key=content_key("motioncorr", request, settled.digest, *digests),
            call="services.prep.tasks:motioncorr",
            request=request,
        )

    def _ctf(self, state: PrepState, movie: str) -> Task:
        corrected = state.corrected[movie]
        pictures = Pictures(
            corrected.power_spectrum,
            corrected.micrograph,
            corrected.micrograph_nodw,
            corrected.pixel_size_A,
        )
        process = state.machine.jobs["ctffind"].current_name
        options = self._options(state, "ctffind")
        ask = ctf_request(state.imported[movie], pictures, process, options)
        request = msgspec.msgpack.encode(ask)
        return Task(
            id=f"ctffind:{movie}",
            stage="ctffind",
            movie=movie,
            key=content_key("ctffind", request, corrected.key),
            call="services.prep.ctftask:ctffind",
            request=request,
            urgency=1,
        )

    def accept(self, state: PrepState, done: Finished) -> Body:
        """Return the event of a delivered result."""
        result = done.reply.result or b""
        if done.task.stage == "motioncorr":
            return self._corrected(done, result)
        return self._fitted(state, done, result)

    def _corrected(self, done: Finished, result: bytes) -> MicrographCorrected:
        ask = msgspec.msgpack.decode(done.task.request, type=MotionRequest)
        got = msgspec.msgpack.decode(result, type=MotionResult)
        return MicrographCorrected(
            movie=done.task.movie,
            key=done.task.key,
            token=done.token,
            micrograph=f"{ask.root}.mrc",
            micrograph_nodw=f"{ask.root}_noDW.mrc" if ask.save_nodw else None,
            power_spectrum=f"{ask.root}_PS.mrc",
            micrograph_even=f"{ask.root}_EVN.mrc" if ask.even_odd else None,
            micrograph_odd=f"{ask.root}_ODD.mrc" if ask.even_odd else None,
            motion_plot=f"{ask.root}_shifts.png",
            metadata_star=f"{ask.root}.star",
            took_s=done.reply.took_s,
            **msgspec.structs.asdict(got),
        )

    def _fitted(self, state: PrepState, done: Finished, result: bytes) -> MicrographCtf:
        ask = msgspec.msgpack.decode(done.task.request, type=CtfRequest)
        got = msgspec.msgpack.decode(result, type=CtfResult)
        movie = done.task.movie
        settled, corrected = state.imported[movie], state.corrected[movie]
        return MicrographCtf(
            movie=movie,
            key=done.task.key,
            token=done.token,
            micrograph=corrected.micrograph,
            micrograph_nodw=corrected.micrograph_nodw,
            ctf_image=f"{fitted_root(ask)}.ctf:mrc",
            metadata_star=corrected.metadata_star,
            optics_group=settled.optics_group,
            width_px=corrected.width_px,
            height_px=corrected.height_px,
            pixel_size_A=corrected.pixel_size_A,
            voltage_kV=settled.voltage_kV,
            spherical_aberration_mm=settled.spherical_aberration_mm,
            amplitude_contrast=settled.amplitude_contrast,
            original_pixel_size_A=plan.rendered_pixel_A(
                settled, self._options(state, "motioncorr")
            ),
            acquired_at=settled.acquired_at,
            took_s=done.reply.took_s,
            motion_total_px=corrected.motion_total_px,
            motion_early_px=corrected.motion_early_px,
            motion_late_px=corrected.motion_late_px,
            **msgspec.structs.asdict(got),
        )

    # ---- shell

    def render(self, state: PrepState, *, everything: bool) -> None:
        """Write scheme.star; with `everything` also the movie and micrograph tables."""
        self._views.scheme(self.scheme, state.machine)
        if everything:
            self._views.tables(state)

    def explain(self, body: Body) -> tuple[str, dict[str, object]] | None:
        """Return the log line of an event."""
        match body:
            case MicrographCorrected():
                fields: dict[str, object] = {
                    "movie": short(body.movie),
                    "motion_px": body.motion_total_px,
                    "took_s": body.took_s,
                }
                if not body.reference_note or body.reference_note in self._said:
                    return "INFO", fields
                self._said.add(body.reference_note)  # once: it is the same for every movie
                return "WARNING", {**fields, "note": body.reference_note}
            case MicrographCtf():
                return "INFO", {
                    "movie": short(body.movie),
                    "defocus_A": (body.defocus_u_A + body.defocus_v_A) / 2,
                    "astigmatism_A": body.defocus_u_A - body.defocus_v_A,
                    "fit_A": body.max_resolution_A,
                    "took_s": body.took_s,
                }
        return super().explain(body)
