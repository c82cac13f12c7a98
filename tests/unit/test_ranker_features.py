"""Parts of the features against plain definitions, and what must not change them."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from algorithms.ranker import texture
from algorithms.ranker.constants import RELION, constants_of, network_input
from algorithms.ranker.features import GREY, features, grey_free
from algorithms.ranker.masks import Circle, masks_of
from algorithms.ranker.openings import RADII, granulometry
from algorithms.ranker.resampling import grid_size, low_passed, network_images, resampled
from algorithms.ranker.scoring import contract_remarks, packed, scored, unpacked
from algorithms.ranker.types import UNSCORED
from algorithms.ranker.weights import dumps, loads
from tests.ranker_data import CARD, averages, class_set, formula_arrays

RANDOM = np.random.default_rng(2)


def test_openings_are_those_of_a_flat_disc():
    images = RANDOM.normal(0.0, 1.0, (3, 33, 33))
    found = granulometry(images)
    for column, radius in enumerate(RADII):
        y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
        disc = x**2 + y**2 <= radius**2
        for row, image in enumerate(images):
            least = ndimage.grey_erosion(image, footprint=disc, mode="constant", cval=np.inf)
            most = ndimage.grey_dilation(least, footprint=disc, mode="constant", cval=-np.inf)
            assert found[row, column] == pytest.approx(most.sum(), rel=1e-12)


@pytest.mark.parametrize(("box", "size"), [(64, 40), (40, 64), (63, 40), (33, 64), (48, 48)])
def test_resampling_keeps_a_wave(box, size):
    # 3 waves along x and 5 along y stay what they are on any grid.
    def wave(n):
        y, x = np.mgrid[0:n, 0:n] / n
        return np.cos(2.0 * np.pi * (3 * x + 5 * y)) + 0.25

    np.testing.assert_allclose(resampled(wave(box)[None], size)[0], wave(size), atol=1e-12)


def test_resampling_moves_what_it_is_told_to_move():
    image = averages(1, 48)
    moved = resampled(image, 48, shift_px=2.0)
    np.testing.assert_allclose(moved[0], np.roll(image[0], (2, 2), (0, 1)), atol=1e-6)


@pytest.mark.parametrize(
    ("box", "pixel", "size"),
    [(100, 3.54, 88), (72, 3.1, 56), (48, 5.3, 64), (64, 4.0, 64), (6, 1.0, 2)],
)
def test_the_grid_is_even_and_near_four_angstrom(box, pixel, size):
    assert grid_size(box, pixel) == size


def test_the_networks_window_is_centred_and_filled_with_zeros():
    image = np.zeros((1, 32, 32), np.float32)
    image[0, 16, 16] = 1.0
    for diameter in (40.0, 100.0, 600.0):  # inside, just wider, much wider than the box of 64 A
        seen = network_images(image, 2.0, diameter)
        assert seen.shape == (1, 64, 64) and seen.dtype == np.float32
        assert np.unravel_index(seen[0].argmax(), (64, 64)) == (32, 32)
    # 60 px of 2 A are a whole number, however the division rounds: 62 px with the rim.
    flat = np.ones((1, 200, 200), np.float32)
    np.testing.assert_allclose(network_images(flat, 1.9, 1.9 * 60), 1.0, rtol=1e-6)


def test_protein_is_what_fills_the_core():
    circle = Circle(64, 24.0)
    image = np.zeros((1, 64, 64))
    image[0, 28:37, 26:40] = 1.0  # fills the middle
    image[0, 22:24, 24:26] = 1.0  # a crumb in the core
    image[0, 48:50, 20:30] = 1.0  # outside of the core: neither
    found = masks_of(image, circle)
    assert found.protein[0, 28:37, 26:40].all() and found.protein.sum() == 9 * 14
    assert found.scattered[0] == pytest.approx(4 / (4 + 126 + 1))
    np.testing.assert_array_equal(found.solvent[0], circle.disc & ~found.protein[0])
    # Corners do not join: two squares that touch at one are two.
    image = np.zeros((1, 64, 64))
    image[0, 24:32, 24:32] = image[0, 32:40, 32:40] = 1.0
    found = masks_of(image, circle)
    assert found.protein.sum() == 0 and found.scattered[0] == pytest.approx(128 / 129)


def test_classes_of_a_stack_do_not_join_each_other():
    circle = Circle(64, 24.0)
    images = np.zeros((2, 64, 64))
    images[0, 28:36, 26:38] = 1.0
    images[1, 30:34, 30:34] = 1.0  # too small alone
    found = masks_of(images, circle)
    assert found.protein[0].any() and not found.protein[1].any() and found.scattered[1] > 0.9


def plain_patterns(image):
    """Return the histogram of local patterns by their definition."""
    around = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
    least = sorted(
        {min(int(f"{c:08b}"[s:] + f"{c:08b}"[:s], 2) for s in range(8)) for c in range(256)}
    )
    counts = np.zeros(36)
    for y in range(1, len(image) - 1):
        for x in range(1, len(image) - 1):
            bits = "".join(str(int(image[y + a, x + b] > image[y, x])) for a, b in around)
            counts[least.index(min(int(bits[s:] + bits[:s], 2) for s in range(8)))] += 1
    return counts / counts.sum()


def test_local_patterns_are_those_of_the_definition():
    image = RANDOM.normal(0.0, 1.0, (20, 20)).round(1)
    everywhere = np.ones((1, 20, 20), bool)
    got = texture.histograms(texture.patterns(image[None]), everywhere)
    np.testing.assert_allclose(got[0], plain_patterns(image))


def test_empty_masks_and_flat_images_have_numbers():
    images = averages(3, 40)
    images[1] = 0.0
    images[2] = 0.7
    with np.errstate(all="raise"):
        found = features(class_set(images), with_texture=True)
    assert len(found) == 3
    for name, values in found.columns.items():
        assert np.isfinite(values).all(), name
    assert (found.columns["ProteinSum"][1], found.columns["SolventArea"][1]) == (0.0, 1)
    assert found.columns["EdgeSignal"][1] == 0.0


def test_a_box_too_small_for_openings_does_without():
    found = features(class_set(averages(2, 14)))
    assert "Granulo" not in found.columns
    _, vector = network_input(found, RELION)
    assert (vector[:, 15:21] == 0.0).all()


def test_a_mask_wider_than_the_box_ends_at_its_edge():
    classes = class_set(averages(2, 40), diameter_A=1000.0)
    assert np.isfinite(features(classes).vector()).all()
    assert Circle.of(40, 1000.0).radius == 20.0


def test_an_odd_box_turned_keeps_its_features_in_our_mode_only():
    images = averages(5, 45, seed=4)
    turned = np.ascontiguousarray(np.rot90(images, axes=(1, 2)))
    moved = {}
    for mode in ("relion", "coldstream"):
        pair = [features(class_set(one), mode).vector() for one in (images, turned)]
        moved[mode] = (np.abs(pair[1] - pair[0]) / np.array(RELION.std))[:, 4:15].max()
    assert moved["coldstream"] < 0.02 < moved["relion"]


def test_only_the_grey_columns_follow_the_grey_scale():
    classes = class_set(averages(6, 48))
    before = features(classes)
    after = features(replace(classes, images=2.0 * classes.images))
    factor = np.ones(24)
    factor[list(GREY)] = 2.0
    np.testing.assert_allclose(after.vector(), before.vector() * factor, rtol=1e-9)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_weights_that_divide_by_the_contrast_do_not_see_the_grey_scale(factor):
    classes = class_set(averages(6, 48))
    found = features(classes)
    images, vector = grey_free(found, found.vector())
    assert np.median(vector[:, 12]) == pytest.approx(1.0)
    constants = constants_of(vector, grey="job")
    used = loads(dumps(formula_arrays(), constants, CARD), "w")
    other = features(replace(classes, images=np.float32(factor) * classes.images))
    wanted = scored(found, 6, used).scores
    np.testing.assert_allclose(scored(other, 6, used).scores, wanted, atol=1e-5)
    # Weights that take the values as they are do see it.
    plain = loads(dumps(formula_arrays(), replace(constants, grey="as_is"), CARD), "w")
    seen = [scored(one, 6, plain).scores for one in (found, other)]
    assert np.abs(seen[0] - seen[1]).max() > 1e-3
    assert images.dtype == np.float32


def test_columns_are_normalised_cut_and_left_out_as_the_weights_say():
    found = features(class_set(averages(8, 48)))
    plain = found.vector()
    made = constants_of(plain, zeroed=(0, 15, 16, 17, 18, 19, 20))
    _, vector = network_input(found, replace(made, clip=1.5))
    assert (vector[:, [0, 15, 20]] == 0.0).all() and np.abs(vector).max() <= 1.5
    _, vector = network_input(found, replace(made, clip=None))
    np.testing.assert_allclose(vector[:, 21:].mean(0), 0.0, atol=1e-6)
    np.testing.assert_allclose(vector[:, 21:].std(0), 1.0, rtol=1e-5)
    wanted = (plain[:, 4] - made.mean[4]) / made.std[4]
    np.testing.assert_allclose(vector[:, 4], wanted, rtol=1e-5)
    # One class alone has no spread within its job.
    alone = features(class_set(averages(1, 48)))
    assert (network_input(alone, made)[1][0, 21:] == 0.0).all()


def test_features_are_kept_and_come_back():
    found = features(class_set(averages(4, 40)), with_texture=True)
    back = unpacked(packed(found))
    assert back is not None and back.columns.keys() == found.columns.keys()
    np.testing.assert_array_equal(back.vector(), found.vector())
    np.testing.assert_array_equal(back.images, found.images)
    for spoilt in (b"", b"PK", packed(found)[:-200], packed(found)[:3000]):
        assert unpacked(spoilt) is None


def test_inverted_and_unusual_averages_are_told():
    classes = class_set(averages(6, 48))
    assert contract_remarks(features(classes), RELION) == []
    inverted = features(replace(classes, images=-classes.images))
    assert "inverted" in contract_remarks(inverted, RELION)[0]
    faint = features(replace(classes, images=1e-3 * classes.images))
    assert "normalised" in contract_remarks(faint, RELION)[0]
    free = constants_of(features(classes).vector(), grey="job")
    assert contract_remarks(faint, free) == []
    nothing = features(class_set(averages(2, 48), n_particles=4))
    assert len(nothing) == 0 and contract_remarks(nothing, RELION) == []
    used = loads(dumps(formula_arrays(), RELION, CARD), "w")
    assert (scored(nothing, 2, used).scores == UNSCORED).all()


def test_the_lowpass_has_a_soft_edge_around_25_angstrom():
    size = 100  # of 4 A: 25 A is shell 16

    def left(k):
        x = np.arange(size)[None].repeat(size, 0)
        return low_passed(np.cos(2.0 * np.pi * k * x / size)[None]).max()

    assert [round(left(k), 6) for k in (14, 15, 16, 17, 18)] == [1.0, 1.0, 0.5, 0.0, 0.0]


def test_scoring_needs_no_torch():
    code = (
        "import sys; import algorithms.ranker.scoring, algorithms.ranker.tables; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
