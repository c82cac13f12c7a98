"""Two real micrographs with the picks of experts: beta-galactosidase, EMPIAR-10017."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree

FOLDER = "data/micrographs"
NAMES = ("14_33_35", "15_17_31")
PIXEL_A = 1.77
NEAR_PX = 54  # half the diameter that the experts gave


class Experts(NamedTuple):
    """A micrograph `[ny, nx]`, and x, y `[n, 2]` of the particles that experts have seen in it."""

    image: np.ndarray
    picks: np.ndarray

    def recall_and_precision(self, found: np.ndarray) -> tuple[float, float]:
        """Return the share of their picks that were found, and of `found` `[n, 2]` that is one."""
        hit = (cKDTree(found).query(self.picks)[0] < NEAR_PX).mean()
        right = (cKDTree(self.picks).query(found)[0] < NEAR_PX).mean()
        return float(hit), float(right)


def experts(folder: Path, name: str) -> Experts:
    """Return a micrograph; their picks are the middles of the discs of a mask."""
    image, mask = (
        np.asarray(Image.open(folder / f"Falcon_2012_06_12-{name}_0{kind}.jpg").convert("L"))
        for kind in ("", "_mask")
    )
    depth = ndimage.distance_transform_edt(mask[::4, ::4] > 128)
    tops = (ndimage.maximum_filter(depth, 11) == depth) & (depth > 10)
    labels, count = ndimage.label(tops)
    middles = np.array(ndimage.center_of_mass(tops, labels, range(1, count + 1)))
    return Experts(image, 4 * middles[:, ::-1])
