"""RELION tables written from the fold: optics blocks, and files that only change when they must."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from algorithms.formats import star
from services.kit.events import MicrographCtf, OpticsGrouped

# Our own columns and the fields of a fit; 0 where a fit does not tell.
_OWN_COLUMNS = {
    "rlnColdstreamThickness": "thickness_A",
    "rlnColdstreamTiltAngle": "tilt_angle_deg",
    "rlnColdstreamTiltAxis": "tilt_axis_deg",
    "rlnColdstreamTiltLogOdds": "tilt_log_odds",
}


def optics_table(
    groups: Iterable[OpticsGrouped],
    extra: Mapping[str, Mapping[int, object]] | None = None,
) -> star.Table:
    """Return the optics block.

    Parameters
    ----------
    groups
        The optics groups.
    extra
        Further columns: label -> {optics group: value}.
    """
    ordered = sorted(groups, key=lambda g: g.optics_group)
    numbers = [g.optics_group for g in ordered]
    columns: dict[str, list] = {
        "rlnOpticsGroupName": [g.name for g in ordered],
        "rlnOpticsGroup": numbers,
        "rlnMicrographOriginalPixelSize": [g.pixel_size_A for g in ordered],
        "rlnVoltage": [g.voltage_kV for g in ordered],
        "rlnSphericalAberration": [g.spherical_aberration_mm for g in ordered],
        "rlnAmplitudeContrast": [g.amplitude_contrast for g in ordered],
    }
    if ordered and all(g.mtf_path for g in ordered):
        columns["rlnMtfFileName"] = [g.mtf_path for g in ordered]
    for label, values in (extra or {}).items():
        columns[label] = [values[number] for number in numbers]
    return star.Table.of(columns)


def ctf_columns(fits: Sequence[MicrographCtf]) -> dict[str, list]:
    """Return the CTF columns of a micrograph table."""
    columns: dict[str, list] = {
        "rlnCtfImage": [f.ctf_image for f in fits],
        "rlnDefocusU": [f.defocus_u_A for f in fits],
        "rlnDefocusV": [f.defocus_v_A for f in fits],
        "rlnCtfAstigmatism": [abs(f.defocus_u_A - f.defocus_v_A) for f in fits],
        "rlnDefocusAngle": [f.defocus_angle_deg for f in fits],
        "rlnCtfFigureOfMerit": [f.figure_of_merit for f in fits],
        "rlnCtfMaxResolution": [f.max_resolution_A for f in fits],
    }
    if any(f.phase_shift_deg for f in fits):
        columns["rlnPhaseShift"] = [f.phase_shift_deg for f in fits]
    if fits and all(f.ice_ring_density is not None for f in fits):
        columns["rlnCtfIceRingDensity"] = [f.ice_ring_density for f in fits]
    # Only where they were asked for: RELION warns of labels that it does not know.
    for label, field in _OWN_COLUMNS.items():
        values = [getattr(f, field) for f in fits]
        if any(value is not None for value in values):
            columns[label] = [value or 0.0 for value in values]
    return columns


def save_table(path: Path, tables: Mapping[str, star.Table]) -> None:
    """Write a view; readers see the old one or the new one."""
    # Not durable: a view lost in a power cut is written again from the journal at the next start.
    star.save(path, tables, durable=False)
