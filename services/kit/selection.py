"""Where the selection of the classes stands: a fold of what proc asks and the ranker answers."""

import msgspec

from services.kit.events import (
    Body,
    ClassesAveraged,
    ClassesDue,
    ClassesRanked,
    RankingRefused,
    SelectionAnswered,
    SelectionDue,
)


class Selection(msgspec.Struct):
    """The selection of the last classification; counts are of classes."""

    status: str = "none"  # or due, selected, asks, nothing, refused
    job: str | None = None
    detail: str = ""
    keep: int = 0
    ask: int = 0
    drop: int = 0
    particles: int = 0
    threshold: float = 0.0
    visit: int = 0  # of the last classification that the ranker is asked about
    process: str = ""  # that classification, until another one begins
    due: int = 0  # the visit whose answer is waited for

    def take(self, body: Body) -> None:
        """Fold an event; what is due and what is answered is proc's word alone."""
        match body:
            case ClassesDue():
                self.process = ""  # the ranker may not be asked about this one
            case SelectionDue():
                self.visit, self.process = body.visit, body.process
                if body.is_final:
                    self.status, self.due = "due", body.visit
            case ClassesAveraged() if body.process == self.process:
                self.status, self.due = "due", self.visit
            case SelectionAnswered() if self.status != "due" or body.visit >= self.due:
                self.status, self.job, self.detail = body.outcome, body.job, body.detail
                self.particles = body.particles
            case ClassesRanked():
                counts = (body.outcomes.count(word) for word in ("keep", "ask", "drop"))
                self.keep, self.ask, self.drop = counts
                self.threshold = body.threshold
            case RankingRefused():
                self.keep = self.ask = self.drop = 0
