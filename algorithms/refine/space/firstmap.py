"""First maps and solvent masks as they are given: read, and refused when they do not fit.

Source: refinement.md sections 2.6 and 3.5.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from algorithms.formats import mrc
from algorithms.formats.errors import FormatError
from algorithms.refine.types import DataSet, RefineError

_SAME_PIXEL = 0.01  # of it; headers hold few digits


def read_map(path: Path, data: DataSet, *, resize: bool = False) -> Tensor:
    """Return a first map `[N, N, N]` float64.

    Parameters
    ----------
    path
        An MRC file.
    data
        The particles, whose box and pixel size it has to have.
    resize
        Whether one with another is made to fit.

    Raises
    ------
    RefineError
        It cannot be read, is no cube, or does not fit the particles.
    """
    volume = _fitting(path, data, resize=resize)
    if float(volume.std()) <= 0.0:
        raise RefineError(f"{path.name} is the same everywhere: it is no reference")
    return volume


def read_mask(path: Path, data: DataSet, *, resize: bool = False) -> Tensor:
    """Return a solvent mask `[N, N, N]` float32; arguments are those of `read_map`.

    Raises
    ------
    RefineError
        It cannot be read, does not fit, goes beyond 0 to 1, is empty, full or inverted.
    """
    mask = _volume(path)[0]
    low, high = float(mask.min()), float(mask.max())
    if low < -1e-4 or high > 1.0001:
        raise RefineError(f"{path.name}: a mask goes from 0 to 1, not {low:g} to {high:g}")
    share = float((mask > 0.5).double().mean())
    if share == 0.0:
        raise RefineError(f"{path.name} is empty: nothing in it is above 0.5; make another mask")
    corners = torch.stack([mask[z, y, x] for z in (0, -1) for y in (0, -1) for x in (0, -1)])
    if share == 1.0 or bool((corners > 0.5).all()):
        raise RefineError(
            f"{path.name} is 1 in all corners of the box: a mask is 1 in the particle and 0 in the "
            "solvent; is it inverted?"
        )
    return _fitting(path, data, resize=resize).clamp(0.0, 1.0).float()


def _fitting(path: Path, data: DataSet, *, resize: bool) -> Tensor:
    """Return a volume with the box and the pixel size of the particles."""
    volume, pixel = _volume(path)
    box = data.images.box
    has_pixel = pixel <= 0.0 or abs(pixel - data.pixel_A) <= _SAME_PIXEL * data.pixel_A
    if resize and not (has_pixel and volume.shape[0] == box):
        return resized(volume, pixel if pixel > 0.0 else data.pixel_A, box, data.pixel_A)
    remedy = "or set trust_ref_size to Yes, and it is made to fit"
    if volume.shape[0] != box:
        raise RefineError(
            f"{path.name} is {volume.shape[0]} px wide, the particles {box} px: give one with the "
            f"box of the particles, {remedy}"
        )
    if not has_pixel:
        raise RefineError(
            f"{path.name} has a pixel size of {pixel:g} A, the particles {data.pixel_A:g} A: "
            f"give one with the pixel size of the particles, {remedy}"
        )
    return volume


def resized(volume: Tensor, from_A: float, box: int, to_A: float) -> Tensor:
    """Return a map with another pixel size and box, the particle in its middle.

    The transform is cut or padded, to the nearest even number of px; then the box.

    Parameters
    ----------
    volume, from_A
        `[N, N, N]`, origin at voxel N/2; its pixel size.
    box, to_A
        Wanted.
    """
    n = volume.shape[0]
    size = max(2, 2 * round(n * from_A / to_A / 2.0))
    axes = (0, 1, 2)
    spectrum = torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(volume), norm="forward"))
    whole = _centred(spectrum, size)
    out = torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(whole), norm="forward"), axes)
    return _centred(out.real, box)


def _centred(values: Tensor, size: int) -> Tensor:
    """Return a cube cut or padded with zeros around voxel n/2."""
    n = values.shape[0]
    take = min(n, size)
    old, new = n // 2 - take // 2, size // 2 - take // 2
    out = values.new_zeros((size, size, size))
    source, target = slice(old, old + take), slice(new, new + take)
    out[target, target, target] = values[source, source, source]
    return out


def _volume(path: Path) -> tuple[Tensor, float]:
    try:
        pixel = mrc.read_header(path).pixel_size_A or 0.0
        volume = torch.from_numpy(np.array(mrc.read(path), dtype=np.float64))
    except (FormatError, OSError) as error:
        raise RefineError(f"{path.name} cannot be read as a map: {error}") from error
    if volume.ndim != 3 or len(set(volume.shape)) != 1:
        size = " x ".join(str(n) for n in volume.shape[::-1])
        raise RefineError(f"{path.name} is {size}: a map has to be a cube")
    if not bool(torch.isfinite(volume).all()):
        raise RefineError(f"{path.name} holds values that are not finite: make it again")
    return volume, pixel
