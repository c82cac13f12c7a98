"""When is a file complete? Pure: facts and times in, advice out.

A file is complete when its size, modification time and inode stayed the same for `settle_s` and its
structure holds. Only successive observations are compared, by the daemon's monotonic clock: clocks
of microscope, camera and server differ. Size alone proves nothing, for files are pre-allocated.

Source: acquisition.md sections 2.9 and 8.
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
RELAXED = 5  # complete and refused files are looked at this many times less often than new ones


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
    """How patiently a file is watched, in seconds."""

    poll_s: float
    settle_s: float
    stuck_s: float


class FileWatch(msgspec.Struct):
    """One file on its way to being complete; changes to it start the way again."""

    path: str
    pace: Pace
    look_at: float = 0.0  # monotonic time of the next look
    facts: Facts | None = None
    since: float = 0.0  # when these facts were first seen
    standing: Standing = Standing.SETTLING
    code: Code | None = None  # why the last test failed
    detail: str = ""
    result: Any = None  # what the test of a complete file returned
    tests: int = 0
    test_at: float = 0.0

    def observe(self, facts: Facts, now: float) -> bool:
        """Take an observation in; return True when the structure should be tested now."""
        if facts != self.facts:
            self.facts, self.since = facts, now
            self.standing, self.code, self.detail = Standing.SETTLING, None, ""
            self.result, self.tests = None, 0
            self.test_at = now + self.pace.settle_s
        self._rest(now)
        return self.standing is not Standing.COMPLETE and now >= self.test_at

    def passed(self, result: object, now: float) -> None:
        """Note that the structure holds."""
        self.standing, self.result = Standing.COMPLETE, result
        self.code, self.detail = None, ""
        self._rest(now)

    def failed(self, code: Code, detail: str, now: float) -> None:
        """Note that the structure does not hold; refuse once waiting is useless.

        A failure that growing can heal is given `stuck_s` since the last change; any other is
        refused as soon as the file has settled. Either is tested again after 1, 2, 4 ... polls.
        """
        self.code, self.detail = code, detail
        self.test_at = now + min(self.pace.poll_s * 2.0**self.tests, RETRY_S)
        self.tests += 1
        patience = self.pace.stuck_s if code in GROWING else self.pace.settle_s
        if now - self.since >= patience:
            self.standing = Standing.REFUSED
        else:
            self.test_at = min(self.test_at, self.since + patience)
        self._rest(now)

    def again(self, now: float) -> None:
        """Forget what was seen: the file changed while it was read."""
        self.facts, self.look_at, self.standing = None, now, Standing.SETTLING

    def _rest(self, now: float) -> None:
        polls = 1 if self.standing is Standing.SETTLING else RELAXED
        self.look_at = now + polls * self.pace.poll_s
        if self.standing is Standing.SETTLING and self.test_at > now:
            self.look_at = min(self.look_at, self.test_at)
