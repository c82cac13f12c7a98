"""RELION tables written from the fold: optics blocks, and files that only change when they must."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from algorithms.formats import star
from services.kit.events import OpticsGrouped


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
    for label, values in (extra or {}).items():
        columns[label] = [values[number] for number in numbers]
    return star.Table.of(columns)


def save_table(path: Path, tables: Mapping[str, star.Table]) -> None:
    """Write a view; readers see the old one or the new one."""
    # Not durable: a view lost in a power cut is written again from the journal at the next start.
    star.save(path, tables, durable=False)
