"""Statistics over independent runs (Agarwal et al. 2021, arXiv 2108.13264, "Deep RL at the Edge
of the Statistical Precipice")."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import trim_mean

Interval = tuple[np.ndarray, np.ndarray]


def iqm(scores: np.ndarray) -> np.ndarray:
    """Interquartile mean over the first axis: the mean of the middle half of the runs.

    Args:
        scores: [runs, ...].

    Returns:
        [...].
    """
    return trim_mean(scores, 0.25, axis=0)


def pooled_iqm(scores: np.ndarray) -> float:
    """Interquartile mean over runs and tasks at once, as the paper aggregates tasks.

    Args:
        scores: [runs, tasks], normalised so that tasks can be compared.
    """
    return float(trim_mean(scores, 0.25, axis=None))


def optimality_gap(scores: np.ndarray, optimum: float = 1.0) -> np.ndarray:
    """By how much runs miss the optimum on average; what lies above it does not make up for others.

    Args:
        scores: [runs, ...].

    Returns:
        [...], zero or more: the mean of max(optimum - score, 0).
    """
    return np.maximum(optimum - np.asarray(scores), 0).mean(0)


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Share of runs that score above each threshold.

    Args:
        scores: [runs, ...]; all entries count alike.
        thresholds: [T].

    Returns:
        [T], falling from 1 to 0.
    """
    scores = np.sort(np.ravel(_known(scores)))
    return 1 - np.searchsorted(scores, thresholds, side="right") / len(scores)


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> float:
    """P(X > Y) for a random run of each, ties counting half: 0.5 where they are alike.

    Args:
        x: [runs of X] or [runs of X, tasks]; y likewise, with its own number of runs.

    Returns:
        the mean over tasks of the Mann-Whitney U statistic as a share of its largest value.
    """
    x, y = _known(x)[:, None], _known(y)[None]
    return float(((x > y) + 0.5 * (x == y)).mean())


def bootstrap_interval(
    scores: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray] = iqm,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a statistic, resampling whole runs.

    Args:
        scores: [runs, ...]; a run keeps its points together.
        statistic: [runs, ...] -> [...], over the first axis.

    Returns:
        lower and upper end, each [...].
    """
    scores = _known(scores)
    index = np.random.default_rng(seed).integers(len(scores), size=(resamples, len(scores)))
    points = scores.reshape(len(scores), -1).T
    ends = [  # point by point: all at once would take runs x resamples x points of memory
        _ends(statistic(point[index.T]), confidence) for point in points
    ]
    low, high = np.transpose(ends).reshape(2, *scores.shape[1:])
    return low, high


def stratified_interval(
    samples: tuple[np.ndarray, ...],
    statistic: Callable[..., float],
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Stratified bootstrap interval: runs are resampled within each sample and each task.

        stratified_interval((scores,), pooled_iqm)
        stratified_interval((x, y), probability_of_improvement)

    Args:
        samples: each [runs] or [runs, tasks], with its own number of runs.
        statistic: (*samples) -> a number.

    Returns:
        lower and upper end.
    """
    rng = np.random.default_rng(seed)
    samples = tuple(_known(sample) for sample in samples)

    def again(sample: np.ndarray) -> np.ndarray:
        return np.take_along_axis(sample, rng.integers(len(sample), size=sample.shape), axis=0)

    values = [statistic(*(again(sample) for sample in samples)) for _ in range(resamples)]
    low, high = _ends(np.array(values), confidence)
    return float(low), float(high)


def _ends(values: np.ndarray, confidence: float) -> np.ndarray:
    tail = 50 * (1 - confidence)
    return np.percentile(values, [tail, 100 - tail])


def _known(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, float)
    if scores.ndim == 0 or len(scores) == 0:
        raise ValueError("statistics need at least one run: scores are [runs, ...]")
    return scores
