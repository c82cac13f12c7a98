"""Are a movie and its metadata consistent, and what exactly is published? Pure.

Precedence: person, then site, then metadata; number of frames and size are the file header's.
Every value says where it came from; nothing is invented but Cs and amplitude contrast, which no
file states and which are marked as the site's.

Source: acquisition.md sections 2.5, 7 and 9.
"""

from typing import NamedTuple

import msgspec

from mdcatch.config import MdcatchConfig
from mdcatch.names import identifiers
from mdcatch.optics import OpticsKey
from mdcatch.stimuli import Ready
from services.kit import events
from services.kit.errors import Code, Refused

ESTABLISHED = 3  # settled movies before their common size binds the others


class Physics(NamedTuple):
    """Checked physical values of an exposure, where each came from, and remarks."""

    key: OpticsKey
    dose_e_A2: float
    sources: dict[str, str]
    flags: tuple[str, ...]


def check(ready: Ready, config: MdcatchConfig, sizes: dict[str, int]) -> Physics:
    """Return what is physically known of an exposure.

    Parameters
    ----------
    ready
        The exposure.
    config
        The site's and the person's values.
    sizes
        How many settled movies of the session have each size; see `size_text`.

    Raises
    ------
    Refused
        GEOMETRY_MISMATCH, MISSING_FIELD.
    """
    flags = _check_size(ready, sizes)
    image, person = ready.image, config.overrides
    sources: dict[str, str] = {"n_frames": "header", "width_px": "header", "height_px": "header"}

    def known(field: str, override: float | None, stated: float | None, wanted: str) -> float:
        if override is not None:
            sources[field] = "user"
            return override
        if stated:
            sources[field] = "xml"
            return stated
        raise Refused(
            Code.MISSING_FIELD,
            f"{ready.metadata_path} does not state the {wanted}; set overrides.{field}",
        )

    pixel = known("pixel_size_A", person.pixel_size_A, image.pixel_size_A, "pixel size")
    voltage = known("voltage_kV", person.voltage_kV, image.voltage_kV, "voltage")
    dose = known("dose_e_A2", person.dose_e_A2, image.dose_e_A2, "dose of the exposure")
    cs, cs_source = _spherical_aberration(ready, config)
    contrast = person.amplitude_contrast
    sources |= {
        "spherical_aberration_mm": cs_source,
        "amplitude_contrast": "site default" if contrast is None else "user",
    }
    if cs_source == "site default":
        flags.append("cs_assumed")
    if image.n_frames is not None and image.n_frames != ready.n_frames:
        flags.append("frames_mismatch")
    # Falcons write gain-corrected MRC; every TIFF needs its gain.
    if ready.gain_path is None and ready.format == "tiff":
        flags.append("gain_missing")
    key = OpticsKey(
        voltage,
        cs,
        config.default_amplitude_contrast if contrast is None else contrast,
        pixel,
        image.magnification,
        identifiers(ready.movie).acquisition_area,
        image.beam_shift,
    )
    return Physics(key, dose, sources, tuple(flags))


def publication(ready: Ready, physics: Physics, optics_group: int) -> events.MovieSettled:
    """Return the event that publishes an exposure, its bounds checked.

    Raises
    ------
    Refused
        OUT_OF_RANGE, naming the field.
    """
    image, key, names = ready.image, physics.key, identifiers(ready.movie)
    body = events.MovieSettled(
        movie=ready.movie,
        path=ready.path,
        metadata_path=ready.metadata_path,
        format=ready.format,
        size_bytes=ready.size_bytes,
        mtime_ns=ready.mtime_ns,
        digest=ready.digest,
        width_px=ready.width_px,
        height_px=ready.height_px,
        n_frames=ready.n_frames,
        voltage_kV=key.voltage_kV,
        spherical_aberration_mm=key.spherical_aberration_mm,
        amplitude_contrast=key.amplitude_contrast,
        pixel_size_A=key.pixel_size_A,
        dose_e_A2=physics.dose_e_A2,
        dose_per_frame_e_A2=physics.dose_e_A2 / ready.n_frames,
        exposure_time_s=image.exposure_time_s,
        applied_defocus_um=image.applied_defocus_um,
        magnification=image.magnification,
        detector=image.detector_model or image.detector or "",
        counting=image.counting,
        super_resolution_factor=image.upsampling,
        binning=image.binning or 1,
        grid_square=names.grid_square,
        foil_hole=names.foil_hole,
        acquisition_area=names.acquisition_area,
        beam_shift=image.beam_shift,
        stage_um=image.stage_um,
        acquired_at=image.acquired_at or "",
        gain_path=ready.gain_path,
        optics_group=optics_group,
        sources=physics.sources,
        flags=physics.flags,
    )
    try:
        events.decode(events.encode(body))  # what the journal's readers will check
    except msgspec.ValidationError as error:
        raise Refused(Code.OUT_OF_RANGE, f"{ready.path}: {error}") from None
    return body


def _spherical_aberration(ready: Ready, config: MdcatchConfig) -> tuple[float, str]:
    if config.overrides.spherical_aberration_mm is not None:
        return config.overrides.spherical_aberration_mm, "user"
    instrument = ready.image.microscope_id or ""
    if instrument in config.spherical_aberrations_mm:
        return config.spherical_aberrations_mm[instrument], "site"
    return config.default_spherical_aberration_mm, "site default"


def _check_size(ready: Ready, sizes: dict[str, int]) -> list[str]:
    """Compare a size with the metadata's and the session's; K2 files may be transposed."""
    size = ready.width_px, ready.height_px
    stated = ready.image.movie_size_px
    if stated is not None and size not in (stated, stated[::-1]):
        raise Refused(
            Code.GEOMETRY_MISMATCH,
            f"{ready.path} is {size_text(*size)} px, its metadata says {size_text(*stated)}",
        )
    text, total = size_text(*size), sum(sizes.values())
    usual = max(sizes, key=lambda item: sizes[item], default=text)
    if total >= ESTABLISHED and 2 * sizes[usual] > total and text != usual:
        raise Refused(
            Code.GEOMETRY_MISMATCH,
            f"{ready.path} is {text} px, the session's movies are {usual}; "
            "movies of another size need a session of their own",
        )
    return ["size_transposed"] if stated is not None and size != stated else []


def size_text(width_px: int, height_px: int) -> str:
    """Return a size as people and the session's table write it."""
    return f"{width_px} x {height_px}"
