"""The control chart on picks: quiet on what is usual, loud on drift, not on single outliers."""

import math

import numpy as np
import pytest

from algorithms.picking.chart import BASELINE, Chart, nearest_neighbour


def fed(kind, values):
    chart, alarms = Chart(kind), []
    for value in values:
        chart.add(float(value))
        alarms.append(chart.is_alarm)
    return chart, alarms


def counts(seed, mean, number):
    return np.random.default_rng(seed).poisson(mean, number)


def test_a_steady_session_raises_hardly_an_alarm():
    sessions = [fed("count", counts(seed, 200, 300))[1] for seed in range(40)]
    begun = sum(int(np.sum(np.diff(np.array(alarms, int)) == 1)) for alarms in sessions)
    assert begun <= 8  # in 12,000 micrographs


@pytest.mark.parametrize(("after", "within"), [(120, 8), (160, 12), (300, 8)])
def test_a_shift_is_seen_soon_and_its_end_too(after, within):
    series = [*counts(1, 200, 60), *counts(2, after, 30), *counts(3, 200, 40)]
    chart, alarms = fed("count", series)
    begun = alarms.index(True, 60)
    assert begun < 60 + within
    assert all(alarms[begun:90])
    assert not any(alarms[110:])
    low, expected, high = chart.limits()
    assert low < expected < high
    assert abs(expected - 200) < 10
    assert low < chart.current() < high


def test_a_slow_drift_is_seen():
    drift = 200 * np.exp(-np.arange(120) / 150)
    series = [*counts(4, 200, 40), *np.random.default_rng(5).poisson(drift)]
    assert 50 < fed("count", series)[1].index(True) < 100


def test_single_outliers_are_not_drift():
    series = counts(6, 200, 100)
    series[[50, 70, 90]] = 0
    assert not any(fed("count", series)[1])
    series[[51, 52]] = 0
    assert fed("count", series)[1][52]


def test_nothing_is_said_before_the_beginning_is_known():
    chart, alarms = fed("count", [200] * (BASELINE - 1))
    assert not chart.is_ready
    assert not any(alarms)
    chart.add(200)
    assert chart.is_ready
    assert chart.limits()[1] == pytest.approx(200)
    for _ in range(20):  # an equal grid: the least spread keeps small changes quiet
        chart.add(203)
    assert not chart.is_alarm


def test_an_outlier_in_the_beginning_does_not_widen_the_limits():
    clean = counts(7, 200, BASELINE)
    spoilt = clean.copy()
    spoilt[:5] = 0
    limits = [fed("count", series)[0].limits() for series in (clean, spoilt)]
    assert limits[1][0] > 0.9 * limits[0][0]


def test_distances_are_taken_as_ratios():
    rng = np.random.default_rng(8)
    usual = 150 * np.exp(rng.normal(0, 0.08, 60))
    assert not any(fed("distance", usual)[1])
    _, alarms = fed("distance", [*usual, *(usual[:20] * 0.8)])
    assert any(alarms[60:75])
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="no distance"):
            Chart("distance").add(value)
    with pytest.raises(ValueError, match="no count"):
        Chart("count").add(-1)


def test_nearest_neighbours():
    assert nearest_neighbour([0, 3, 3, 100], [0, 0, 4, 0]) == pytest.approx(3.5)
    assert nearest_neighbour([1], [1]) is None
    assert nearest_neighbour([], []) is None
