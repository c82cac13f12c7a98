"""Reading 2D classifications: every layout, and what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest

from algorithms.formats import mrc, star
from algorithms.ranker import inputs
from algorithms.ranker.accuracy import Accuracies
from algorithms.ranker.constants import RELION
from algorithms.ranker.contrast import Optics, to_first_peak
from algorithms.ranker.oldfiles import modern
from algorithms.ranker.scoring import features_of, score
from algorithms.ranker.types import UNSCORED, RankerError
from algorithms.ranker.weights import dumps, loads
from tests.ranker_data import CARD, OPTIMISER, averages, class_set, formula_arrays, write_job

ROOT = "Class2D/job001/run_it025"


@pytest.fixture(scope="module")
def images():
    return averages(4, 32)


def edited(place, part, block, **columns):
    """Change columns of a block of a file; None takes one away."""
    path = place / f"{ROOT}_{part}.star"
    blocks = star.load(path)
    for label, values in columns.items():
        blocks[block].columns.pop(label, None)
        if values is not None:
            blocks[block].columns[label] = values
    star.save(path, blocks)


def test_an_iteration_is_read(tmp_path, images):
    write_job(tmp_path, class_set(images))
    job = inputs.read(tmp_path, OPTIMISER)
    classes = job.classes
    np.testing.assert_array_equal(classes.images, images)
    assert (len(classes), classes.box, classes.n_particles) == (4, 32, 400)
    assert classes.remarks == [] and classes.scored.tolist() == [0, 1, 2, 3]
    assert len(job.data["particles"]) == 400 and not job.flag("rlnDoIgnoreCtfUntilFirstPeak")


def test_small_classes_are_left_out(tmp_path, images):
    # 10 particles are too few, a little more is enough.
    fractions = np.array([0.025, 0.0251, 0.9, 0.0])
    classes = class_set(images, fractions=fractions)
    write_job(tmp_path, classes)
    assert inputs.read(tmp_path, OPTIMISER).classes.scored.tolist() == [1, 2]


def test_classes_that_are_not_finite_have_no_score_and_are_told(tmp_path, images):
    spoilt = images.copy()
    spoilt[1, 5, 5] = np.nan
    classes = class_set(spoilt, accuracy_deg=np.array([1.0, 1.0, np.nan, 1.0]))
    write_job(tmp_path, classes)
    job = inputs.read(tmp_path, OPTIMISER)
    assert job.classes.scored.tolist() == [0, 3]
    assert [line.split(" ")[0][:6] for line in job.classes.remarks] == ["000002", "000003"]
    scores = score(job, loads(dumps(formula_arrays(), RELION, CARD), "w")).scores
    assert (scores == UNSCORED).tolist() == [False, True, True, False]


def test_resolutions_of_old_files_follow_from_the_spectra(tmp_path, images):
    write_job(tmp_path, class_set(images), drop=("rlnEstimatedResolution",))
    path = tmp_path / f"{ROOT}_model.star"
    blocks = star.load(path)
    shells = [999.0, 128.0, 64.0, 42.7, 32.0, 25.6]
    spectra = (
        ([9, 8, 7, 0.9, 5, 5], 64.0),  # the last before it falls below 1
        ([0.5, 0.9, 7, 7, 5, 5], 999.0),  # row 0 is not looked at, its resolution is taken
        ([9, 9, 9, 9, 9, 9], 8.0),  # never: twice the pixel
        ([9, 9, 9, 9, 9, 0.5], 32.0),
    )
    for number, (ssnr, _) in enumerate(spectra, 1):
        columns = {"rlnSsnrMap": [float(s) for s in ssnr], "rlnAngstromResolution": shells}
        blocks[f"model_class_{number}"] = star.Table.of(columns)
    star.save(path, blocks)
    job = inputs.read(tmp_path, OPTIMISER)
    np.testing.assert_allclose(job.classes.resolution_A, [wanted for _, wanted in spectra])
    assert (job.listed_resolution_A == 0.0).all()


def test_classes_may_lie_in_several_stacks(tmp_path, images):
    write_job(tmp_path, class_set(images))
    mrc.write(tmp_path / "other.mrcs", images[:1] + 1.0, 4.0, is_stack=True)
    names = [f"000004@{ROOT}_classes.mrcs", "000001@other.mrcs"]
    path = tmp_path / f"{ROOT}_model.star"
    blocks = star.load(path)
    table = blocks["model_classes"]
    blocks["model_classes"] = star.Table({k: v[:2] for k, v in table.columns.items()})
    blocks["model_classes"].columns["rlnReferenceImage"] = names
    star.save(path, blocks)
    found = inputs.read(tmp_path, OPTIMISER).classes
    np.testing.assert_allclose(found.images, [images[3], images[0] + 1.0], rtol=1e-6)


def test_averages_without_ctf_are_told(tmp_path, images):
    write_job(tmp_path, class_set(images), rlnDoCorrectCtf=0)
    assert "rlnDoCorrectCtf is 0" in inputs.read(tmp_path, OPTIMISER).classes.remarks[0]


@pytest.mark.parametrize(
    "label",
    [
        "rlnModelStarFile",
        "rlnExperimentalDataStarFile",
        "rlnParticleDiameter",
        "rlnPixelSize",
        "rlnReferenceImage",
        "rlnClassDistribution",
        "rlnAccuracyRotations",
        "rlnAccuracyTranslationsAngst",
    ],
)
def test_a_missing_column_is_named(tmp_path, images, label):
    write_job(tmp_path, class_set(images), drop=(label,))
    with pytest.raises(RankerError, match=label.removesuffix("Angst")):
        inputs.read(tmp_path, OPTIMISER)


def wrong_stack(place):
    mrc.write(place / f"{ROOT}_classes.mrcs", averages(4, 48), 4.0, is_stack=True)


def short_stack(place):
    mrc.write(place / f"{ROOT}_classes.mrcs", averages(2, 32), 4.0, is_stack=True)


def cut_stack(place):
    path = place / f"{ROOT}_classes.mrcs"
    path.write_bytes(path.read_bytes()[:5000])


def other_optics(place):
    edited(place, "model", "model_general", rlnNrOpticsGroups=["3"])


def no_number(place):
    edited(place, "optimiser", "optimiser_general", rlnParticleDiameter=["wide"])


def no_text(place):
    edited(place, "model", "model_classes", rlnClassDistribution=["x"] * 4)


def negative(place):
    edited(place, "model", "model_general", rlnPixelSize=["-1"])


def volume(place):
    edited(place, "model", "model_classes", rlnReferenceImage=["run_class001.mrc"] * 4)


def no_classes(place):
    star.save(
        place / f"{ROOT}_model.star",
        {
            **star.load(place / f"{ROOT}_model.star"),
            "model_classes": star.Table.of(
                {"rlnReferenceImage": [], "rlnClassDistribution": [], "rlnAccuracyRotations": []}
            ),
        },
    )


def no_particles(place):
    (place / f"{ROOT}_data.star").write_text("data_optics\n\nloop_\n_rlnOpticsGroup\n1\n\n")


def binary(place):
    (place / f"{ROOT}_model.star").write_bytes(bytes(range(256)))


def gone(place):
    (place / f"{ROOT}_data.star").unlink()


def no_model(place):
    (place / f"{ROOT}_model.star").write_text("data_other\n\n_rlnA 1\n")


def no_optimiser(place):
    (place / OPTIMISER).write_text("data_particles\n\n_rlnA 1\n")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (wrong_stack, r"48 x 48 px, but the model says 32 x 32"),
        (short_stack, r"has 2 images; 000003@"),
        (cut_stack, "TRUNCATED"),
        (other_optics, r"1 optics groups, .* says 3"),
        (no_number, r"rlnParticleDiameter is 'wide'"),
        (no_text, "rlnClassDistribution"),
        (negative, "must be above 0"),
        (volume, "is it a 3D model"),
        (no_classes, "no block data_model_classes"),
        (no_particles, "has no particles"),
        (binary, "not UTF-8"),
        (gone, r"data\.star: No such file"),
        (no_model, "no model file"),
        (no_optimiser, "run_itNNN_optimiser"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, images, spoil, words):
    write_job(tmp_path, class_set(images))
    spoil(tmp_path)
    with pytest.raises(RankerError, match=words):
        inputs.read(tmp_path, OPTIMISER)


# Tables from before RELION 3.1


def old(**changes):
    columns = {
        "rlnVoltage": [200.0, 200.0],
        "rlnDefocusU": [1e4, 2e4],
        "rlnSphericalAberration": [2.0, 2.0],
        "rlnDetectorPixelSize": [5.0, 5.0],
        "rlnMagnification": [25_000.0, 25_000.0],
        "rlnAmplitudeContrast": [0.07, 0.07],
        "rlnImageName": ["1@a.mrcs", "2@a.mrcs"],
        "rlnOriginX": [1.0, -2.0],
        "rlnClassNumber": [1, 2],
    }
    return star.Table.of(columns | changes)


def test_an_old_table_gets_an_optics_group_and_origins_in_angstrom():
    for block in ("images", "particles", ""):
        blocks = modern({block: old()}, 9.9)
        optics, rows = blocks["optics"], blocks["particles"]
        assert optics.floats("rlnImagePixelSize") == [2.0]  # 5 um / 25,000
        assert optics.floats("rlnVoltage") == [200.0]
        assert rows.floats("rlnOriginXAngst").tolist() == [2.0, -4.0]
        assert "rlnOriginX" not in rows.columns and "rlnVoltage" not in rows.columns
        assert rows.strings("rlnOpticsGroup") == ["1", "1"]
    blocks = modern({"": star.Table.of({"rlnImageName": ["1@a.mrcs"]})}, 3.0)
    assert blocks["optics"].floats("rlnImagePixelSize") == [3.0]
    assert blocks["optics"].floats("rlnVoltage") == [300.0]


def test_a_present_table_passes_unchanged():
    blocks = {"optics": star.Table(), "particles": old(), "other": star.Table()}
    assert modern(blocks, 1.0) is blocks


def test_an_old_table_with_two_microscopes_is_refused():
    with pytest.raises(RankerError, match="relion_convert_star"):
        modern({"images": old(rlnVoltage=[200.0, 300.0])}, 1.0)
    with pytest.raises(RankerError, match="neither"):
        modern({"optics": star.Table()}, 1.0)


# The CTF


def optics(defocus_A, angle=0.0, astigmatism_A=0.0):
    one = np.atleast_1d(np.asarray(defocus_A, np.float64))
    zero = np.zeros(len(one))
    return Optics(one + astigmatism_A, one, zero + math.radians(angle), zero, 300.0, 2.7, 0.1)


def test_the_phase_is_that_of_the_projects_ctf():
    import torch

    from algorithms.ctf import Ctf, phase

    ctf = Ctf(
        defocus_u_A=15_000.0,
        defocus_v_A=14_000.0,
        angle_deg=25.0,
        voltage_kV=300.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.1,
    )
    s = np.random.default_rng(1).uniform(-0.2, 0.2, (2, 50))
    wanted = phase(ctf, *(torch.from_numpy(one) for one in s)).numpy()
    got = optics([14_000.0], 25.0, 1000.0).phase(*s)[0]
    np.testing.assert_allclose(got, wanted, rtol=1e-9)


def test_averages_that_ignored_the_first_peak_get_it_back(tmp_path, images):
    # What such a job makes of an object: low frequencies damped by sin(phase) up to the peak.
    box, pixel = 32, 4.0
    ky = np.fft.fftfreq(box, pixel)[:, None]
    s = np.hypot(ky, np.fft.rfftfreq(box, pixel)[None])
    phase = optics([12_003.0]).phase(s.ravel(), 0.0 * s.ravel()).reshape(s.shape)
    factor = np.where(phase < math.pi / 2.0, np.sin(phase), 1.0)
    assert 0.07 < factor.min() < 0.2
    damped = np.fft.irfft2(np.fft.rfft2(images.astype(np.float64)) * factor, s=(box, box))
    back = to_first_peak(damped, pixel, optics([12_000.0, 12_006.0]))
    np.testing.assert_allclose(back, images, atol=1e-5)
    # A job says by itself that it is such a one.
    classes = class_set(damped.astype(np.float32))
    write_job(tmp_path, classes, rlnDoIgnoreCtfUntilFirstPeak=1)
    marked = features_of(inputs.read(tmp_path, OPTIMISER), "coldstream").vector()
    plain = replace(classes, images=images)
    write_job(tmp_path, plain)
    wanted = features_of(inputs.read(tmp_path, OPTIMISER), "coldstream").vector()
    moved = np.abs(marked - wanted) / np.array(RELION.std)
    # Its defoci are 11.8 and 12.0 um: not quite what damped it.
    assert moved[:, 4:15].max() < 0.05


def test_accuracies_without_a_noise_spectrum_are_told(tmp_path, images):
    classes = class_set(images, accuracy_deg=np.full(4, 999.0), n_particles=800)
    write_job(tmp_path, classes, drop=("rlnSigma2Noise",))
    job = inputs.read(tmp_path, OPTIMISER)
    with pytest.raises(RankerError, match="no noise spectrum"):
        features_of(job)


def test_more_noise_makes_accuracies_worse(tmp_path, images):
    classes = class_set(images, accuracy_deg=np.full(4, 999.0), n_particles=800)
    found = []
    for noise in (1e-5, 1e-4, 1e-3):
        write_job(tmp_path, classes)
        shells = [noise] * 17
        edited(tmp_path, "model", "model_optics_group_1", rlnSigma2Noise=[str(n) for n in shells])
        job = inputs.read(tmp_path, OPTIMISER)
        found.append(Accuracies(job)(job.classes, "coldstream"))
    degrees = np.array([one.accuracy_deg for one in found])
    shifts = np.array([one.accuracy_A for one in found])
    assert (np.diff(degrees, axis=0) > 0.0).all() and (np.diff(shifts, axis=0) > 0.0).all()


def test_phases_only_flipped_means_a_contrast_of_one(tmp_path, images):
    classes = class_set(images, accuracy_deg=np.full(4, 999.0), n_particles=800)
    accuracies = []
    for flags in ({}, {"rlnDoOnlyFlipCtfPhases": 1}, {"rlnDoCorrectCtf": 0}):
        write_job(tmp_path, classes, **flags)
        job = inputs.read(tmp_path, OPTIMISER)
        accuracies.append(Accuracies(job)(job.classes, "relion").accuracy_deg)
    np.testing.assert_array_equal(accuracies[1], accuracies[2])
    # The CTF takes signal away: with it less can be told apart.
    assert (accuracies[0] > accuracies[1]).all()
