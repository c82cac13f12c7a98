"""Every movie accounted for: seen = done + refused + pending, for each stage, from the journals.

Source: architecture.md section 3.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from services.kit.errors import Code, Misuse
from services.kit.events import (
    Body,
    ClassesAveraged,
    ClassesBegun,
    ClassesDue,
    ClassesFailed,
    ClassesIterated,
    Event,
    MicrographCtf,
    MicrographImported,
    MicrographRefused,
    MovieImported,
    MovieRefused,
    MovieSeen,
    MovieSettled,
    ParticlesExtracted,
    PickingDrifted,
    ResultsOutdated,
    SelectionDue,
    SessionClosed,
    SessionOpened,
    SessionReopened,
    SettingsApplied,
    WaitStarted,
)
from services.kit.journal import Reader
from services.kit.paths import Layout
from services.kit.refinement import Refinement
from services.kit.selection import Selection

STAGES = ("mdcatch", "prep", "proc")
# Journals in which no movie stands, read after those of the stages.
OTHERS = ("ranker", "refine")


class Entry(NamedTuple):
    """Where one movie stands at one stage."""

    status: str  # pending, done or refused
    code: str = ""
    detail: str = ""
    at: float = 0.0


class Counts(msgspec.Struct, frozen=True):
    """How many movies of a stage are where."""

    seen: int
    done: int
    refused: int
    pending: int


class Classification(msgspec.Struct):
    """Where the 2D classification stands."""

    status: str = "none"  # or running, done, failed
    process: str | None = None
    detail: str = ""
    particles: int = 0
    iteration: int = 0
    iterations: int = 0
    particles_per_s: float = 0.0
    log_likelihood: float = 0.0
    resolution_A: float = 0.0
    classes: int = 0  # with more than half of the mean of particles


class Ledger:
    """A fold of all journals of a project; `update` takes in what is new.

    Parameters
    ----------
    layout
        The project's folders.
    keep_events
        Keep the bodies of results, with their times, for a report.
    """

    def __init__(self, layout: Layout, *, keep_events: bool = False):
        self._layout = layout
        self._seq = dict.fromkeys((*STAGES, *OTHERS), 0)
        self._readers: dict[str, Reader] = {}
        self.entries: dict[str, dict[str, Entry]] = {stage: {} for stage in STAGES}
        self.particles: dict[str, int] = {}
        self.drifting: dict[str, PickingDrifted] = {}  # alarms that stand, by measure
        self.classification = Classification()
        self.selection = Selection()
        self.refinement = Refinement()
        self.closed: SessionClosed | None = None
        self.session: SessionOpened | None = None
        self.events: list[Event] | None = [] if keep_events else None
        self._started: set[str] = set()
        self._expected = {"prep", "proc"}
        self._heard = 0  # how far refine has read in the journal of proc

    def update(self) -> bool:
        """Take in new events; return whether there were any."""
        before = sum(self._seq.values())
        for stage in self._seq:
            reader = self._reader(stage)
            if reader is None:
                continue
            if stage == "refine":  # before its events: what it has heard it has answered, too
                heard = reader.cursors().get("proc")
                self._heard = heard.seq if heard is not None else 0
            for event in reader.read(self._seq[stage] + 1):
                self._take(stage, event)
                self._seq[stage] = event.seq
        return sum(self._seq.values()) > before

    def _reader(self, stage: str) -> Reader | None:
        if stage not in self._readers:
            path = self._layout.journal(stage)
            if not path.exists():
                return None
            try:
                self._readers[stage] = Reader(path)
            except Misuse:
                return None  # its service is just making it
        return self._readers[stage]

    def _take(self, stage: str, event: Event) -> None:
        if self.events is not None:
            self.events.append(event)
        # The ranker notes what it is asked for; proc, which asks, may have had the answer since.
        if stage != "ranker" or not isinstance(event.body, SelectionDue):
            self.selection.take(event.body)
        self.refinement.take(event)
        if stage in self.entries:
            self._take_movie(stage, event)
        else:
            self._take_session(stage, event.body)

    def _take_movie(self, stage: str, event: Event) -> None:
        body, at, entries = event.body, event.at, self.entries[stage]
        match body:
            case MovieSeen():
                entries[body.movie] = Entry("pending", Code.SETTLING, "the file is settling", at)
            case MovieImported() | MicrographImported():
                entries[body.movie] = Entry("pending", "", "waits for its turn", at)
            case WaitStarted() if body.subject in entries:
                entries[body.subject] = Entry("pending", body.code, body.detail, at)
            case MovieRefused() | MicrographRefused():
                entries[body.movie] = Entry("refused", body.code, body.detail, at)
            case MovieSettled() | MicrographCtf() | ParticlesExtracted():
                entries[body.movie] = Entry("done", at=at)
            case ResultsOutdated():
                for movie in body.movies:
                    entries[movie] = Entry("pending", "", "settings changed: due again", at)
                    if stage == "proc":
                        self.particles.pop(movie, None)
            case _:
                self._take_session(stage, body)
                self._take_classes(body)
        self._take_alarms(body)
        if isinstance(body, ParticlesExtracted):
            self.particles[body.movie] = body.n_particles
        elif isinstance(body, MicrographRefused) and stage == "proc":
            self.particles.pop(body.movie, None)  # a person may reject it at any time

    def _take_alarms(self, body: Body) -> None:
        match body:
            case ResultsOutdated(stage="autopick"):  # picked by other rules: another beginning
                self.drifting.clear()
            case PickingDrifted():
                self.drifting.pop(body.measure, None)
                if body.active:
                    self.drifting[body.measure] = body

    def _take_classes(self, body: Body) -> None:
        now = self.classification
        match body:
            case ClassesDue():
                fresh = Classification("running", particles=body.particles)
                self.classification = fresh if body.is_new else now
                self.classification.status = "running"
            case ClassesBegun():
                now.process = body.process
            case ClassesIterated():
                now.iteration, now.iterations = body.iteration, body.iterations
                now.particles, now.particles_per_s = body.total, body.particles_per_s
                now.log_likelihood, now.resolution_A = body.log_likelihood, body.resolution_A
                now.classes = body.classes
            case ClassesAveraged():
                now.status, now.particles = "done", body.particles
            case ClassesFailed():
                now.status, now.detail = "failed", body.detail

    def _take_session(self, stage: str, body: Body) -> None:
        match body:
            case SessionOpened():
                self.session = body
            case SessionReopened():
                self.closed = None
            case SettingsApplied():
                self._started.add(stage)
            case SessionClosed():
                self.closed = body

    def counts(self, stage: str) -> Counts:
        """Return the counts of a stage."""
        statuses = [entry.status for entry in self.entries[stage].values()]
        done, refused = statuses.count("done"), statuses.count("refused")
        return Counts(len(statuses), done, refused, len(statuses) - done - refused)

    def not_done(self) -> list[tuple[str, str, Entry]]:
        """Return (stage, movie, entry) of all that is refused or pending, in order."""
        return [
            (stage, movie, entry)
            for stage in STAGES
            for movie, entry in sorted(self.entries[stage].items())
            if entry.status != "done"
        ]

    def settled(self) -> bool:
        """Say whether the session is closed and every movie has gone as far as it can."""
        return self.closed is not None and self._started >= self._expected and self.at_rest()

    def expect_start(self, services: Iterable[str] = ("prep", "proc")) -> None:
        """Take in what there is; from now on `settled` waits for the services to start again."""
        self.update()
        self._expected = set(services)
        self.closed = None
        self._started.clear()

    def at_rest(self) -> bool:
        """Say whether nothing is under way: each movie is done, refused, or waits for a file."""
        if any(e.code == Code.SETTLING for e in self.entries["mdcatch"].values()):
            return False
        if self.counts("prep").pending or self.counts("proc").pending:
            return False
        if self.classification.status == "running" or self.selection.status == "due":
            return False
        if "refine" in self._started:
            if self.refinement.passes or self._heard < self._seq["proc"]:
                return False
        return self._taken_over("mdcatch", "prep") and self._taken_over("prep", "proc")

    def _taken_over(self, stage: str, following: str) -> bool:
        """Tell whether all that is done at a stage is known to the next one.

        The next may know more: what was done once and is refused now, as its file was replaced.
        """
        known = self.entries[following]
        return all(m in known for m, e in self.entries[stage].items() if e.status == "done")

    def find(self, text: str) -> list[str]:
        """Return the movies whose identity contains `text`."""
        movies = dict.fromkeys(m for stage in STAGES for m in self.entries[stage])
        exact = [m for m in movies if m == text or m.rpartition("/")[2] == text]
        return exact or [m for m in movies if text in m]

    def story(self, movie: str) -> list[Event]:
        """Return all events about a movie, in the order of their times."""
        events = [e for s in STAGES if (r := self._reader(s)) for e in r.about(movie)]
        return sorted(events, key=lambda e: (e.at, STAGES.index(e.producer), e.seq))

    def as_json(self) -> dict[str, object]:
        """Return the whole ledger in plain types, the same for the same outcome."""
        return {
            "session": self.session.name if self.session else None,
            "closed": self.closed is not None,
            "particles": sum(self.particles.values()),
            "drifting": sorted(self.drifting),
            "classification": msgspec.to_builtins(self.classification),
            "selection": msgspec.to_builtins(self.selection),
            "refinement": msgspec.to_builtins(self.refinement),
            "stages": {s: msgspec.to_builtins(self.counts(s)) for s in STAGES},
            "not_done": [
                {"stage": s, "movie": m, "status": e.status, "code": e.code, "detail": e.detail}
                for s, m, e in self.not_done()
            ],
        }

    def close(self) -> None:
        """Close the journals."""
        for reader in self._readers.values():
            reader.close()
