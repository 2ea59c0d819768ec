"""Pictures of runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm


def forward_fill(returns: np.ndarray) -> np.ndarray:
    """Repeats each run's last known value where no episode ended.

    Args:
        returns: [runs, points], nan where nothing is known.

    Returns:
        the same, with nan only before a run's first episode.
    """
    known = np.where(np.isnan(returns), 0, np.arange(returns.shape[1]))
    return np.take_along_axis(returns, np.maximum.accumulate(known, axis=1), axis=1)


def learning_curve(
    steps: np.ndarray, returns: np.ndarray, title: str, path: Path | None = None
) -> Figure:
    """IQM over runs with its 95 % bootstrap band, and every single run faintly.

    Args:
        steps: [points] environment steps of one run.
        returns: [runs, points] mean return of the episodes that ended at each point; nan where
            none did.
        path: where to save a PNG; None to save nothing.
    """
    figure = Figure(figsize=(6.4, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    returns = forward_fill(np.asarray(returns, float))
    finite = returns[np.isfinite(returns)]
    axes.plot(steps, returns.T, color="tab:blue", alpha=min(0.5, 3 / len(returns)), linewidth=0.6)
    complete = np.isfinite(returns).all(0)
    if complete.any():
        known = returns[:, complete]
        if len(returns) > 1:
            low, high = bootstrap_interval(known)
            axes.fill_between(
                steps[complete], low, high, color="tab:blue", alpha=0.3, linewidth=0,
                label="95 % bootstrap interval",
            )  # fmt: skip
        label = f"IQM of {len(returns)} seeds" if len(returns) > 1 else "one seed"
        axes.plot(steps[complete], iqm(known), color="tab:blue", linewidth=1.8, label=label)
        axes.legend(frameon=False, loc="best")
    if finite.size:
        low, high = np.percentile(finite, [0.5, 100])
        axes.set_ylim(low - 0.05 * (high - low) - 1e-3, high + 0.05 * (high - low) + 1e-3)
    axes.set(xlabel="environment steps per seed", ylabel="return of training episodes", title=title)
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.set_xlim(0, steps[-1])
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    if path is not None:
        figure.savefig(path)
    return figure
