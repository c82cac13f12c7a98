"""Box sizes that follow from the particle diameter. Source: preprocessing.md section 5.1."""

import math
from dataclasses import dataclass

# RELION's on-the-fly sizes; the first that is fine enough is taken.
SCALED_SIZES = (48, 64, 96, 128, 160, 192, 256, 288, 300, 320, 360, 384, 400, 420, 450, 480)
SCALED_SIZES += (512, 640, 768, 896, 1024)
COARSEST_PIXEL_A = 3.75


@dataclass(frozen=True, kw_only=True)
class BoxSizes:
    """Sizes that follow from the particle diameter; px of the micrograph and of the small box."""

    box_px: int
    scaled_px: int
    mask_diameter_A: float
    bg_radius_px: int


def box_sizes(pixel_size_A: float, particle_diameter_A: float) -> BoxSizes:
    """RELION's on-the-fly rules: a box of 1.5 diameters, scaled to a pixel below 3.75 A.

    `bg_radius_px` is in px of the scaled box: 75 % of its half side.

    Raises
    ------
    ValueError
        Arguments that are not positive numbers.
    """
    if not (0 < pixel_size_A < math.inf and 0 < particle_diameter_A < math.inf):
        raise ValueError(f"pixel {pixel_size_A} A and diameter {particle_diameter_A} A")
    # The tolerance keeps 1.5 x 180 / 0.9 = 300.00000000000006 from becoming 302.
    box = math.ceil(1.5 * particle_diameter_A / pixel_size_A - 1e-6)
    box += box % 2
    fine = (n for n in SCALED_SIZES if pixel_size_A * box / n < COARSEST_PIXEL_A)
    scaled = min(next(fine, box), box)
    return BoxSizes(
        box_px=box,
        scaled_px=scaled,
        mask_diameter_A=1.1 * particle_diameter_A,
        bg_radius_px=int(0.375 * scaled),
    )
