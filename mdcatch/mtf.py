"""Which file holds the camera's modulation transfer function: by camera, mode and voltage. Pure.

The site configures one STAR file per camera and mode, `{kV}` standing for the voltage; its curve
runs over the movie's own pixel, as RELION takes it. None is better than a wrong one: RELION then
goes without.

Source: acquisition.md sections 1.2, 1.10 and 7.
"""

from pathlib import Path
from typing import NamedTuple

from services.kit.sitetables import Camera, Mode


class MtfChoice(NamedTuple):
    """An MTF file, or why there is none."""

    path: Path | None
    reason: str


def choose_mtf(
    camera: Camera | None,
    voltage_kV: float | None,
    counting: bool | None,
    super_resolution: bool = False,
) -> MtfChoice:
    """Return the MTF of the movies of an exposure.

    Parameters
    ----------
    camera
        Of the site.
    voltage_kV
        Of the exposure; None is unknown.
    counting
        Whether electrons were counted. None is unknown, and taken for yes only where the site has
        no curve of linear mode.
    super_resolution
        Whether the movie's pixel is finer than the sensor's.
    """
    if camera is None:
        return MtfChoice(None, "the camera is not in the site's configuration")
    if voltage_kV is None:
        return MtfChoice(None, "the voltage is unknown")
    if counting is None and "linear" in camera.mtf:
        return MtfChoice(None, f"whether {camera.model} counted electrons is unknown")
    mode: Mode = "linear" if counting is False else "counting"
    if super_resolution and mode == "counting":
        mode = "super-resolution"
    path = camera.mtf_file(mode, voltage_kV)
    if path is None:
        return MtfChoice(None, f"no MTF of {camera.model} in {mode} mode is configured")
    return MtfChoice(path, f"{camera.model}, {mode}, {voltage_kV:.0f} kV")
