"""The ranker against RELION 5.0.1's program: features, masks, images, targets, selection."""

from dataclasses import replace

import numpy as np
import pytest

from algorithms.formats import star
from algorithms.ranker import features as feature
from algorithms.ranker import inputs, scoring, tables, weights
from algorithms.ranker.accuracy import (
    DIVISOR,
    PARTICLES,
    ROTATIONS_DEG,
    SHIFTS_PX,
    TELLS_APART,
    Accuracies,
)
from algorithms.ranker.constants import RELION, network_input
from algorithms.ranker.inference import NumpyNetwork
from algorithms.ranker.masks import Circle, masks_of
from algorithms.ranker.resampling import grid_size, low_passed
from algorithms.ranker.scoring import features_of
from algorithms.ranker.selection import Rules, select
from algorithms.ranker.targets import target_scores
from algorithms.ranker.types import UNSCORED
from tests.ranker_data import (
    FOLDERS,
    OPTIMISER,
    averages,
    class_set,
    formula_arrays,
    labels,
    reference,
    write_job,
)
from tests.shared import shared

NAMES = list(FOLDERS)
# Printed with six digits or in single precision; of the entropies, which bin a pixel on a bound
# falls into is rounding.
TOLERANCE = dict.fromkeys(("TotalEntropy", "ProteinEntropy", "SolventEntropy"), 1e-3)
TOLERANCE["Granulo"] = 3e-5


def far(got, wanted):
    """Return the largest deviation, absolute or relative, whichever is smaller."""
    wanted = np.asarray(wanted, np.float64)
    assert got.shape == wanted.shape
    return float((np.abs(got - wanted) / np.maximum(1.0, np.abs(wanted))).max())


@pytest.mark.parametrize("name", NAMES)
def test_every_feature_of_every_class_is_relions(name):
    job, wanted = reference(name)
    found = features_of(job, with_texture=True)
    assert [row["rlnClassIndex"] for row in wanted["classes"]] == (found.places + 1).tolist()
    given = {key[3:] for key in wanted["classes"][0] if key.startswith("rln")}
    table = tables.features_blocks(job.classes, found, [0] * len(job.classes))["class_features"]
    # What the file has is all that the program wrote, in its order, but for a person's score.
    order = [key for key in wanted["classes"][0] if key.startswith("rln")]
    order = [key for key in order if key not in ("rlnClassScore", "rlnNormalizedFeatureVector")]
    assert list(table.columns) == order
    for column, values in found.columns.items():
        if column in given:
            theirs = [row[f"rln{column}"] for row in wanted["classes"]]
            assert far(values, theirs) < TOLERANCE.get(column, 2e-5), column
    for row, theirs in enumerate(wanted["classes"]):
        for label in ("rlnParticleNr", "rlnEstimatedResolution", "rlnAccuracyTranslations"):
            value = float(table.columns[label][row])
            assert value == pytest.approx(theirs[label], abs=2e-5, rel=1e-6), label
        written = table.columns["rlnProteinHaralick"][row].strip("[]").split(",")
        assert far(np.array(written, np.float64), theirs["rlnProteinHaralick"]) < 2e-5


@pytest.mark.parametrize("name", NAMES)
def test_masks_are_relions_pixel_by_pixel(name):
    job, _ = reference(name)
    classes = job.classes.take(job.classes.scored)
    size = grid_size(classes.box, classes.pixel_A)
    filtered = low_passed(feature.on_grid(classes.images, size, "relion"))
    found = masks_of(filtered, Circle.of(size, classes.diameter_A))
    theirs = np.load(shared(f"data/class2d/{name}/ref_masks.npy"))
    np.testing.assert_array_equal(found.protein, theirs[:, 0])
    np.testing.assert_array_equal(found.solvent, theirs[:, 1])


@pytest.mark.parametrize("name", NAMES)
def test_the_network_is_given_what_relions_is_given(name):
    job, _ = reference(name)
    images, vector = network_input(features_of(job), RELION)
    theirs = np.load(shared(f"data/class2d/{name}/ref_images_64.npy"))
    assert np.abs(images - theirs).max() < 3e-7 * np.abs(theirs).max()
    assert far(vector, np.load(shared(f"data/class2d/{name}/ref_features_24.npy"))) < 2e-5


@pytest.mark.parametrize("name", NAMES)
def test_target_scores_are_relions(name):
    job, wanted = reference(name)
    classes = job.classes
    about = (labels(name), classes.resolution_A, classes.sizes, wanted["job_score"])
    theirs = [row["rlnClassScore"] for row in wanted["classes"]]
    got = target_scores(*about, mode="relion")[classes.scored]
    np.testing.assert_allclose(got, theirs, atol=2e-6)
    # Ours: nothing gains by being finer than the best.
    ours = target_scores(*about)[classes.scored]
    assert (ours <= got + 1e-12).all() and ours.max() <= 1.0


@pytest.mark.parametrize("name", ["bgal_it025", "syn_a"])
def test_the_network_gives_what_an_independent_one_gives(name):
    import json

    folder = shared(f"data/class2d/{name}")
    wanted = json.loads((folder / "reference_network.json").read_text())
    images = np.load(folder / "ref_images_64.npy")
    vector = np.load(folder / "ref_features_24.npy")
    arrays = formula_arrays()
    assert [[key[:-7], list(arrays[key].shape)] for key in arrays if "weight" in key] == wanted[
        "layers"
    ]
    assert sum(values.size for values in arrays.values()) == wanted["n_parameters"]
    scores = NumpyNetwork(arrays)(images, vector)
    theirs = wanted["expected_output_float64"]
    np.testing.assert_allclose(scores, theirs, rtol=wanted["suggested_relative_tolerance_float32"])


@pytest.mark.parametrize("name", NAMES)
def test_four_selections_with_given_scores_are_relions(name):
    job, wanted = reference(name)
    classes = job.classes
    scores = np.full(len(classes), UNSCORED)
    for number, score in wanted["selection"]["scores_injected"].items():
        scores[int(number) - 1] = score
    assert len(wanted["selection"]["cases"]) == 4
    for case in wanted["selection"]["cases"].values():
        words = case["arguments"].split()
        given = dict(zip(words[::2], words[1::2], strict=True))
        rules = Rules(
            low=float(given["--min_score"]),
            least_particles=int(given.get("--select_min_nr_particles", -1)),
            least_classes=int(given.get("--select_min_nr_classes", -1)),
        )
        chosen = select(scores, classes.sizes, rules)
        assert chosen.flags() == case["backup_selection"]
        assert [classes.names[place] for place in chosen.order] == case["class_averages_order"]
        rows = tables.particles(job, chosen)["particles"]
        assert len(rows) == case["n_particles_written"]


@pytest.mark.parametrize("name", NAMES)
def test_the_files_of_a_selection_are_relions(name):
    job, wanted = reference(name)
    scores = np.full(len(job.classes), UNSCORED)
    for number, score in wanted["selection"]["scores_injected"].items():
        scores[int(number) - 1] = score
    chosen = select(scores, job.classes.sizes)
    found = features_of(job, opening=False)
    folder = shared(f"data/class2d/{name}/ref_select")
    at = "Select/threshold_0.15"
    same(tables.rank_model(job, scores), folder / "rank_model.star")
    same(tables.backup_selection(chosen), folder / "backup_selection.star")
    same(tables.class_averages(job, found, scores, chosen), folder / "class_averages.star")
    same(tables.particles(job, chosen), folder / "particles.star")
    optimiser = tables.rank_optimiser(job, f"{at}/rank_model.star", f"{at}/rank_data.star")
    theirs = star.load(folder / "rank_optimiser.star")["optimiser_general"]
    ours = optimiser["optimiser_general"]
    assert not ours.loop and set(theirs.columns) <= set(ours.columns)
    for label in ("rlnModelStarFile", "rlnExperimentalDataStarFile", "rlnOutputRootName"):
        assert ours.columns[label] == theirs.columns[label]


def same(blocks, path):
    """Compare tables: the same columns in the same order; numbers to the digits printed."""
    theirs = star.load(path)
    assert list(blocks) == list(theirs)
    for name, table in theirs.items():
        ours = blocks[name]
        columns = list(table.columns)
        if "rlnNormCorrection" not in ours.columns and name == "particles":
            columns.remove("rlnNormCorrection")  # their program fills in what it had to assume
        assert sorted(ours.columns) == sorted(columns) and len(ours) == len(table)
        if name != "optics":
            assert list(ours.columns) == columns
        for label in columns:
            values = table.columns[label]
            if label == "rlnGroupNumber":
                continue  # theirs puts all particles of a table without group names into one
            try:
                numbers = table.floats(label)
            except star.StarError:
                assert ours.columns[label] == values, label
            else:
                np.testing.assert_allclose(ours.floats(label), numbers, rtol=2e-6, atol=1.1e-5)


def test_accuracies_that_the_model_lacks_are_found_as_relion_finds_them():
    import json
    from dataclasses import replace

    job, _ = reference("bgal_it025")
    path = shared("data/class2d/bgal_it025/reference_accuracy_fallback.json")
    unknown = np.full(len(job.classes), 999.0)
    classes = replace(job.classes, accuracy_deg=unknown, accuracy_A=unknown * job.classes.pixel_A)
    got = Accuracies(job)(classes, "relion")
    ours = Accuracies(job)(classes, "coldstream")
    for number, (degrees, shift) in json.loads(path.read_text())["classes"].items():
        place = int(number) - 1
        assert got.accuracy_deg[place] == pytest.approx(degrees, abs=1e-9)
        # The original draws x or y at every step; here it is the mean of both.
        assert got.accuracy_A[place] == pytest.approx(shift, rel=0.1)
        if classes.sizes[place] > 100.0:
            pixel = classes.pixel_A
            assert ours.accuracy_A[place] == pytest.approx(got.accuracy_A[place] * pixel)
        else:
            assert (got.accuracy_deg[place], got.accuracy_A[place]) == (5.0, 8.0)
    assert got.accuracy_deg[7] == 999.0  # too small for a score


def test_one_unknown_accuracy_is_enough_and_known_ones_stay(tmp_path):
    images = averages(3, 48)
    classes = class_set(images, n_particles=900)
    classes.accuracy_deg[1] = 999.0
    write_job(tmp_path, classes)
    job = inputs.read(tmp_path, OPTIMISER)
    found = features_of(job, "coldstream")
    np.testing.assert_allclose(found.accuracy_deg[[0, 2]], classes.accuracy_deg[[0, 2]])
    assert 0.0 < found.accuracy_deg[1] < 35.0 and found.accuracy_A[1] < 12.0 * classes.pixel_A


@pytest.mark.parametrize(("box", "mode"), [(64, "relion"), (64, "coldstream"), (63, "coldstream")])
def test_a_quarter_turn_of_the_averages_changes_no_feature(box, mode):
    images = averages(6, box)
    classes = class_set(images)
    # About pixel n/2: an even box has one row and one column without a partner.
    turned = np.rot90(images, axes=(1, 2))
    turned = np.roll(turned, 1, axis=1) if box % 2 == 0 else turned
    before = feature.features(classes, mode).vector()
    after = feature.features(class_set(np.ascontiguousarray(turned)), mode).vector()
    moved = np.abs(after - before) / np.array(RELION.std)
    assert moved[:, 4:15].max() < 0.02


def test_real_classes_turned_by_a_quarter_keep_their_features():
    job, _ = reference("bgal_it025")
    before = feature.features(job.classes).vector()
    after = feature.features(replace(job.classes, images=turned(job.classes.images))).vector()
    assert (np.abs(after - before) / np.array(RELION.std))[:, 4:15].max() < 0.02


def turned(images):
    """Return averages turned by a quarter about pixel n/2 of an even box."""
    return np.ascontiguousarray(np.roll(np.rot90(images, axes=(1, 2)), 1, axis=1))


@pytest.mark.parametrize("box", [64, 72, 100])
def test_the_network_sees_a_turned_class_turned(box):
    images = averages(6, box)
    before = feature.features(class_set(images), "coldstream").images
    after = feature.features(class_set(turned(images)), "coldstream").images
    # Frequencies without a partner differ; a middle that is off by one pixel gives 0.18.
    assert (after - turned(before)).std() < 0.02 * before.std()


@pytest.mark.skipif(not weights.DEFAULT.exists(), reason="no weights come with this version")
def test_scores_of_our_own_weights_do_not_follow_a_quarter_turn():
    job, _ = reference("bgal_it025")
    used = weights.read(weights.DEFAULT)
    other = replace(job, classes=replace(job.classes, images=turned(job.classes.images)))
    before, after = scoring.score(job, used).scores, scoring.score(other, used).scores
    assert np.abs(after - before).max() < 0.05


def pixel_by_pixel(job, psi_deg):
    """Return the rotations and shifts (along x) that tell each class from itself, as RELION does.

    `psi_deg` are the orientations of the first particles; `[K, n]`, degrees and px.
    """
    import torch

    from algorithms.ranker.contrast import Optics
    from algorithms.refine import projector
    from algorithms.refine.geometry import disc

    classes, n = job.classes, len(psi_deg)
    box = classes.box
    size = int(job.model["model_general"].floats("rlnCurrentImageSize")[0])
    plane = projector.Plane(box, projector.PAD * size // 2)
    maps = torch.from_numpy(classes.images).double() / projector.gridding(box)
    references = projector.on_plane(projector.padded_transform(maps), plane).to(torch.complex64)
    pixels = disc(box, size).inner()
    pixels = pixels.take(pixels.shell > 0)
    x, y = pixels.jx.numpy(), pixels.jy.numpy()
    frequency = 1.0 / (box * classes.pixel_A)
    contrast = np.sin(Optics.of(job.data, slice(n)).phase(x * frequency, y * frequency)) ** 2
    group = job.model.get("model_optics_group_1") or job.model["model_group_1"]
    shells, sigma2 = group.floats("rlnSpectralIndex"), group.floats("rlnSigma2Noise")
    noise = np.interp(pixels.shell.numpy(), shells, sigma2)
    moved = 4.0 * np.sin(np.pi * np.outer(SHIFTS_PX, x) / box) ** 2
    degrees, shifts = [], []
    for psi, ctf2 in zip(psi_deg, contrast, strict=True):
        angles = torch.from_numpy(np.r_[psi, psi + ROTATIONS_DEG])
        slices = projector.Slicer(pixels, angles, plane).slices(references).numpy()
        weight = ctf2 / (2.0 * noise)
        turned = (np.abs(slices[:, 1:] - slices[:, :1]) ** 2 * weight).sum(-1)
        shifted = (np.abs(slices[:, 0]) ** 2 * weight) @ moved.T
        for evidence in (turned, shifted):
            evidence[:, -1] = np.inf  # the search ends there
        degrees.append(ROTATIONS_DEG[(turned > TELLS_APART).argmax(1)])
        shifts.append(SHIFTS_PX[(shifted > TELLS_APART).argmax(1)])
    return np.stack(degrees, 1), np.stack(shifts, 1)


def test_rings_tell_classes_apart_as_pixels_do(tmp_path):
    unknown = np.full(4, 999.0)
    classes = class_set(averages(4, 40), accuracy_deg=unknown, n_particles=2000)
    write_job(tmp_path, classes)
    job = inputs.read(tmp_path, OPTIMISER)
    found = Accuracies(job)(job.classes, "relion")
    degrees, shifts = pixel_by_pixel(job, np.array([0.0, 33.0, 71.0, 100.0, 145.0, 178.0]))
    share = PARTICLES / DIVISOR
    assert 0.5 < found.accuracy_deg.min() and found.accuracy_deg.max() < 25.0
    # Blurred classes, whose evidence is on a few pixels: those of one orientation do not have the
    # ring's mean. A step at 10 degrees is 10 to 20 % of it.
    np.testing.assert_allclose(found.accuracy_deg, degrees.mean(1) * share, rtol=0.15)
    np.testing.assert_allclose(found.accuracy_A, shifts.mean(1) * share, rtol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_rings_tell_reference_classes_apart_as_pixels_do(name):
    from dataclasses import replace

    job, _ = reference(name)
    unknown = np.full(len(job.classes), 999.0)
    classes = replace(job.classes, accuracy_deg=unknown, accuracy_A=unknown)
    found = Accuracies(job)(classes, "relion")
    psi = job.data["particles"].floats("rlnAnglePsi")[:12]
    degrees, _ = pixel_by_pixel(job, psi)
    many = classes.sizes > 100.0
    assert many.sum() >= 4
    np.testing.assert_allclose(
        found.accuracy_deg[many], degrees[many].mean(1) * PARTICLES / DIVISOR
    )
