"""The statistics that judge claims and comparisons. NumPy and SciPy; scores are [runs, tasks], as in rliable.

Aggregates take [..., runs, tasks] and keep the leading axes, so that a bootstrap computes thousands of
resampled matrices in one call. Sources: Agarwal et al., Deep RL at the Edge of the Statistical Precipice,
2021 (interquartile mean, optimality gap, probability of improvement, stratified bootstrap, profiles).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

Array = NDArray[np.float64]
AT_ONCE = 4_000_000  # numbers resampled at a time: 32 MB


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it."""

    estimate: float
    low: float
    high: float


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student's interval of the mean of independent values [n]; infinitely wide for a single one."""
    x = finite(values, "values", 1)
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean, -np.inf, np.inf)
    half = float(student.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(mean, mean - half, mean + half)


def bootstrap_interval(values: ArrayLike, rng: np.random.Generator, repetitions: int = 50_000, level: float = 0.95) -> Interval:
    """Percentile bootstrap interval of the mean of independent values [n]."""
    return stratified_bootstrap(mean, finite(values, "values", 1)[:, None], rng=rng, repetitions=repetitions, level=level)


def interquartile_mean(scores: ArrayLike) -> Array:
    """The mean of the middle half of all scores: a quarter (rounded down) is cut at either end. [..., runs, tasks] -> [...]"""
    x = np.asarray(scores, float)
    flat = np.sort(x.reshape(*x.shape[:-2], -1), -1)
    cut = flat.shape[-1] // 4
    return flat[..., cut : flat.shape[-1] - cut].mean(-1)


def mean(scores: ArrayLike) -> Array:
    """The mean over tasks of the mean over runs. [..., runs, tasks] -> [...]"""
    return np.asarray(scores, float).mean((-2, -1))


def median(scores: ArrayLike) -> Array:
    """The median over tasks of the mean over runs. [..., runs, tasks] -> [...]"""
    return np.median(np.asarray(scores, float).mean(-2), -1)


def optimality_gap(scores: ArrayLike, target: float = 1.0) -> Array:
    """How far scores stay below `target` on average; what exceeds it does not count. [..., runs, tasks] -> [...]"""
    return target - np.minimum(np.asarray(scores, float), target).mean((-2, -1))


def probability_of_improvement(ours: ArrayLike, theirs: ArrayLike) -> Array:
    """How often a run of ours beats one of theirs, ties counting half, averaged over tasks.

    ours [..., n, tasks], theirs [..., m, tasks] -> [...]; a task's share is Mann and Whitney's U / (n m).
    """
    x, y = np.asarray(ours, float)[..., :, None, :], np.asarray(theirs, float)[..., None, :, :]
    return (0.5 * ((x > y).mean((-3, -2)) + (x >= y).mean((-3, -2)))).mean(-1)


def stratified_bootstrap(
    statistic: Callable[..., Any],
    *scores: ArrayLike,
    rng: np.random.Generator,
    repetitions: int = 50_000,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of `statistic(*scores)`, resampling the runs of each task on their own.

    statistic    of one or more matrices [..., runs, tasks] -> [...], e.g. `interquartile_mean`
    scores       one matrix [runs, tasks] for each argument, resampled independently
    repetitions  resampled sets (rliable: 50,000; 2,000 are enough to look at)
    level        share of resampled statistics inside the interval
    """
    if repetitions < 1 or not 0 < level < 1:
        raise ValueError(f"repetitions must be at least 1 and level between 0 and 1, not {repetitions} and {level}")
    given = [finite(x, "scores", 2) for x in scores]
    # a pairwise statistic holds every pair of runs at once
    size = int(np.prod([len(x) for x in given])) * given[0].shape[1]
    piece = max(1, AT_ONCE // size)
    seen = []
    for start in range(0, repetitions, piece):
        count = min(piece, repetitions - start)
        drawn = [np.take_along_axis(x[None], rng.integers(len(x), size=(count, *x.shape)), 1) for x in given]
        seen.append(statistic(*drawn))
    low, high = np.quantile(np.concatenate(seen), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(*given)), float(low), float(high))


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> Array:
    """The share of runs that score above each threshold, averaged over tasks. [runs, tasks], [K] -> [K]"""
    x = finite(scores, "scores", 2)
    return (x[None] > np.asarray(thresholds, float)[:, None, None]).mean((1, 2))


def finite(values: ArrayLike, name: str, axes: int) -> Array:
    """`values` as float64 with `axes` axes, none empty; raises ValueError and names the first number that is not finite."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != axes or x.size == 0:
        shape = "[runs, tasks]" if axes == 2 else "[n]"
        raise ValueError(f"{name} must be {shape} and not empty, not of shape {list(x.shape)}")
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        raise ValueError(
            f"{name}{bad[0].tolist()} is {x[tuple(bad[0])]}: {len(bad)} of {x.size} numbers are not finite, so a run diverged"
        )
    return x
