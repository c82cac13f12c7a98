"""Optics groups: stable numbers, the reference partition, a state rebuilt from events."""

import csv
import json
import random

import pytest

from mdcatch import optics
from mdcatch.optics import Group, OpticsKey
from services.kit.events import MovieSettled
from tests.shared import shared


def key(area: str = "1", shift: tuple[float, float] | None = None, **changes: float) -> OpticsKey:
    base = OpticsKey(300.0, 2.7, 0.1, 1.0, 130000.0, area, shift)
    return base._replace(**changes)


def join(groups: list[Group], wanted: OpticsKey, threshold: float | None) -> int:
    """Assign as the service does, through events."""
    group = optics.find(groups, wanted, threshold)
    if group is None:
        optics.add_group(groups, optics.opened(groups, wanted))
        group = groups[-1]
    member = MovieSettled(
        movie="m",
        path="m",
        metadata_path=None,
        format="tiff",
        size_bytes=1,
        mtime_ns=0,
        digest="d",
        width_px=1,
        height_px=1,
        n_frames=1,
        voltage_kV=wanted.voltage_kV,
        spherical_aberration_mm=wanted.spherical_aberration_mm,
        amplitude_contrast=wanted.amplitude_contrast,
        pixel_size_A=wanted.pixel_size_A,
        dose_e_A2=1.0,
        dose_per_frame_e_A2=1.0,
        magnification=wanted.magnification,
        acquisition_area=wanted.area,
        beam_shift=wanted.beam_shift,
        optics_group=group.number,
    )
    optics.add_member(groups, member)
    return group.number


def test_groups_are_numbered_by_first_appearance_and_never_renumbered():
    groups: list[Group] = []
    areas = ["7", "3", "7", "9", "3", "1", "7"]
    assert [join(groups, key(area), None) for area in areas] == [1, 2, 1, 3, 2, 4, 1]
    assert [group.name for group in groups] == [f"opticsGroup{n}" for n in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    "change",
    [
        {"voltage_kV": 200.0},
        {"spherical_aberration_mm": 0.01},
        {"amplitude_contrast": 0.07},
        {"pixel_size_A": 1.01},
        {"magnification": 165000.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_change_of_optics_opens_a_group(change: dict):
    groups: list[Group] = []
    assert join(groups, key(), None) == 1
    assert join(groups, key(**change), None) == 2
    assert join(groups, key(pixel_size_A=1.00001), None) == 1


@pytest.mark.parametrize("threshold", [0.008, 0.01, 0.015, 0.02])
def test_beam_shift_clusters_are_those_of_the_reference(threshold: float):
    expected = json.loads(shared("data/metadata/optics/afis_half.tsv.expected.json").read_text())
    with shared("data/metadata/optics/afis_half.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for seed in range(5):
        if seed:
            random.Random(seed).shuffle(rows)
        groups: list[Group] = []
        partition: dict[int, set[str]] = {}
        for row in rows:
            shift = float(row["beam_shift_x"]), float(row["beam_shift_y"])
            number = join(groups, key(row["acquisition_area_id"], shift), threshold)
            partition.setdefault(number, set()).add(row["file"])
        wanted: dict[int, set[str]] = {}
        for name, number in expected["groups"].items():
            wanted.setdefault(number, set()).add(name)
        assert len(groups) == expected["n_optics_groups"]
        assert sorted(map(sorted, partition.values())) == sorted(map(sorted, wanted.values()))
