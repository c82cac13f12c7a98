"""Particle stacks: what is seen, imaged with a CTF into noise, normalised as extraction does.

Source: class-ranker.md section 9.2; refinement.md sections 1.1 and 1.5; simulation.md section 4.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algorithms.background import background_of
from algorithms.fourier import fast_size
from algorithms.ranker.trainingset import dirt, domains, kinds, optics
from algorithms.ranker.trainingset.kinds import TARGET, Seen
from algorithms.ranker.trainingset.labels import CROWDED
from algorithms.ranker.trainingset.projecting import Projector, image_of, shift_phases
from algorithms.ranker.trainingset.records import TAGS
from algorithms.ranker.trainingset.settings import Setting
from algorithms.refine.images import CtfColumns, ctf_values

_CANVAS = 1.5  # of the box: what the CTF spreads is not folded back
_BATCH = 192
_BACKGROUND = 0.375  # radius of the particle in boxes, as extraction has it by default
_DRAWN = ("I", "E")


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Simulated particles and what is true of them, n of them.

    Parameters
    ----------
    images
        `[n, box, box]` float32, normalised.
    tags
        Places in TAGS `[n]`.
    rotation
        Of the target where there is one, `[n, 3, 3]`.
    shift_px
        Of the target's centre beside that of the box (x, y) `[n, 2]`.
    has_target
        Whether there is an intact one to be matched: tags T, C, B `[n]`.
    neighbour
        Share of the signal inside the mask that is of neighbours `[n]`.
    micrograph
        `[n]`.
    ctf
        As the classification is told.
    projector
        Of the target.
    """

    images: Tensor
    tags: np.ndarray
    rotation: np.ndarray
    shift_px: np.ndarray
    has_target: np.ndarray
    neighbour: np.ndarray
    micrograph: np.ndarray
    ctf: CtfColumns
    projector: Projector


def simulated(setting: Setting) -> Stack:
    """Return the particles of a job."""
    rng = np.random.default_rng((setting.seed, 0))
    tags = kinds.tags_of(setting, rng)
    seen = kinds.seen(setting, tags, rng)
    canvas = fast_size(math.ceil(_CANVAS * setting.box_px))
    micrograph = np.arange(len(tags)) // optics.PER_MICROGRAPH
    true = optics.true_ctf(setting, micrograph, rng)
    projectors = _projectors(setting, canvas)
    unit = _unit(setting, projectors[TARGET])
    scene = _Scene(setting, seen, projectors, unit, canvas)
    thickness = np.exp(rng.normal(0.0, 0.15, micrograph.max() + 1))[micrograph]
    images, neighbour = [], np.zeros(len(tags))
    for start in range(0, len(tags), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(tags)))
        clean, neighbour[rows] = scene.imaged(rows, tags[rows], optics.rows_of(true, rows), rng)
        noise = (
            optics.noise(setting, optics.rows_of(true, rows), rng)
            * torch.from_numpy(thickness[rows, None, None]).float()
        )
        images.append(clean + noise)
    # A neighbour that is hardly seen does not spoil a particle.
    tags[(tags == TAGS.index("B")) & (neighbour < CROWDED)] = TAGS.index("T")
    stack = torch.cat(images)
    background_of(setting.box_px, _BACKGROUND * setting.box_px, True, "cpu").normalise(stack)
    rotation, shift = np.zeros((len(tags), 3, 3)), np.zeros((len(tags), 2))
    own = (seen.molecule == TARGET) & ~seen.is_neighbour
    rotation[seen.particle[own]], shift[seen.particle[own]] = seen.rotation[own], seen.shift_px[own]
    return Stack(
        images=stack,
        tags=tags,
        rotation=rotation,
        shift_px=shift,
        has_target=np.isin(tags, [TAGS.index(tag) for tag in "TCB"]),
        neighbour=neighbour,
        micrograph=micrograph,
        ctf=optics.told_ctf(setting, true, rng),
        projector=projectors[TARGET],
    )


def _projectors(setting: Setting, canvas: int) -> list[Projector]:
    """Return projectors of all molecules of a job; large ones have a larger cube."""
    out = []
    for molecule in kinds.molecules(setting):
        needed = 2 * math.ceil((molecule.diameter_A + 12.0) / (2.0 * setting.pixel_A))
        out.append(Projector(molecule, max(16, min(needed, canvas)), setting.pixel_A))
    return out


def _unit(setting: Setting, target: Projector) -> float:
    """Return what gives the target's projections deviation 1 inside of its diameter, on average."""
    box = setting.box_px
    turns = domains.rotations(np.random.default_rng((setting.seed, 3)), 24)
    images = image_of(target.slices(turns, box), box)
    inside = _disc(box, setting.diameter_px / 2.0)
    return 1.0 / float(images[:, inside].std(dim=1).mean())


def _disc(box: int, radius_px: float) -> Tensor:
    axis = torch.arange(box) - box // 2
    return axis[:, None] ** 2 + axis[None, :] ** 2 <= radius_px**2


class _Scene:
    """Images of what is seen, before noise."""

    def __init__(
        self, setting: Setting, seen: Seen, projectors: list[Projector], unit: float, canvas: int
    ):
        self._setting, self._seen, self._canvas = setting, seen, canvas
        self._projectors, self._unit = projectors, unit
        self._pixels = optics.half_plane(canvas)
        self._transfer = optics.envelope(setting, canvas)
        low = (canvas - setting.box_px) // 2
        self._part = slice(low, low + setting.box_px)
        self._mask = _disc(setting.box_px, setting.mask_A / setting.pixel_A / 2.0)

    def imaged(
        self, rows: np.ndarray, tags: np.ndarray, ctf: CtfColumns, rng: np.random.Generator
    ) -> tuple[Tensor, np.ndarray]:
        """Return images `[b, box, box]`, and the neighbours' share of the signal `[b]`."""
        own, beside = self._spectra(rows, False), self._spectra(rows, True)
        share = self._share(own, beside)
        total = own + beside
        drawn = np.flatnonzero(np.isin(tags, [TAGS.index(tag) for tag in _DRAWN]))
        if len(drawn):
            total[drawn] += self._dirt(tags[drawn], rng)
        total *= self._transfer * ctf_values(ctf, self._pixels, self._setting.pixel_A)
        return image_of(total, self._canvas)[:, self._part, self._part], share

    def _spectra(self, rows: np.ndarray, neighbours: bool) -> Tensor:
        """Return the sums of what is seen in some images: flat spectra."""
        seen, canvas = self._seen, self._canvas
        first = rows[0]
        out = torch.zeros((len(rows), self._pixels.n), dtype=torch.complex64)
        here = (seen.particle >= first) & (seen.particle <= rows[-1])
        here &= seen.is_neighbour == neighbours
        for number, projector in enumerate(self._projectors):
            mine = np.flatnonzero(here & (seen.molecule == number))
            if len(mine):
                slices = projector.slices(seen.rotation[mine], canvas)
                slices *= shift_phases(canvas, seen.shift_px[mine])
                out.index_add_(0, torch.from_numpy(seen.particle[mine] - first), slices)
        return out * self._unit

    def _share(self, own: Tensor, beside: Tensor) -> np.ndarray:
        found = np.zeros(len(own))
        some = np.flatnonzero((beside != 0).any(1).numpy())
        if len(some):
            power = [
                image_of(one[some], self._canvas)[:, self._part, self._part]
                .square()[:, self._mask]
                .sum(1)
                for one in (own, beside)
            ]
            found[some] = (power[1] / (power[0] + power[1]).clamp(min=1e-12)).numpy()
        return found

    def _dirt(self, tags: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Return the spectra of ice and edges."""
        setting, out = self._setting, []
        for tag in tags:
            if TAGS[tag] == "I":
                out.append(dirt.ice(rng, self._canvas, setting.diameter_px, setting.is_second))
            else:
                out.append(dirt.edge(rng, self._canvas, setting.diameter_px))
        images = torch.fft.ifftshift(torch.from_numpy(np.stack(out)), dim=(-2, -1))
        return torch.fft.rfft2(images, norm="forward").flatten(1)
