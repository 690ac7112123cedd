"""The statistics against closed forms, SciPy and enumeration."""

import itertools

import numpy as np
import pytest
from scipy import stats

from steepest.evidence.statistics import (
    bootstrap_interval,
    interquartile_mean,
    mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
    t_interval,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_t_interval_is_scipys():
    x = rng().normal(size=7)
    ours = t_interval(x)
    theirs = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert ours.estimate == pytest.approx(x.mean())


def test_t_interval_by_hand():
    # n = 2: half width = t(0.975, 1) |a - b| / 2, and t(0.975, 1) = tan(0.475 pi)
    found = t_interval([1.0, 3.0])
    assert found.high - 2.0 == pytest.approx(np.tan(0.475 * np.pi))


def test_one_value_says_nothing_and_equal_values_say_all():
    assert t_interval([2.0]).low == -np.inf
    assert (t_interval([2.0] * 4).low, t_interval([2.0] * 4).high) == (2.0, 2.0)


def test_t_interval_covers_as_often_as_it_says():
    draws = rng(1).normal(3.0, 2.0, size=(4000, 5))
    inside = np.mean([t_interval(x).low < 3.0 < t_interval(x).high for x in draws])
    assert abs(inside - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (5, 2), (4, 7), (10, 3)])
def test_interquartile_mean_is_the_trimmed_mean(shape):
    x = rng(2).normal(size=shape)
    assert interquartile_mean(x) == pytest.approx(stats.trim_mean(x, 0.25, axis=None))


def test_aggregates_keep_leading_axes():
    x, y = rng(3).normal(size=(6, 5, 3)), rng(4).normal(size=(6, 4, 3))
    for f in (interquartile_mean, mean, median, optimality_gap):
        assert f(x) == pytest.approx([float(f(part)) for part in x])
    assert probability_of_improvement(x, y) == pytest.approx(
        [float(probability_of_improvement(a, b)) for a, b in zip(x, y, strict=True)]
    )


def test_median_is_of_task_means_not_of_runs():
    x = np.array([[0.0, 1.0, 10.0], [100.0, 3.0, 10.0]])  # task means 50, 2, 10
    assert median(x) == 10.0
    assert mean(x) == pytest.approx(62 / 3)


def test_optimality_gap_ignores_what_exceeds_the_target():
    assert optimality_gap([[0.5, 7.0]]) == pytest.approx(0.25)
    assert optimality_gap([[3.0]], target=2.0) == 0.0


def test_probability_of_improvement_is_mann_whitneys():
    x, y = rng(5).integers(0, 4, (6, 3)), rng(6).integers(0, 4, (5, 3))  # many ties
    u = [stats.mannwhitneyu(x[:, k], y[:, k]).statistic / 30 for k in range(3)]
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(u))
    assert probability_of_improvement(x, y) + probability_of_improvement(y, x) == pytest.approx(1.0)
    assert probability_of_improvement([[1.0], [1.0]], [[1.0]]) == 0.5


def test_bootstrap_is_scipys():
    x = rng(7).exponential(size=30)
    ours = bootstrap_interval(x, rng(8), repetitions=40_000)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=40_000, method="percentile", rng=rng(9)).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_bootstrap_by_enumeration():
    x = np.array([0.0, 1.0, 4.0])
    means = np.array([np.mean(draw) for draw in itertools.product(x, repeat=3)])
    found = bootstrap_interval(x, rng(1), repetitions=60_000, level=0.6)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.2, 0.8])), abs=1e-9)


def test_stratified_means_within_each_task():
    # tasks differ, runs within one do not: nothing to resample, so the interval is a point
    x = np.array([[1.0, 50.0], [1.0, 50.0], [1.0, 50.0]])
    found = stratified_bootstrap(mean, x, rng=rng(), repetitions=500)
    assert (found.low, found.estimate, found.high) == (25.5, 25.5, 25.5)


def test_stratified_variance_is_the_strata_s():
    x = rng(10).normal(size=(8, 3))
    found = stratified_bootstrap(mean, x, rng=rng(11), repetitions=60_000, level=0.6827)
    deviation = np.sqrt(x.var(0).mean() / 8 / 3)  # of a mean of 3 task means over 8 resampled runs each
    assert (found.high - found.low) / 2 == pytest.approx(deviation, rel=0.03)


def test_pieces_do_not_change_the_law(monkeypatch):
    x, y = rng(12).normal(size=(5, 2)), rng(13).normal(0.5, size=(6, 2))
    whole = stratified_bootstrap(probability_of_improvement, y, x, rng=rng(14), repetitions=4000)
    monkeypatch.setattr("steepest.evidence.statistics.AT_ONCE", 700)
    pieces = stratified_bootstrap(probability_of_improvement, y, x, rng=rng(15), repetitions=4000)
    assert (whole.low, whole.high) == pytest.approx((pieces.low, pieces.high), abs=0.03)
    assert whole.estimate == pieces.estimate


def test_profile_counts_strictly_above():
    x = [[0.0, 1.0], [1.0, 2.0]]
    assert performance_profile(x, [-1.0, 0.0, 1.0, 2.0]).tolist() == [1.0, 0.75, 0.25, 0.0]


@pytest.mark.parametrize(
    ("scores", "said"),
    [([[1.0, np.nan]], r"scores\[0, 1\] is nan"), ([1.0, 2.0], r"\[runs, tasks\]"), ([[]], "not empty")],
)
def test_bad_scores_are_refused(scores, said):
    with pytest.raises(ValueError, match=said):
        stratified_bootstrap(mean, scores, rng=rng(), repetitions=10)
