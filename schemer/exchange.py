"""What the walk of a Scheme and its shell say to each other: stimuli, and instructions.

The shell tells the walk what has happened; the walk tells the shell what to do next. Both are
plain data, so they can be logged and compared. `at` is a time in Unix seconds.
"""

from msgspec import Struct

from schemer.actions import Effect


class Go(Struct, frozen=True, tag=True):
    """Execute the current node; time is `at`."""

    at: float


class Performed(Struct, frozen=True, tag=True):
    """The operator's effect is done."""

    at: float
    note: str = ""


class Woke(Struct, frozen=True, tag=True):
    """The sleep is over: `deadline`, `data` or `abort`."""

    at: float
    reason: str = "deadline"


class JobMade(Struct, frozen=True, tag=True):
    """The current node's job has its folder, `MotionCorr/job002/`."""

    process: str
    at: float


class InputsThere(Struct, frozen=True, tag=True):
    """Every file that the current job reads exists."""

    at: float


class JobEnded(Struct, frozen=True, tag=True):
    """The current job is over: Succeeded, Failed or Aborted."""

    status: str
    at: float
    detail: str = ""


class Stop(Struct, frozen=True, tag=True):
    """End here: `aborted`, `input missing` or `error`."""

    reason: str
    at: float
    detail: str = ""


Stimulus = Go | Performed | Woke | JobMade | InputsThere | JobEnded | Stop


class Proceed(Struct, frozen=True, tag=True):
    """Write the transition, then say Go."""


class Perform(Struct, frozen=True, tag=True):
    """Do what the operator at `node` asks for."""

    node: str
    effect: Effect


class Sleep(Struct, frozen=True, tag=True):
    """Do nothing until `until`; new data end it early if `data`, an abort always does."""

    until: float
    data: bool


class MakeJob(Struct, frozen=True, tag=True):
    """Give the job of `node` a folder of its own; `visit` tells repeated calls apart."""

    node: str
    visit: int


class AwaitInputs(Struct, frozen=True, tag=True):
    """Wait until the files are there that the job in `process` reads."""

    node: str
    process: str
    continues: bool
    visit: int


class RunJob(Struct, frozen=True, tag=True):
    """Run the job of `node` in `process`; `continues` if it has run there before."""

    node: str
    process: str
    continues: bool
    visit: int


class Finish(Struct, frozen=True, tag=True):
    """The walk is over."""

    reason: str


Instruction = Proceed | Perform | Sleep | MakeJob | AwaitInputs | RunJob | Finish
