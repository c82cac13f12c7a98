"""What post-processing found, as RELION's tables and as an FSC file for the EMDB.

Source: refinement.md section 7, item 7; values compared with `relion_postprocess` 3.1.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from algorithms.formats import star
from algorithms.maps.correlation import Curves, of_particle
from algorithms.maps.sharpen import Guinier

ORIGIN_A = 999.0  # RELION's resolution of shell 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All that post-processing found.

    Parameters
    ----------
    volume, mask
        float32 `[N, N, N]`: the sharpened map, and the mask that was used.
    curves, guinier
        By shell.
    bfactor_A2
        Applied.
    share
        Of the mask's volume that a particle fills, over the mask's share of the box.
    pixel_A
        Edge of a voxel.
    """

    volume: np.ndarray
    mask: np.ndarray
    curves: Curves
    guinier: Guinier
    bfactor_A2: float
    share: float
    pixel_A: float

    def at_A(self, shell: int) -> float:
        """Return the resolution of a shell."""
        return self.volume.shape[0] * self.pixel_A / shell if shell else ORIGIN_A

    @property
    def resolution_A(self) -> float:
        """Resolution of the map."""
        return self.at_A(self.curves.resolved_shell)


def tables(outcome: Outcome, halves: Sequence[str], mask: str) -> dict[str, star.Table]:
    """Return the blocks of `postprocess.star`."""
    folder_less = {
        "rlnFinalResolution": outcome.resolution_A,
        "rlnBfactorUsedForSharpening": outcome.bfactor_A2,
        "rlnUnfilteredMapHalf1": halves[0],
        "rlnUnfilteredMapHalf2": halves[1],
        "rlnParticleBoxFractionSolventMask": outcome.share,
        "rlnMaskName": mask,
        "rlnRandomiseFrom": outcome.at_A(outcome.curves.randomised_from),
    }
    line = outcome.guinier.line
    if line is not None:
        folder_less |= {
            "rlnFittedSlopeGuinierPlot": line.slope_A2,
            "rlnFittedInterceptGuinierPlot": line.intercept,
            "rlnCorrelationFitGuinierPlot": line.correlation,
        }
    general = star.Table.of({key: [value] for key, value in folder_less.items()}, loop=False)
    return {"general": general, "fsc": _fsc(outcome), "guinier": _guinier(outcome)}


def _fsc(outcome: Outcome) -> star.Table:
    curves = outcome.curves
    shells = range(len(curves.corrected))
    at_A = [outcome.at_A(shell) for shell in shells]
    return star.Table.of(
        {
            "rlnSpectralIndex": list(shells),
            "rlnResolution": [1.0 / value for value in at_A],
            "rlnAngstromResolution": at_A,
            "rlnFourierShellCorrelationCorrected": curves.corrected.tolist(),
            "rlnFourierShellCorrelationParticleMaskFraction": of_particle(
                curves.unmasked, outcome.share
            ).tolist(),
            "rlnFourierShellCorrelationUnmaskedMaps": curves.unmasked.tolist(),
            "rlnFourierShellCorrelationMaskedMaps": curves.masked.tolist(),
            "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": (
                curves.randomised.tolist()
            ),
        }
    )


def _guinier(outcome: Outcome) -> star.Table:
    guinier = outcome.guinier
    columns = {
        "rlnResolutionSquared": guinier.resolution_squared,
        "rlnLogAmplitudesOriginal": guinier.original,
        "rlnLogAmplitudesMTFCorrected": guinier.corrected,
        "rlnLogAmplitudesWeighted": guinier.weighted,
        "rlnLogAmplitudesSharpened": guinier.sharpened,
    }
    if guinier.line is not None:
        columns["rlnLogAmplitudesIntercept"] = np.full(
            len(guinier.original), guinier.line.intercept
        )
    return star.Table.of({k: v.tolist() for k, v in columns.items() if v is not None})


def xml(outcome: Outcome) -> str:
    """Return the corrected curve in the EMDB's form."""
    lines = [
        '<fsc title="RELION masked-corrected FSC" xaxis="Resolution (A-1)" '
        'yaxis="Correlation Coefficient">'
    ]
    for shell, value in enumerate(outcome.curves.corrected.tolist()):
        lines += [
            "  <coordinate>",
            f"    <x>{1.0 / outcome.at_A(shell):.6g}</x>",
            f"    <y>{value:.6g}</y>",
            "  </coordinate>",
        ]
    return "\n".join([*lines, "</fsc>", ""])
