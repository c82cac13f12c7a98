"""Where the selection of the classes stands: a fold of what proc asks and the ranker answers."""

import msgspec

from services.kit.events import (
    Body,
    ClassesAveraged,
    ClassesRanked,
    RankingRefused,
    SelectionAnswered,
    SelectionDue,
)


class Selection(msgspec.Struct):
    """The selection of the last classification; counts are of classes."""

    status: str = "none"  # or due, selected, asks, refused
    job: str | None = None
    detail: str = ""
    keep: int = 0
    ask: int = 0
    drop: int = 0
    particles: int = 0
    threshold: float = 0.0
    visit: int = 0  # of the last classification that the ranker is asked about

    def take(self, body: Body) -> None:
        """Fold an event; what is due and what is answered is proc's word alone."""
        match body:
            case SelectionDue():
                self.visit = body.visit
                if body.is_final:
                    self.status = "due"
            case ClassesAveraged() if self.visit:
                self.status = "due"
            case SelectionAnswered() if self.status != "due" or body.visit >= self.visit:
                self.status, self.job, self.detail = body.outcome, body.job, body.detail
                self.particles = body.particles
            case ClassesRanked():
                counts = (body.outcomes.count(word) for word in ("keep", "ask", "drop"))
                self.keep, self.ask, self.drop = counts
                self.threshold = body.threshold
            case RankingRefused():
                self.keep = self.ask = self.drop = 0
