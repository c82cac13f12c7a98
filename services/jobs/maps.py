"""Post-processing of half-maps and solvent masks as jobs.

Source: refinement.md section 7; options of RELION's job types `relion.postprocess` and
`relion.maskcreate`.
"""

from pathlib import Path

import numpy as np
import torch

from algorithms.formats import mrc, star
from algorithms.formats.errors import FormatError
from algorithms.maps import correlation, sharpen, solvent, threshold
from services.jobs.job import Failed, Job
from services.jobs.maptables import Outcome, tables, xml
from services.kit.errors import Misuse
from services.kit.paths import atomic_write
from services.kit.tables import save_table
from services.report.halfmaps import picture

AUTOMATIC = "--auto_threshold"  # the map tells where the particle ends
PARTICLE_SHARE = 0.476  # of the volume inside a mask: average density of a protein in its mask


def maskcreate(job: Job) -> None:
    """Make a soft mask from a map."""
    automatic = job.extra_arguments({AUTOMATIC: "Yes|No"}).get(AUTOMATIC) == "Yes"
    if job.options.switch("do_helix", False):
        job.refuse_options({"do_helix": "a mask of a helix"})
    name = job.need("fn_in")
    volume, header_pixel = read_map(job, name)
    options = job.options
    pixel = pixel_of(job, header_pixel, name)
    resolution = options.number("lowpass_filter", 15.0, -1.0, 1e4)
    density = torch.from_numpy(volume).double()
    if resolution > 0.0:
        density = solvent.low_passed(density, pixel, resolution)
    limit, voxels = options.number("inimask_threshold", 0.02), density.numpy()
    try:
        if automatic:
            limit, voxels = threshold.automatic(voxels)
            job.say(f"the particle is what is denser than {limit:.4g}")
        mask = solvent.soft_mask(
            voxels,
            limit,
            options.number("extend_inimask", 3.0, -100.0, 1000.0),
            options.number("width_mask_edge", 3.0, 0.0, 1000.0),
        )
    except ValueError as error:
        raise Failed(f"{name}: {error}; change option inimask_threshold") from error
    atomic_write(job.folder / "mask.mrc", mrc.encode(mask, pixel))
    job.say(f"the mask holds {100.0 * float((mask > 0.5).mean()):.1f} % of the box")


def postprocess(job: Job) -> None:
    """Correlate two half-maps in a mask, find the resolution, sharpen their mean."""
    job.extra_arguments({})
    mask_name = job.need("fn_mask")
    names, maps, pixel = read_halves(job)
    mask = read_mask(job, mask_name, names[0], len(maps[0]))
    halves = [torch.from_numpy(half).double() for half in maps]
    try:
        outcome = _process(job, halves, torch.from_numpy(mask).double(), pixel)
    except ValueError as error:
        raise Failed(f"{names[0]}: {error}") from error
    _write(job, outcome, names, mask_name, mask)


def read_halves(job: Job) -> tuple[tuple[str, str], list[np.ndarray], float]:
    """Return names and values of both half-maps, and their pixel size.

    Raises
    ------
    Misuse
        They are not of the same size, or an option is wrong.
    """
    names = halves_of(job)
    (first, header_pixel), (second, _) = (read_map(job, name) for name in names)
    if second.shape != first.shape:
        raise Misuse(f"{names[1]} is {len(second)} px wide, but {names[0]} {len(first)} px")
    return names, [first, second], pixel_of(job, header_pixel, names[0])


def read_mask(job: Job, name: str, map_name: str, box: int) -> np.ndarray:
    """Return a mask that belongs to a map.

    Raises
    ------
    Misuse
        It is of another size, or goes beyond 0 to 1.
    """
    mask, _ = read_map(job, name)
    if len(mask) != box:
        raise Misuse(f"{name} is {len(mask)} px wide, but {map_name} {box} px")
    if mask.min() < -1e-4 or mask.max() > 1.0001:
        raise Misuse(f"{name}: a mask goes from 0 to 1, not {mask.min():g} to {mask.max():g}")
    return mask


def _process(job: Job, halves: list[torch.Tensor], mask: torch.Tensor, pixel: float) -> Outcome:
    curves = correlation.curves(halves[0], halves[1], mask)
    share = PARTICLE_SHARE / float((mask > 0.5).double().mean())
    if correlation.resolved_shell(curves.unmasked) > curves.resolved_shell:
        job.warn("the half-maps agree further without the mask than with it: it is not used")
        curves = correlation.without_mask(curves)
        mask = torch.ones_like(mask)
    volume, bfactor, guinier = sharpen.sharpened(
        (halves[0] + halves[1]) / 2.0, pixel, curves.corrected, _wish(job, curves, pixel)
    )
    if curves.mask_is_suspicious:
        job.warn(
            "the mask alone correlates above 0.1 at the resolution found: make it wider or softer"
        )
    return Outcome(
        volume=volume.float().numpy(),
        mask=mask.float().numpy(),
        curves=curves,
        guinier=guinier,
        bfactor_A2=bfactor,
        share=share,
        pixel_A=pixel,
    )


def _wish(job: Job, curves: correlation.Curves, pixel: float) -> sharpen.Wish:
    options = job.options
    auto, given = options.switch("do_auto_bfac", True), options.switch("do_adhoc_bfac", False)
    if auto and given:
        raise Misuse(
            f"options do_auto_bfac and do_adhoc_bfac of {options.job} are both Yes: choose one"
        )
    plain = options.switch("do_skip_fsc_weighting", False)
    low_pass = options.number("low_pass", 0.0, -1.0, 1e4) if plain else 0.0
    if low_pass < 0.0:
        low_pass = 2 * (len(curves.corrected) - 1) * pixel / max(1, curves.resolved_shell)
    return sharpen.Wish(
        auto_bfactor=auto,
        fit_from_A=options.number("autob_lowres", 10.0, 0.1, 1e4),
        bfactor_A2=options.number("adhoc_bfac", 0.0, -1e5, 1e5) if given else 0.0,
        weight=not plain,
        low_pass_A=low_pass,
        detector=detector_of(job, pixel),
    )


def detector_of(job: Job, pixel: float) -> sharpen.Detector | None:
    """Return the transfer function of option fn_mtf, None where none is given.

    Raises
    ------
    Misuse
        The file holds no such function.
    """
    name = job.options.text("fn_mtf")
    if name in ("", "None"):
        return None
    blocks = star.load(job.project / job.need("fn_mtf"))
    wanted = ("rlnResolutionInversePixel", "rlnMtfValue")
    table = next((t for t in blocks.values() if all(w in t.columns for w in wanted)), None)
    if table is None:
        raise Misuse(f"{name} (option fn_mtf) has no columns {wanted[0]} and {wanted[1]}")
    frequency, value = (table.floats(label) for label in wanted)
    if len(frequency) < 2 or np.any(np.diff(frequency) <= 0.0) or np.any(value <= 0.0):
        raise Misuse(
            f"{name} (option fn_mtf): frequencies have to increase, and values to be above 0"
        )
    original = job.options.number("mtf_angpix", pixel, 0.01, 100.0)
    return sharpen.Detector(frequency=frequency, value=value, pixel_A=original)


def halves_of(job: Job) -> tuple[str, str]:
    """Return both half-maps of option fn_in, the first one first.

    Raises
    ------
    Misuse
        The name is not that of a half-map, or the other one is missing.
    """
    name = job.need("fn_in")
    place = Path(name)
    other = place.name.replace("half1", "half#").replace("half2", "half1").replace("half#", "half2")
    if other == place.name:
        raise Misuse(f"{name} (option fn_in) is no half-map: its name has no half1 or half2")
    pair = str(place.with_name(other))
    if not (job.project / pair).exists():
        raise Misuse(f"{pair}, the other half-map of {name} (option fn_in), does not exist")
    return (name, pair) if "half1" in place.name else (pair, name)


def read_map(job: Job, name: str) -> tuple[np.ndarray, float | None]:
    """Return a map of the project, float32 `[N, N, N]`, and the pixel size of its header.

    Raises
    ------
    Failed
        It is no cube with an even edge, or not all of its values are finite.
    """
    try:
        header = mrc.read_header(job.project / name)
        if not header.nx == header.ny == header.nz or header.nx % 2:
            raise Failed(
                f"{name} is {header.nx} x {header.ny} x {header.nz}: a map has to be a cube with "
                "an even edge"
            )
        volume = np.array(mrc.read(job.project / name), dtype=np.float32)
    except FormatError as error:
        raise Failed(str(error)) from error
    if not np.isfinite(volume).all():
        raise Failed(f"{name} holds values that are not finite: make it again")
    return volume, header.pixel_size_A


def pixel_of(job: Job, header_pixel: float | None, name: str) -> float:
    """Return the pixel size of option angpix, else that of the header.

    Raises
    ------
    Misuse
        Neither is there.
    """
    given = job.options.number("angpix", -1.0, -1.0, 1000.0)
    pixel = given if given > 0.0 else header_pixel
    if pixel is None or pixel <= 0.0:
        raise Misuse(f"{name} has no pixel size in its header: give it with option angpix")
    if header_pixel and abs(pixel - header_pixel) > 0.01 * pixel:
        job.warn(f"option angpix is {pixel:g} A, but the header of {name} says {header_pixel:g} A")
    return pixel


def _write(
    job: Job, outcome: Outcome, names: tuple[str, str], mask_name: str, mask: np.ndarray
) -> None:
    folder, pixel = job.folder, outcome.pixel_A
    atomic_write(folder / "postprocess.mrc", mrc.encode(outcome.volume, pixel))
    atomic_write(folder / "postprocess_masked.mrc", mrc.encode(outcome.volume * mask, pixel))
    save_table(folder / "postprocess.star", tables(outcome, names, mask_name))
    atomic_write(folder / "postprocess_fsc.xml", xml(outcome).encode())
    for target, kind in (("logfile.pdf", "pdf"), ("postprocess.png", "png")):
        drawn = picture(outcome.curves, outcome.guinier, pixel, kind)
        atomic_write(folder / target, drawn, durable=False)
    job.say(
        f"resolution {outcome.resolution_A:.2f} A at FSC {correlation.RESOLVED}, "
        f"B-factor {outcome.bfactor_A2:.1f} A^2; phases random from "
        f"{outcome.at_A(outcome.curves.randomised_from):.2f} A on"
    )
