"""Slices of a volume and their adjoint; and the sum over symmetry mates, which is one, too.

Compiled loops where Numba is installed, otherwise and on a GPU some steps of torch.

Source: refinement.md sections 1.3, 1.4 and 3.1.
"""

from collections.abc import Iterator
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithms.jit import compiled
from algorithms.refine.geometry import EDGE, Disc
from algorithms.refine.space import loops
from algorithms.refine.space.volume import Space

# Corners of all points that torch looks at at the same time.
_CHUNK = 1 << 21


def points_of(pixels: Disc, space: Space) -> Tensor:
    """Return where the pixels of an image lie in the volume of a slice, float64 `[3, P]`."""
    jx, jy = space.pad * pixels.jx.double(), space.pad * pixels.jy.double()
    return torch.stack([jx, jy, torch.zeros_like(jx)])


def sample(values: Tensor, space: Space, matrices: Tensor, points: Tensor) -> Tensor:
    """Return the values of one volume at turned points, complex `[m, P]`.

    Parameters
    ----------
    values
        Of the voxels, complex `[n]`.
    space
        Of the voxels.
    matrices
        Of orientations, float64 `[m, 3, 3]`: a point p is taken at A^T p.
    points
        `[3, P]` (x, y, z) in voxels, none beyond the radius.
    """
    out = values.new_empty((len(matrices), points.shape[1]))
    if values.device.type == "cpu" and (loop := compiled(loops.sample)):
        loop(_flat(values), space.shape, _array(matrices), _array(points), _flat(out))
        return out
    for part in _parts(len(matrices), points.shape[1]):
        total = torch.zeros_like(out[part])
        for voxel, weight, mirror in _corners(space, matrices[part], points):
            taken = values[voxel]
            total += torch.where(mirror, taken.conj(), taken) * weight.to(values.real.dtype)
        out[part] = total
    return out


def spread(
    images: Tensor,
    weights: Tensor,
    space: Space,
    matrices: Tensor,
    points: Tensor,
    data_sums: Tensor,
    weight_sums: Tensor,
) -> None:
    """Add slices to the voxels they are taken from: the adjoint of `sample`.

    Parameters
    ----------
    images, weights
        Complex and real `[m, P]`.
    space, matrices, points
        As of `sample`.
    data_sums, weight_sums
        Are added to, complex and real `[n]`. Hermitian repair is left to `Space.repaired`.
    """
    if weights.device.type == "cpu" and (loop := compiled(loops.spread)):
        where = (space.shape, _array(matrices), _array(points))
        loop(_flat(images), _array(weights), *where, _flat(data_sums), _array(weight_sums))
        return
    for part in _parts(len(matrices), points.shape[1]):
        image, amount = images[part], weights[part]
        for voxel, weight, mirror in _corners(space, matrices[part], points):
            moved = torch.where(mirror, image.conj(), image) * weight.to(image.real.dtype)
            index = voxel.reshape(-1)
            data_sums.index_add_(0, index, moved.reshape(-1).to(data_sums.dtype))
            own = (amount * weight).reshape(-1).to(weight_sums.dtype)
            weight_sums.index_add_(0, index, own)


def symmetrised(data: Tensor, weight: Tensor, space: Space, operators: Tensor) -> None:
    """Add to volumes what their symmetry mates have; in place.

    Parameters
    ----------
    data, weight
        Hermitian, complex and real `[K, n]`.
    space
        Of the voxels.
    operators
        Of the point group, float64 `[s, 3, 3]`, the identity first.
    """
    if len(operators) == 1:
        return
    inside = torch.nonzero(space.distance(data.device) <= space.radius + EDGE)[:, 0]
    z, y, x = (
        axis.expand(space.shape).reshape(-1)[inside].double() for axis in space.axes(data.device)
    )
    points = torch.stack([x, y, z])
    for values in (*data, *weight):
        whole = values if values.is_complex() else values.to(torch.complex128)
        total = whole[inside].clone()
        for operator in operators[1:].to(data.device):
            for part in _parts(len(inside), 8):  # corners of each point
                total[part] += sample(whole, space, operator[None], points[:, part])[0]
        values[inside] = total if values.is_complex() else total.real.to(values.dtype)


def _parts(n: int, points: int) -> Iterator[slice]:
    few = max(1, _CHUNK // max(1, points))
    for start in range(0, n, few):
        yield slice(start, start + few)


def _corners(
    space: Space, matrices: Tensor, points: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield voxel, weight and whether it is the mirror's, for the eight neighbours of points."""
    where = matrices.double().transpose(1, 2) @ points.double()
    mirror = where[:, 0] < 0.0
    where = torch.where(mirror[:, None], -where, where)
    floor = torch.floor(where)
    part = where - floor
    x, y, z = floor.long().unbind(1)
    fx, fy, fz = part.unbind(1)
    low = space.height // 2
    for dz, wz in ((0, 1.0 - fz), (1, fz)):
        for dy, wy in ((0, 1.0 - fy), (1, fy)):
            row = ((z + dz + low) * space.height + y + dy + low) * space.width
            for dx, wx in ((0, 1.0 - fx), (1, fx)):
                yield row + x + dx, wz * wy * wx, mirror


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.contiguous().numpy()


def _flat(tensor: Tensor) -> NDArray[Any]:
    assert tensor.is_contiguous()  # noqa: S101 - what is written must be seen
    return torch.view_as_real(tensor).flatten(-2).numpy()
