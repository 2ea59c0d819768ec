"""Statistics over independent runs (Agarwal et al. 2021, "Deep RL at the Edge of the
Statistical Precipice")."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import trim_mean


def iqm(scores: np.ndarray) -> np.ndarray:
    """Interquartile mean over the first axis: the mean of the middle half of the runs.

    Args:
        scores: [runs, ...].

    Returns:
        [...].
    """
    return trim_mean(scores, 0.25, axis=0)


def bootstrap_interval(
    scores: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray] = iqm,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval of a statistic, resampling whole runs.

    Args:
        scores: [runs, ...]; a run keeps its points together.
        statistic: [runs, ...] -> [...], over the first axis.

    Returns:
        lower and upper end, each [...].
    """
    scores = np.asarray(scores)
    index = np.random.default_rng(seed).integers(len(scores), size=(resamples, len(scores)))
    tail = 50 * (1 - confidence)
    points = scores.reshape(len(scores), -1).T
    ends = [  # point by point: all at once would take runs x resamples x points of memory
        np.percentile(statistic(point[index.T]), [tail, 100 - tail]) for point in points
    ]
    low, high = np.transpose(ends).reshape(2, *scores.shape[1:])
    return low, high
