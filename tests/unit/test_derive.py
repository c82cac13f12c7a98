"""Derived quantities, and what is true when sources disagree: the rules of MDCatch, repaired."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdcatch import derive
from mdcatch.derive import EerPlan, Sampling, Suggestion
from mdcatch.parsers.fields import FIELDS
from mdcatch.parsers.record import Field, Record
from mdcatch.reconcile import Exposure, reconcile
from services.kit.sitetables import Camera, Microscope
from tests.shared import shared

METADATA = "data/metadata"
FALCON4I = "epu/epu3.8.1_falcon4i_eer/FoilHole_31933450_Data_31923928_31923930_20240901_060108.xml"
K3 = (
    "epu/epu3.4.0_k3/Supervisor_20230919_140141_84_bi23047-106_grid1/Images-Disc1/"
    "GridSquare_19493759/Data/FoilHole_19513699_Data_19508496_19508498_20230919_154056.xml"
)
K2 = "epu/epu2.6.1_falcon3_k2/FoilHole_22011316_Data_19957701_19957703_20200323_100235.xml"
FALCON3 = "epu/epu2.6.1_falcon3_k2/FoilHole_18890345_Data_18881924_18881926_20200320_090200.xml"
SUPER = "serialem/frames/frame_set_single.mdoc"
FALCON4_MRC = "serialem/frames/cryocat_TS_019/TS_019_0000_8.0.mrc.mdoc"
EER = "synthetic/falcon4i_20frames.eer"


def record(sample: str, **changes: Any) -> Record:
    """Return the record that a right parser gives of a sample; None takes a field away."""
    expected = json.loads(shared(f"{METADATA}/{sample}.expected.json").read_text())
    found = Record(format=expected.pop("format"), kind=expected.pop("kind"))
    source = {"epu_xml": "xml", "mdoc": "mdoc"}.get(found.format, "header")
    for key, value in {**expected, **changes}.items():
        if key in FIELDS and value is not None:
            found.put(key, tuple(value) if isinstance(value, list) else value, source)
    if found.get("dose_conflict"):
        found.flag("dose_conflict", "the listed doses do not add up")
    return found


def header(format: str = "tiff", **fields: Any) -> Record:
    found = Record(format=format, kind="movie")
    for key, value in fields.items():
        found.put(key, value, "header")
    return found


def metadata(**fields: Any) -> Record:
    found = Record(format="epu_xml", kind="exposure")
    for key, value in fields.items():
        found.put(key, value, "xml")
    return found


# Pixel, super-resolution, binning


@pytest.mark.parametrize(
    ("factor", "binning", "counting", "fine", "expected"),
    [
        (2, 1, True, None, (2, 1)),
        (2, 2, True, None, (2, 2)),
        (2, 1, False, None, (1, 1)),  # super-resolution exists only where electrons are counted
        (1, 1, True, None, (1, 1)),
        (None, 0.5, None, True, (2, 1)),  # SerialEM's way to say it
        (None, 1.0, None, True, (2, 1)),
        (None, 1.0, None, False, (1, 1)),
        (None, 2, None, None, (1, 2)),
    ],
)
def test_sampling(factor, binning, counting, fine, expected):
    assert derive.sampling(factor, binning, counting, fine) == expected


def test_sampling_is_unknown_where_nothing_is_stated():
    assert derive.sampling(None, None, True, None) is None
    assert derive.correction_binning(None) == 1


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((11520, 8184), 2.0),
        ((5760, 4092), 1.0),
        ((4092, 5760), 1.0),
        ((2880, 2046), 0.5),
        ((7420, 7676), 2.0),
        ((3710, 3838), 1.0),
        ((4096, 4096), 1.0),
        ((2048, 2048), 0.5),
        ((1024, 1024), None),
    ],
)
def test_the_size_tells_super_resolution(size, expected):
    assert derive.sampling_of_size(size) == expected


@pytest.mark.parametrize(
    ("sample", "pixel", "bin_factor", "processing"),
    [
        (K3, 0.527940712, 1, 0.527940712),  # factor 2, binned by 2: the movie is at the sensor's
        (K2, 1.18367011, 1, 1.18367011),
        (FALCON4I, 0.415015279, 1, 0.415015279),
        (SUPER, 1.2827, 2, 2.5654),
        (FALCON4_MRC, 1.971, 1, 1.971),
    ],
)
def test_pixel_and_binning_of_real_samples(sample, pixel, bin_factor, processing):
    found = reconcile(record(sample), None)
    assert found.pixel_size_A == pytest.approx(pixel)
    assert found.bin_factor == bin_factor
    assert found.processing_pixel_A == pytest.approx(processing)


def test_a_k3_movie_at_full_super_resolution_is_binned_by_two():
    found = reconcile(
        record(
            K3,
            binning=1,
            image_size_px=(5760, 4092),
            movie_size_px=(11520, 8184),
            image_pixel_size_A=0.83,
            pixel_size_A=0.415,
        ),
        header(n_frames=50, movie_size_px=(11520, 8184)),
    )
    assert (found.bin_factor, found.processing_pixel_A) == (2, 0.83)
    assert "size_mismatch" not in found.flags


def test_a_movie_of_another_size_than_stated_is_flagged_and_its_size_decides():
    found = reconcile(record(K3, binning=1), header(n_frames=50, movie_size_px=(2880, 2046)))
    assert "the file is 2880 x 2046 px, its metadata says 5760 x 4092" in found.flags.values()
    assert "sampling_conflict" in found.flags
    assert found.bin_factor == 1
    transposed = reconcile(record(K2), header(n_frames=40, movie_size_px=(3710, 3838)))
    assert not transposed.flags
    assert transposed.movie_size_px == (3710, 3838)


KRIOS = Microscope(
    id="3632",
    name="Krios",
    spherical_aberration_mm=2.7,
    voltage_kV=300.0,
    cameras=(Camera(model="K3", pixel_sizes_A={165000: 0.52}),),
)


def test_the_sites_calibration_wins_and_says_so():
    camera = KRIOS.camera("BioQuantum K3", "EF-CCD")
    found = reconcile(record(K3), None, microscope=KRIOS, camera=camera)
    assert (found.pixel_size_A, found.sources["pixel_size_A"]) == (0.52, "site")
    assert list(found.flags) == ["pixel_from_table"]
    assert (found.spherical_aberration_mm, found.sources["spherical_aberration_mm"]) == (
        2.7,
        "site",
    )
    by_hand = reconcile(
        record(K3), None, microscope=KRIOS, camera=camera, operator={"pixel_size_A": 0.53}
    )
    assert (by_hand.pixel_size_A, by_hand.sources["pixel_size_A"]) == (0.53, "operator")


def test_the_table_counts_pixels_of_the_sensor():
    camera = Camera(model="K3", pixel_sizes_A={33000: 2.6})
    found = reconcile(record(SUPER), None, camera=camera)
    assert found.pixel_size_A == pytest.approx(1.3)
    wrong = Camera(model="K3", pixel_sizes_A={33000: 1.3})
    found = reconcile(record(SUPER), None, camera=wrong)
    assert "0.65 A, the mdoc 1.283 A" in found.flags["pixel_conflict"]


def test_a_voltage_the_site_does_not_expect_is_flagged_and_the_metadata_is_believed():
    found = reconcile(record(K3, voltage_kV=200.0), None, microscope=KRIOS)
    assert found.voltage_kV == 200.0
    assert "the xml says 200 kV, the site 300 kV for Krios" in found.flags["voltage_conflict"]
    silent = reconcile(record(K3, voltage_kV=None), None, microscope=KRIOS)
    assert (silent.voltage_kV, silent.sources["voltage_kV"]) == (300.0, "site")


@pytest.mark.parametrize(("pixel", "kept"), [(0.85, 0.85), (14.1, 14.1), (3_527_777.0, None)])
def test_a_header_pixel_is_the_last_resort(pixel, kept):
    # 72 dpi is 3527777 A: a resolution tag, not a pixel.
    found = Record(format="tiff", kind="movie", fields={"pixel_size_A": Field(pixel, "header")})
    alone = reconcile(None, found)
    assert alone.pixel_size_A == kept
    assert ("pixel_from_header" in alone.flags) == (kept is not None)
    assert reconcile(metadata(pixel_size_A=1.1), found).pixel_size_A == 1.1


# Unknown stays unknown


def test_nothing_is_invented():
    found = reconcile(None, header(n_frames=8, movie_size_px=(128, 96)))
    for name in ("voltage_kV", "spherical_aberration_mm", "pixel_size_A", "processing_pixel_A"):
        assert getattr(found, name) is None, name
    for name in ("dose_e_A2", "dose_per_frame_e_A2", "eer"):
        assert getattr(found, name) is None, name
    assert found.suggest(180.0) is None
    assert (found.group_frames, found.bin_factor) == (1, 1)
    assert set(found.sources) == {"n_frames", "movie_size_px"}


def test_what_is_inherited_says_so():
    before = {"pixel_size_A": Field(0.83, "xml"), "voltage_kV": Field(300.0, "xml")}
    before["total_dose_e_per_A2"] = Field(40.0, "xml")
    found = reconcile(None, header(n_frames=40), inherited=before)
    assert (found.pixel_size_A, found.dose_per_frame_e_A2) == (0.83, 1.0)
    assert {found.sources[key] for key in ("pixel_size_A", "voltage_kV", "dose_e_A2")} == {
        "inherited"
    }


# Frames and doses


@pytest.mark.parametrize(
    ("sample", "frames", "dose"),
    [(K3, 50, 0.798462722), (K2, 40, 0.629485162), (SUPER, 12, 0.638243333)],
)
def test_dose_per_frame_of_real_samples(sample, frames, dose):
    found = reconcile(record(sample), None)
    assert found.n_frames == frames
    assert found.dose_per_frame_e_A2 == pytest.approx(dose, rel=1e-4)
    assert not found.flags


def test_the_files_count_of_frames_wins_and_a_difference_is_flagged():
    found = reconcile(record(K3), header(n_frames=48))
    assert (found.n_frames, found.sources["n_frames"]) == (48, "header")
    assert found.flags["frames_mismatch"] == "the file has 48 frames, its metadata says 50"
    assert found.dose_per_frame_e_A2 == pytest.approx(39.9231361 / 48)


def test_an_eer_estimate_may_be_five_percent_off():
    xml = record(FALCON4I)
    assert xml.get("n_frames_estimate") == 197  # and not 189: the product is not cut off
    alone = reconcile(xml, None)
    assert (alone.n_frames, alone.sources["n_frames"]) == (197, "frames x rate")
    assert alone.dose_per_frame_e_A2 == pytest.approx(0.14469422, rel=1e-6)
    assert (alone.group_frames, alone.eer.group if alone.eer else 0) == (1, 7)
    assert not reconcile(xml, header("eer", n_frames=196)).flags
    assert "frames_mismatch" in reconcile(xml, header("eer", n_frames=150)).flags


def test_tomographys_one_frame_of_eer_is_not_believed():
    mdoc = Record(format="mdoc", kind="frame_set")
    mdoc.put("n_frames", 1, "mdoc")
    assert not reconcile(mdoc, header("eer", n_frames=200)).flags


def test_few_frames_are_told_before_motion_correction_is():
    assert "motion correction needs 3" in reconcile(None, header(n_frames=2)).flags["few_frames"]


@pytest.mark.parametrize("dose", [0.0, None])
def test_a_dose_of_zero_is_unknown(dose):
    found = reconcile(record(SUPER, total_dose_e_per_A2=dose, dose_rate_e_per_px_s=None), None)
    assert found.dose_e_A2 is None
    assert found.dose_per_frame_e_A2 is None


def test_a_dose_from_the_rate_is_only_an_estimate():
    found = reconcile(record(SUPER, total_dose_e_per_A2=0.0, frame_dose_sum_e_per_A2=None), None)
    assert found.dose_e_A2 == pytest.approx(4.97858 * 1.07856 / 2.5654**2)
    assert found.sources["dose_e_A2"] == "computed"
    assert "the specimen took more" in found.flags["dose_estimated"]


def test_a_dose_per_pixel_is_not_one_per_square_angstrom():
    # EPU's TotalDose and an EER header count per pixel; 4.8 e/px at 0.83 A is 6.97 e/A2.
    eer = record(EER, total_dose_e_per_A2=None)
    found = reconcile(None, eer)
    assert found.dose_e_A2 == pytest.approx(6.96763, rel=1e-5)
    assert found.sources["dose_e_A2"] == "header"


def test_a_persons_dose_is_not_disputed():
    found = reconcile(record(K3), None, operator={"total_dose_e_per_A2": 20.0})
    assert (found.dose_e_A2, found.sources["dose_e_A2"], found.flags) == (20.0, "operator", {})


def test_what_a_file_says_of_the_dose_goes_before_what_is_inherited():
    before = {"total_dose_e_per_A2": Field(50.0, "xml")}
    found = reconcile(record(K3, total_dose_e_per_A2=None), None, inherited=before)
    assert found.dose_e_A2 == pytest.approx(39.9231361, rel=1e-6)
    assert found.sources["dose_e_A2"] == "xml"


def test_stated_doses_that_disagree_are_flagged():
    conflict = reconcile(record(K3, total_dose_e_per_A2=20.0), None)
    assert "39.92" in conflict.flags["dose_conflict"]
    assert "20 of the xml is used" in conflict.flags["dose_conflict"]
    told = reconcile(record(FALCON4_MRC), None)
    assert "dose_conflict" in told.flags


@pytest.mark.parametrize(
    ("counts", "fits"),
    [
        (0.5, True),  # of 0.557 electrons per pixel and frame
        (0.3, True),  # thick ice
        (0.557 / 4, True),
        (0.557 / 4.4, False),  # the dose is that of another pixel
        (0.557 * 4, False),
    ],
)
def test_the_dose_is_checked_against_the_counts(counts, fits):
    pixel_A = 0.835
    found = Exposure(pixel_size_A=pixel_A, dose_per_frame_e_A2=0.557 / pixel_A**2)
    found.check_counts(counts)
    assert ("dose_conflict" not in found.flags) == fits
    unknown = Exposure(pixel_size_A=pixel_A)
    unknown.check_counts(counts)
    assert not unknown.flags


def test_simulated_frames_agree_with_their_stated_dose():
    from algorithms.simulate.movie import render_movie
    from algorithms.simulate.recipe import load_recipe

    recipe = load_recipe("tiny")
    frames = render_movie(recipe, 1).frames
    for factor, fits in ((1.0, True), (1 / 5, False), (5.0, False)):
        found = Exposure(
            pixel_size_A=recipe.pixel_size_A,
            dose_per_frame_e_A2=recipe.dose_per_frame_e_A2 * factor,
        )
        found.check_counts(float(frames.mean()))
        assert ("dose_conflict" not in found.flags) == fits


def test_uneven_fractions_have_uneven_doses():
    # Falcon 3: 39 fractions of 68 frames and one of 82.
    pairs = derive.uneven_doses(40.0, [68] * 39 + [82])
    assert [count for _, count in pairs] == [39, 1]
    assert sum(dose * count for dose, count in pairs) == pytest.approx(40.0)
    xml = record(FALCON3)
    xml.put("raw_frames_per_fraction", [68] * 39 + [82], "xml")
    found = reconcile(xml, None)
    assert found.n_frames == 40
    assert sum(d * n for d, n in found.frame_doses) == pytest.approx(found.dose_e_A2)


def test_listed_frame_doses_need_to_agree_and_to_cover_the_file():
    pairs = ((0.5, 4), (1.0, 8))
    mdoc = Record(format="mdoc", kind="frame_set")
    mdoc.put("frame_doses", pairs, "mdoc")
    mdoc.put("total_dose_e_per_A2", 10.0, "mdoc")
    assert reconcile(mdoc, header(n_frames=12)).frame_doses == pairs
    assert reconcile(mdoc, header(n_frames=11)).frame_doses == ()
    mdoc.put("total_dose_e_per_A2", 20.0, "mdoc")
    assert reconcile(mdoc, header(n_frames=12)).frame_doses == ()


# Grouping


@pytest.mark.parametrize(
    ("dose", "group"), [(None, 1), (1.2, 1), (0.8, 1), (0.79, 2), (0.4, 2), (0.39, 3), (0.01, 3)]
)
def test_faint_frames_are_grouped(dose, group):
    assert derive.frame_groups(dose) == group


def test_eer_fractions_of_the_sample_carry_their_real_dose():
    found = reconcile(record(FALCON4I), header("eer", n_frames=196)).eer
    assert found is not None
    # floor(1 / 0.1454) = 6 frames and "1.0 e/A2" is what MDCatch says.
    assert (found.group, found.fractions, found.leftover) == (7, 28, 0)
    assert found.dose_per_fraction_e_A2 == pytest.approx(7 * 28.5047613 / 196)
    assert found.dose_used_e_A2 == pytest.approx(28.5047613)


@pytest.mark.parametrize(
    ("frames", "dose", "target", "expected"),
    [
        (1000, 40.0, 1.0, EerPlan(25, 40, 0, 1.0, 40.0)),
        (1000, 40.0, 0.5, EerPlan(12, 83, 4, 0.48, 39.84)),
        (20, 40.0, 1.0, EerPlan(1, 20, 0, 2.0, 40.0)),  # one frame is more than the target
        (149, 4.646416, 3.0, EerPlan(49, 3, 2, 49 * 4.646416 / 149, 147 * 4.646416 / 149)),
        (2, 1.0, 1.0, EerPlan(1, 2, 0, 0.5, 1.0)),
    ],
)
def test_eer_plan(frames, dose, target, expected):
    assert derive.eer_plan(frames, dose, target) == pytest.approx(expected)


@given(
    frames=st.integers(1, 5000),
    dose=st.floats(0.1, 200.0),
    target=st.floats(0.01, 20.0),
)
def test_eer_plans_lose_less_than_a_fraction_and_keep_three(frames, dose, target):
    plan = derive.eer_plan(frames, dose, target)
    assert plan is not None
    assert plan.group * plan.fractions + plan.leftover == frames
    assert 0 <= plan.leftover < plan.group
    assert plan.fractions >= min(3, frames)
    assert plan.dose_per_fraction_e_A2 == pytest.approx(plan.group * dose / frames)
    nearest = abs(plan.dose_per_fraction_e_A2 - target)
    if plan.group < frames // 3:
        assert nearest <= 0.5 * dose / frames + 1e-9 or plan.group == 1


# Boxes


def test_boxes_of_a_particle_and_of_a_filament():
    found = Exposure(processing_pixel_A=0.9).suggest(180.0)
    assert found is not None
    assert found == Suggestion(found.boxes)
    assert found.boxes[:3] == (198.0, 300, 96)
    tube = derive.boxes(100.0, 1.0, is_helix=True)
    assert tube.boxes.tube_A == 120.0
    assert tube.boxes.box_px == 180
    assert tube.distance_px == 18


@given(st.floats(20.0, 2000.0), st.floats(0.3, 6.0), st.booleans())
def test_boxes_are_even_and_whole_and_never_grow(diameter, pixel, is_helix):
    found = derive.boxes(diameter, pixel, is_helix=is_helix).boxes
    assert found.box_px % 2 == 0
    assert isinstance(found.scaled_px, int)
    assert 0 < found.scaled_px <= found.box_px
    assert found.box_px * pixel >= 1.5 * diameter - 1e-3


# The parsers' own records


def test_every_parsed_sample_can_be_reconciled():
    from mdcatch.parsers import parse

    folder = shared(METADATA)
    seen = 0
    for path in sorted(folder.rglob("*.expected.json")):
        sample = Path(str(path).removesuffix(".expected.json"))
        expected = json.loads(path.read_text())
        if expected.get("kind") not in ("exposure", "frame_set", "movie") or not sample.is_file():
            continue
        if expected.get("error") or "truncated" in sample.name:
            continue
        parsed = parse(sample.read_bytes(), str(sample))
        found = reconcile(parsed, None) if parsed.format != "eer" else reconcile(None, parsed)
        if expected.get("dose_per_frame_e_per_A2") and found.dose_per_frame_e_A2:
            assert math.isclose(
                found.dose_per_frame_e_A2, expected["dose_per_frame_e_per_A2"], rel_tol=1e-4
            ), sample
        assert found.pixel_size_A == pytest.approx(expected.get("pixel_size_A"), rel=1e-4), sample
        seen += 1
    assert seen > 40


def test_a_sampling_of_both_factors():
    assert Sampling(2, 2).per_sensor_pixel == 1.0
    assert derive.movie_pixel(1.0, Sampling(2, 1)) == 0.5
    assert derive.movie_pixel(1.0, Sampling(1, 2)) == 2.0
