"""Which micrographs are selected: limits, labels, statistics of grid squares."""

import math

import pytest

from services.kit.errors import Misuse
from services.kit.events import MicrographCtf
from services.kit.options import Options
from services.proc import selecting


def fitted(**changes):
    values = {
        "movie": "a/GridSquare_7/Data/m",
        "key": "k",
        "token": 1,
        "micrograph": "MotionCorr/job002/Movies/a/m.mrc",
        "micrograph_nodw": None,
        "ctf_image": "x.ctf:mrc",
        "metadata_star": "x.star",
        "optics_group": 1,
        "width_px": 10,
        "height_px": 10,
        "pixel_size_A": 1.0,
        "voltage_kV": 300.0,
        "spherical_aberration_mm": 2.7,
        "amplitude_contrast": 0.1,
        "original_pixel_size_A": 1.0,
        "acquired_at": "",
        "defocus_u_A": 12_000.0,
        "defocus_v_A": 11_500.0,
        "defocus_angle_deg": 10.0,
        "phase_shift_deg": 0.0,
        "figure_of_merit": 0.1,
        "max_resolution_A": 4.0,
        "reliable": True,
        "took_s": 1.0,
    }
    return MicrographCtf(**(values | changes))


def options(**values):
    return Options("Schemes/proc/select_mics", {"select_maxval": "6", **values})


@pytest.mark.parametrize(
    ("changes", "given", "words"),
    [
        ({}, {}, None),
        ({"max_resolution_A": 6.0}, {}, None),  # bounds are included
        ({"max_resolution_A": 6.01}, {}, "rlnCtfMaxResolution is 6.01, outside"),
        ({}, {"other_args": "--limit rlnCtfAstigmatism:0:500"}, None),
        ({}, {"other_args": "--limit rlnCtfAstigmatism:0:499"}, "rlnCtfAstigmatism is 500"),
        (
            {"defocus_u_A": 45_000.0},
            {"other_args": "--limit rlnDefocusU:3000:40000 --limit rlnCtfAstigmatism:0:1e9"},
            "rlnDefocusU is 4.5e+04, outside 3000 to 40000",
        ),
        ({}, {"other_args": "--limit rlnAccumMotionTotal:0:5"}, None),  # not known: no limit
        (
            {"motion_total_px": 6.0},
            {"other_args": "--limit rlnAccumMotionTotal:0:5"},
            "rlnAccumMotionTotal is 6, outside 0 to 5 (--limit of select_mics)",
        ),
        (
            {"ice_peak_sigma": 9.0},
            {"other_args": "--limit rlnColdstreamIceRing:-99:6"},
            "rlnColdstreamIceRing is 9",
        ),
        (
            {"iciness": 1.7},
            {"other_args": "--limit rlnColdstreamIciness:0:1.5"},
            "rlnColdstreamIciness is 1.7",
        ),
        (
            {"mean_intensity": 0.5},
            {"other_args": "--limit rlnColdstreamMeanIntensity:0.6:9"},
            "MeanIntensity is 0.5",
        ),
        (
            {"defocus_v_A": 9_000.0},
            {"other_args": "--limit rlnColdstreamAstigmatismShare:0:0.1"},
            "rlnColdstreamAstigmatismShare is 0.2857",
        ),
        ({"reliable": False}, {"other_args": "--limit rlnColdstreamCtfReliable:1:1"}, "Reliable"),
    ],
)
def test_limits(changes, given, words):
    reason = selecting.why_not(fitted(**changes), options(**given))
    assert (reason is None) == (words is None), reason
    assert words is None or words in str(reason)


@pytest.mark.parametrize(
    "given",
    [
        {"select_label": "rlnBeauty"},
        {"other_args": "--limit rlnBeauty:0:1"},
        {"other_args": "--limit rlnDefocusU:0"},
        {"other_args": "--limit rlnDefocusU:low:1"},
        {"other_args": "--limit"},
        {"other_args": "--less rlnDefocusU:0:1"},
    ],
)
def test_limits_that_are_none_are_refused(given):
    with pytest.raises(Misuse, match="Schemes/proc/select_mics"):
        selecting.limits_of(options(**given))


def test_robust_deviations_need_enough_micrographs():
    assert selecting.robust_z([1.0, 100.0]) == [0.0, 0.0]
    values = [float(i % 5) for i in range(60)] + [100.0]
    found = selecting.robust_z(values)
    assert found[-1] > 30
    assert max(map(abs, found[:-1])) < 2


def test_the_most_unusual_value_of_a_micrograph():
    usual = [{"a": float(i % 5), "b": float(i % 7)} for i in range(60)]
    found = selecting.farthest([*usual, {"a": 2.0, "b": 100.0}, {"a": 2.0}])
    assert found[60] > 20
    assert found[61] < 1
    assert max(found[:60]) < 3
    assert selecting.farthest([{"a": 1.0}, {"a": 9.0}]) == [0.0, 0.0]


def test_statistics_of_grid_squares():
    movies = ["s/GridSquare_1/Data/a", "s/GridSquare_1/Data/b", "s/GridSquare_2/Data/c", "d"]
    names = [selecting.square_of(movie) for movie in movies]
    assert names == ["GridSquare_1", "GridSquare_1", "GridSquare_2", "."]
    found = selecting.squares(zip(names, ({"v": 1.0}, {"v": 3.0, "w": 5.0}, {}, {}), strict=True))
    assert found["GridSquare_1"] == {"micrographs": 2.0, "v": 2.0, "w": 5.0}
    assert found["GridSquare_2"] == {"micrographs": 1.0}


def test_thick_ice_is_told_by_its_intensity():
    intensities = [10.0] * 50 + [10.0 / math.e]
    found = selecting.relative_thickness_A(intensities)
    assert found[:50] == [0.0] * 50
    assert found[50] == pytest.approx(selecting.FREE_PATH_A)
    assert selecting.relative_thickness_A(intensities[:10]) == [0.0] * 10
    assert selecting.relative_thickness_A([*intensities, 0.0]) == [0.0] * 52
