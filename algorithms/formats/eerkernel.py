"""The walk along the bits of EER frames, as loops that Numba compiles.

Plain Python runs them as well, a thousand times slower. All frames of a fraction are walked
together, a band of rows at a time, so that the part of the image that is counted into stays in the
processor's cache: on a fine grid that is five times as fast.

Source: preprocessing.md section 1.6.
"""

import numpy as np

UNREAD, WHOLE, BROKEN = 0, 1, 2
_U = np.uint64


def walk(streams, status, sizes, image, step, code):
    """Add `step` to `image[n]` for every electron at pixel n of every frame.

    Parameters
    ----------
    streams
        (uint64 words: the streams, each with two words of zeros behind it; int64 `[frames + 1]`:
        where each begins in them, and the last one's end; int64 `[frames]`: their bits).
    status
        uint8 `[frames]`: streams that are UNREAD are walked and become WHOLE or BROKEN. What was
        counted of a broken one stays in the image, to be taken away by the same walk.
    sizes
        (pixels of a frame, of a band of rows).
    image
        As many pixels as a frame has.
    step
        1 to add frames, -1 (as the image's type has it) to take them away again.
    code
        (bits of a run length, bits of the symbol behind it, bits of the longest run, which no
        electron follows).
    """
    words, first, n_bits = streams
    n_pixels, band = sizes
    run_bits, symbol_bits, drop = code
    mask = _U((1 << run_bits) - 1)
    item = run_bits + symbol_bits
    ats, ns = np.zeros(len(status), np.int64), np.zeros(len(status), np.int64)
    for end in range(band, n_pixels + band, band):
        stop = min(end, n_pixels)
        for f in range(len(status)):
            if status[f] != UNREAD:
                continue
            at, n, base, last = ats[f], ns[f], first[f], first[f + 1] - 2
            run = 0
            inside = True
            while inside:
                place, shift = base + (at >> 6), _U(at & 63)
                if place > last:
                    status[f] = BROKEN
                    break
                window = (words[place] >> shift) | ((words[place + 1] << _U(1)) << (_U(63) - shift))
                left = 64
                while left >= item:
                    run = np.int64(window & mask)
                    n += run
                    if n >= stop:
                        inside = False
                        break
                    if run == np.int64(mask):
                        window >>= _U(drop)
                        left -= drop
                    else:
                        image[_U(n)] += step
                        n += 1
                        window >>= _U(item)
                        left -= item
                at += 64 - left
            if not inside:
                # The run that leads out of the band is read again for the next band.
                ats[f], ns[f] = at, n - run
                if stop == n_pixels:
                    # The last run may be left out where it is 0.
                    rest = n_bits[f] - at
                    whole = n == n_pixels and (rest >= run_bits or (rest >= 0 and run == 0))
                    status[f] = WHOLE if whole else BROKEN


def walk_fine(streams, status, sizes, image, step, code, fine):
    """Do as `walk` on a grid that is `factor` times as fine.

    Parameters
    ----------
    fine
        (width of a frame; how often finer the grid is; int64: place of each symbol within the
        pixel, row times the grid's width, plus column).
    """
    words, first, n_bits = streams
    n_pixels, band = sizes
    width, factor, where = fine
    run_bits, symbol_bits, drop = code
    mask, symbols = _U((1 << run_bits) - 1), _U((1 << symbol_bits) - 1)
    item = run_bits + symbol_bits
    down = factor * (factor - 1)
    ats, ns = np.zeros(len(status), np.int64), np.zeros(len(status), np.int64)
    for end in range(band, n_pixels + band, band):
        stop = min(end, n_pixels)
        for f in range(len(status)):
            if status[f] != UNREAD:
                continue
            at, n, base, last = ats[f], ns[f], first[f], first[f + 1] - 2
            row = n - n % width
            run = 0
            inside = True
            while inside:
                place, shift = base + (at >> 6), _U(at & 63)
                if place > last:
                    status[f] = BROKEN
                    break
                window = (words[place] >> shift) | ((words[place + 1] << _U(1)) << (_U(63) - shift))
                left = 64
                while left >= item:
                    run = np.int64(window & mask)
                    n += run
                    if n >= stop:
                        inside = False
                        break
                    if run == np.int64(mask):
                        window >>= _U(drop)
                        left -= drop
                    else:
                        while n >= row + width:
                            row += width
                        symbol = (window >> _U(run_bits)) & symbols
                        image[_U(factor * n + down * row + where[symbol])] += step
                        n += 1
                        window >>= _U(item)
                        left -= item
                at += 64 - left
            if not inside:
                ats[f], ns[f] = at, n - run
                if stop == n_pixels:
                    # The last run may be left out where it is 0.
                    rest = n_bits[f] - at
                    whole = n == n_pixels and (rest >= run_bits or (rest >= 0 and run == 0))
                    status[f] = WHOLE if whole else BROKEN
