"""Extraction against a loop that does one particle at a time, and against RELION."""

import math
import shutil
import subprocess

import numpy as np
import pytest
import torch

from algorithms.ctf import Ctf
from algorithms.extraction import BoxSizes, ExtractOptions, box_sizes, extract
from algorithms.formats import mrc, star
from algorithms.windows import gather

RNG = np.random.default_rng(4)
SIZES = {"box_px": 60, "scaled_px": 40, "bg_radius_px": 15}
HAVE_RELION = shutil.which("relion_preprocess") is not None


def micrograph(shape=(200, 260)):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = RNG.normal(40, 3, shape) + 0.02 * columns - 0.03 * rows
    return image.astype(np.float32)


def whole_pixels(count, shape=(200, 260)):
    """Coordinates with some on every border."""
    x, y = RNG.integers(0, shape[1], count), RNG.integers(0, shape[0], count)
    x[:4], y[:4] = (0, shape[1] - 1, 100, 120), (50, 60, 0, shape[0] - 1)
    return x.astype(float), y.astype(float)


def one_particle(image, x, y, options):
    """Section 5.2 written out, in double precision."""
    box, small = options.box_px, options.scaled_px
    ny, nx = image.shape
    window = np.empty((box, box))
    for row in range(box):
        for column in range(box):
            source_x = min(max(round(x) - box // 2 + column, 0), nx - 1)
            source_y = min(max(round(y) - box // 2 + row, 0), ny - 1)
            window[row, column] = image[source_y, source_x]
    spectrum = np.fft.rfft2(window) * (small / box) ** 2
    # Of the two Nyquist rows the positive one stays, as in RELION.
    rows = [*range(small // 2 + 1), *range(box - small // 2 + 1, box)]
    spectrum = spectrum[rows, : small // 2 + 1]
    orders = [*range(small // 2 + 1), *range(1 - small // 2, 0)]
    ky, kx = np.array(orders)[:, None], np.arange(small // 2 + 1)
    spectrum *= np.exp(2j * np.pi * (kx * (x - round(x)) + ky * (y - round(y))) / box)
    return np.fft.irfft2(spectrum, s=(small, small))


def normalised(window, options):
    side = options.scaled_px
    y, x = np.mgrid[:side, :side] - side // 2
    background = np.hypot(x, y) > options.bg_radius_px
    design = np.column_stack([x[background], y[background], np.ones(background.sum())])
    a, b, c = np.linalg.lstsq(design, window[background], rcond=None)[0]
    window = window - (a * x + b * y + c)
    return (window - window[background].mean()) / window[background].std(), background


@pytest.mark.parametrize(
    ("pixel", "diameter", "expected"),
    [(0.83, 180, (326, 96, 36)), (1.0, 180, (270, 96, 36)), (1.66, 300, (272, 128, 48))],
)
def test_box_rules_of_the_note(pixel, diameter, expected):
    box, scaled, bg_radius = expected
    sizes = box_sizes(pixel, diameter)
    assert sizes == BoxSizes(
        box_px=box, scaled_px=scaled, mask_diameter_A=1.1 * diameter, bg_radius_px=bg_radius
    )


def test_box_rules_everywhere():
    for pixel in np.linspace(0.4, 6, 57):
        for diameter in range(60, 800, 20):
            sizes = box_sizes(pixel, diameter)
            assert sizes.box_px % 2 == 0
            assert 1.5 * diameter - 1e-4 <= sizes.box_px * pixel < 1.5 * diameter + 2 * pixel
            assert sizes.scaled_px <= sizes.box_px
            fine = pixel * sizes.box_px / sizes.scaled_px < 3.75
            assert fine or sizes.scaled_px == sizes.box_px
    assert box_sizes(0.9, 180).box_px == 300  # rounding must not add two pixels
    for pixel, diameter in ((0, 100), (1, -1), (math.nan, 100)):
        with pytest.raises(ValueError, match="diameter"):
            box_sizes(pixel, diameter)


def test_equals_a_direct_loop():
    image = micrograph()
    x, y = whole_pixels(12)
    x[6:] += RNG.uniform(-0.49, 0.49, 6)
    y[6:] += RNG.uniform(-0.49, 0.49, 6)
    for scaled, normalise in ((40, True), (40, False), (60, False)):
        options = ExtractOptions(
            box_px=60, scaled_px=scaled, bg_radius_px=15, normalise=normalise, invert=False
        )
        found = extract(image, x, y, 1.1, options)
        for number, ours in enumerate(found.images.numpy()):
            expected = one_particle(image, x[number], y[number], options)
            if normalise:
                expected, _ = normalised(expected, options)
            tolerance = 1e-5 * max(1, np.abs(expected).max())
            np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance)


def test_background_and_contrast():
    x, y = whole_pixels(20)
    options = ExtractOptions(**SIZES)
    found = extract(micrograph(), x, y, 1.1, options)
    images = found.images.numpy().astype(np.float64)
    _, background = normalised(images[0], options)
    assert np.abs(images[:, background].mean(axis=1)).max() < 1e-4
    assert np.abs(images[:, background].std(axis=1) - 1).max() < 1e-4
    row, column = np.mgrid[:40, :40] - 20
    for axis in (row, column):  # no ramp is left
        slope = images[:, background] @ axis[background] / (axis[background] ** 2).sum()
        assert np.abs(slope).max() < 1e-4
    plain = extract(micrograph(), x, y, 1.1, ExtractOptions(**SIZES, invert=False))
    assert plain.images.shape == found.images.shape
    assert found.pixel_size_A == pytest.approx(1.1 * 60 / 40)
    assert found.statistics == pytest.approx(
        (images.min(), images.max(), images.mean(), images.std())
    )
    assert not found.flat.any()


def test_dark_particles_become_white():
    image = micrograph()
    image[90:110, 120:140] -= 20
    found = extract(image, [130], [100], 1.0, ExtractOptions(**SIZES))
    assert found.images[0, 18:22, 18:22].min() > 3


def test_subpixel_centring():
    y, x = np.mgrid[:200, :260]
    centres = np.array([[100.37, 80.0], [60.5, 120.81], [150.02, 99.63], [70.0, 70.0]])
    options = ExtractOptions(box_px=60, scaled_px=40, bg_radius_px=15, normalise=False)
    small_y, small_x = np.mgrid[:40, :40] - 20
    for centre_x, centre_y in centres:
        radius = np.hypot(x - centre_x, y - centre_y)
        image = (5 - np.clip(12 - radius, 0, 1)).astype(np.float32)
        particle = extract(image, [centre_x], [centre_y], 1.0, options)
        weight = particle.images[0].numpy() + 5
        centre = [(weight * axis).sum() / weight.sum() for axis in (small_x, small_y)]
        assert np.abs(centre).max() * 60 / 40 < 0.05
        assert particle.origin_x_A[0] == particle.origin_y_A[0] == 0


def test_rest_can_stay_in_the_origins():
    image = micrograph()
    options = ExtractOptions(**SIZES, subpixel=False)
    found = extract(image, [100.3, 99.8], [80.0, 120.4], 1.5, options)
    np.testing.assert_allclose(found.origin_x_A, [-0.45, 0.3])
    np.testing.assert_allclose(found.origin_y_A, [0, -0.6])
    whole = extract(image, [100, 100], [80, 120], 1.5, options)
    np.testing.assert_array_equal(found.images, whole.images)


def test_borders():
    image = micrograph()
    x, y = [10.0, 130.0, 250.0, 130.0, 130.0], [100.0, 100.0, 100.0, 20.0, 179.0]
    assert extract(image, x, y, 1.0, ExtractOptions(**SIZES)).kept.tolist() == [0, 1, 2, 3, 4]
    inner = extract(image, x, y, 1.0, ExtractOptions(**SIZES, min_edge_px=20))
    assert inner.kept.tolist() == [1, 3, 4]
    assert len(inner.images) == len(inner.origin_x_A) == len(inner.flat) == 3
    raw = ExtractOptions(box_px=60, scaled_px=60, bg_radius_px=20, normalise=False, invert=False)
    corner = extract(image, [0], [0], 1.0, raw).images[0].numpy()
    assert (corner[:30, :30] == image[0, 0]).all()
    np.testing.assert_array_equal(corner[30:, 30:], image[:30, :30])
    for outside in ((-31, 50), (291, 50), (100, -31), (100, 231)):
        with pytest.raises(ValueError, match="lies outside the 260 x 200 micrograph"):
            extract(image, [outside[0]], [outside[1]], 1.0, raw)


def test_dust_is_replaced_by_noise():
    image = RNG.normal(0, 1, (200, 260)).astype(np.float32)
    image[100, 130], image[105, 128] = 60, -60
    raw = {"box_px": 60, "scaled_px": 60, "bg_radius_px": 20, "invert": False}
    both = ExtractOptions(**raw, white_dust=5, black_dust=5)
    clean = extract(image, [130], [100], 1.0, both).images[0]
    assert clean.abs().max() < 6
    white = extract(image, [130], [100], 1.0, ExtractOptions(**raw, white_dust=5)).images[0]
    assert white.max() < 6
    assert white.min() < -40
    again = extract(image, [130], [100], 1.0, both).images[0]
    np.testing.assert_array_equal(clean, again)
    other = extract(image, [130], [100], 1.0, both, seed=1).images[0]
    assert (clean != other).sum() >= 1


def test_flat_and_empty():
    flat = extract(np.full((200, 260), 7, np.float32), [100], [100], 1.0, ExtractOptions(**SIZES))
    assert flat.flat.tolist() == [True]
    assert np.isfinite(flat.images.numpy()).all()
    none = extract(micrograph(), [], [], 1.0, ExtractOptions(**SIZES))
    assert none.images.shape == (0, 40, 40)
    assert none.statistics == (0, 0, 0, 0)


def test_nonsense_is_refused():
    for box, scaled, radius in (
        (61, 40, 15),
        (60, 41, 15),
        (40, 60, 15),
        (60, 40, 20),
        (60, 40, 0),
    ):
        with pytest.raises(ValueError, match="box"):
            ExtractOptions(box_px=box, scaled_px=scaled, bg_radius_px=radius)
    options = ExtractOptions(**SIZES)
    for x, y in (([1], [1, 2]), ([math.nan], [1])):
        with pytest.raises(ValueError, match="finite pairs"):
            extract(micrograph(), x, y, 1.0, options)
    with pytest.raises(ValueError, match="two-dimensional"):
        extract(np.zeros((2, 9, 9)), [1], [1], 1.0, options)


def test_many_particles_go_through_in_batches(monkeypatch):
    image = micrograph()
    x, y = whole_pixels(30)
    whole = extract(image, x, y, 1.0, ExtractOptions(**SIZES)).images
    monkeypatch.setattr("algorithms.extraction.BATCH_PIXELS", {"cpu": 7 * 60**2})
    again = extract(image, x, y, 1.0, ExtractOptions(**SIZES)).images
    np.testing.assert_allclose(again, whole, atol=1e-5)


@pytest.mark.relion
@pytest.mark.skipif(not HAVE_RELION, reason="RELION is not here")
def test_normalisation_is_relions(tmp_path):
    x, y = whole_pixels(20)
    raw = extract(micrograph(), x, y, 1.1, ExtractOptions(**SIZES, normalise=False, invert=False))
    mrc.write(tmp_path / "raw.mrcs", raw.images.numpy(), raw.pixel_size_A, is_stack=True)
    command = "relion_preprocess --operate_on raw.mrcs --operate_out out.mrcs --norm"
    command += " --bg_radius 15 --invert_contrast"
    subprocess.run(command.split(), cwd=tmp_path, capture_output=True, check=True)
    options = ExtractOptions(**SIZES | {"box_px": 40, "scaled_px": 40})
    for window, theirs in zip(raw.images.numpy(), mrc.read(tmp_path / "out.mrcs"), strict=True):
        ours = extract(window, [20], [20], 1.65, options).images[0]
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.relion
@pytest.mark.skipif(not HAVE_RELION, reason="RELION is not here")
def test_whole_extraction_is_relions(tmp_path):
    image = micrograph()
    x, y = whole_pixels(20)
    (tmp_path / "Mics").mkdir()
    mrc.write(tmp_path / "Mics" / "m.mrc", image, 1.1)
    optics = {"rlnOpticsGroupName": ["opticsGroup1"], "rlnOpticsGroup": [1]}
    optics |= {"rlnMicrographOriginalPixelSize": [1.1], "rlnMicrographPixelSize": [1.1]}
    optics |= {"rlnVoltage": [300.0], "rlnSphericalAberration": [2.7]}
    tables = {
        "optics": star.Table.of(optics | {"rlnAmplitudeContrast": [0.1]}),
        "micrographs": star.Table.of({"rlnMicrographName": ["Mics/m.mrc"], "rlnOpticsGroup": [1]}),
    }
    star.save(tmp_path / "mics.star", tables, version=30001)
    picks = star.Table.of({"rlnCoordinateX": x, "rlnCoordinateY": y})
    star.save(tmp_path / "Mics" / "m_autopick.star", {"": picks}, version=30001)
    command = "relion_preprocess --i mics.star --coord_dir ./ --coord_suffix _autopick.star"
    command += " --part_star P/p.star --part_dir P/ --extract --extract_size 60 --scale 40"
    command += " --norm --bg_radius 15 --invert_contrast"
    subprocess.run(command.split(), cwd=tmp_path, capture_output=True, check=True)
    theirs = mrc.read(tmp_path / "P" / "Mics" / "m.mrcs")
    ours = extract(image, x, y, 1.1, ExtractOptions(**SIZES))
    assert star.load(tmp_path / "P" / "p.star")["optics"].floats("rlnImagePixelSize")[
        0
    ] == pytest.approx(ours.pixel_size_A)
    assert relative_rms(ours.images.numpy(), theirs).max() < 1e-5


def relative_rms(ours, theirs):
    return np.linalg.norm(ours - theirs, axis=(1, 2)) / np.linalg.norm(theirs, axis=(1, 2))


CTF = {
    "voltage_kV": 300.0,
    "spherical_aberration_mm": 2.7,
    "amplitude_contrast": 0.1,
    "defocus_u_A": 12_000.0,
    "defocus_v_A": 10_000.0,
    "angle_deg": 30.0,
}


@pytest.mark.relion
@pytest.mark.skipif(not HAVE_RELION, reason="RELION is not here")
@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ("--premultiply_ctf", {}),
        ("--phase_flip", {"phase_flip": True}),
        ("--premultiply_ctf --ctf_intact_first_peak", {"intact_first_peak": True}),
        ("--premultiply_ctf --premultiply_extract_size 160", {"ctf_box_px": 160}),
        ("--no_ramp", {"ctf": None, "ramp": False}),
    ],
)
def test_options_are_relions(tmp_path, flags, options):
    image = micrograph()
    # Away from the border: beyond it RELION 3.1 has other pixels where it applies the CTF.
    x, y = np.array([80.0, 130.0, 180.0]), np.array([90.0, 100.0, 110.0])
    mrc.write(tmp_path / "m.mrc", image, 1.1)
    optics = {"rlnOpticsGroupName": ["a"], "rlnOpticsGroup": [1], "rlnVoltage": [300.0]}
    optics |= {"rlnMicrographPixelSize": [1.1], "rlnMicrographOriginalPixelSize": [1.1]}
    optics |= {"rlnSphericalAberration": [2.7], "rlnAmplitudeContrast": [0.1]}
    row = {"rlnMicrographName": ["m.mrc"], "rlnOpticsGroup": [1], "rlnPhaseShift": [0.0]}
    row |= {"rlnDefocusU": [12_000.0], "rlnDefocusV": [10_000.0], "rlnDefocusAngle": [30.0]}
    tables = {"optics": star.Table.of(optics), "micrographs": star.Table.of(row)}
    star.save(tmp_path / "mics.star", tables, version=30001)
    picks = star.Table.of({"rlnCoordinateX": x, "rlnCoordinateY": y})
    star.save(tmp_path / "m_autopick.star", {"": picks}, version=30001)
    command = "relion_preprocess --i mics.star --coord_dir ./ --coord_suffix _autopick.star"
    command += " --part_star P/p.star --part_dir P/ --extract --extract_size 120 --scale 80"
    command += f" --norm --bg_radius 25 --invert_contrast {flags}"
    subprocess.run(command.split(), cwd=tmp_path, capture_output=True, check=True)
    sizes = {"box_px": 120, "scaled_px": 80, "bg_radius_px": 25, "ctf": Ctf(**CTF)}
    ours = extract(image, x, y, 1.1, ExtractOptions(**sizes | options)).images.numpy()
    assert relative_rms(ours, mrc.read(tmp_path / "P" / "m.mrcs")).max() < 1e-5


def test_the_number_of_threads_changes_nothing(monkeypatch):
    monkeypatch.setattr("algorithms.extraction.BATCH_PIXELS", {"cpu": 3 * 60**2})
    image, before = micrograph(), torch.get_num_threads()
    x, y = np.random.default_rng(1).uniform(20, 180, (2, 40))
    options = ExtractOptions(**SIZES, white_dust=2.5)
    one, two, three = (extract(image, x, y, 1.0, options, threads=n, seed=5) for n in (1, 2, 3))
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.images, three.images)
    assert one.statistics == two.statistics == three.statistics
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("kind", ["float16", "int16", "uint8", "float64"])
def test_micrographs_of_any_type(kind):
    image = np.clip(np.rint(micrograph()), 0, 255)
    x, y = whole_pixels(12)
    options = ExtractOptions(**SIZES)
    reference = extract(image.astype(np.float32), x, y, 1.0, options).images
    found = extract(image.astype(kind), x, y, 1.0, options).images
    np.testing.assert_array_equal(found, reference)
    tensor = extract(torch.from_numpy(image.astype(np.float32)), x, y, 1.0, options).images
    np.testing.assert_array_equal(tensor, reference)


def test_a_device_gathers_as_the_processor_does():
    image = micrograph()
    x, y = (values.astype(np.int64) for values in whole_pixels(12))
    cut = gather(image, x, y, 60, 40.0)
    np.testing.assert_allclose(gather(torch.from_numpy(image), x, y, 60, 40.0), cut, atol=1e-5)


def test_large_levels_and_ramps_leave_no_trace():
    rows, columns = np.mgrid[:200, :260]
    noise = RNG.normal(0, 1, (200, 260))
    image = (20_000 + 5 * rows - 3 * columns + noise).astype(np.float32)
    x, y = [60.3, 130.0, 200.2], [100.0, 90.4, 110.0]
    found = extract(image, x, y, 1.0, ExtractOptions(**SIZES)).images.numpy().astype(np.float64)
    axis = np.arange(40) - 20
    outside = np.hypot(axis[:, None], axis[None, :]) > 15
    assert np.abs(found[:, outside].mean(1)).max() < 1e-4
    assert np.abs(found[:, outside].std(1) - 1).max() < 1e-4


def test_a_smaller_window_is_the_middle_of_the_scaled_image():
    image = micrograph()
    x, y = whole_pixels(6)
    plain = {"normalise": False, "invert": False}
    whole = extract(image, x, y, 1.0, ExtractOptions(**SIZES, **plain))
    part = extract(image, x, y, 1.0, ExtractOptions(**SIZES, **plain, window_px=30))
    np.testing.assert_array_equal(part.images, whole.images[:, 5:35, 5:35])
    assert part.pixel_size_A == whole.pixel_size_A
    small = ExtractOptions(**SIZES | {"bg_radius_px": 12}, window_px=30)
    images = extract(image, x, y, 1.0, small).images.numpy()
    axis = np.arange(30) - 15
    outside = np.hypot(axis[:, None], axis[None, :]) > 12
    assert np.abs(images[:, outside].mean(1)).max() < 1e-4
