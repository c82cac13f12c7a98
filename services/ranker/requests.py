"""What the ranker asks a worker for, and what it gets."""

from typing import Literal

import msgspec


class RankRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An iteration to score and to select from; paths are below the project."""

    order: int
    process: str
    iteration: int
    optimiser: str
    job: str
    options: dict[str, str]
    overrides: dict[str, dict[int, bool]]  # stack -> class -> kept by a person
    session: tuple[float, ...]  # scores of other classifications, for an adaptive threshold


class RankResult(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What came of it; see `ClassesRanked`."""

    stack: str
    scores: tuple[float, ...]
    outcomes: tuple[Literal["keep", "drop", "ask"], ...]
    threshold: float
    threshold_note: str
    ask_threshold: float
    automatic: bool
    mode: Literal["relion", "coldstream"]
    weights: str
    weights_digest: str
    total: int
    particles: int
    overrides: int
    sheet: str
    remarks: tuple[str, ...]
    adopted: bool


class RankRefusal(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Why there are no scores."""

    reason: Literal["no_model", "unusable", "vanished"]
    detail: str


RankReply = RankResult | RankRefusal
