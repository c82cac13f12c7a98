"""The two passes over full-resolution pixels as machine code, for the CPU.

Native pixels are read once per pass, times the gain, and all that is done with them happens while
they are in the cache. `warp` has the twin `warp_torch` in `passes.py`, which does the same
arithmetic; a test compares them. Every call works on rows of its own: threads share nothing.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from algorithms.jit import compiled

HAVE = True  # machine code, not Python


def _kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    global HAVE
    made = compiled(function)
    HAVE = HAVE and made is not None
    return function if made is None else made


@_kernel
def _convert(source, gain, target):
    for i in range(target.size):
        target[i] = np.float32(source[i]) * gain[i]


@_kernel
def _add_converted(source, gain, target):
    for i in range(target.size):
        target[i] += np.float32(source[i]) * gain[i]


@_kernel
def _add_plain(source, target):
    for i in range(target.size):
        target[i] += np.float32(source[i])


@_kernel
def block_sums(raw, gain, binning, first, last, small, total):
    """Sums over blocks in block rows first .. last - 1, and over frames.

    Parameters
    ----------
    raw, gain
        `[n, ny, nx]` native, `[ny, nx]` float32.
    binning
        Edge of the blocks.
    first, last
        Block rows to do; with the last one all rows below it are added to the total.
    small
        float32 `[n, by, bx]`, written: sums of raw x gain.
    total
        float32 `[ny, nx]`, added to: sums of raw.
    """
    n, ny, nx = raw.shape
    by, bx = small.shape[1:]
    line = np.empty(nx, np.float32)
    for b in range(first, last):
        top = b * binning
        for f in range(n):
            line[:] = np.float32(0.0)
            for y in range(top, top + binning):
                _add_converted(raw[f, y], gain[y], line)
                _add_plain(raw[f, y], total[y])
            out = small[f, b]
            for x in range(bx):
                value = np.float32(0.0)
                for i in range(binning):
                    value += line[x * binning + i]
                out[x] = value
    if last == by:
        for y in range(by * binning, ny):
            for f in range(n):
                _add_plain(raw[f, y], total[y])


@_kernel
def _six_columns(  # noqa: PLR0913
    r0, r1, r2, r3, r4, r5, x, scale, offset, mean, ax, base, ay, pairs, out
):
    """One row between rows, at columns of the source: u from the shift along y."""
    c00, c01, c02, c03 = pairs[0]
    c10, c11, c12, c13 = pairs[1]
    c20, c21, c22, c23 = pairs[2]
    a0, a1, a2 = ax
    b0, b1, b2 = ay
    for i in range(out.size):
        place = x[i] * scale + offset
        place = place + (a0 + place * (a1 + place * a2) - mean) * scale
        u = base - (b0 + place * (b1 + place * b2))
        square = u * u
        even = c00 + c02 * square
        odd = u * (c01 + c03 * square)
        value = (even + odd) * r0[i] + (even - odd) * r5[i]
        even = c10 + c12 * square
        odd = u * (c11 + c13 * square)
        value += (even + odd) * r1[i] + (even - odd) * r4[i]
        even = c20 + c22 * square
        odd = u * (c21 + c23 * square)
        value += (even + odd) * r2[i] + (even - odd) * r3[i]
        out[i] = value


@_kernel
def _six_rows(  # noqa: PLR0913
    t0, t1, t2, t3, t4, t5, x, scale, offset, base, ax, pairs, out
):
    """Pixels between columns, at columns of the result: u from the shift along x."""
    c00, c01, c02, c03 = pairs[0]
    c10, c11, c12, c13 = pairs[1]
    c20, c21, c22, c23 = pairs[2]
    a0, a1, a2 = ax
    for i in range(out.size):
        place = x[i] * scale + offset
        u = base - (a0 + place * (a1 + place * a2))
        square = u * u
        even = c00 + c02 * square
        odd = u * (c01 + c03 * square)
        value = (even + odd) * t0[i] + (even - odd) * t5[i]
        even = c10 + c12 * square
        odd = u * (c11 + c13 * square)
        value += (even + odd) * t1[i] + (even - odd) * t4[i]
        even = c20 + c22 * square
        odd = u * (c21 + c23 * square)
        value += (even + odd) * t2[i] + (even - odd) * t3[i]
        out[i] = value


@_kernel
def _add_weighted(target, weight, values):
    for i in range(target.size):
        target[i] += weight * values[i]


@_kernel
def _range(plane, y0, y1, ny, width, nx):
    """Least and largest value of a quadratic over a band of rows, from nine places."""
    low, high = 1e30, -1e30
    for i in range(3):
        y = (y0 + (y1 - y0) * 0.5 * i) / ny - 0.5
        for j in range(3):
            x = width * 0.5 * j / nx - 0.5
            value = plane[0] + plane[1] * x + plane[2] * x * x
            value += plane[3] * y + plane[4] * y * y + plane[5] * x * y
            low, high = min(low, value), max(high, value)
    return low, high


@_kernel
def _load(frame, gain, bad, values, first_row, last_row, left, wide, rows):  # noqa: PLR0913
    """Corrected pixels of a frame from column `left` on; beyond the frame its edge repeats.

    `bad` are (where each row's bad pixels begin, their columns), `values` what stands in for them.
    """
    ny, nx = frame.shape
    begin, end = min(max(left, 0), nx - 1), max(min(left + wide, nx), 1)
    for r in range(first_row, last_row):
        y = min(max(r, 0), ny - 1)
        row = rows[r - first_row]
        _convert(frame[y, begin:end], gain[y, begin:end], row[begin - left : end - left])
        for i in range(bad[0][y], bad[0][y + 1]):
            if begin <= bad[1][i] < end:
                row[bad[1][i] - left] = values[i]
        row[: begin - left] = row[begin - left]
        row[end - left : wide] = row[end - left - 1]


@_kernel
def _down(rows, y_first, column, wide, run, mean, quadratics, pairs, between):  # noqa: PLR0913
    """Interpolate one row of the result along y, at the columns of the source.

    Parameters
    ----------
    rows, y_first
        Source rows, and the index among them of the result's row.
    column, wide
        Number of the first column, 0.0 1.0 .. of them all as float32, and how many there are.
    run, mean
        See `warp`.
    quadratics
        Coefficients of the shifts along x and y in this row, and 1 over the frame's width.
    pairs, between
        The taps, and what is written.
    """
    left, columns = column
    ax, ay, scale = quadratics
    half = np.float32(0.5)
    offset = (np.float32(left) + mean) * scale - half
    # Runs begin at multiples of their length, whatever part of the frame is being done.
    for s in range((left // run) * run - left, wide, run):
        a, b = max(s, 0), min(s + run, wide)
        place = np.float32(s + run // 2) * scale + offset
        whole = int(np.floor(-(ay[0] + place * (ay[1] + place * ay[2]))))
        at = min(max(y_first + whole - 2, 0), rows.shape[0] - 6)
        _six_columns(
            rows[at, a:b],
            rows[at + 1, a:b],
            rows[at + 2, a:b],
            rows[at + 3, a:b],
            rows[at + 4, a:b],
            rows[at + 5, a:b],
            columns[a:b],
            scale,
            offset,
            mean,
            ax,
            np.float32(-whole) - half,
            ay,
            pairs,
            between[a:b],
        )


@_kernel
def _along(between, column, wide, run, quadratics, pairs, values):
    """Interpolate the same row along x, at the pixels of the result."""
    left, columns = column
    ax, _, scale = quadratics
    half = np.float32(0.5)
    for a in range(0, values.size, run):
        b = min(a + run, values.size)
        n = b - a
        place = np.float32(a + run // 2) * scale - half
        whole = int(np.floor(-(ax[0] + place * (ax[1] + place * ax[2]))))
        at = min(max(a + whole - 2 - left, 0), wide - 5 - n)
        _six_rows(
            between[at : at + n],
            between[at + 1 : at + 1 + n],
            between[at + 2 : at + 2 + n],
            between[at + 3 : at + 3 + n],
            between[at + 4 : at + 4 + n],
            between[at + 5 : at + 5 + n],
            columns[a:b],
            scale,
            -half,
            np.float32(-whole) - half,
            ax,
            pairs,
            values[a:b],
        )


@_kernel
def _in_row(plane, v):
    """Coefficients of 1, x, x^2 of a quadratic of the place in the row at y = `v`."""
    return (
        np.float32(plane[0] + plane[3] * v + plane[4] * v * v),
        np.float32(plane[1] + plane[5] * v),
        np.float32(plane[2]),
    )


@_kernel
def warp(raw, gain, bad, values, moves, pairs, run, y0, y1, out):  # noqa: PLR0913
    """Add the moved frames to rows y0 .. y1 - 1 of the sums.

    Parameters
    ----------
    raw, gain
        `[n, ny, nx]` native, `[ny, nx]` float32.
    bad, values
        Bad pixels by row: (`[ny + 1]` where each row's begin, `[m]` columns), `[n, m]` values.
    moves
        float64 `[n, 2, 6]`, the shift as a quadratic of the place (`model.frame_planes`); float32
        `[n]` its mean along x; float32 `[k, n]` weight of each frame in each sum.
    pairs
        `interpolation.tap_pairs`.
    run
        Pixels along a row that share one whole-pixel offset.
    y0, y1
        Rows of the result.
    out
        float32 `[k, oy, ox]`, at least of the size of a frame; beyond it edges repeat.
    """
    n, ny, nx = raw.shape
    planes, mean_x, weights = moves
    width, scale, spread = out.shape[2], np.float32(1.0 / nx), 0
    for f in range(n):
        for axis in range(2):
            low, high = _range(planes[f, axis], y0, y1, ny, width, nx)
            spread = max(spread, int(high - low))
    columns = np.arange(width + spread + 64).astype(np.float32)
    rows = np.empty((y1 - y0 + spread + 16, columns.size), np.float32)
    between = np.empty(columns.size, np.float32)
    moved = np.empty(width, np.float32)
    for f in range(n):
        low, high = _range(planes[f, 0], y0, y1, ny, width, nx)
        left, right = int(np.floor(-high)) - 4, int(np.floor(width - low)) + 6
        low, high = _range(planes[f, 1], y0, y1, ny, width, nx)
        top, bottom = int(np.floor(y0 - high)) - 3, int(np.floor(y1 - low)) + 5
        wide = right - left
        _load(raw[f], gain, bad, values[f], top, bottom, left, wide, rows)
        for y in range(y0, y1):
            v = y / ny - 0.5
            quadratics = (_in_row(planes[f, 0], v), _in_row(planes[f, 1], v), scale)
            source = rows[: bottom - top]
            column = (left, columns)
            _down(source, y - top, column, wide, run, mean_x[f], quadratics, pairs, between)
            _along(between, column, wide, run, quadratics, pairs, moved)
            for k in range(weights.shape[0]):
                if weights[k, f] != 0.0:
                    _add_weighted(out[k, y], weights[k, f], moved)


@_kernel
def combine(spectra, tables, step, frequencies, factors, first, last, out):
    """Sum of spectra, each times its radial table and all over the noise's transfer.

    Parameters
    ----------
    spectra, out
        complex64 `[r, ny, nxh]` and `[ny, nxh]`.
    tables, step
        float32 `[r, t]` at multiples of `step` (1/A).
    frequencies, factors
        float32 (y, x): in 1/A, and what to multiply by along each axis.
    first, last
        Rows to do.
    """
    count = spectra.shape[0]
    ky, kx = frequencies
    by, bx = factors
    inverse = np.float32(1.0) / np.float32(step)
    for y in range(first, last):
        for x in range(kx.size):
            place = np.sqrt(ky[y] * ky[y] + kx[x] * kx[x]) * inverse
            index = min(int(place), tables.shape[1] - 2)
            rest = place - np.float32(index)
            value = np.complex64(0.0)
            for r in range(count):
                low = tables[r, index]
                value += spectra[r, y, x] * (low + (tables[r, index + 1] - low) * rest)
            out[y, x] = value * (by[y] * bx[x])
