"""Statistics over independent runs (Agarwal et al. 2021, arXiv 2108.13264, "Deep RL at the Edge
of the Statistical Precipice"); its sections are cited at each function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Interval = tuple[np.ndarray, np.ndarray]
"""Lower and upper end."""


def iqm(scores: np.ndarray) -> np.ndarray:
    """Interquartile mean over the first axis: the mean of the middle half of the runs (4.3).

    Args:
        scores: [runs, ...].

    Returns:
        [...], nan if a score is nan or there are no runs.
    """
    return _trimmed_mean(scores, axis=0)


def pooled_iqm(scores: np.ndarray) -> float:
    """Interquartile mean over runs and tasks at once, as the paper aggregates tasks (4.3).

    Args:
        scores: [runs, tasks], normalised to a common scale.

    Raises:
        ValueError: scores are empty or nan.
    """
    return float(_trimmed_mean(_checked(scores), axis=None))


def optimality_gap(scores: np.ndarray, optimum: float = 1.0) -> np.ndarray:
    """Mean shortfall of runs below the optimum, E[max(optimum - score, 0)].

    Equal to the paper's gamma - E[min(score, gamma)] (4.3).

    Args:
        scores: [runs, ...].

    Returns:
        [...], non-negative.

    Raises:
        ValueError: scores are empty or nan.
    """
    return np.maximum(optimum - _checked(scores), 0).mean(0)


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Fraction of runs that score above each threshold: the paper's run-score distribution (4.2).

    Args:
        scores: [runs, ...]; all entries have equal weight.
        thresholds: [T].

    Returns:
        [T], non-increasing.

    Raises:
        ValueError: scores are empty or nan.
    """
    scores = np.sort(np.ravel(_checked(scores)))
    return 1 - np.searchsorted(scores, thresholds, side="right") / len(scores)


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> float:
    """P(X > Y) + P(X = Y) / 2 for a random run of each, averaged over tasks (4.3).

    This is the Mann-Whitney U statistic divided by its maximum; 0.5 for equal distributions.

    Args:
        x: [runs of X] or [runs of X, tasks].
        y: the same, with its own number of runs.

    Returns:
        the probability, between 0 and 1.

    Raises:
        ValueError: scores are empty or nan, or the numbers of tasks differ.
    """
    x, y = _checked(x), _checked(y)
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(f"x and y must be scores of the same tasks, not {x.shape} and {y.shape}")
    x, y = x[:, None], y[None]
    return float(((x > y).mean() + (x >= y).mean()) / 2)


def bootstrap_interval(
    scores: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray] = iqm,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a statistic, resampling whole runs.

    Args:
        scores: [runs, ...]; runs are resampled, the other axes are not.
        statistic: [runs, ...] -> [...], a reduction over the first axis only.
        confidence: coverage of the interval.
        resamples: number of bootstrap resamples.
        seed: of the resampling.

    Returns:
        lower and upper end, each [...].

    Raises:
        ValueError: there are no runs, `statistic` is not such a reduction, `confidence` is not
            between 0 and 1, or `resamples` is less than 1.
    """
    scores = _as_runs(scores)
    _check_resampling(confidence, resamples)
    index = np.random.default_rng(seed).integers(len(scores), size=(resamples, len(scores)))
    points = scores.reshape(len(scores), -1).T
    number = max(1, min(index.size // 2**18, resamples // 2))
    parts = np.array_split(index.T, number, axis=1)  # which fit into a cache

    def resampled(point: np.ndarray) -> np.ndarray:
        values = [statistic(point[part]) for part in parts]
        for value, part in zip(values, parts, strict=True):
            if np.shape(value) != part.shape[1:]:
                raise ValueError(
                    f"statistic returned shape {np.shape(value)} for scores of shape {part.shape},"
                    " but must reduce the first axis only, as lambda x: np.median(x, axis=0) does"
                )
        return np.concatenate(values)

    # one at a time, because all take runs x resamples x points of memory
    ends = [_ends(resampled(point), confidence) for point in points]
    low, high = np.transpose(ends).reshape(2, *scores.shape[1:])
    return low, high


def stratified_interval(
    samples: Sequence[np.ndarray],
    statistic: Callable[..., np.ndarray | float],
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """Stratified percentile bootstrap interval: runs are resampled within each task (4.1).

    Several samples, such as two algorithms, are resampled independently:

        stratified_interval([scores], pooled_iqm)
        stratified_interval([scores], lambda scores: optimality_gap(scores).mean())
        stratified_interval([x, y], probability_of_improvement)

    Args:
        samples: each [runs] or [runs, tasks], with its own number of runs.
        statistic: (*samples) -> [...], often a number.
        confidence, resamples, seed: as for `bootstrap_interval`.

    Returns:
        lower and upper end, each [...].

    Raises:
        ValueError: scores are empty or nan; `confidence` is not between 0 and 1, or `resamples` is
            less than 1.
    """
    _check_resampling(confidence, resamples)
    rng = np.random.default_rng(seed)
    samples = [_checked(sample) for sample in samples]

    def resampled(sample: np.ndarray) -> np.ndarray:
        return np.take_along_axis(sample, rng.integers(len(sample), size=sample.shape), axis=0)

    values = [statistic(*map(resampled, samples)) for _ in range(resamples)]
    low, high = _ends(np.array(values), confidence)
    return low, high


def _trimmed_mean(scores: np.ndarray, axis: int | None) -> np.ndarray:
    from scipy.stats import trim_mean  # imported here because it takes most of a second

    scores = np.asarray(scores)
    if len(scores) == 0:
        return np.full(scores.shape[1:], np.nan)
    means = trim_mean(scores, 0.25, axis=axis)  # before SciPy 1.17, nan is the largest score
    return np.where(np.isnan(scores).any(axis), np.nan, means)[()]


def _ends(values: np.ndarray, confidence: float) -> np.ndarray:
    """Both percentiles over the first axis: [resamples, ...] -> [2, ...]."""
    tail = 50 * (1 - confidence)
    return np.percentile(values, [tail, 100 - tail], axis=0)


def _check_resampling(confidence: float, resamples: int) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, but must be between 0 and 1, as 0.95 is")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, but must be at least 1")


def _as_runs(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, float)
    if scores.ndim == 0 or len(scores) == 0:
        raise ValueError("statistics need at least one run: scores are [runs, ...]")
    return scores


def _checked(scores: np.ndarray) -> np.ndarray:
    scores = _as_runs(scores)
    if scores.size == 0 or np.isnan(scores).any():
        raise ValueError("scores are nan or missing: leave out the runs without a score")
    return scores
