"""Small particle sets with known truth for the tests of the refinement engine."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algorithms.refine import projector
from algorithms.refine.geometry import disc, from_fourier
from algorithms.refine.images import CtfColumns, ctf_values
from algorithms.refine.projector import Plane, Slicer
from algorithms.refine.types import DataSet, OpticsGroup, Particles

OPTICS = OpticsGroup(
    name="opticsGroup1", voltage_kV=300.0, spherical_aberration_mm=2.7, amplitude_contrast=0.1
)


@dataclass
class Kept:
    """Images in memory."""

    images: Tensor

    @property
    def box(self) -> int:
        return int(self.images.shape[-1])

    def read(self, indices: np.ndarray) -> Tensor:
        return self.images[torch.as_tensor(indices)].clone()


@dataclass
class Truth:
    """What the images were made of."""

    references: Tensor
    classes: np.ndarray
    psi_deg: np.ndarray


def blobs(k: int, box: int, seed: int) -> Tensor:
    """Return images `[k, box, box]` of Gaussian blobs without symmetry, about 1 in the middle."""
    random = np.random.default_rng(seed)
    axis = np.arange(box) - box // 2
    out = np.zeros((k, box, box))
    for image in out:
        for _ in range(9):
            x, y = random.uniform(-0.24, 0.24, 2) * box
            width = random.uniform(0.035, 0.07) * box
            square = (axis[None] - x) ** 2 + (axis[:, None] - y) ** 2
            image += random.uniform(0.5, 1.5) * np.exp(-square / (2.0 * width**2))
    return torch.as_tensor(out, dtype=torch.float32)


def particles(
    n: int, *, optics: int = 0, group: np.ndarray | None = None, seed: int = 1
) -> Particles:
    """Return particles without poses, defoci between 1 and 2.5 um."""
    random = np.random.default_rng(seed)
    defocus = random.uniform(10_000.0, 25_000.0, n)
    zeros = np.zeros(n)
    return Particles(
        psi_deg=zeros.copy(),
        offset_A=np.zeros((n, 2)),
        classes=np.zeros(n, np.int64),
        norm=np.ones(n),
        log_likelihood=zeros.copy(),
        pmax=zeros.copy(),
        significant=np.zeros(n, np.int64),
        group=np.zeros(n, np.int64) if group is None else group,
        optics=np.full(n, optics),
        defocus_u_A=defocus,
        defocus_v_A=defocus - 300.0,
        defocus_angle_deg=random.uniform(-90.0, 90.0, n),
        phase_shift_deg=zeros.copy(),
        bfactor_A2=zeros.copy(),
        ctf_scale=np.ones(n),
    )


def columns_of(rows: Particles) -> CtfColumns:
    def column(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float64)

    return CtfColumns(
        defocus_u_A=column(rows.defocus_u_A),
        defocus_v_A=column(rows.defocus_v_A),
        angle_deg=column(rows.defocus_angle_deg),
        phase_shift_deg=column(rows.phase_shift_deg),
        bfactor_A2=column(rows.bfactor_A2),
        scale=column(rows.ctf_scale),
        voltage_kV=OPTICS.voltage_kV,
        spherical_aberration_mm=OPTICS.spherical_aberration_mm,
        amplitude_contrast=OPTICS.amplitude_contrast,
    )


def particle_set(
    n: int, *, k: int = 3, box: int = 32, pixel_A: float = 4.0, snr: float = 0.2, seed: int = 0
) -> tuple[DataSet, Truth]:
    """Return noisy particles of some classes at random rotations and shifts up to 2 px."""
    random = np.random.default_rng(seed)
    references = blobs(k, box, seed + 100)
    rows = particles(n, seed=seed + 1)
    classes = random.integers(0, k, n)
    psi = random.uniform(-180.0, 180.0, n)
    whole = disc(box, box).inner()
    plane = Plane(box, projector.PAD * box // 2)
    transform = projector.padded_transform(references.double() / projector.gridding(box))
    values = projector.on_plane(transform, plane)
    ctf = ctf_values(columns_of(rows), whole, pixel_A)
    spectra = torch.zeros((n, box * (box // 2 + 1)), dtype=torch.complex128)
    for i in range(n):
        slicer = Slicer(whole, torch.tensor([psi[i]]), plane, dtype=torch.float64)
        image = slicer.slices(values[classes[i] : classes[i] + 1])[0, 0] * ctf[i]
        spectra[i, whole.flat] = image
        x0 = whole.jx == 0
        mirror = torch.remainder(-whole.jy[x0], box) * (box // 2 + 1)
        spectra[i, mirror] = image[x0].conj()
    clean = from_fourier(spectra, box)
    shifts = random.integers(-2, 3, (n, 2))
    moved = torch.stack(
        [
            torch.roll(one, (-int(y), -int(x)), (0, 1))
            for one, (x, y) in zip(clean, shifts, strict=True)
        ]
    )
    noise = math.sqrt(float(moved.var()) / snr)
    images = (moved + noise * torch.as_tensor(random.standard_normal(moved.shape))) / noise
    data = DataSet(particles=rows, images=Kept(images.float()), optics=[OPTICS], pixel_A=pixel_A)
    return data, Truth(references / noise, classes, psi)
