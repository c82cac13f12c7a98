"""Which classes are kept: thresholds, minima, a person's word, adaptive thresholds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from algorithms.ranker import tables
from algorithms.ranker.selection import (
    Overrides,
    Rules,
    adaptive_threshold,
    select,
    stack_digest,
)
from algorithms.ranker.targets import target_scores
from algorithms.ranker.types import UNSCORED, RankerError
from tests.ranker_data import averages, class_set

SCORES = np.array([0.15, 0.9, UNSCORED, 0.4, 0.05, 0.14, -0.2])
SIZES = np.array([100.5, 50.5, 3.0, 20.7, 30.0, 200.0, 60.0])


def test_the_projects_threshold_counts_its_own_value_as_good():
    chosen = select(SCORES, SIZES)
    assert chosen.low == 0.15
    assert chosen.flags() == [1, 1, 0, 1, 0, 0, 0]
    assert chosen.order == [0, 1, 3] and chosen.warnings == []
    assert set(chosen.outcomes) == {"keep", "drop"}
    assert chosen.reasons[2] == "unscored"


def test_a_score_can_be_too_high():
    assert select(SCORES, SIZES, Rules(high=0.4)).order == [0, 3]


def test_between_two_thresholds_a_person_is_asked():
    chosen = select(SCORES, SIZES, Rules(low=0.3, ask=0.1))
    assert chosen.outcomes == ["ask", "keep", "drop", "keep", "drop", "ask", "drop"]
    assert chosen.order == [1, 3]
    # A minimum may need them; then nobody has to be asked.
    chosen = select(SCORES, SIZES, Rules(low=0.3, ask=0.1, least_classes=3))
    assert chosen.order == [1, 3, 0] and chosen.outcomes[0] == "keep"
    assert chosen.reasons[0] == "minimum" and chosen.outcomes[5] == "ask"


def test_minima_are_filled_by_descending_score_until_both_hold():
    assert select(SCORES, SIZES, Rules(low=0.5, least_classes=4)).order == [1, 3, 0, 5]
    assert select(SCORES, SIZES, Rules(low=0.5, least_particles=100)).order == [1, 3, 0]
    # RELION stops when the particles are enough.
    both = select(SCORES, SIZES, Rules(low=0.5, least_particles=60, least_classes=5))
    assert both.order == [1, 3, 0, 5, 4]


def test_particles_are_counted_as_relion_counts_them():
    # 50.5 -> 50, 50 + 20.7 -> 70: not the 71.2 that there are.
    assert select(SCORES, SIZES, Rules(low=0.4, least_particles=70)).order == [1, 3]
    assert select(SCORES, SIZES, Rules(low=0.4, least_particles=71)).order == [1, 3, 0]


def test_a_minimum_that_cannot_be_met_is_told():
    chosen = select(SCORES, SIZES, Rules(least_particles=10**6, least_classes=50))
    assert chosen.order == [0, 1, 3, 5, 4, 6]  # never the one without a score
    assert any("fewer than 1000000" in line for line in chosen.warnings)
    assert any("fewer than 50" in line for line in chosen.warnings)


def test_nothing_selected_is_told():
    chosen = select(SCORES, SIZES, Rules(low=5.0))
    assert chosen.order == [] and "no class is selected of 6" in chosen.warnings[0]
    assert select(np.full(3, UNSCORED), SIZES[:3]).warnings


def test_relative_thresholds_are_fractions_of_the_highest_score():
    chosen = select(SCORES, SIZES, Rules(low=0.4, high=1.0, relative=True))
    assert chosen.low == pytest.approx(0.36) and chosen.order == [1, 3]
    chosen = select(-np.abs(SCORES), SIZES, Rules(low=0.4, high=1.0, relative=True))
    assert chosen.order == [] and "above 0" in chosen.warnings[0]


def test_a_person_stands_above_all_rules():
    decided = {2: False, 3: True, 7: True, 6: False}
    chosen = select(SCORES, SIZES, Rules(low=0.1, least_classes=6), decided)
    assert chosen.flags() == [1, 0, 1, 1, 1, 0, 1]
    assert [chosen.reasons[n - 1] for n in decided] == ["person"] * 4
    # Classes that a person keeps are in the order of the classes, those added come after them.
    assert chosen.order == [0, 2, 3, 6, 4]
    assert chosen.outcomes[5] == "drop"  # though between two thresholds it would be asked for
    with pytest.raises(RankerError, match="no class 8"):
        select(SCORES, SIZES, decided={8: True})


def test_a_person_may_keep_a_class_whose_size_is_not_known():
    sizes = np.array([100.0, np.nan])
    chosen = select(np.array([0.5, UNSCORED]), sizes, Rules(least_particles=50), {2: True})
    assert chosen.order == [0, 1] and chosen.warnings == []


def test_thresholds_out_of_order_are_refused():
    for wrong in ({"low": 1.0, "high": 0.5}, {"low": 0.2, "ask": 0.3}):
        with pytest.raises(RankerError, match="ask <= low <= high"):
            Rules(**wrong)


@given(
    st.lists(st.tuples(st.floats(-1, 2), st.floats(0, 500)), min_size=1, max_size=30),
    st.floats(-1, 2),
    st.integers(-1, 2000),
    st.integers(-1, 30),
)
def test_a_selection_holds_what_it_promises(rows, low, least_particles, least_classes):
    scores, sizes = np.array(rows).T
    rules = Rules(low=low, least_particles=least_particles, least_classes=least_classes)
    chosen = select(scores, sizes, rules)
    assert len(set(chosen.order)) == len(chosen.order)
    kept = np.array(chosen.flags(), bool)
    assert kept[scores >= low].all()
    # Nobody below is kept before somebody above.
    assert not kept.any() or kept.all() or scores[~kept].max() <= scores[kept].min()
    if not chosen.warnings:
        assert kept.sum() >= least_classes and sizes[kept].sum() >= least_particles


def test_an_adaptive_threshold_is_a_quantile_within_bounds():
    scores = [0.1, 0.2, 0.3, 0.4, UNSCORED, float("nan")]
    assert adaptive_threshold(scores, 0.5, (0.0, 1.0)) == pytest.approx(0.25)
    assert adaptive_threshold(scores, 0.0, (0.15, 1.0)) == 0.15
    assert adaptive_threshold(scores, 1.0, (0.0, 0.35)) == 0.35
    assert adaptive_threshold([UNSCORED], 0.5, (0.1, 0.5)) == 0.5  # nothing known: careful
    for wrong in ((1.5, (0.0, 1.0)), (0.5, (1.0, 0.0))):
        with pytest.raises(RankerError, match="quantile"):
            adaptive_threshold(scores, *wrong)


def test_decisions_hold_for_the_averages_they_were_made_on():
    classes = class_set(averages(3, 32))
    same = class_set(classes.images.copy(), resolution_A=np.full(3, 5.0))
    other = classes.images.copy()
    other[2, 16, 16] += 1e-3
    digest = stack_digest(classes)
    assert stack_digest(same) == digest != stack_digest(class_set(other))
    overrides = Overrides(stack=digest, kept={1: False, 3: True})
    assert overrides.for_stack(digest) == {1: False, 3: True}
    assert overrides.for_stack(stack_digest(class_set(other))) == {}


def test_decisions_come_back_from_their_file():
    for overrides in (Overrides(stack="ab", kept={3: True, 1: False}), Overrides(stack="ab")):
        blocks = tables.overrides_blocks(overrides)
        assert tables.read_overrides(blocks, "x") == overrides
    with pytest.raises(RankerError, match=r"o\.star is no file of overrides.*rlnSelected"):
        tables.read_overrides({}, "o.star")


# Target scores


def targets(labels, **about):
    labels = np.array(labels)
    resolution = np.array(about.pop("resolution", np.full(len(labels), 10.0)))
    sizes = np.array(about.pop("sizes", np.full(len(labels), 100.0)))
    return target_scores(labels, resolution, sizes, about.pop("job_score", 1.0), **about)


def test_a_target_follows_label_resolution_and_job():
    got = targets([1, 5, 2, 3, 4, 6, 0], job_score=0.5)
    np.testing.assert_allclose(got, [0.5, 0.375, 0.25, 0.125, 0.125, 0.0, 0.0])
    got = targets([1, 1, 2], resolution=[10.0, 20.0, 40.0])
    np.testing.assert_allclose(got, [1.0, 0.75 + 0.25 / 4, 0.25 + 0.25 / 16])


def test_a_target_without_a_best_class_stays_in_range():
    got = targets([5, 2, 0], resolution=[10.0, 20.0, 5.0])
    np.testing.assert_allclose(got, [0.75, 0.25 + 0.25 / 4, 0.0])
    assert targets([5, 2], resolution=[10.0, 20.0], mode="relion").max() > 100.0
    # A best class that is too small is no measure; no class gains by being finer.
    got = targets([1, 1, 5], resolution=[5.0, 10.0, 8.0], sizes=[5.0, 100.0, 100.0])
    np.testing.assert_allclose(got, [1.0, 1.0, 0.75])
    assert (targets([0, 6]) == 0.0).all()


def test_labels_that_do_not_exist_are_refused():
    with pytest.raises(RankerError, match="labels must be"):
        targets([1, 7])
    with pytest.raises(RankerError, match="job between 0 and 1"):
        targets([1], job_score=1.5)


def test_without_automatic_selection_only_a_person_keeps_classes():
    rules = Rules(low=0.3, ask=0.1, automatic=False)
    chosen = select(SCORES, SIZES, rules)
    assert chosen.outcomes == ["ask", "ask", "drop", "ask", "drop", "ask", "drop"]
    assert chosen.order == [] and "automatic selection is off" in chosen.warnings[0]
    chosen = select(SCORES, SIZES, rules, {2: True, 4: False, 7: True})
    assert chosen.outcomes == ["ask", "keep", "drop", "drop", "drop", "ask", "keep"]
    assert chosen.order == [1, 6] and chosen.reasons[1] == "person"
