"""mdcatch's decisions: stimuli in, events out. Pure but for the links and the status file.

An exposure is published once, whatever is told again after a restart; a refused one whose files
change and then pass is published; one that was published with inherited values, or whose file was
replaced, is published again, and an event says why.

Source: architecture.md sections 3 and 4; acquisition.md sections 8 and 9.
"""

from collections.abc import Container, Iterator
from typing import Protocol

import msgspec

from mdcatch import checks, grouping, optics
from mdcatch.checks import Physics
from mdcatch.config import MdcatchConfig
from mdcatch.describe import description, is_news, plan, settings_changed
from mdcatch.ledger import Entry, State, Status, closing, fold, refusal
from mdcatch.publish import mtf_path, publication
from mdcatch.rulings import added, lost, of_settled, overridden, project_path
from mdcatch.stimuli import (
    Described,
    MetadataCame,
    Moved,
    Noticed,
    Opened,
    Override,
    Quiet,
    Ready,
    Rejected,
    Replaced,
    RootFound,
    RootLost,
    RootSeen,
    SessionMet,
    Waits,
)
from services.kit import events
from services.kit.errors import Code, Refused
from services.kit.events import Body
from services.kit.work import Task

__all__ = ["Mdcatch", "State", "Status"]

# A difference in one of these makes another micrograph: the movie is published again.
_MATTERS = frozenset(
    {"pixel_size_A", "voltage_kV", "dose_e_A2", "dose_per_frame_e_A2", "frame_doses"}
    | {"spherical_aberration_mm", "amplitude_contrast", "gain_path", "optics_group"}
)
# Differ whenever a movie is published again, and mean nothing.
_CIRCUMSTANCES = frozenset(
    {"metadata", "metadata_path", "sources", "flags", "notes", "complete_by"}
)


class Show(Protocol):
    """Writes what people and other programs see of the state."""

    def __call__(self, state: State, *, everything: bool) -> None: ...


class Mdcatch:
    """The service side of mdcatch.

    Parameters
    ----------
    config
        Values of the site and of the person.
    show
        Writes what is shown of the state; default: nothing.
    """

    name = "mdcatch"
    consumes: tuple[str, ...] = ()
    state_type = State

    def __init__(self, config: MdcatchConfig, show: Show | None = None):
        self._config, self._show = config, show

    def empty(self) -> State:
        """Return the state before any event."""
        return State()

    def apply(self, state: State, body: Body, at: float) -> None:
        """Fold one own event into the state."""
        fold(state, body, at)

    def decide(self, state: State, stimulus: object) -> list[Body]:
        """Return the events that follow from a stimulus; none when they are told already."""
        match stimulus:
            case Noticed() | Waits() | Rejected() | Ready():
                return list(self._of_exposure(state, stimulus))
            case MetadataCame() if stimulus.movie in state.lacking:
                return list(self._update(state, stimulus))
            case Replaced() | Moved():
                return of_settled(state, stimulus)
            case Override():
                return list(overridden(state, stimulus))
            case Quiet() if not state.closed:
                return [*grouping.offer(state, self._config), closing(state)]
            case _:
                return self._of_session(state, stimulus)

    def _of_session(self, state: State, stimulus: object) -> list[Body]:
        match stimulus:
            case Opened() if not state.name:
                software = stimulus.software
                return [
                    events.SessionOpened(name=stimulus.name, raw=stimulus.raw, software=software)
                ]
            case Opened():
                return [events.SessionReopened(raw=stimulus.raw)]
            case RootSeen() if stimulus.path not in state.roots:
                return [added(state, stimulus)]
            case RootLost() if stimulus.root not in state.lost:
                return [lost(stimulus)]
            case RootFound() if stimulus.root in state.lost:
                return [events.WaitEnded(subject=stimulus.root, code=Code.UNAVAILABLE)]
            case SessionMet() if stimulus.session not in state.sessions:
                return [events.SessionFound(**msgspec.structs.asdict(stimulus))]
            case Described():
                body = description(stimulus)
                return [] if state.described.get(stimulus.session) == body else [body]
        return []

    def want(self, state: State, room: int, running: Container[str]) -> list[Task]:
        """Return the heavy work wanted: none."""
        return []

    def still_wanted(self, state: State, task: Task) -> bool:
        """Say whether a running task's result would be used: there is none."""
        return False

    def perform(self, state: State) -> list[object]:
        """Do small local deeds: none."""
        return []

    def render(self, state: State, *, everything: bool) -> None:
        """Write links and status; the journal says it all, the status says it quickly."""
        if self._show is not None:
            self._show(state, everything=everything)

    def begin(self, state: State) -> None:
        """Nothing of the project is mdcatch's but what `show` writes."""
        self.render(state, everything=True)

    def finish(self, state: State) -> None:
        """Show how the session was left."""
        self.render(state, everything=True)

    def explain(self, body: Body) -> tuple[str, dict[str, object]] | None:
        """Return the log line of an event."""
        match body:
            case events.MovieSeen():
                return None
            case events.MovieSettled():
                fields: dict[str, object] = {
                    "movie": body.movie.rpartition("/")[2],
                    "frames": body.n_frames,
                    "pixel_A": body.pixel_size_A,
                    "dose_e_A2": body.dose_e_A2,
                    "optics_group": body.optics_group,
                }
                return "INFO", fields | ({"flags": ",".join(body.flags)} if body.flags else {})
            case events.MovieRefused() | events.WaitStarted() | events.MovieChanged():
                fields = msgspec.structs.asdict(body)
                subject = str(fields.pop("movie", "") or fields.pop("subject", ""))
                return "WARNING", {"movie": subject.rpartition("/")[2]} | fields
            case events.OpticsRegrouped():
                fields = {"groups": body.groups, "differing": body.differing}
                return None if body.part > 1 else ("INFO", fields)
            case events.SettingsChanged():
                changes = (
                    f"{name} {old} -> {body.after[name]}" for name, old in body.before.items()
                )
                return "INFO", {"session": body.session, "changed": ", ".join(changes)}
        fields = msgspec.structs.asdict(body)
        return "INFO", {name: value for name, value in fields.items() if value not in (None, "")}

    # ---- one exposure

    def _of_exposure(
        self, state: State, stimulus: Noticed | Waits | Rejected | Ready
    ) -> Iterator[Body]:
        movie = stimulus.movie
        entry = state.exposures.get(movie)
        override = state.overrides.get(movie)
        if entry is not None and override is not None and override.ignore:
            return  # found before a person's decision, told after it
        if entry is None:
            entry = Entry()
            session = getattr(stimulus, "session", "") or state.session_of(movie)
            path = getattr(stimulus, "path", movie)
            yield events.MovieSeen(movie=movie, path=path, session=session)
        if entry.status is Status.SETTLED or isinstance(stimulus, Noticed):
            return
        told = (
            not isinstance(stimulus, Ready)
            and entry.code == stimulus.code
            and entry.detail == stimulus.detail
        )
        if isinstance(stimulus, Waits):
            # A refused exposure stays refused until it passes: a wait would hide the reason.
            if entry.status is Status.REFUSED or (entry.status is Status.WAITING and told):
                return
        if entry.status is Status.WAITING:
            yield events.WaitEnded(subject=movie, code=entry.code)
        match stimulus:
            case Ready():
                yield from self._publish(state, entry, stimulus)
            case Waits():
                yield events.WaitStarted(
                    subject=movie, code=stimulus.code, detail=stimulus.detail[:4000]
                )
            case Rejected() if not (entry.status is Status.REFUSED and told):
                yield refusal(movie, stimulus.code, stimulus.detail)

    def _publish(self, state: State, entry: Entry, ready: Ready) -> Iterator[Body]:
        try:
            bodies, body, physics = self._settled(state, ready)
        except Refused as error:
            if ready.record is None and error.code is Code.MISSING_FIELD:
                # Nothing is known of it yet: its metadata may still come.
                detail = f"{ready.path} has no metadata, and nothing to inherit: {error.detail}"
                yield events.WaitStarted(
                    subject=ready.movie, code=Code.NO_METADATA, detail=detail[:4000]
                )
            elif (entry.code, entry.detail) != (error.code, error.detail):
                yield refusal(ready.movie, error.code, error.detail)
            return
        last = state.last.get(body.session)
        if last is not None and (changed := settings_changed(last, body)) is not None:
            yield changed
        yield from bodies
        yield body
        learned = grouping.learned(state, body, physics, self._config)
        if learned is not None:
            yield learned
        planned = plan(physics, body.movie, self._config.particle_diameter_A)
        if planned is not None and is_news(planned, state.planned.get(body.session)):
            yield planned

    def _settled(
        self, state: State, ready: Ready
    ) -> tuple[list[Body], events.MovieSettled, Physics]:
        """Return what comes before an exposure's event, the event, and what it is made of.

        Raises
        ------
        Refused
            What `check` and `publication` raise.
        """
        session = state.session_of(ready.movie)
        physics = checks.check(ready, self._config, state.sizes, session, state.last.get(session))
        threshold = grouping.threshold(state, physics, self._config)
        provisional = grouping.is_provisional(state, physics, threshold, self._config)
        group = optics.find(state.groups, physics.key, threshold)
        number = len(state.groups) + 1 if group is None else group.number
        link, path = project_path(state, ready.path)
        body = publication(ready, physics, number, provisional=provisional, link=link, path=path)
        before: list[Body] = []
        if group is None:
            mtf = mtf_path(physics)
            group = optics.opened(state.groups, physics.key, provisional=provisional, mtf_path=mtf)
            before.append(group)
        return before, body, physics

    def _update(self, state: State, came: MetadataCame) -> Iterator[Body]:
        """Metadata of a movie that went without have come: compare with what was inherited."""
        old = state.lacking[came.movie]
        ready = grouping.as_ready(state, old, came)
        try:
            bodies, body, _ = self._settled(state, ready)
        except Refused as error:
            yield refusal(came.movie, error.code, error.detail)
            return
        changed = tuple(
            name
            for name in body.__struct_fields__
            if name not in _CIRCUMSTANCES and getattr(body, name) != getattr(old, name)
        )
        yield events.MovieUpdated(
            movie=came.movie, metadata_path=came.metadata_path, changed=changed
        )
        if _MATTERS.intersection(changed):
            yield from bodies
            yield body
