"""How a network is trained: RELION's recipe, and what measured better on validation jobs.

Source: class-ranker.md sections 5.4 and 9.5.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from algorithms.ranker.architecture import Widths
from algorithms.ranker.constants import GRANULOMETRY
from algorithms.ranker.network import DROPOUT, Head
from algorithms.ranker.types import RankerError

# Which turns a batch sees: one angle and mirror for all of it; each image its own quarter turn and
# mirror; each image its own angle and mirror; none.
Turns = Literal["batch", "quarter", "any", "none"]
_CHOICES = {
    "turns": ("batch", "quarter", "any", "none"),
    "head": ("both", "images", "features"),
    "grey": ("as_is", "job"),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the outcome of a training, beside its data. The defaults are RELION's.

    Parameters
    ----------
    epochs, batch, rate
        Of Adam.
    weight_decay
        L2 inside Adam; with `decoupled` beside it, as AdamW has it.
    decoupled
        See above.
    cosine
        The rate falls to zero along half a cosine instead of staying.
    dropout
        Share of values that are left out.
    width
        Channels of the first convolution; RELION's 16.
    turns
        Augmentation by rotation and mirror.
    gain
        Random factor of the grey scale between 1 / gain and gain, the same for an image and its
        features; 1: none.
    average
        The result is a running mean of the weights that keeps this share at each step; 0: none.
    keeps_best
        The epoch with the smallest error on validation jobs is taken instead of the last.
    head
        What the network looks at; others than "both" are for comparison.
    grey
        "job" makes scores free of the grey scale, see `constants.Constants`.
    seed
        Of weights, order, turns and dropout.
    """

    epochs: int = 200
    batch: int = 32
    rate: float = 5e-5
    weight_decay: float = 5e-4
    decoupled: bool = False
    cosine: bool = False
    dropout: float = DROPOUT
    width: int = 16
    turns: Turns = "batch"
    gain: float = 1.0
    average: float = 0.0
    keeps_best: bool = False
    head: Head = "both"
    grey: Literal["as_is", "job"] = "as_is"
    seed: int = 12

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise RankerError(f"recipe: {name} is {getattr(self, name)!r}, not of {choices}")
        counts = min(self.epochs, self.batch, self.width) >= 1
        shares = 0.0 <= self.dropout < 1.0 and 0.0 <= self.average < 1.0
        if not (counts and shares and self.rate > 0.0 and self.gain >= 1.0):
            raise RankerError(
                "recipe: epochs, batch, width and gain must be at least 1, rate above 0, dropout "
                "and average from 0 to below 1"
            )

    @property
    def widths(self) -> Widths:
        """Widths of the layers."""
        return Widths(convolution=self.width)

    @property
    def zeroed(self) -> tuple[int, ...]:
        """Columns that the network never sees: granulometry, as in RELION's training."""
        return GRANULOMETRY

    def dumps(self) -> str:
        """Return the recipe as JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def loads(cls, values: dict[str, Any]) -> "Recipe":
        """Return a recipe from named values; those not named are RELION's."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise RankerError(f"recipe: there is no {', '.join(sorted(unknown))}")
        return cls(**values)

    def digest(self) -> str:
        """Return what tells recipes apart."""
        return hashlib.sha256(self.dumps().encode()).hexdigest()[:16]


RELION = Recipe()
OURS = Recipe(
    epochs=40,
    rate=1e-3,
    weight_decay=0.02,
    decoupled=True,
    cosine=True,
    turns="any",
    average=0.99,
    keeps_best=True,
    grey="job",
)
RECIPES = {"relion": RELION, "ours": OURS}
