"""Fourier shell correlation of half-maps: plain, in a mask, and corrected for the mask.

A mask correlates the two half-maps by itself. How much is measured: phases beyond a shell are
replaced by random ones, and what still correlates in the mask there is the mask's.

Source: refinement.md section 7, items 1 to 5; Chen et al. (2013) Ultramicroscopy 135, 24.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from algorithms.maps import shells

RESOLVED = 0.143  # Rosenthal and Henderson (2003): the limit for half-maps
RANDOMISE_BELOW = 0.8
GAP = 2  # shells after the first random one that are not corrected yet
SUSPICIOUS = 0.1  # of the random maps in the mask, at the resolution: the mask is too tight


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Correlation by shell, float64 `[N/2+1]` each, 1 at the origin.

    Parameters
    ----------
    unmasked, masked
        Of the half-maps, without and with the mask.
    randomised
        Of the half-maps with random phases, in the mask.
    corrected
        What of `masked` is the particle's.
    randomised_from
        First shell with random phases.
    """

    unmasked: Tensor
    masked: Tensor
    randomised: Tensor
    corrected: Tensor
    randomised_from: int

    @property
    def resolved_shell(self) -> int:
        """Last shell before `corrected` first falls below 0.143."""
        return resolved_shell(self.corrected)

    @property
    def mask_is_suspicious(self) -> bool:
        """Whether the mask alone still correlates at the resolution that is claimed."""
        return bool(self.randomised[self.resolved_shell] > SUSPICIOUS)


def fsc(first: Tensor, second: Tensor) -> Tensor:
    """Return the correlation of two volumes `[N, N, N]` by shell: float64 `[N/2+1]`."""
    return fsc_of_spectra(shells.to_fourier(first), shells.to_fourier(second), first.shape[-1])


def fsc_of_spectra(first: Tensor, second: Tensor, box: int) -> Tensor:
    """Do as `fsc` with half spectra `[N, N, N/2+1]`."""
    product = shells.sums(first.real * second.real + first.imag * second.imag, box)
    power = [shells.sums(f.real**2 + f.imag**2, box) for f in (first, second)]
    found = product / torch.sqrt(power[0] * power[1]).clamp(min=1e-300)
    if found[0] <= 0.0:  # maps without a mean have no correlation there
        found[0] = 1.0
    return found


def resolved_shell(curve: Tensor) -> int:
    """Return the last shell before a curve first falls below 0.143."""
    below = torch.nonzero(curve < RESOLVED)
    return max(0, int(below[0]) - 1) if len(below) else len(curve) - 1


def curves(
    first: Tensor, second: Tensor, mask: Tensor, randomise_from: int | None = None, seed: int = 0
) -> Curves:
    """Return the correlation curves of two half-maps in a mask.

    Parameters
    ----------
    first, second
        Unfiltered half-maps `[N, N, N]`.
    mask
        `[N, N, N]`, 0 to 1.
    randomise_from
        First shell of random phases; None: where the unmasked correlation falls below 0.8.
    seed
        Of the random phases.

    Raises
    ------
    ValueError
        The half-maps correlate above 0.8 at every shell: there is no resolution to be found.
    """
    box = first.shape[-1]
    spectra = [shells.to_fourier(half) for half in (first, second)]
    unmasked = fsc_of_spectra(spectra[0], spectra[1], box)
    masked = fsc(first * mask, second * mask)
    if randomise_from is None:
        low = torch.nonzero(unmasked[1:] < RANDOMISE_BELOW)
        if not len(low):
            raise ValueError(
                f"the half-maps correlate above {RANDOMISE_BELOW:g} up to Nyquist: are both the "
                "same map, or filtered? Give the unfiltered half-maps of a refinement"
            )
        randomise_from = int(low[0]) + 1
    random = torch.Generator().manual_seed(seed)
    scrambled = [
        with_random_phases(spectrum, box, randomise_from, random) * mask for spectrum in spectra
    ]
    randomised = fsc(scrambled[0], scrambled[1])
    corrected = masked.clone()
    late = slice(randomise_from + GAP, None)
    corrected[late] = (masked[late] - randomised[late]) / (1.0 - randomised[late])
    return Curves(
        unmasked=unmasked,
        masked=masked,
        randomised=randomised,
        corrected=corrected,
        randomised_from=randomise_from,
    )


def without_mask(found: Curves) -> Curves:
    """Return the curves of half-maps whose mask makes things worse: nothing is masked."""
    return replace(found, masked=found.unmasked, corrected=found.unmasked)


def of_particle(unmasked: Tensor, share: float) -> Tensor:
    """Return the correlation that a particle has that fills 1/share of what was correlated."""
    return share * unmasked / (1.0 + (share - 1.0) * unmasked)


def with_random_phases(spectrum: Tensor, box: int, start: int, random: torch.Generator) -> Tensor:
    """Return the volume with random phases from a shell on."""
    noise = torch.randn((box, box, box), generator=random, dtype=spectrum.real.dtype)
    # The phases of real noise are uniform, and those of opposite voxels belong together.
    phases = torch.fft.rfftn(noise.to(spectrum.device))
    phases = phases / phases.abs().clamp(min=1e-30)
    far = (shells.radii(box) >= start).to(spectrum.device)
    return shells.from_fourier(torch.where(far, spectrum.abs() * phases, spectrum), box)
