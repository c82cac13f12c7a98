"""All that a job is made from: one line of the plan, and its text."""

import json
from dataclasses import asdict, dataclass

from algorithms.ranker.trainingset.records import TAGS


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a job is made from; everything else follows from the seed.

    Parameters
    ----------
    job, structure, family, part, seed
        As in the records.
    other
        Names of the structures that contaminate.
    box_px, pixel_A, particles
        Of the stack.
    diameter_A
        Of the target.
    mask
        Diameter of the mask, in diameters of the target.
    shares
        Of the particles, by tag.
    is_dense
        Whether the particles lie packed like a crystal: all have neighbours, which is no fault.
    neighbour
        Distance of a neighbour, in diameters.
    snr
        Variance of the density inside the mask over that of the noise, before the CTF.
    envelope_A2
        B of exp(-B q^2 / 4).
    colour, colour_A
        Share of the noise that is of the ice, and the length below which it falls off.
    concentration, modes
        Of the directions of view: kappa and how many directions are preferred; no modes: uniform.
    jitter
        Deviation of the picked centre, in diameters.
    voltage_kV, defocus_A, astigmatism_A, phase_deg
        Of the CTF; a range for the defocus, a phase plate where the phase is not 0.
    wrong_ctf_A
        Error of the defocus that the classification is told.
    n_classes, gradient, iterations, stop, psi_step_deg, offset_range_px, fudge, zero_mask, split
        Of the classification, and after which iteration it is looked at.
    is_second
        The second simulator: another colour of noise, envelope and ice.
    """

    job: str
    structure: str
    family: str
    part: str
    seed: int
    other: tuple[str, ...]
    box_px: int
    pixel_A: float
    particles: int
    diameter_A: float
    mask: float
    shares: tuple[float, ...]
    is_dense: bool
    neighbour: float
    snr: float
    envelope_A2: float
    colour: float
    colour_A: float
    concentration: float
    modes: int
    jitter: float
    voltage_kV: float
    defocus_A: tuple[float, float]
    astigmatism_A: float
    phase_deg: float
    wrong_ctf_A: float
    n_classes: int
    gradient: bool
    iterations: int
    stop: int
    psi_step_deg: float
    offset_range_px: float
    fudge: float
    zero_mask: bool
    split: bool
    is_second: bool

    @property
    def diameter_px(self) -> float:
        """Of the target."""
        return self.diameter_A / self.pixel_A

    @property
    def mask_A(self) -> float:
        """Diameter of the mask: within the box."""
        return min(self.mask * self.diameter_A, (self.box_px - 2) * self.pixel_A)

    def share(self, tag: str) -> float:
        """Return the share of a kind of particles."""
        return self.shares[TAGS.index(tag)]

    def text(self) -> str:
        """Return the setting as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)


def parsed(line: str) -> Setting:
    """Return the setting of a line; the reverse of `Setting.text`."""
    fields = json.loads(line)
    pairs = {name: tuple(fields[name]) for name in ("other", "shares", "defocus_A")}
    return Setting(**(fields | pairs))
