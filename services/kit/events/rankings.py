"""The class ranker: what it is asked for, what it answers, and what people decide."""

from typing import Annotated, Literal

from msgspec import Meta

from services.kit.events.base import Body, Count, Name, Seconds, Text

Number = Annotated[int, Meta(ge=1, le=100_000)]


class SelectionDue(Body, frozen=True, kw_only=True, tag="selection.due"):
    """The classes of a job are to be scored and selected by these options: a Scheme asks for it.

    proc tells it when a classification begins, and again when the options have changed.
    """

    node: Name  # of the Scheme: select_parts
    label: Name  # relion.select.class2dauto
    process: Name  # the classification: Class2D/job007/
    visit: Count  # which of the session's classifications; each has a selection of its own
    options: dict[str, str]  # of the selection, complete
    key: Name  # content key of the options
    optimiser: Name | None = None  # of the last iteration with files, where there is one
    iteration: Count = 0
    is_final: bool = False  # that iteration has looked at all particles


class SelectionAnswered(Body, frozen=True, kw_only=True, tag="selection.answered"):
    """proc took over what became of the last iteration of a classification."""

    process: Name
    visit: Count
    job: Name | None  # Select/job008/
    # "nothing": the classes have scores, and none is kept; "refused": they could not be scored
    outcome: Literal["selected", "asks", "nothing", "refused"]
    particles: Count = 0  # selected ones
    detail: Text = ""


class RankingDue(Body, frozen=True, kw_only=True, tag="ranking.due"):
    """An iteration of a classification is to be scored, or to be selected from anew."""

    order: Count  # of the asking; what was asked later is never overwritten by what was before
    process: Name  # Class2D/job007/
    visit: Count
    iteration: Count
    optimiser: Name
    is_final: bool
    because: Literal["iteration", "options", "weights", "person"]


class ClassesRanked(Body, frozen=True, kw_only=True, tag="classes.ranked"):
    """The classes of an iteration have scores, and some of them are selected."""

    order: Count
    process: Name
    visit: Count
    iteration: Count
    is_final: bool
    optimiser: Name
    job: Name  # Select/job008/, where the files are
    stack: Name  # digest of the averages: a person's decisions hold for these alone
    scores: Annotated[tuple[float, ...], Meta(max_length=100_000)]  # -999: none
    outcomes: Annotated[tuple[Literal["keep", "drop", "ask"], ...], Meta(max_length=100_000)]
    threshold: float
    threshold_note: Text = ""  # where it comes from
    ask_threshold: float
    automatic: bool  # False: classes are kept by a person only
    mode: Literal["relion", "coldstream"]
    weights: Text
    weights_digest: Text
    total: Count  # particles of the iteration
    particles: Count  # rows of the selected classes
    overrides: Count = 0  # classes that a person decided
    sheet: Name  # a picture of the classes, the best first
    remarks: tuple[Text, ...] = ()
    adopted: bool = False  # features were there already
    took_s: Seconds


class RankingRefused(Body, frozen=True, kw_only=True, tag="ranking.refused"):
    """An iteration could not be scored; nothing of it is passed on."""

    order: Count
    process: Name
    visit: Count
    iteration: Count
    is_final: bool
    job: Name | None
    reason: Literal["no_model", "unusable", "vanished", "poison"]
    detail: Text


class ClassOverridden(Body, frozen=True, kw_only=True, tag="class.overridden"):
    """A person decided about a class, whatever its score; it holds for these averages alone."""

    job: Name  # Select/job008/
    stack: Name  # digest of the averages that the person saw
    number: Number  # of the class
    keep: bool | None  # None takes the decision back
    reason: Text = ""
    user: Text = ""
    command: Text = ""  # id of the command that asked for it
