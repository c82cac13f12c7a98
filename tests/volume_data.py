"""Particle sets of a map at random orientations, as files, with known truth."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from algorithms.formats import mrc, star
from algorithms.orientation import euler
from algorithms.refine.geometry import Disc, disc, from_fourier
from algorithms.refine.images import ctf_values
from algorithms.refine.sampling import phases
from algorithms.refine.space import slicing
from algorithms.refine.space.volume import Space
from tests.refine_data import OPTICS, columns_of, particles


@dataclass
class Truth:
    """What images were made of: a map whose grey scale is theirs, angles `[n, 3]`, shifts in A."""

    volume: Tensor
    angles_deg: Tensor
    shifts_A: np.ndarray


def blob_map(box: int, seed: int = 0, blobs: int = 14) -> Tensor:
    """Return a map `[N, N, N]` of Gaussian blobs without symmetry, within 0.3 N of the middle."""
    random = np.random.default_rng(seed)
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    out = torch.zeros((box, box, box), dtype=torch.float64)
    for _ in range(blobs):
        place = random.standard_normal(3)
        place *= random.uniform(0.05, 0.27) * box / np.linalg.norm(place)
        width = random.uniform(0.03, 0.06) * box
        square = (
            (axis[:, None, None] - place[2]) ** 2
            + (axis[None, :, None] - place[1]) ** 2
            + (axis[None, None, :] - place[0]) ** 2
        )
        out += random.uniform(0.5, 1.5) * torch.exp(-square / (2.0 * width**2))
    return out


def write_particles(
    folder: Path,
    volume: Tensor | None,
    n: int,
    *,
    box: int = 32,
    pixel_A: float = 4.0,
    snr: float = 0.1,
    shift_px: float = 2.0,
    seed: int = 0,
) -> Truth:
    """Write `particles.mrcs` and `particles.star` into a folder; no map: images of noise alone.

    The noise is white, of standard deviation 1; `snr` is the ratio of variances.
    """
    random = np.random.default_rng(seed)
    rows = particles(n, seed=seed + 1)
    turns = euler.random_rotations(n, torch.Generator().manual_seed(seed))
    shifts = random.uniform(-shift_px, shift_px, (n, 2)) * pixel_A
    images = torch.as_tensor(random.standard_normal((n, box, box)))
    truth = torch.zeros((box, box, box), dtype=torch.float64)
    if volume is not None:
        clean = _images(
            volume, turns, shifts / pixel_A, ctf_values(columns_of(rows), _disc(box), pixel_A)
        )
        gain = math.sqrt(snr / float(clean.var()))
        images, truth = images + gain * clean, volume.double() * gain
    folder.mkdir(parents=True, exist_ok=True)
    content = mrc.encode(images.float().numpy(), pixel_A, is_stack=True)
    (folder / "particles.mrcs").write_bytes(content)
    table = {
        "rlnImageName": [f"{i + 1:06d}@particles.mrcs" for i in range(n)],
        "rlnMicrographName": [f"mic_{i % 4:03d}.mrc" for i in range(n)],
        "rlnOpticsGroup": ["1"] * n,
        "rlnDefocusU": [f"{value:.4f}" for value in rows.defocus_u_A],
        "rlnDefocusV": [f"{value:.4f}" for value in rows.defocus_v_A],
        "rlnDefocusAngle": [f"{value:.4f}" for value in rows.defocus_angle_deg],
        "rlnPhaseShift": ["0.000000"] * n,
        "rlnCtfBfactor": ["0.000000"] * n,
        "rlnCtfScalefactor": ["1.000000"] * n,
    }
    optics = {
        "rlnOpticsGroupName": [OPTICS.name],
        "rlnOpticsGroup": ["1"],
        "rlnMicrographOriginalPixelSize": [f"{pixel_A:g}"],
        "rlnVoltage": [f"{OPTICS.voltage_kV:g}"],
        "rlnSphericalAberration": [f"{OPTICS.spherical_aberration_mm:g}"],
        "rlnAmplitudeContrast": [f"{OPTICS.amplitude_contrast:g}"],
        "rlnImagePixelSize": [f"{pixel_A:g}"],
        "rlnImageSize": [str(box)],
        "rlnImageDimensionality": ["2"],
    }
    blocks = {"optics": star.Table(optics), "particles": star.Table(table)}
    (folder / "particles.star").write_text(star.dumps(blocks))
    return Truth(truth, euler.angles(turns), -shifts)


def write_map(path: Path, volume: Tensor, pixel_A: float) -> Path:
    """Write a map."""
    path.write_bytes(mrc.encode(volume.float().numpy(), pixel_A))
    return path


def _disc(box: int) -> Disc:
    return disc(box, box).inner()


def _images(volume: Tensor, turns: Tensor, shifts_px: np.ndarray, ctf: Tensor) -> Tensor:
    """Return noise-free images `[n, N, N]` of a map, moved and with their CTF `[n, P]`."""
    box = volume.shape[-1]
    space, whole = Space(box, box), _disc(box)
    transform = space.transform((volume.double() / space.gridding())[None])
    voxels, index = space.flat()
    values = torch.zeros(space.n, dtype=torch.complex128)
    values[voxels] = transform[0, index]
    values[space.distance() > space.radius + 1e-4] = 0.0
    slices = slicing.sample(values, space, turns, slicing.points_of(whole, space))
    moved = phases(whole.jx, whole.jy, torch.as_tensor(shifts_px), box, torch.float64)
    slices = slices * ctf * torch.view_as_complex(moved.reshape(*slices.shape, 2))
    spectra = torch.zeros((len(slices), box * (box // 2 + 1)), dtype=torch.complex128)
    edge = whole.jx == 0  # that column has both halves
    spectra[:, torch.remainder(-whole.jy[edge], box) * (box // 2 + 1)] = slices[:, edge].conj()
    spectra[:, whole.flat] = slices
    return from_fourier(spectra, box)
