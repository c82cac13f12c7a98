"""Local resolution of two half-maps as a job: `relion.localres`, RELION's own method.

Source: refinement.md section 7; options and file names of `relion_postprocess --locres`. Spheres
outside the mask are not looked at when a mask is given; RELION looks at all of them.
"""

from dataclasses import replace

import numpy as np
import torch

from algorithms.formats import mrc
from algorithms.maps import local, sharpen
from services.jobs.job import Failed, Job
from services.jobs.maps import detector_of, read_halves, read_mask
from services.kit.errors import Misuse
from services.kit.paths import atomic_write
from services.report.localmap import picture

# Additional arguments -> field of `local.Wish`, lowest and highest value.
KNOWN = {
    "--locres_sampling": ("step_A", 1.0, 1000.0),
    "--locres_maskrad": ("radius_A", 0.0, 1000.0),
    "--locres_edgwidth": ("edge_A", 0.0, 1000.0),
    "--locres_randomize_at": ("randomise_from_A", 1.0, 1000.0),
    "--locres_minres": ("worst_A", 1.0, 1e4),
    "--locres_thres": ("threshold", 0.01, 0.99),
}


def localres(job: Job) -> None:
    """Measure the resolution of each part of a map; filter each part by it."""
    wish = _wish(job)
    names, maps, pixel = read_halves(job)
    mask_name, mask = job.options.text("fn_mask"), None
    if mask_name not in ("", "None"):
        mask = read_mask(job, job.need("fn_mask"), names[0], len(maps[0]))
    first, second = (torch.from_numpy(half) for half in maps)
    within = None if mask is None else torch.from_numpy(mask)
    try:
        found = local.resolution(first, second, pixel, wish, within)
        mean = (first + second) / 2.0
        volume = local.filtered(mean, pixel, found, _sharpening(job, pixel)).numpy()
    except ValueError as error:
        raise Failed(f"{names[0]}: {error}") from error
    at_A = found.resolution_A.numpy()
    atomic_write(job.folder / "relion_locres.mrc", mrc.encode(at_A, pixel))
    atomic_write(job.folder / "relion_locres_filtered.mrc", mrc.encode(volume, pixel))
    inside = at_A[(at_A > 0.0) if mask is None else (at_A > 0.0) & (mask > 0.5)]
    for name, kind in (("histogram.pdf", "pdf"), ("locres.png", "png")):
        atomic_write(job.folder / name, picture(at_A, volume, inside, kind), durable=False)
    low, middle, high = np.quantile(inside, (0.05, 0.5, 0.95))
    job.say(
        f"local resolution at FSC {wish.threshold:g} in {len(found.finest)} spheres: median "
        f"{middle:.2f} A, nine tenths between {low:.2f} and {high:.2f} A"
    )


def _wish(job: Job) -> local.Wish:
    given = job.extra_arguments(dict.fromkeys(KNOWN, "NUMBER"))
    values: dict[str, float] = {}
    for name, text in given.items():
        field, low, high = KNOWN[name]
        try:
            value = float(text)
        except ValueError:
            value = np.nan
        if not low <= value <= high:
            raise Misuse(
                f"option other_args of {job.options.job}: {name} {text} is not between {low:g} "
                f"and {high:g}"
            )
        values[field] = value
    return replace(local.Wish(), **values)


def _sharpening(job: Job, pixel: float) -> sharpen.Wish:
    return sharpen.Wish(
        auto_bfactor=False,
        bfactor_A2=job.options.number("adhoc_bfac", -100.0, -1e5, 1e5),
        detector=detector_of(job, pixel),
    )
