"""The LoG picker against known truth, and against RELION's own picker on the same image.

Truth: flat dark discs of 160 A in white noise, SNR 0.05 (contrast squared over noise variance).
"""

import shutil
import subprocess

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from algorithms.formats import mrc, star
from algorithms.picking.log import LogOptions, Picks, diameters, pick_log
from tests.experts import FOLDER, experts
from tests.experts import PIXEL_A as EXPERTS_PIXEL_A
from tests.shared import shared

PIXEL_A, DIAMETER_A, SNR = 2.0, 160.0, 0.05
OPTIONS = LogOptions(diameter_min_A=150, diameter_max_A=180)


def discs(shape, count, seed, snr=SNR, pixel_A=PIXEL_A):
    """Micrograph `[ny, nx]` and the true centres `[count, 2]` (x, y) in px, none overlapping."""
    rng = np.random.default_rng(seed)
    radius = DIAMETER_A / 2 / pixel_A
    margin = radius * 1.2
    centres = np.empty((0, 2))
    while len(centres) < count:
        point = rng.uniform(margin, (shape[1] - 1 - margin, shape[0] - 1 - margin))
        if not len(centres) or np.hypot(*(centres - point).T).min() > 2 * radius:
            centres = np.vstack([centres, point])
    image = rng.normal(40, 1, shape)
    for x, y in centres:
        top, left = int(y - margin), int(x - margin)
        rows, columns = np.mgrid[top : int(y + margin) + 1, left : int(x + margin) + 1]
        inside = np.clip(radius - np.hypot(columns - x, rows - y) + 0.5, 0, 1)
        image[rows, columns] -= np.sqrt(snr) * inside
    return image.astype(np.float32), centres


def distances_A(points, others):
    """Distance of each point to the nearest of the others."""
    return cKDTree(others).query(points)[0] * PIXEL_A


def points(picks: Picks):
    return np.column_stack([picks.x_px, picks.y_px])


def test_diameters_of_the_reference():
    assert diameters(150, 180) == [30, 38, 50, 75, 150, 165, 180, 360, 540, 720, 900]


@pytest.mark.parametrize("seed", [1, 2])
def test_finds_discs(seed):
    image, truth = discs((4096, 4096), 100, seed, pixel_A=1.0)
    picks = pick_log(image, 1.0, OPTIONS, seed=0)
    error = cKDTree(points(picks)).query(truth)[0]
    found = error < DIAMETER_A / 4
    assert found.mean() >= 0.95
    assert (cKDTree(truth).query(points(picks))[0] < DIAMETER_A / 4).mean() >= 0.9
    assert np.sqrt((error[found] ** 2).mean()) < 10
    assert (np.diff(picks.fom) <= 0).all()
    assert set(picks.diameter_A) <= {150, 165, 180}


@pytest.mark.parametrize("shape", [(300, 421), (420, 300), (420, 420)])
def test_coordinates_have_their_origin_at_the_centre_of_the_first_pixel(shape):
    offsets = []
    for seed in range(12):
        image, truth = discs(shape, 1, seed, snr=4)
        picks = pick_log(image, PIXEL_A, OPTIONS, seed=0)
        offsets.append(points(picks)[0] - truth[0])
    # The working pixel is 10 A: the parabola brings the error far below one of them.
    assert np.abs(offsets).max() * PIXEL_A < 3
    assert np.abs(np.mean(offsets, axis=0)).max() * PIXEL_A < 1


def test_white_particles_need_invert():
    image, truth = discs((720, 720), 20, 7)
    options = LogOptions(diameter_min_A=150, diameter_max_A=180, invert=True)
    picks = pick_log(-image, PIXEL_A, options, seed=0)
    np.testing.assert_allclose(
        points(picks), points(pick_log(image, PIXEL_A, OPTIONS, seed=0)), atol=1e-3
    )
    assert (distances_A(truth, points(picks)) < 40).mean() >= 0.95


def test_thresholds_border_and_neighbours():
    image, _ = discs((1000, 1000), 40, 11)

    def pick(**changes):
        return pick_log(
            image,
            PIXEL_A,
            LogOptions(diameter_min_A=150, diameter_max_A=180, **changes),
            seed=0,
        )

    normal, strict, lenient = pick(), pick(adjust_threshold=1.0), pick(adjust_threshold=-0.5)
    assert len(strict) < len(normal) <= len(lenient)
    assert strict.fom.min() > normal.fom.min()
    capped = pick(upper_threshold=2.0)
    assert 0 < len(capped) < len(normal)
    assert capped.fom.max() < normal.fom.max()
    tree = cKDTree(points(normal))
    assert tree.query(points(normal), k=2)[0][:, 1].min() * PIXEL_A > 140
    assert len(pick(neighbour=1.5)) < len(normal)
    margin_px = 0.5 * 150 / PIXEL_A
    for values in (normal.x_px, normal.y_px):
        assert values.min() > margin_px - 10
        assert values.max() < 1000 - margin_px + 10
    assert pick(skip_side_px=200).x_px.min() > 190


def test_contamination_is_rejected_by_the_noise_around_it():
    image, truth = discs((1000, 1000), 30, 13)
    rng = np.random.default_rng(13)
    dirt = np.s_[300:700, 300:700]
    coarse = np.kron(rng.normal(0, 2, (20, 20)), np.ones((20, 20)))
    image[dirt] += coarse.astype(np.float32)
    clean = (np.abs(truth - 499.5) > 290).any(axis=1)

    def inside(picks):
        return (np.abs(points(picks) - 499.5) < 150).all(axis=1).sum()

    kept = pick_log(image, PIXEL_A, OPTIONS, seed=0)
    off = LogOptions(diameter_min_A=150, diameter_max_A=180, max_stddev_noise=None)
    everything = pick_log(image, PIXEL_A, off, seed=0)
    assert inside(everything) > 3
    assert inside(kept) == 0
    recall = [
        (distances_A(truth[clean], points(picks)) < 40).mean() for picks in (kept, everything)
    ]
    assert recall[0] == recall[1]


def test_hot_pixels_are_taken_out_first():
    image, _ = discs((720, 720), 20, 17)
    hot = image.copy()
    hot[tuple(np.random.default_rng(0).integers(0, 720, (2, 5)))] = 200
    found = points(pick_log(hot, PIXEL_A, OPTIONS, seed=0))
    assert (distances_A(points(pick_log(image, PIXEL_A, OPTIONS, seed=0)), found) < 10).mean() > 0.9


def test_same_seed_same_picks():
    image, _ = discs((500, 640), 12, 19)
    one, two = (pick_log(torch.from_numpy(image), PIXEL_A, OPTIONS, seed=4) for _ in range(2))
    np.testing.assert_array_equal(points(one), points(two))
    np.testing.assert_array_equal(one.fom, two.fom)


def test_nothing_to_pick_and_nonsense():
    assert len(pick_log(np.full((300, 300), 7.0), PIXEL_A, OPTIONS, seed=0)) == 0
    assert len(pick_log(np.eye(20), PIXEL_A, OPTIONS, seed=0)) == 0  # smaller than a particle
    for image in (np.full((30, 30), np.nan), np.zeros((2, 30, 30))):
        with pytest.raises(ValueError, match="two-dimensional image of finite values"):
            pick_log(image, PIXEL_A, OPTIONS, seed=0)
    for low, high in ((0, 100), (200, 100), (100, np.inf)):
        with pytest.raises(ValueError, match="diameters from"):
            LogOptions(diameter_min_A=low, diameter_max_A=high)


def relions(folder, image, pixel_A, low, high, flags):
    """Pick with RELION; return coordinates `[n, 2]` and figures of merit."""
    mrc.write(folder / "m.mrc", image, pixel_A)
    optics = {"rlnOpticsGroupName": ["opticsGroup1"], "rlnOpticsGroup": [1]}
    optics |= {"rlnMicrographOriginalPixelSize": [pixel_A], "rlnMicrographPixelSize": [pixel_A]}
    optics |= {"rlnVoltage": [300.0], "rlnSphericalAberration": [2.7]}
    tables = {
        "optics": star.Table.of(optics | {"rlnAmplitudeContrast": [0.1]}),
        "micrographs": star.Table.of({"rlnMicrographName": ["m.mrc"], "rlnOpticsGroup": [1]}),
    }
    star.save(folder / "mics.star", tables, version=30001)
    command = "relion_autopick --i mics.star --odir out/ --pickname autopick --LoG"
    command += f" --LoG_diam_min {low:g} --LoG_diam_max {high:g} {flags}"
    subprocess.run(command.split(), cwd=folder, capture_output=True, check=True)
    table = star.load(folder / "out" / "m_autopick.star")[""]
    theirs = np.column_stack([table.floats("rlnCoordinateX"), table.floats("rlnCoordinateY")])
    return theirs, np.sort(table.floats("rlnAutopickFigureOfMerit"))[::-1]


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_autopick") is None, reason="RELION is not here")
@pytest.mark.parametrize("shape", [(1440, 1440), (1200, 1600)])
def test_agrees_with_relion(tmp_path, shape):
    image, _ = discs(shape, 80, 23)
    theirs, foms = relions(tmp_path, image, PIXEL_A, 150, 180, "--lowpass 20 --shrink 0")
    options = LogOptions(diameter_min_A=150, diameter_max_A=180, max_stddev_noise=None)
    picks = pick_log(image, PIXEL_A, options, seed=1)
    assert (distances_A(theirs, points(picks)) < 10).mean() >= 0.95
    assert (distances_A(points(picks), theirs) < 10).mean() >= 0.95
    # The noise that fills a square differs, so what it touches does by a little.
    np.testing.assert_allclose(
        picks.fom[:40], foms[:40], rtol=1e-5 if shape[0] == shape[1] else 0.01
    )


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_autopick") is None, reason="RELION is not here")
@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        ("--lowpass 20 --shrink 0 --LoG_adjust_threshold 1", {"adjust_threshold": 1.0}),
        ("--lowpass 20 --shrink 0 --LoG_adjust_threshold -0.5", {"adjust_threshold": -0.5}),
        ("--lowpass 20 --shrink 0 --LoG_upper_threshold 2", {"upper_threshold": 2.0}),
        ("--lowpass 23 --shrink 0", {"max_resolution_A": 23.0}),
        ("--lowpass 20 --shrink 0.3", {"shrink": 0.3}),
        ("--lowpass 20 --shrink 400", {"shrink": 400.0}),
        ("--lowpass 20 --shrink 0 --LoG_neighbour 150", {"neighbour": 1.5}),
        ("--lowpass 20 --shrink 0 --skip_side 60", {"skip_side_px": 60.0}),
        ("--lowpass 20 --shrink 0 --Log_invert", {"invert": True}),
    ],
)
def test_options_are_relions(tmp_path, flags, changes):
    image, _ = discs((900, 900), 40, 31)
    theirs, foms = relions(tmp_path, image, PIXEL_A, 149, 181, flags)
    options = LogOptions(diameter_min_A=149, diameter_max_A=181, max_stddev_noise=None, **changes)
    picks = pick_log(image, PIXEL_A, options, seed=1)
    assert len(picks) == len(foms)
    np.testing.assert_allclose(picks.fom, foms, rtol=1e-4)
    # What differs is the summit between the pixels of the work grid, half of one at most.
    grid_A = 2 * 450 * PIXEL_A / options.work_size(900, PIXEL_A)
    assert distances_A(theirs, points(picks)).max() < 0.75 * grid_A
    assert (distances_A(points(picks), theirs) < 10).mean() >= 0.95


@pytest.mark.parametrize(
    ("name", "recall", "precision"),
    [("14_33_35", 0.94, 0.54), ("15_17_31", 0.89, 0.46)],
)
def test_real_micrographs_with_picks_of_experts(name, recall, precision):
    """beta-galactosidase, EMPIAR-10017; the same picks, and so the same figures, as RELION's."""
    micrograph = experts(shared(FOLDER), name)
    options = {"diameter_min_A": 150, "diameter_max_A": 200}
    figures = []
    for noise in (None, 1.1):
        picking = LogOptions(**options, max_stddev_noise=noise)
        found = points(pick_log(micrograph.image, EXPERTS_PIXEL_A, picking, seed=1))
        figures.append(micrograph.recall_and_precision(found))
        print(
            f"{name}, noise limit {noise}: recall {figures[-1][0]:.3f}, "
            f"precision {figures[-1][1]:.3f}, {len(found)} picks, {len(micrograph.picks)} experts'"
        )
    assert figures[0][0] >= recall
    assert figures[0][1] >= precision
    # Leaving out what lies in restless places costs little and gives cleaner picks.
    assert figures[1][0] > figures[0][0] - 0.06
    assert figures[1][1] > figures[0][1] + 0.02
