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
    values = statistic(scores[index.T])  # [runs, resamples, ...] -> [resamples, ...]
    tail = 50 * (1 - confidence)
    low, high = np.percentile(values, [tail, 100 - tail], axis=0)
    return low, high
