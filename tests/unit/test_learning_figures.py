from dataclasses import replace

import numpy as np
import pytest

from algorithms.ranker.learning import baselines, data, evaluation, metrics
from algorithms.ranker.learning.judging import bars, is_met
from algorithms.ranker.learning.recipe import OURS
from algorithms.ranker.learning.retraining import held_out, worse
from algorithms.ranker.learning.thresholds import Thresholds, choose
from algorithms.ranker.trainingset.records import TAGS
from algorithms.ranker.types import RankerError
from tests import learning_data

SIZES = np.array([100.0, 50.0, 30.0, 20.0])


def test_rates_are_divided_by_the_reference() -> None:
    reference = np.array([True, False, True, False])
    fpr, fnr = metrics.particle_rates(np.array([True, True, False, False]), reference, SIZES)
    assert (fpr, fnr) == (50.0 / 130.0, 30.0 / 130.0)
    small = np.array([False, False, False, True])
    fpr, fnr = metrics.particle_rates(np.ones(4, bool), small, SIZES)
    assert (fpr, fnr) == (9.0, 0.0)
    assert np.isnan(metrics.particle_rates(small, np.zeros(4, bool), SIZES)).all()


def test_the_best_threshold_of_a_job() -> None:
    scores, reference = np.array([0.9, 0.2, 0.5, 0.1]), np.array([True, False, True, False])
    assert 0.2 < metrics.best_threshold(scores, reference, SIZES) < 0.5
    # Not separable: losing 30 of 130 is less than taking 50.
    mixed = metrics.best_threshold(np.array([0.9, 0.6, 0.5, 0.1]), reference, SIZES)
    assert 0.6 < mixed < 0.9


def test_ranks_and_areas() -> None:
    assert metrics.rank_correlation(np.arange(5.0), np.arange(5.0) ** 3) == pytest.approx(1.0)
    assert np.isnan(metrics.rank_correlation(np.zeros(5), np.arange(5.0)))
    assert metrics.area_under_curve(np.array([2.0, 3.0]), np.array([1.0, 2.0])) == 0.875
    assert np.isnan(metrics.area_under_curve(np.array([]), np.array([1.0])))


def test_intervals_are_over_jobs() -> None:
    random = np.random.default_rng(0)
    values = random.normal(1.0, 0.5, 400)
    found = metrics.bootstrap(np.stack([values, np.ones(400)], 1), metrics.ratio)
    assert found["value"] == pytest.approx(values.mean())
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * 0.5 / 20.0, rel=0.15)
    one = metrics.bootstrap(np.array([[2.0, 1.0]]), metrics.ratio)
    assert one["value"] == 2.0 and np.isnan(one["low"])
    y, s = random.random(50), random.random(50)
    sums = np.array([[((y - s) ** 2).sum(), 50.0, y.sum(), (y**2).sum()]])
    expected = 1.0 - ((y - s) ** 2).mean() / y.var()
    assert metrics.bootstrap(sums, metrics.determination)["value"] == pytest.approx(expected)


def test_calibration_and_confusion() -> None:
    bins = metrics.calibration(np.array([0.0, 0.2, 1.0]), np.array([-0.3, 0.05, 1.4]))
    assert [(b["from"], b["classes"]) for b in bins] == [(0.0, 2), (0.9, 1)]
    assert bins[0]["truth"] == pytest.approx(0.1)
    matrix = metrics.confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), (3, 2))
    np.testing.assert_array_equal(matrix, [[0.5, 0.5], [0.0, 1.0], [0.0, 0.0]])


def test_thresholds_separate_where_scores_do() -> None:
    jobs = [learning_data.job(f"v{i}", "validation", seed=i) for i in range(3)]
    found = choose(lambda job: np.where(data.good(job), 0.6, 0.2), jobs)
    assert 0.2 < found.drop <= found.default <= 0.6
    blind = choose(lambda job: np.full(len(job), 0.4), jobs)
    assert blind.drop <= 0.4
    with pytest.raises(RankerError, match="no validation jobs"):
        choose(lambda job: job.y, [])


def test_figures_of_a_perfect_and_of_a_wrong_model() -> None:
    jobs = [learning_data.job(f"v{i}", "test", seed=i) for i in range(3)]
    limits = Thresholds(0.5, 0.4)
    perfect = evaluation.evaluated(lambda job: job.y, jobs, limits)
    told = perfect["summary"]
    assert told["mse"]["value"] == 0.0 and told["r2"]["value"] == 1.0
    assert told["worst_fpr"] == told["worst_fnr"] == 0.0 and told["jobs_within"] == 1.0
    kinds = {kind["kind"]: kind for kind in perfect["kinds"]}
    assert kinds["N"]["kept"] == 0.0 and kinds["N"]["auc"] == 1.0
    assert kinds["C"]["of_selected"] == pytest.approx(5.0 / 95.0)
    row = perfect["jobs"][0]
    assert row["yield"] == pytest.approx(360.0 / 370.0) and row["rare_lost"] == 0
    assert perfect["outcomes"][evaluation.LABELS.index(1)] == [0.0, 0.0, 1.0]
    wrong = evaluation.evaluated(lambda job: 1.0 - job.y, jobs, limits)["summary"]
    assert wrong["worst_fnr"] == 1.0 and wrong["rho"]["value"] == pytest.approx(-1.0)
    assert wrong["rare_lost"] == wrong["rare_classes"] == 3


def test_jobs_without_good_classes_and_undecided_classes() -> None:
    job = learning_data.job("n", "test")
    none = replace(job, label=np.zeros(len(job), np.int64), y=np.zeros(len(job)))
    coarse = replace(job, job_score=0.05, y=0.05 * job.y)
    keeps_all = lambda one: np.full(len(one), 0.9)  # noqa: E731
    told = evaluation.brief(keeps_all, [none, coarse], Thresholds(0.5, 0.5))
    assert told["judged"] == 0 and told["kept_without_reference"]["value"] == 1.0
    label = job.label.copy()
    label[4:] = -1
    own = replace(job, label=label, counts=np.full((len(job), len(TAGS)), np.nan))
    told = evaluation.brief(lambda one: np.full(len(one), 0.9), [own], Thresholds(0.5, 0.5))
    assert told["fpr"]["value"] == 0.0


def test_classes_that_nobody_knows_count_for_nothing() -> None:
    """Neither in thresholds, nor in baselines, nor in what is told of kinds."""
    jobs = [learning_data.job(f"v{i}", "validation", seed=i) for i in range(3)]
    constants = data.constants(jobs, OURS)
    unknown = [
        replace(
            job,
            label=np.where(np.arange(len(job)) % 3 == 0, -1, job.label),
            y=np.where(np.arange(len(job)) % 3 == 0, np.nan, job.y),
        )
        for job in jobs
    ]
    for rule in (
        baselines.constant(unknown),
        baselines.class_size(unknown),
        baselines.distribution_over_resolution(unknown),
        baselines.ridge(unknown, unknown, constants),
    ):
        assert np.isfinite(rule(jobs[0])).all()

    def liked(job):
        return np.where(np.isnan(job.y) | data.good(job), 0.6, 0.2)

    assert 0.2 < choose(liked, unknown).default <= 0.6
    told = evaluation.evaluated(liked, unknown, Thresholds(0.5, 0.4))
    assert told["summary"]["fpr"]["value"] == told["summary"]["outside_fpr"]["value"] == 0.0
    assert told["summary"]["asked"]["value"] == 0.0
    kept = sum(job.counts[data.good(job)].sum() for job in unknown)
    assert sum(kind["kept"] * kind["particles"] for kind in told["kinds"] if kind["particles"]) == (
        pytest.approx(kept)
    )


def test_baselines_learn_what_they_may() -> None:
    jobs = learning_data.jobs_of(4, 2)
    train, test = jobs["train"], jobs["test"]

    def error(model) -> float:
        return float(np.mean([((model(job) - job.y) ** 2).mean() for job in test]))

    spread = float(np.mean([job.y.var() for job in test]))
    ridge = baselines.ridge(train, jobs["validation"], data.constants(train, OURS))
    assert error(baselines.constant(train)) == pytest.approx(spread, rel=0.1)
    assert error(baselines.class_size(train)) == pytest.approx(spread, rel=0.1)  # all equal
    assert error(baselines.distribution_over_resolution(train)) < 0.2 * spread
    assert error(ridge) < 0.3 * spread


def summary(mse: float, fpr: float = 0.1) -> dict:
    about = {"mse": {"value": mse}, "fpr": {"value": fpr}, "fnr": {"value": 0.1}}
    return about | {"judged": 20, "worst_fpr": fpr, "worst_fnr": 0.2, "rho": {"value": 0.9}}


@pytest.mark.parametrize(
    ("mse", "fpr", "rival", "failed"),
    [
        (0.01, 0.1, 0.05, []),
        (0.03, 0.1, 0.05, ["mse on test"]),
        (0.01, 0.3, 0.05, ["fpr in the mean", "fpr of the worst job"]),
        (0.01, 0.1, 0.005, ["share of baselines not beaten"]),
    ],
)
def test_bars(mse: float, fpr: float, rival: float, failed: list[str]) -> None:
    parts = {name: {"summary": summary(mse, fpr), "jobs": []} for name in ("test", "second")}
    rows = {"ridge": {name: summary(rival) for name in parts}}
    result = {"parts": parts, "baselines": rows, "grey_scale": {"test": {"2": 0.0}}}
    found = bars(result | {"real_order": {}})
    assert [name for name, bar in found.items() if not bar["met"]] == failed
    assert is_met(found) == (not failed)
    # What is not known is not met.
    lone = bars(result | {"parts": {"test": parts["test"]}, "real_order": {}})
    assert lone["mse of part second over test"]["met"] is None and not is_met(lone)


def test_the_guard_of_retraining() -> None:
    before = {"mse": 0.02, "fpr": 0.1, "fnr": 0.1}
    assert worse(before, before) == []
    assert worse(before, before | {"mse": 0.0203}) == []  # within what seeds make
    assert worse(before, before | {"mse": 0.021}) == [
        "mse 0.0210 instead of 0.0200, at most 0.0204"
    ]
    assert len(worse(before, {"mse": np.nan, "fpr": 0.2, "fnr": 0.1})) == 2


def test_own_jobs_are_held_out_by_session() -> None:
    own = [learning_data.job(f"{s}-{i}", "real", seed=s) for s in range(10) for i in range(3)]
    own = [replace(job, family=f"session {job.job[0]}") for job in own]
    held, learnt = held_out(own)
    assert {job.family for job in held} == {"session 0", "session 5"}
    assert len(held) == 6 and len(learnt) == 24
    assert held_out(own[:27]) == ([], own[:27])  # too few sessions
