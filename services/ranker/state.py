"""What the ranker knows: a fold of its own events."""

import msgspec

from services.kit.events import (
    ClassesRanked,
    ClassOverridden,
    RankingDue,
    RankingRefused,
    SelectionDue,
)

Answer = ClassesRanked | RankingRefused


class RankerState(msgspec.Struct, kw_only=True):
    """What was asked for, what is due, what was answered, and what people have decided.

    A selection is one visit of the Scheme's node: a classification, or one more stretch of it.
    """

    asked: dict[str, SelectionDue] = {}  # by classification: the options it is selected by
    queue: dict[int, RankingDue] = {}  # by order; the first is being done
    order: int = 0
    jobs: dict[str, str] = {}  # selection -> its job, Select/job008/
    last: dict[str, RankingDue] = {}  # selection -> what was due last of it
    ranked: dict[str, ClassesRanked] = {}  # selection -> its last scores
    answers: dict[str, Answer] = {}  # selection -> its last answer
    finals: dict[str, tuple[float, ...]] = {}  # selection -> scores of its last whole iteration
    overrides: dict[str, dict[int, ClassOverridden]] = {}  # by stack, by class
    given_up: set[str] = set()  # classifications that have ended without a result

    def head(self) -> RankingDue | None:
        """Return what is to be done now."""
        return next(iter(self.queue.values()), None)

    def decided(self) -> dict[str, dict[int, bool]]:
        """Return what people have decided: stack -> class -> kept."""
        return {
            stack: {n: one.keep for n, one in sorted(of.items()) if one.keep is not None}
            for stack, of in self.overrides.items()
        }

    def selection_of(self, job: str) -> str | None:
        """Return the selection of a job, called by its folder, `Select/job008`, or by `job008`."""
        name = job.strip("/")
        found = [of for of, there in self.jobs.items() if f"/{there}".endswith(f"/{name}/")]
        return found[0] if found else None


def selection(due: RankingDue | SelectionDue | ClassesRanked | RankingRefused) -> str:
    """Return the selection that an event belongs to."""
    return f"{due.process} {due.visit}"
