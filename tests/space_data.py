"""Small sets of projections of one volume with known poses."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from algorithms.formats import mrc, star
from algorithms.orientation import euler
from algorithms.refine.geometry import disc, from_fourier
from algorithms.refine.images import ctf_values
from algorithms.refine.projector import on_plane
from algorithms.refine.space import slicing
from algorithms.refine.space.volume import Space
from algorithms.refine.types import DataSet
from tests.refine_data import OPTICS, Kept, columns_of, particles

BOX, PIXEL_A = 24, 6.0


def blob_map(seed: int = 0, box: int = BOX) -> Tensor:
    """Return a volume `[box, box, box]` of Gaussian blobs without symmetry."""
    random = np.random.default_rng(seed)
    axis = np.arange(box) - box // 2
    out = np.zeros((box, box, box))
    for _ in range(12):
        z, y, x = random.uniform(-0.2, 0.2, 3) * box
        width = random.uniform(0.05, 0.08) * box
        square = (
            (axis[:, None, None] - z) ** 2 + (axis[:, None] - y) ** 2 + (axis[None, None] - x) ** 2
        )
        out += random.uniform(0.5, 1.5) * np.exp(-square / (2.0 * width**2))
    return torch.as_tensor(out)


def projections(volume: Tensor, n: int, *, snr: float, seed: int = 0) -> DataSet:
    """Return noisy projections at random orientations; the poses are those of the truth."""
    box = volume.shape[-1]
    random = torch.Generator().manual_seed(seed)
    rows = particles(n, seed=seed + 1)
    matrices = euler.random_rotations(n, random)
    angles = euler.angles(matrices).numpy()
    rows.rot_deg, rows.tilt_deg, rows.psi_deg = (angles[:, i].copy() for i in range(3))
    space, whole = Space(box, box, 2), disc(box, box).inner()
    values = on_plane(space.transform((volume / space.gridding())[None].double()), space)[0]
    slices = slicing.sample(values, space, matrices, slicing.points_of(whole, space))
    slices = slices * ctf_values(columns_of(rows), whole, PIXEL_A)
    spectra = torch.zeros((n, box * (box // 2 + 1)), dtype=torch.complex128)
    spectra[:, whole.flat] = slices
    column = whole.jx == 0
    mirror = torch.remainder(-whole.jy[column], box) * (box // 2 + 1)
    spectra[:, mirror] = slices[:, column].conj()
    clean = from_fourier(spectra, box)
    noise = float(clean.std()) / np.sqrt(snr)
    drawn = torch.randn(clean.shape, generator=random, dtype=torch.float64)
    images = (clean + noise * drawn) / noise
    return DataSet(particles=rows, images=Kept(images.float()), optics=[OPTICS], pixel_A=PIXEL_A)


def written(place: Path, n: int, *, snr: float, seed: int = 0) -> Path:
    """Write projections, the true poses, and `reference.mrc`; return the table."""
    volume = blob_map(seed)
    data = projections(volume, n, snr=snr, seed=seed)
    mrc.write(place / "p.mrcs", data.images.read(np.arange(n)).numpy(), PIXEL_A, is_stack=True)
    mrc.write(place / "reference.mrc", volume.numpy().astype(np.float32), PIXEL_A)
    rows = data.particles
    columns = {
        "rlnImageName": [f"{i + 1:06d}@p.mrcs" for i in range(n)],
        "rlnMicrographName": [f"mic{i % 3}.mrc" for i in range(n)],
        "rlnOpticsGroup": [1] * n,
        "rlnDefocusU": rows.defocus_u_A,
        "rlnDefocusV": rows.defocus_v_A,
        "rlnDefocusAngle": rows.defocus_angle_deg,
        "rlnAngleRot": rows.rot_deg,
        "rlnAngleTilt": rows.tilt_deg,
        "rlnAnglePsi": rows.psi_deg,
    }
    optics = {
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnOpticsGroup": [1],
        "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7],
        "rlnAmplitudeContrast": [0.1],
        "rlnImagePixelSize": [PIXEL_A],
        "rlnImageSize": [BOX],
        "rlnImageDimensionality": [2],
    }
    tables = {"optics": star.Table.of(optics), "particles": star.Table.of(columns)}
    star.save(place / "p.star", tables, durable=False)
    return place / "p.star"
