"""What proc knows: a fold of its own events."""

import msgspec

from algorithms.picking.chart import Chart, Kind
from services.kit.events import (
    MicrographCtf,
    MicrographOverridden,
    ParticlesExtracted,
    ParticlesPicked,
    SelectionAnswered,
)
from services.kit.flow import FlowState

# Measure of a micrograph's picks -> what kind of value it is.
MEASURES: dict[str, Kind] = {"particles": "count", "nearest_neighbour_A": "distance"}


class Classes(msgspec.Struct, kw_only=True):
    """The last run of 2D classification.

    `run` counts them, `key` tells its options, `parts` are the movies whose particles take part in
    the order in which they joined. It `is_due` as long as a process is to work on it, and
    `is_stale` when its particles, or it, are not good any more. `attempt` counts the starts of its
    process since its last iteration; `optimiser` is that of the last iteration if it was written.
    """

    run: int = 0
    key: str = ""
    failed_key: str = ""  # of options that are not tried again
    given_up: str = ""  # the last job that we ended before its time
    streaming: bool = False
    process: str = ""
    parts: dict[str, None] = {}
    is_due: bool = False
    is_averaged: bool = False
    is_stale: bool = False
    attempt: int = 0
    iteration: int = 0
    total: int = 0
    optimiser: str = ""


class Selection(msgspec.Struct, kw_only=True):
    """What the ranker is asked for and has answered.

    `visit` counts the classifications, also those that a growing job begins again; `averaged` is
    the last one that has looked at all particles, and `answered` the last with an answer. `key`
    tells what the ranker was asked for; `optimiser` is that of the last iteration with files.
    """

    visit: int = 0
    averaged: int = 0
    answered: int = 0
    key: str = ""
    optimiser: str = ""
    iteration: int = 0
    answer: SelectionAnswered | None = None


class ProcState(FlowState, kw_only=True):
    """Micrographs imported, selected, picked and extracted; each by its movie's identity.

    `overrides` is what people have decided; `charts` and `alarms` tell whether the picks stay what
    they were, by measure.
    """

    imported: dict[str, MicrographCtf] = {}
    selected: dict[str, None] = {}
    picked: dict[str, ParticlesPicked] = {}
    extracted: dict[str, ParticlesExtracted] = {}
    overrides: dict[str, MicrographOverridden] = {}
    charts: dict[str, Chart] = {}
    alarms: dict[str, bool] = {}
    classes: Classes = msgspec.field(default_factory=Classes)
    selection: Selection = msgspec.field(default_factory=Selection)

    def in_order(self) -> list[str]:
        """Return all movies in the order of acquisition, the order of every table."""
        return sorted(self.imported, key=lambda m: (self.imported[m].acquired_at, m))

    def is_kept(self, movie: str) -> bool:
        """Say whether a micrograph is in the tables: selected, and not set aside since."""
        return movie in self.selected and not self.is_left_out(movie)

    def is_left_out(self, movie: str) -> bool:
        """Say whether the selection, or a person, has set a micrograph aside."""
        refused = self.refused.get(movie)
        return refused is not None and refused.stage == "select_mics"

    def is_rejected(self, movie: str) -> bool:
        """Say whether a person has rejected a micrograph."""
        ruling = self.overrides.get(movie)
        return ruling is not None and ruling.keep is False
