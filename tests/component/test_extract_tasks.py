"""The tasks of picking and extraction by themselves: bad input, tilted specimens, any code path."""

import math

import msgspec
import numpy as np
import pytest
import torch

from algorithms import background, windows
from algorithms.background import Background
from algorithms.ctffit.types import Tilt
from algorithms.formats import mrc, star
from algorithms.jit import compiled
from services.kit.errors import Code, Misuse, Refused
from services.kit.options import Options
from services.proc import plan
from services.proc.requests import ExtractRequest, PickRequest
from services.proc.tasks import autopick, extract

PIXEL_A, SHAPE = 1.5, (300, 400)
LABELS = ("rlnCoordinateX", "rlnCoordinateY")


@pytest.fixture
def project(tmp_path):
    rng = np.random.default_rng(3)
    mrc.write(tmp_path / "m.mrc", rng.normal(20, 3, SHAPE).astype(np.float32), PIXEL_A)
    write_picks(tmp_path / "p.star", [30.5, 200.0, 370.25], [40.0, 150.0, 260.5])
    return tmp_path


def write_picks(path, x, y, labels=LABELS):
    star.save(path, {"": star.Table.of(dict(zip(labels, (x, y), strict=True)))})


def request(**changes):
    usual = ExtractRequest(
        movie="m",
        micrograph="m.mrc",
        coordinates="p.star",
        root="Extract/m",
        optics_group=1,
        pixel_size_A=PIXEL_A,
        box_px=64,
        scaled_px=48,
        background_radius_px=18,
        invert=True,
        normalise=True,
        white_dust_sigma=-1.0,
        black_dust_sigma=-1.0,
        float16=True,
        minimum_figure_of_merit=None,
        defocus_u_A=12_000.0,
        defocus_v_A=11_500.0,
        defocus_angle_deg=10.0,
        phase_shift_deg=0.0,
        ctf_max_resolution_A=4.0,
        ctf_figure_of_merit=0.1,
    )
    return msgspec.structs.replace(usual, **changes)


def extracted(project, **changes):
    extract(msgspec.msgpack.encode(request(**changes)), project, project)
    return star.load(project / "e.star")["images"]


def refused(project, **changes):
    with pytest.raises(Refused) as info:
        extracted(project, **changes)
    return info.value.code, str(info.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\ndata_\n\nloop_\n_rlnCoordinateX #1\n1\n\n", "no column rlnCoordinateY"),
        ("\ndata_\n\nloop_\n_rlnX #1\n_rlnY #2\n1 2\n\n", "no column rlnCoordinateX"),
        ("\ndata_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1 b\n\n", "'b'"),
        ("no star file\n", "before the first data_"),
        ("\ndata_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1\n2 3\n\n", "convert"),
    ],
)
def test_coordinate_files_with_wrong_columns_are_named(project, text, words):
    (project / "p.star").write_text(text)
    code, said = refused(project)
    assert code == Code.READ_ERROR
    assert "p.star" in said
    assert words in said


@pytest.mark.parametrize("text", ["1 2\n3\n", "1 a\n", "x y\n1 2\n"])
def test_so_are_lines_that_are_no_coordinates(project, text):
    for name in ("p.txt", "p.box"):
        (project / name).write_text(text)
        code, said = refused(project, coordinates=name)
        assert code == Code.READ_ERROR
        assert name in said


@pytest.mark.parametrize("value", [1e300, -1e9, 500.0, math.nan, math.inf])
def test_absurd_coordinates_are_refused(project, value):
    write_picks(project / "p.star", [30.0, value], [40.0, 50.0])
    code, said = refused(project)
    assert code == Code.OUT_OF_RANGE
    assert "p.star" in said
    assert "outside the 400 x 300 micrograph" in said or "finite pairs" in said


def test_what_is_missing_is_named(project):
    assert refused(project, micrograph="none.mrc") == (
        Code.READ_ERROR,
        "READ_ERROR: none.mrc does not exist: make it anew",
    )
    code, said = refused(project, coordinates="none.star")
    assert code == Code.READ_ERROR
    assert "none.star does not exist" in said


def picked(project):
    ask = PickRequest(
        movie="m",
        micrograph="m.mrc",
        coordinates="c.star",
        pixel_size_A=PIXEL_A,
        diameter_min_A=60.0,
        diameter_max_A=80.0,
        max_resolution_A=20.0,
        adjust_threshold=0.0,
        upper_threshold=999.0,
        invert=False,
    )
    return autopick(msgspec.msgpack.encode(ask), project, project)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_images_with_values_that_are_no_numbers_are_refused(project, value):
    image = mrc.read(project / "m.mrc")
    image[150, 200] = value
    # Written by hand: our own writer does not write such a file.
    content = (project / "m.mrc").read_bytes()[: mrc.HEADER_BYTES] + image.tobytes()
    (project / "m.mrc").write_bytes(content)
    for does in (picked, extracted):
        with pytest.raises(Refused) as info:
            does(project)
        assert info.value.code == Code.NOT_FINITE
        assert "m.mrc" in str(info.value)


def test_a_micrograph_cut_short_is_refused(project):
    content = (project / "m.mrc").read_bytes()
    (project / "m.mrc").write_bytes(content[:-100])
    for does in (picked, extracted):
        with pytest.raises(Refused) as info:
            does(project)
        assert info.value.code == Code.TRUNCATED


def test_particles_of_a_tilted_specimen_have_the_defocus_of_their_place(project):
    flat = extracted(project)
    assert set(flat.strings("rlnDefocusU")) == {"12000.000000"}
    tilt = Tilt(gradient_x=0.3, gradient_y=-0.2, width_A=600, height_A=450, log_odds=50.0)
    table = extracted(project, tilt_angle_deg=tilt.angle_deg, tilt_axis_deg=tilt.axis_deg)
    x, y = (table.floats(label) for label in LABELS)
    across, up = (x - 199.5) * PIXEL_A, (y - 149.5) * PIXEL_A
    for label, middle in (("rlnDefocusU", 12_000), ("rlnDefocusV", 11_500)):
        np.testing.assert_allclose(table.floats(label), middle + 0.3 * across - 0.2 * up, atol=1e-3)
    assert np.ptp(table.floats("rlnDefocusU")) > 80
    others = set(table.columns) - {"rlnDefocusU", "rlnDefocusV"}
    assert all(table.columns[label] == flat.columns[label] for label in others)


def test_a_tilt_has_to_be_proved():
    class Fit:
        tilt_angle_deg: float | None = 30.00004
        tilt_axis_deg: float | None = 40.0
        tilt_log_odds: float | None = 25.0

    fit = Fit()
    assert plan._tilt(fit) == {"tilt_angle_deg": 30.0, "tilt_axis_deg": 40.0}
    for odds in (None, 0.0, 9.9):
        fit.tilt_log_odds = odds
        assert plan._tilt(fit) == {}
    fit.tilt_log_odds, fit.tilt_angle_deg = 25.0, None
    assert plan._tilt(fit) == {}


BOX = plan.Box(64, 48, 18)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", plan.Extra()),
        ("--phase_flip --no_ramp", plan.Extra(correction="flip", ramp=False)),
        ("--premultiply_ctf --premultiply_extract_size 80", plan.Extra("multiply", False, 80)),
        ("--phase_flip --ctf_intact_first_peak", plan.Extra("flip", True)),
        ("--min_edge 75.5", plan.Extra(min_edge_A=75.5)),
    ],
)
def test_additional_arguments_of_the_job(words, expected):
    assert plan.extra_of(Options("j", {"other_args": words}), BOX) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--helix", "holds '--helix'; the native executor takes: --premultiply_ctf"),
        ("--min_edge", "--min_edge needs a number"),
        ("--min_edge far", "--min_edge needs a number"),
        ("--min_edge -5", "must not be below 0"),
        ("--phase_flip --premultiply_ctf", "one of --premultiply_ctf and --phase_flip"),
        ("--ctf_intact_first_peak", "neither --premultiply_ctf nor"),
        ("--phase_flip --premultiply_extract_size 62", "is 62: it must be even, and not below"),
    ],
)
def test_wrong_additional_arguments_are_named(words, said):
    with pytest.raises(Misuse, match=said):
        plan.extra_of(Options("extract", {"other_args": words}), BOX)


def test_particles_at_the_edge_are_left_out_where_that_is_asked_for(project):
    assert extracted(project).floats("rlnCoordinateX").tolist() == [30.5, 200, 370.25]
    # 30.5 px are 45.75 A, and so far from the left border; the last is 28.75 px from the right.
    for edge_A, kept in ((40.0, [30.5, 200, 370.25]), (45.0, [30.5, 200]), (50.0, [200])):
        table = extracted(project, min_edge_A=edge_A)
        assert table.floats("rlnCoordinateX").tolist() == kept
        assert mrc.read(project / "s.mrcs").shape == (len(kept), 48, 48)
        assert [name[:8] for name in table.strings("rlnImageName")] == [
            f"{i + 1:08d}" for i in range(len(kept))
        ]


@pytest.mark.skipif(compiled(windows.extractloops.cut) is None, reason="Numba is not here")
def test_machine_code_does_what_products_of_matrices_do(monkeypatch):
    rng = np.random.default_rng(5)
    image = rng.normal(4, 2, SHAPE).astype(np.float32)
    x, y = rng.integers(-20, 420, 30), rng.integers(-20, 320, 30)
    images = torch.from_numpy(rng.normal(3, 2, (9, 48, 48)).astype(np.float32))
    images[4] = 7.0
    found = []
    for code in (compiled, lambda function: None):
        monkeypatch.setattr(windows, "compiled", code)
        monkeypatch.setattr(background, "compiled", code)
        cut = windows.gather(image, x, y, 64, 4.0).numpy()
        parts = [
            Background(48, 18, ramp, "cpu").normalise(images.clone(), -1.0)
            for ramp in (True, False)
        ]
        found.append((cut, parts))
    (cut, parts), (other_cut, others) = found
    np.testing.assert_array_equal(cut, other_cut)
    for one, other in zip(parts, others, strict=True):
        np.testing.assert_allclose(one.images, other.images, atol=2e-5)
        assert one.flat.tolist() == other.flat.tolist() == [i == 4 for i in range(9)]
        np.testing.assert_allclose(one.moments, other.moments, rtol=1e-5, atol=0.05)
