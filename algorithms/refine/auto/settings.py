"""What an auto-refinement is told.

Source: refinement.md section 5.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from algorithms.refine.auto import rules
from algorithms.refine.auto.rules import Rules, Steps
from algorithms.refine.space.sampling import Sampling3D


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an auto-refinement is told besides the options of all refinements.

    Parameters
    ----------
    reference
        First map.
    sampling
        First steps.
    rules
        Of its decisions.
    join_A
        Halves are joined to this resolution [--low_resol_join_halves].
    mask
        Of the solvent; None: a sphere [--solvent_mask].
    solvent_fsc
        Whether halves are correlated within the mask [--solvent_correct_fsc].
    """

    reference: Path
    sampling: Sampling3D
    rules: Rules
    join_A: float = 40.0
    mask: Path | None = None
    solvent_fsc: bool = False

    def first_sampling(self) -> Sampling3D:
        """Return the sampling of the first iteration: fine steps are searched locally at once."""
        steps = rules.started(steps_of(self.sampling), self.rules)
        return replace(self.sampling, sigma_deg=steps.sigma_deg)


def steps_of(sampling: Sampling3D) -> Steps:
    """Return the steps that the rules change."""
    return Steps(
        order=sampling.healpix_order,
        offset_range_A=sampling.offset_range_A,
        offset_step_A=sampling.offset_step_A,
        sigma_deg=sampling.sigma_deg,
    )
