"""When is a file complete? Pure: facts and times in, advice out.

A file is complete when its size, modification time and inode stayed the same in three successive
looks, over `settle_s`, and its structure holds; a witness shortens that to one more look. Only
successive observations are compared, by the daemon's monotonic clock: clocks of microscope, camera
and server differ. Size alone proves nothing, for files are pre-allocated.

Source: acquisition.md sections 2.9 and 8 (3, 4, 6, 8).
"""

from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from services.kit.errors import Code

# A file that is still written can look like this; anything else will not heal by growing.
GROWING = frozenset(
    {Code.EMPTY_FILE, Code.TRUNCATED, Code.BAD_HEADER, Code.XML_BROKEN, Code.READ_ERROR}
)
RETRY_S = 60.0  # longest pause between two tests of an unchanged file that fails
RELAXED = 5  # polls between looks at complete and refused files, at first
AGEING = 20.0  # then a twentieth of the time that nothing has changed, up to RETRY_S
LOOKS = 3  # that must show the same before a file counts as still
DAY_S = 86_400.0  # a refused file that does not change is tested again so long


class Facts(NamedTuple):
    """What must not change any more."""

    size: int
    mtime_ns: int
    inode: int


class Standing(StrEnum):
    """Where a file stands."""

    SETTLING = "settling"
    COMPLETE = "complete"
    REFUSED = "refused"


class Pace(NamedTuple):
    """How patiently a file is watched, in seconds; `looks` that must show the same."""

    poll_s: float
    settle_s: float
    stuck_s: float
    looks: int = LOOKS


class FileWatch(msgspec.Struct):
    """One file on its way to being complete; changes to it start the way again."""

    path: str
    pace: Pace
    look_at: float = 0.0  # monotonic time of the next look
    facts: Facts | None = None
    since: float = 0.0  # when these facts were first seen
    looks: int = 0  # that showed these facts
    strangers: int = 0  # changes of the inode alone
    standing: Standing = Standing.SETTLING
    code: Code | None = None  # why the last test failed
    detail: str = ""
    result: Any = None  # what the test of a complete file returned
    complete_by: str = ""
    tests: int = 0
    test_at: float = 0.0
    witness: bool = False  # something else says that the file is complete

    def observe(self, facts: Facts, now: float) -> bool:
        """Take an observation in; return True when the structure should be tested now."""
        if not self._is_same(facts):
            self.since, self.looks = now, 0
            self.standing, self.code, self.detail = Standing.SETTLING, None, ""
            self.result, self.tests, self.witness = None, 0, False
            self.test_at = now + self.pace.settle_s
        self.facts = facts
        self.looks += 1
        self._rest(now)
        if self.standing is Standing.COMPLETE or now < self.test_at:
            return False
        # Three looks take at least two polls; a pace without settling needs no second look.
        return self.looks >= (self.pace.looks if self.pace.settle_s else 1) or self.witness

    def vouched(self, now: float) -> None:
        """Note a witness: one more look that shows the same is enough."""
        if self.standing is Standing.SETTLING and not self.witness and not self.tests:
            self.witness = True
            self.test_at = self.look_at = min(self.test_at, max(now, self.since + self.pace.poll_s))

    def passed(self, result: object, now: float) -> None:
        """Note that the structure holds."""
        self.standing, self.result = Standing.COMPLETE, result
        self.complete_by = "witness" if self.witness else "structure"
        self.code, self.detail = None, ""
        self._rest(now)

    def failed(self, code: Code, detail: str, now: float) -> None:
        """Note that the structure does not hold; refuse once waiting is useless.

        A failure that growing can heal is given `stuck_s` since the last change; any other is
        refused as soon as the file has settled. Either is tested again after 1, 2, 4 ... polls,
        at least once a minute, for a day.
        """
        self.code, self.detail = code, detail
        if code is Code.POISON:  # each test costs a process: once is enough
            self.standing, self.test_at = Standing.REFUSED, float("inf")
            self._rest(now)
            return
        self.test_at = now + min(self.pace.poll_s * 2.0 ** min(self.tests, 32), RETRY_S)
        self.tests += 1
        patience = self.pace.stuck_s if code in GROWING else self.pace.settle_s
        if now - self.since >= patience:
            self.standing = Standing.REFUSED
            if now - self.since > max(DAY_S, patience):
                self.test_at = float("inf")
        else:
            self.test_at = min(self.test_at, self.since + patience)
        self._rest(now)

    def again(self, now: float) -> None:
        """Forget what was seen: the file changed while it was read."""
        self.facts, self.look_at, self.standing = None, now, Standing.SETTLING

    def hurry(self, now: float) -> None:
        """Look now: something has happened where the file is."""
        if self.standing is not Standing.COMPLETE:
            self.look_at = min(self.look_at, now)

    def _is_same(self, facts: Facts) -> bool:
        """Tell whether nothing changed; some shares give a file another inode at every look."""
        before = self.facts
        if before is None or (facts.size, facts.mtime_ns) != (before.size, before.mtime_ns):
            self.strangers = 0
            return False
        if facts.inode == before.inode:
            return True
        self.strangers += 1
        return self.strangers > 1

    def _rest(self, now: float) -> None:
        pace = self.pace
        if self.standing is not Standing.SETTLING:
            pause = max(RELAXED * pace.poll_s, min((now - self.since) / AGEING, RETRY_S))
            self.look_at = now + pause
            return
        # The looks that are needed fit into the time of settling, however short that is.
        share = pace.settle_s / max(1, pace.looks - 1)
        self.look_at = now + (min(pace.poll_s, share) if share and not self.tests else pace.poll_s)
        if self.test_at > now:
            self.look_at = min(self.look_at, self.test_at)
