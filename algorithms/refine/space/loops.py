"""Loops over the points of slices: values of a half volume by linear weights, and the adjoint.

Complex numbers are interleaved (re, im). Compiled by Numba where it is installed, for one thread:
the order of the sums never depends on the machine.

Source: refinement.md sections 1.3 and 3.1.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]


def sample(
    values: Floats, shape: tuple[int, int, int], matrices: Doubles, points: Doubles, out: Floats
) -> None:
    """Write the values at points that are turned by matrices.

    Parameters
    ----------
    values
        Of the voxels of one reference, complex `[2 n]`.
    shape
        Numbers of z, y and x; the first z and y are as far below 0 as the last are above it.
    matrices
        `[m, 3, 3]`: a point p is taken at A^T p.
    points
        `[3, P]` (x, y, z) in voxels; none is beyond the radius.
    out
        Is written, complex `[m, 2 P]`.
    """
    height, width = shape[1], shape[2]
    low = height // 2
    line, plane = 2 * width, 2 * width * height
    px, py, pz = points[0], points[1], points[2]
    for m in range(len(matrices)):
        a, row = matrices[m], out[m]
        a00, a01, a02 = a[0, 0], a[0, 1], a[0, 2]
        a10, a11, a12 = a[1, 0], a[1, 1], a[1, 2]
        a20, a21, a22 = a[2, 0], a[2, 1], a[2, 2]
        for p in range(len(px)):
            x = a00 * px[p] + a10 * py[p] + a20 * pz[p]
            y = a01 * px[p] + a11 * py[p] + a21 * pz[p]
            z = a02 * px[p] + a12 * py[p] + a22 * pz[p]
            sign = 1.0
            if x < 0.0:
                x, y, z, sign = -x, -y, -z, -1.0
            y += low
            z += low
            x0, y0, z0 = int(x), int(y), int(z)
            fx, fy, fz = x - x0, y - y0, z - z0
            gx, gy, gz = 1.0 - fx, 1.0 - fy, 1.0 - fz
            at = 2 * ((z0 * height + y0) * width + x0)
            up, back = at + line, at + plane
            far = back + line
            wa, wb, wc, wd = gz * gy, gz * fy, fz * gy, fz * fy
            re = wa * (gx * values[at] + fx * values[at + 2])
            re += wb * (gx * values[up] + fx * values[up + 2])
            re += wc * (gx * values[back] + fx * values[back + 2])
            re += wd * (gx * values[far] + fx * values[far + 2])
            im = wa * (gx * values[at + 1] + fx * values[at + 3])
            im += wb * (gx * values[up + 1] + fx * values[up + 3])
            im += wc * (gx * values[back + 1] + fx * values[back + 3])
            im += wd * (gx * values[far + 1] + fx * values[far + 3])
            row[2 * p] = re
            row[2 * p + 1] = sign * im


def spread(
    images: Floats,
    weights: Floats,
    shape: tuple[int, int, int],
    matrices: Doubles,
    points: Doubles,
    data_sums: Floats,
    weight_sums: Floats,
) -> None:
    """Add images and weights to the voxels that `sample` takes them from.

    Parameters
    ----------
    images, weights
        Complex `[m, 2 P]` and real `[m, P]`.
    shape, matrices, points
        As of `sample`.
    data_sums, weight_sums
        Are added to: complex `[2 n]` and real `[n]`.
    """
    height, width = shape[1], shape[2]
    low = height // 2
    steps = (width, (height - 1) * width, width, 0)
    px, py, pz = points[0], points[1], points[2]
    for m in range(len(matrices)):
        a, row, amount = matrices[m], images[m], weights[m]
        a00, a01, a02 = a[0, 0], a[0, 1], a[0, 2]
        a10, a11, a12 = a[1, 0], a[1, 1], a[1, 2]
        a20, a21, a22 = a[2, 0], a[2, 1], a[2, 2]
        for p in range(len(px)):
            x = a00 * px[p] + a10 * py[p] + a20 * pz[p]
            y = a01 * px[p] + a11 * py[p] + a21 * pz[p]
            z = a02 * px[p] + a12 * py[p] + a22 * pz[p]
            sign = 1.0
            if x < 0.0:
                x, y, z, sign = -x, -y, -z, -1.0
            y += low
            z += low
            x0, y0, z0 = int(x), int(y), int(z)
            fx, fy, fz = x - x0, y - y0, z - z0
            gx, gy, gz = 1.0 - fx, 1.0 - fy, 1.0 - fz
            at = (z0 * height + y0) * width + x0
            re, im, own = row[2 * p], sign * row[2 * p + 1], amount[p]
            shares = (gz * gy, gz * fy, fz * gy, fz * fy)
            for corner in range(4):
                w = shares[corner]
                w0, w1 = w * gx, w * fx
                data_sums[2 * at] += w0 * re
                data_sums[2 * at + 1] += w0 * im
                data_sums[2 * at + 2] += w1 * re
                data_sums[2 * at + 3] += w1 * im
                weight_sums[at] += w0 * own
                weight_sums[at + 1] += w1 * own
                at += steps[corner]
