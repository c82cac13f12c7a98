"""What prep knows: a fold of its own events."""

from services.kit.events import MicrographCorrected, MicrographCtf, MovieImported, MovieSettled
from services.kit.flow import FlowState


class PrepState(FlowState, kw_only=True):
    """Movies imported, corrected, and with a CTF, each by its identity; the first gain."""

    imported: dict[str, MovieSettled] = {}
    corrected: dict[str, MicrographCorrected] = {}
    ctf: dict[str, MicrographCtf] = {}
    first_gain: str | None = None

    def in_order(self) -> list[str]:
        """Return all movies in the order of acquisition, the order of every table."""
        return sorted(self.imported, key=lambda m: (self.imported[m].acquired_at, m))


Own = MovieImported | MicrographCorrected | MicrographCtf
