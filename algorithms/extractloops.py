"""Inner loops of extraction as machine code, where Numba is installed.

Each takes one particle after the other, so that what it reads again is still in the cache; sums
run down the columns first, many columns at a time. `windows.gather` and `background.Background`
have the same in numpy and torch, for a device and for machines without Numba.
"""

import numpy as np


def cut(
    image: np.ndarray, left: np.ndarray, top: np.ndarray, zero: np.float32, windows: np.ndarray
) -> None:
    """Fill windows `[n, box, box]` from an image `[ny, nx]`, less `zero`; edge pixels repeat.

    `left` and `top` `[n]` are the window's first column and row in the image.
    """
    (ny, nx), box = image.shape, windows.shape[1]
    for i in range(len(windows)):
        first = min(max(-left[i], 0), box)
        last = max(min(nx - left[i], box), first)
        for row in range(box):
            source = image[min(max(top[i] + row, 0), ny - 1)]
            target = windows[i, row]
            inside = source[left[i] + first : left[i] + last]
            within = target[first:last]
            for k in range(len(inside)):
                within[k] = inside[k] - zero
            target[:first] = source[0] - zero
            target[last:] = source[nx - 1] - zero


def outer_sums(images: np.ndarray, circle: np.ndarray, sums: np.ndarray) -> None:
    """Sum x v, y v and v of images `[n, side, side]` over their background, into `sums` `[n, 3]`.

    `circle` `[side, 2]` has of each row the first column inside and the first behind the circle;
    x and y are px from side // 2.
    """
    side = images.shape[1]
    total, moment = np.zeros(side, np.float32), np.zeros(side, np.float32)
    for i in range(len(images)):
        total[:] = 0
        moment[:] = 0
        for row in range(side):
            line, y = images[i, row], np.float32(row - side // 2)
            for k in range(circle[row, 0]):
                total[k] += line[k]
                moment[k] += y * line[k]
            for k in range(circle[row, 1], side):
                total[k] += line[k]
                moment[k] += y * line[k]
        sums[i] = 0
        for k in range(side):
            sums[i, 0] += total[k] * np.float64(k - side // 2)
            sums[i, 1] += moment[k]
            sums[i, 2] += total[k]


def flatten(
    images: np.ndarray, circle: np.ndarray, planes: np.ndarray, moments: np.ndarray
) -> None:
    """Subtract planes `[n, 3]` (x, y, 1) from images `[n, side, side]`; tell what is left.

    `moments` `[n, 5]`: minimum, maximum, sum, sum of squares, and that over the background.
    """
    side = images.shape[1]
    sums = np.zeros((5, side), np.float32)
    low, high, total, squares, outer = sums[0], sums[1], sums[2], sums[3], sums[4]
    for i in range(len(images)):
        sums[:] = 0
        low[:] = np.inf
        high[:] = -np.inf
        slope = np.float32(planes[i, 0])
        for row in range(side):
            line = images[i, row]
            start = np.float32(planes[i, 2] + planes[i, 1] * (row - side // 2))
            for k in range(side):
                value = line[k] - (start + slope * np.float32(k - side // 2))
                line[k] = value
                total[k] += value
                squares[k] += value * value
                low[k] = min(low[k], value)
                high[k] = max(high[k], value)
            for k in range(circle[row, 0]):
                outer[k] += line[k] * line[k]
            for k in range(circle[row, 1], side):
                outer[k] += line[k] * line[k]
        moments[i, 0], moments[i, 1] = low.min(), high.max()
        for k in range(2, 5):
            moments[i, k] = sums[k].astype(np.float64).sum()
