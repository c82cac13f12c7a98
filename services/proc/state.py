"""What proc knows: a fold of its own events."""

from services.kit.events import MicrographCtf, ParticlesExtracted, ParticlesPicked
from services.kit.flow import FlowState


class ProcState(FlowState, kw_only=True):
    """Micrographs imported, selected, picked and extracted; each by its movie's identity."""

    imported: dict[str, MicrographCtf] = {}
    selected: dict[str, None] = {}
    picked: dict[str, ParticlesPicked] = {}
    extracted: dict[str, ParticlesExtracted] = {}

    def in_order(self) -> list[str]:
        """Return all movies in the order of acquisition, the order of every table."""
        return sorted(self.imported, key=lambda m: (self.imported[m].acquired_at, m))
