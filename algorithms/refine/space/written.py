"""What the files of an iteration hold beyond those of two dimensions.

Source: refinement.md section 8.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from algorithms.formats import mrc
from algorithms.formats.atomic import atomic_write
from algorithms.refine.space.sampling import Sampling3D
from algorithms.refine.types import Model


def map_names(root: str, k: int) -> list[str]:
    """Return the names of the maps of `k` classes, `root` being `.../run_itNNN`."""
    return [f"{root}_class{n + 1:03d}.mrc" for n in range(k)]


def moment_names(root: str, part: int, k: int) -> list[str]:
    """Return the names of the files of `k` first (`part` 1) or second moments."""
    return [f"{root}_{part}moment{n + 1:03d}.mrc" for n in range(k)]


def write_maps(root: Path, model: Model) -> None:
    """Write the references, one file each."""
    for name, one in zip(map_names(root.name, model.n_classes), model.references, strict=True):
        write_map(root.with_name(name), one, model.pixel_A)


def write_map(path: Path, values: Tensor, pixel_A: float) -> None:
    """Write a volume `[N, N, N]` as float32."""
    atomic_write(path, mrc.encode(values.float().cpu().numpy(), pixel_A))


def write_moments(root: Path, model: Model) -> None:
    """Write VDAM's moments: first of both halves, then second, one file for each class."""
    if model.moments is None:
        return
    first = model.moments.first.reshape(-1, model.moments.first.shape[-1])
    second = model.moments.second.to(first.dtype)
    for part, values in ((1, first), (2, second)):
        for name, one in zip(moment_names(root.name, part, len(values)), values, strict=True):
            size = model.pad * model.box
            shaped = one.reshape(size, size, size // 2 + 1)
            centred = torch.fft.fftshift(shaped, dim=(0, 1)).contiguous()
            pairs = torch.view_as_real(centred).reshape(size, size, size + 2)
            write_map(root.with_name(name), pairs, model.pixel_A)


def direction_shares(model: Model) -> list[np.ndarray]:
    """Return the priors of the coarse directions of each class, as `_model.star` lists them."""
    sampling = model.sampling
    n = sampling.n_directions if isinstance(sampling, Sampling3D) else 1
    shares = model.pdf_direction
    if shares is None:
        shares = (model.fractions[:, None] / n).expand(-1, n)
    return [row.numpy() for row in shares]


def sampling_of(sampling: Sampling3D) -> dict[str, object]:
    """Return what `_sampling.star` says of directions, beside what it says in two dimensions."""
    return {
        "rlnIs3DSampling": 1,
        "rlnIs3DTranslationalSampling": 0,
        "rlnHealpixOrder": sampling.healpix_order,
        "rlnSymmetryGroup": sampling.symmetry,
        "rlnTiltAngleLimit": -91.0,
    }


def directions_of(sampling: Sampling3D) -> tuple[Tensor, Tensor]:
    """Return rot and tilt of the coarse directions, degrees."""
    grid = sampling.coarse()
    return grid.rot_deg, grid.tilt_deg
