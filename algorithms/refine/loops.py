"""Loops over pairs of a particle and a slice, each row looked at once.

What torch does with one temporary array after another, as large as all pairs, these do row by row
in the cache. Complex rows are interleaved (re, im). Compiled by Numba where it is installed, for
one thread: the order of the sums never depends on the machine.

Source: refinement.md sections 9.1 and 9.3.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Indices = NDArray[np.int64]
LANES = 16  # partial sums, so that a sum over a row is done many numbers at a time


def multiply(
    y: Floats,
    e: Floats,
    slices: Floats,
    particle: Indices,
    row: Indices,
    real: Floats,
    imaginary: Floats,
    power: Floats,
) -> None:
    """Write conj(Y) V of each pair, and sum of E |V|^2.

    Parameters
    ----------
    y, e
        Of particles: complex `[n, 2 Q]` and real `[n, Q]`.
    slices
        `[R, 2 Q]`.
    particle, row
        Of each pair, `[m]`.
    real, imaginary, power
        Are written: `[m, Q]`, `[m, Q]`, `[m]`.
    """
    q = e.shape[1]
    even = q - q % LANES
    lanes = np.zeros(LANES, e.dtype)
    for pair in range(len(particle)):
        x, v, f = y[particle[pair]], slices[row[pair]], e[particle[pair]]
        re, im = real[pair], imaginary[pair]
        for j in range(q):
            re[j] = x[2 * j] * v[2 * j] + x[2 * j + 1] * v[2 * j + 1]
        for j in range(q):
            im[j] = x[2 * j] * v[2 * j + 1] - x[2 * j + 1] * v[2 * j]
        lanes[:] = 0.0
        for start in range(0, even, LANES):
            for lane in range(LANES):
                j = start + lane
                lanes[lane] += f[j] * (v[2 * j] * v[2 * j] + v[2 * j + 1] * v[2 * j + 1])
        total = lanes.sum()
        for j in range(even, q):
            total += f[j] * (v[2 * j] * v[2 * j] + v[2 * j + 1] * v[2 * j + 1])
        power[pair] = total


def insert(  # noqa: PLR0913
    plain: Floats,
    weight: Floats,
    real: Floats,
    imaginary: Floats,
    amount: Floats,
    particle: Indices,
    row: Indices,
    data_sums: Floats,
    weight_sums: Floats,
) -> None:
    """Add turned images, and their weights, to the rows of the sums.

    Parameters
    ----------
    plain, weight
        Of particles: complex `[n, 2 Q]` and real `[n, Q]`.
    real, imaginary, amount
        Of each pair: the sum of its weighted phases `[m, Q]`, and of its weights `[m]`.
    particle, row
        Of each pair, `[m]`.
    data_sums, weight_sums
        Are added to: complex `[R, 2 Q]` and real `[R, Q]`.
    """
    q = weight.shape[1]
    for pair in range(len(particle)):
        x, f, a = plain[particle[pair]], weight[particle[pair]], amount[pair]
        re, im = real[pair], imaginary[pair]
        out, total = data_sums[row[pair]], weight_sums[row[pair]]
        for j in range(q):
            out[2 * j] += x[2 * j] * re[j] - x[2 * j + 1] * im[j]
            out[2 * j + 1] += x[2 * j] * im[j] + x[2 * j + 1] * re[j]
        for j in range(q):
            total[j] += a * f[j]


def compare(  # noqa: PLR0913
    masked: Floats,
    slices: Floats,
    counts: Floats,
    real: Floats,
    imaginary: Floats,
    amount: Floats,
    particle: Indices,
    klass: Indices,
    row: Indices,
    sums: Floats,
) -> None:
    """Add what images and references have in common, and the references' power, to particles.

    Parameters
    ----------
    masked
        Of particles: complex `[n, 2 Q]`.
    slices
        `[R, 2 Q]`.
    counts
        Whether a pixel counts for the scale, 0 or 1, `[K, Q]`.
    real, imaginary, amount, particle
        As of `insert`.
    klass, row
        Class and slice of each pair, `[m]`.
    sums
        Is added to: Re conj(V) X, |V|^2, and both where pixels count, `[n, 4, Q]`.
    """
    q = counts.shape[1]
    overlap, square = np.empty(q, counts.dtype), np.empty(q, counts.dtype)
    for pair in range(len(particle)):
        x, v, c, a = masked[particle[pair]], slices[row[pair]], counts[klass[pair]], amount[pair]
        re, im, out = real[pair], imaginary[pair], sums[particle[pair]]
        for j in range(q):
            xr = x[2 * j] * re[j] - x[2 * j + 1] * im[j]
            xi = x[2 * j] * im[j] + x[2 * j + 1] * re[j]
            overlap[j] = v[2 * j] * xr + v[2 * j + 1] * xi
        for j in range(q):
            square[j] = a * (v[2 * j] * v[2 * j] + v[2 * j + 1] * v[2 * j + 1])
        first, second, third, fourth = out[0], out[1], out[2], out[3]
        for j in range(q):
            first[j] += overlap[j]
        for j in range(q):
            second[j] += square[j]
        for j in range(q):
            third[j] += overlap[j] * c[j]
        for j in range(q):
            fourth[j] += square[j] * c[j]


def score(
    real: Floats,
    imaginary: Floats,
    cosine: Floats,
    sine: Floats,
    parents: NDArray[np.bool_],
    sums: Floats,
) -> None:
    """Write the sums of Re(z e^{2 pi i j.(t - c) / N}) at the shifts that are asked for.

    Parameters
    ----------
    real, imaginary
        Of z, `[m, Q]`.
    cosine, sine
        Of the first half of the shifts, the middle included, `[h, Q]`.
    parents
        Which groups of shifts, equally many each, are asked for, `[m, c]`.
    sums
        Is written, `[m, t]`; others are left as they are.
    """
    q, h, t = real.shape[1], len(cosine), sums.shape[1]
    even = q - q % LANES
    each = t // parents.shape[1]
    lanes = np.zeros(LANES, real.dtype)
    ones = np.ones(1, real.dtype)
    plus, minus = ones[0], -ones[0]  # the second half of the shifts mirrors the first
    for pair in range(len(parents)):
        re, im = real[pair], imaginary[pair]
        for shift in range(t):
            if not parents[pair, shift // each]:
                continue
            at, sign = (shift, minus) if shift < h else (t - 1 - shift, plus)
            c, s = cosine[at], sine[at]
            lanes[:] = 0.0
            for start in range(0, even, LANES):
                for lane in range(LANES):
                    j = start + lane
                    lanes[lane] += re[j] * c[j] + sign * (im[j] * s[j])
            total = lanes.sum()
            for j in range(even, q):
                total += re[j] * c[j] + sign * (im[j] * s[j])
            sums[pair, shift] = total


def weigh(weights: Floats, cosine: Floats, sine: Floats, real: Floats, imaginary: Floats) -> None:
    """Write the sums of w e^{-2 pi i j.(t - c) / N} over the shifts that have a weight.

    Parameters
    ----------
    weights
        `[m, t]`.
    cosine, sine
        As of `score`.
    real, imaginary
        Are written, `[m, Q]`.
    """
    h, t = len(cosine), weights.shape[1]
    for pair in range(len(weights)):
        re, im = real[pair], imaginary[pair]
        re[:] = 0.0
        im[:] = 0.0
        for shift in range(t):
            w = weights[pair, shift]
            if w == 0.0:
                continue
            at = shift if shift < h else t - 1 - shift
            turned = -w if shift < h else w
            c, s = cosine[at], sine[at]
            for j in range(len(re)):
                re[j] += w * c[j]
            for j in range(len(im)):
                im[j] += turned * s[j]
