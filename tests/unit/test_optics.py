"""Optics groups: stable numbers, the reference partition in any order, the offer at the end."""

import csv
import json
import random

import pytest

from mdcatch import optics, spacing
from mdcatch.config import MdcatchConfig
from mdcatch.optics import Class, Group, OpticsKey
from mdcatch.regroup import Member, regroup
from mdcatch.service import Status
from mdcatch.spacing import Shot, Spread
from mdcatch.status import overview
from services.kit import events
from services.kit.events import MovieSettled
from tests.epu_tree import FOLDER, Drive, MemoryTree, image_xml
from tests.shared import shared

MOVIE = b"frames END"
TABLE = "data/metadata/optics/afis_half.tsv"


def key(area: str = "1", shift: tuple[float, float] | None = None, **changes: object) -> OpticsKey:
    base = Class(300.0, 2.7, 0.1, 1.0, 130000.0, "s", "K3", 20.0, False)
    return OpticsKey(base._replace(**changes), area, shift)


def join(groups: list[Group], wanted: OpticsKey, threshold: float | None) -> int:
    """Assign as the service does, through events."""
    group = optics.find(groups, wanted, threshold)
    if group is None:
        optics.add_group(groups, optics.opened(groups, wanted))
        group = groups[-1]
    one = wanted.optics
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
        voltage_kV=one.voltage_kV,
        spherical_aberration_mm=one.spherical_aberration_mm,
        amplitude_contrast=one.amplitude_contrast,
        pixel_size_A=one.pixel_size_A,
        dose_e_A2=1.0,
        dose_per_frame_e_A2=1.0,
        magnification=one.magnification,
        session=one.session,
        detector=one.detector,
        slit_inserted=None if one.slit is None else one.slit > 0,
        slit_width_eV=one.slit,
        phase_plate=one.phase_plate,
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
        {"session": "another"},
        {"detector": "Falcon 4i"},
        {"slit": 10.0},
        {"slit": 0.0},
        {"phase_plate": True},
    ],
    ids=lambda change: "-".join(f"{name} {value}" for name, value in change.items()),
)
def test_any_change_of_optics_opens_a_group(change: dict):
    groups: list[Group] = []
    assert join(groups, key(), None) == 1
    assert join(groups, key(**change), None) == 2
    assert join(groups, key(pixel_size_A=1.00001), None) == 1


# ---- the reference


def rows() -> list[dict[str, str]]:
    with shared(TABLE).open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def wanted_partition() -> list[list[str]]:
    expected = json.loads(shared(f"{TABLE}.expected.json").read_text())
    found: dict[int, list[str]] = {}
    for name, number in expected["groups"].items():
        found.setdefault(number, []).append(name)
    return sorted(map(sorted, found.values()))


def partition_of(groups: dict[str, int]) -> list[list[str]]:
    found: dict[int, list[str]] = {}
    for name, number in groups.items():
        found.setdefault(number, []).append(name)
    return sorted(map(sorted, found.values()))


@pytest.mark.parametrize("threshold", [0.008, 0.01, 0.015, 0.02])
def test_beam_shift_clusters_are_those_of_the_reference(threshold: float):
    for seed in range(5):
        table = rows()
        if seed:
            random.Random(seed).shuffle(table)
        groups: list[Group] = []
        found = {
            row["file"]: join(groups, key(row["acquisition_area_id"], shift_of(row)), threshold)
            for row in table
        }
        assert partition_of(found) == wanted_partition()


def shift_of(row: dict[str, str]) -> tuple[float, float]:
    return float(row["beam_shift_x"]), float(row["beam_shift_y"])


@pytest.mark.parametrize("seed", range(6))
def test_a_whole_session_is_grouped_like_the_reference_in_any_order_without_a_threshold(seed: int):
    table = rows()
    if seed:
        random.Random(seed).shuffle(table)
    config = MdcatchConfig(raw="/raw/s", inotify=False, backlog=True, close_when_idle=True)
    drive = Drive(config, tree := MemoryTree())
    for row in table:
        stem = f"{FOLDER}/{row['file'].removesuffix('.xml')}"
        stage = (
            f"<A>0</A><B>0</B><X>{row['stage_x_um']}e-6</X><Y>{row['stage_y_um']}e-6</Y><Z>0</Z>"
        )
        xml = image_xml(beam_shift=shift_of(row)).replace(
            b"</microscopeData>",
            f"<stage><Position>{stage}</Position></stage></microscopeData>".encode(),
        )
        tree.put(f"{stem}.xml", xml)
        tree.put(f"{stem}_fractions.tiff", MOVIE)
        drive.run(1.5)
    drive.run_until(lambda state: state.closed, 60.0)
    settled = drive.of(MovieSettled)
    found = {f"{body.exposure_name}.xml": body.optics_group for body in settled}
    assert partition_of(found) == wanted_partition()
    assert not drive.of(events.OpticsRegrouped), "nothing better can be offered"
    assert settled[-1].optics_provisional is True, "45 of 60 groups have one member"
    assert overview(drive.state, drive.now).grouping_provisional
    learned = drive.of(events.OpticsLearned)
    assert learned[0].threshold == 0.015 and 0.02 < learned[-1].threshold < 0.05


def test_groups_go_on_after_a_restart_and_after_three_idle_days():
    config = MdcatchConfig(raw="/raw/s", inotify=False)
    drive = Drive(config, tree := MemoryTree())

    def take(first: int, shifts: list[float]) -> None:
        for number, shift in enumerate(shifts, first):
            stem = f"{FOLDER}/FoilHole_{number}_Data_8_9_20261120_{100000 + number}"
            tree.put(f"{stem}.xml", image_xml(beam_shift=(shift, 0.0)))
            tree.put(f"{stem}_fractions.tiff", MOVIE)

    take(0, [0.0, 0.1, 0.2])
    drive.run(5.0)
    before = [body.optics_group for body in drive.of(MovieSettled)]
    assert before == [1, 2, 3]
    drive.now += 72 * 3600.0
    take(10, [0.2, 0.001, 0.101])
    drive.run(70.0)
    assert [body.optics_group for body in drive.of(MovieSettled)][3:] == [3, 1, 2]
    again = drive.restarted(config, tree)
    take(20, [0.1, 0.3, 0.2])
    again.run(70.0)
    assert [body.optics_group for body in again.of(MovieSettled)] == [2, 4, 3]
    assert again.state.count()[Status.SETTLED] == 9


def test_a_change_of_the_microscopes_settings_is_told_and_opens_groups():
    drive = Drive(MdcatchConfig(raw="/raw/s", inotify=False), tree := MemoryTree())
    for number, magnification in enumerate(("130000", "130000", "165000")):
        stem = f"{FOLDER}/FoilHole_1_Data_8_9_20261120_{100000 + number}"
        tree.put(f"{stem}.xml", image_xml(magnification=magnification))
        tree.put(f"{stem}_fractions.tiff", MOVIE)
        drive.run(5.0)
    assert [body.optics_group for body in drive.of(MovieSettled)] == [1, 1, 2]
    (changed,) = drive.of(events.SettingsChanged)
    assert changed.before == {"magnification": "130000.0"}
    assert changed.after == {"magnification": "165000.0"}


# ---- spacing and regrouping


def test_the_spacing_is_learned_from_one_stage_position_and_forgets_old_templates():
    spread = Spread()
    for hole in range(4):
        for area in range(3):
            shift = (0.1 * hole + 0.03 * area, 0.0)
            spread.add(Shot(0.0, 0.0, str(hole), str(area), shift))
            spread.add(Shot(0.01, 0.0, str(hole), str(area), shift))  # taken twice
    assert spread.spacing() == pytest.approx(0.1)
    assert spacing.threshold(spread, 0.5) == pytest.approx(0.1 / 3)
    for stage in range(1, 9):
        for hole in range(20):
            spread.add(Shot(10.0 * stage, 0.0, str(hole), "0", (0.4 * hole, 0.0)))
    assert spread.spacing() == pytest.approx(0.4)
    assert spacing.threshold(Spread(), 0.5) == 0.5


def test_areas_tell_the_spacing_where_every_hole_has_its_own_stage_position():
    spread = Spread()
    for hole in range(6):
        for area in range(3):
            spread.add(Shot(5.0 * hole, 0.0, str(hole), str(area), (0.03 * area, 0.0)))
    assert spread.spacing() == pytest.approx(0.03)


def clustered(per_group: int, groups: int, live: int, seed: int = 0) -> list[Member]:
    rng = random.Random(seed)
    return [
        Member(
            f"m{group}_{number}",
            1 + group // live,
            0,
            "8",
            (0.1 * group + rng.gauss(0, 0.003), rng.gauss(0, 0.003)),
        )
        for group in range(groups)
        for number in range(per_group)
    ]


def test_regrouping_splits_what_was_mixed_and_keeps_the_numbers_of_the_majority():
    members = clustered(6, 6, live=2)
    found = regroup(members, 0.03, 0.1, None)
    assert len(set(found.values())) == 6
    assert {found[f"m{n}_0"] for n in range(6)} == {1, 2, 3, 4, 5, 6}
    kept = [m.movie for m in members if found[m.movie] == m.group]
    assert len(kept) == 18, "each old number stays with one of the two that had it"


def test_regrouping_joins_what_was_split_and_offers_no_number_twice():
    members = [m._replace(group=n + 1) for n, m in enumerate(clustered(4, 3, live=1))]
    found = regroup(members, 0.03, 0.1, None, last=50)
    assert len(set(found.values())) == 3 and max(found.values()) <= 12
    by_count = regroup(members, None, None, 2)
    assert len(set(by_count.values())) == 2, "a person knows better"


def test_regrouping_without_shifts_or_in_stage_shift_sessions_goes_by_area():
    members = [Member(f"m{n}", 1, 0, str(n % 3), None) for n in range(9)]
    assert len(set(regroup(members, 0.03, 0.1, None).values())) == 3
    moved = clustered(3, 4, live=1)
    assert len(set(regroup(moved, None, None, None).values())) == 1


def test_a_better_grouping_is_offered_at_the_end_and_changes_nothing():
    config = MdcatchConfig(raw="/raw/s", inotify=False, backlog=True, close_when_idle=True)
    drive = Drive(config, tree := MemoryTree())
    number = 0
    # Holes are so near that the guess mixes two; later stage positions show that they are apart.
    for stage in range(4):
        for hole in range(8):
            stem = f"{FOLDER}/FoilHole_{100 * stage + hole}_Data_8_9_20261120_{100000 + number}"
            position = f"<A>0</A><B>0</B><X>{stage}e-5</X><Y>0</Y><Z>0</Z>"
            xml = image_xml(beam_shift=(0.012 * hole, 0.0)).replace(
                b"</microscopeData>",
                f"<stage><Position>{position}</Position></stage></microscopeData>".encode(),
            )
            tree.put(f"{stem}.xml", xml)
            tree.put(f"{stem}_fractions.tiff", MOVIE)
            number += 1
            drive.run(1.0)
    drive.run_until(lambda state: state.closed, 60.0)
    (offer,) = drive.of(events.OpticsRegrouped)
    assert (offer.part, offer.parts, offer.groups) == (1, 1, 8) and offer.differing > 0
    table = dict(zip(offer.movies, offer.optics_groups, strict=True))
    live = {body.movie: body.optics_group for body in drive.of(MovieSettled)}
    assert len(table) == 32 and table != live
    holes = {movie: int(movie.split("FoilHole_")[1].split("_")[0]) % 100 for movie in table}
    pairs = {(holes[movie], group) for movie, group in table.items()}
    assert len(pairs) == 8, "one group for each hole"
    assert {m: e.group for m, e in drive.state.exposures.items()} == live
