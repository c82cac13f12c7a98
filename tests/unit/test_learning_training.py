from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from algorithms.ranker.features import features
from algorithms.ranker.learning import campaign, data, evaluation, judging
from algorithms.ranker.learning.augmentation import Gain, turned
from algorithms.ranker.learning.recipe import OURS, RELION, Recipe
from algorithms.ranker.learning.thresholds import Thresholds
from algorithms.ranker.learning.training import Trained, predicted, train
from algorithms.ranker.types import RankerError
from algorithms.ranker.weights import dumps, loads
from tests import learning_data
from tests.ranker_data import CARD, averages, class_set

QUICK = replace(OURS, epochs=3, width=4, batch=8)


@pytest.fixture(scope="module")
def jobs_of() -> dict:
    return learning_data.jobs_of(3, 1)


def trained(jobs_of: dict, recipe: Recipe, state: Path | None = None) -> Trained:
    constants = data.constants(jobs_of["train"], recipe)
    held = data.inputs(jobs_of["validation"], constants)
    return train(data.inputs(jobs_of["train"], constants), recipe, held, state=state)


def test_the_recipe_of_the_original_is_the_default() -> None:
    assert Recipe() == RELION
    told = (RELION.epochs, RELION.rate, RELION.weight_decay, RELION.batch, RELION.seed)
    assert told == (200, 5e-5, 5e-4, 32, 12)
    assert RELION.turns == "batch" and RELION.zeroed == tuple(range(15, 21))
    assert Recipe.loads({"epochs": 4}) == replace(RELION, epochs=4)
    with pytest.raises(RankerError, match="no momentum"):
        Recipe.loads({"momentum": 0.9})
    with pytest.raises(RankerError, match="turns is 'all'"):
        Recipe.loads({"turns": "all"})


def test_turns_are_about_the_middle_pixel() -> None:
    images = torch.from_numpy(averages(2, 16))[:, None]
    images[:, :, 0] = images[:, :, :, 0] = 0.0  # what has no partner beyond the middle
    quarter = turned(images, torch.tensor([0.0, np.pi / 2]), torch.tensor([False, False]))
    assert torch.allclose(quarter[0], images[0], atol=1e-5)
    by_hand = images[1].transpose(1, 2).flip(1).roll(1, 1)
    other = images[1].transpose(1, 2).flip(2).roll(1, 2)
    nearest = min(float((quarter[1] - one).abs().max()) for one in (by_hand, other))
    assert nearest < 1e-4
    mirrored = turned(images, torch.zeros(2), torch.tensor([True, True]))
    assert torch.allclose(mirrored, images.flip(3).roll(1, 3), atol=1e-5)


def test_a_gain_on_features_is_that_of_the_averages(jobs_of: dict) -> None:
    recipe = replace(QUICK, grey="as_is")
    constants = data.constants(jobs_of["train"], recipe)
    images = averages(6, 32, 5)
    job = learning_data.job("a", n=6)
    weak, strong = (
        data.inputs(
            [replace(job, features=features(class_set(g * images), "coldstream"))], constants
        )
        for g in (1.0, 1.7)
    )
    gain = Gain(torch.from_numpy(weak.follows_gain()), torch.from_numpy(weak.pivot()))
    z = gain.applied(torch.from_numpy(weak.vectors), torch.full((6,), 1.7))
    assert np.abs(weak.vectors - strong.vectors).max() > 0.1
    np.testing.assert_allclose(z.numpy(), strong.vectors, atol=2e-3)


def test_constants_are_of_the_training_jobs_alone(jobs_of: dict) -> None:
    constants = data.constants(jobs_of["train"], OURS)
    z = data.inputs(jobs_of["train"], constants).vectors
    free = [c for c in range(24) if c not in (*constants.zeroed, *constants.per_job)]
    assert np.abs(np.median(z[:, free], axis=0)).max() < 1e-4
    assert (constants.clip, constants.grey) == (5.0, "job")
    held = data.inputs(jobs_of["test"], constants).vectors
    assert np.abs(np.median(held[:, free], axis=0)).max() > 1e-3


def test_parts_must_not_share_a_family(jobs_of: dict) -> None:
    data.separated(jobs_of)
    taken = replace(jobs_of["test"][0], family=jobs_of["train"][0].family)
    with pytest.raises(RankerError, match="family of t0 is in the parts train and test"):
        data.separated(jobs_of | {"test": [taken]})
    # The second simulator shows the structures of the test.
    twin = replace(jobs_of["second"][0], family=jobs_of["test"][0].family)
    data.separated(jobs_of | {"second": [twin]})


def test_classes_without_a_target_are_not_learnt(jobs_of: dict) -> None:
    job = jobs_of["train"][0]
    y = job.y.copy()
    y[2:5] = np.nan
    constants = data.constants(jobs_of["train"], QUICK)
    inputs = data.inputs([replace(job, y=y)], constants)
    assert len(inputs) == len(inputs.images) == len(job) - 3
    with pytest.raises(RankerError, match="no class with a target"):
        train(data.inputs([replace(job, y=np.full(len(job), np.nan))], constants), QUICK)


def test_a_killed_training_goes_on_to_the_same_weights(jobs_of: dict, tmp_path: Path) -> None:
    whole, state = trained(jobs_of, QUICK), tmp_path / "state"
    constants = data.constants(jobs_of["train"], QUICK)
    inputs = data.inputs(jobs_of["train"], constants)
    held = data.inputs(jobs_of["validation"], constants)

    def killed(epoch: int, *_: object) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(inputs, QUICK, held, state=state, told=killed)
    resumed = train(inputs, QUICK, held, state=state)
    assert resumed.history == whole.history and resumed.epoch == whole.epoch
    for name, value in whole.arrays.items():
        np.testing.assert_array_equal(resumed.arrays[name], value)
    other_held = data.inputs(jobs_of["test"], constants)
    for recipe, shown in ((replace(QUICK, seed=13), held), (QUICK, other_held), (QUICK, None)):
        with pytest.raises(RankerError, match="another recipe or other data"):
            train(inputs, recipe, shown, state=state)
    state.write_bytes(b"no state")
    with pytest.raises(RankerError, match="is no state of a training"):
        train(inputs, QUICK, held, state=state)
    other = trained(jobs_of, replace(QUICK, seed=13))
    assert (
        np.abs(other.arrays["cnn_layers.0.weight"] - whole.arrays["cnn_layers.0.weight"]).max() > 0
    )


def test_an_error_that_is_no_number_replaces_no_weights(jobs_of: dict) -> None:
    constants = data.constants(jobs_of["train"], QUICK)
    inputs = data.inputs(jobs_of["train"], constants)
    held = data.inputs(jobs_of["validation"], constants)

    def breaks(epoch: int, *_: object) -> None:
        if epoch == 1:
            held.y[0] = np.nan

    found = train(inputs, replace(QUICK, keeps_best=True), held, told=breaks)
    assert np.isnan(found.history[-1]["validation"]) and found.epoch == 1


@pytest.mark.parametrize(
    "head",
    [
        "both",
        pytest.param("images", marks=pytest.mark.slow),
        pytest.param("features", marks=pytest.mark.slow),
    ],
)
def test_every_head_learns(jobs_of: dict, head: str) -> None:
    recipe = replace(
        QUICK,
        epochs=60 if head == "features" else 8,
        rate=3e-3,
        head=head,
        turns="quarter",
        gain=1.2,
    )
    history = trained(jobs_of, recipe).history
    best = min(entry["validation"] for entry in history)
    y = data.inputs(jobs_of["validation"], data.constants(jobs_of["train"], recipe)).y
    assert best < 0.6 * y.var() and history[-1]["train"] < history[0]["train"]


def test_numpy_scores_as_torch_does_and_grey_scale_does_not_matter(jobs_of: dict) -> None:
    constants = data.constants(jobs_of["train"], QUICK)
    found = trained(jobs_of, QUICK)
    weights = loads(dumps(found.arrays, constants, CARD), "test")
    job = jobs_of["test"][0]
    by_torch = predicted(found.arrays, data.inputs([job], constants))
    score = judging.scorer(weights)
    np.testing.assert_allclose(score(job), by_torch, atol=1e-5)
    assert evaluation.grey_scale(score, [job], 2.0) < 1e-5
    free = loads(dumps(found.arrays, replace(constants, grey="as_is"), CARD), "test")
    assert evaluation.grey_scale(judging.scorer(free), [job], 2.0) > 1e-3


def test_simulated_jobs_are_learnt_and_judged(tmp_path: Path) -> None:
    found = data.load(Path(__file__).parents[1] / "data" / "trainingset")
    assert all(found[part] for part in ("train", "validation", "test"))
    recipe = replace(QUICK, epochs=2, batch=16)
    about = campaign.run(
        found, campaign.Plan(recipe=recipe, ablations=False, curve=False), tmp_path
    )
    assert len(about["history"]) == 2 and about["splits"]["test"]["jobs"] == ["sim00002"]
    result = judging.judged(found, tmp_path)
    job = result["parts"]["test"]["jobs"][0]
    assert job["classes"] == job["n"] == len(found["test"][0]) and 0.0 <= job["fnr"] <= 1.0
    assert result["bars"]["largest change by grey scale"]["met"]
    # Judged by the truth itself nothing is wrong.
    limits = Thresholds(0.15, 0.1)
    truth = evaluation.brief(lambda one: one.y, found["test"], limits)
    assert truth["mse"]["value"] == 0.0 and truth["fpr"]["value"] <= 0.25
