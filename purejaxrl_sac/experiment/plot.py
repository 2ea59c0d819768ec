"""Pictures of runs, drawn from arrays; bands and bars are 95 % bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from purejaxrl_sac.experiment.statistics import (
    bootstrap_interval,
    iqm,
    performance_profile,
    probability_of_improvement,
    stratified_interval,
)

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
STATISTICS = {
    "IQM": iqm,
    "median": lambda scores: np.median(scores, axis=0),
    "mean": lambda scores: scores.mean(0),
}
Curve = tuple[np.ndarray, np.ndarray]  # steps [points], returns [runs, points]


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
    filled = forward_fill(np.asarray(returns, float))
    axes.plot(steps, filled.T, color=COLORS[0], alpha=min(0.5, 3 / len(filled)), linewidth=0.6)
    label = f"IQM of {len(filled)} seeds, 95 % interval" if len(filled) > 1 else "one seed"
    draw_curve(axes, steps, returns, COLORS[0], label)
    if finite := filled[np.isfinite(filled)].tolist():
        low, high = np.percentile(finite, [0.5, 100])
        axes.set_ylim(low - 0.05 * (high - low) - 1e-3, high + 0.05 * (high - low) + 1e-3)
    axes.set_title(title)
    finish_curves(axes, "return of training episodes")
    axes.set_xlim(0, steps[-1])
    if path is not None:
        figure.savefig(path)
    return figure


def comparison(
    curves: Mapping[str, Curve],
    scores: Mapping[str, np.ndarray],
    *,
    ylabel: str,
    path: Path | None = None,
) -> Figure:
    """Runs beside each other: curves, final scores, their profiles, and who beats whom how often.

    Args:
        curves: label -> steps and values; each run has steps and seeds of its own.
        scores: label -> [runs] final scores, in the same order; seeds without one are left out.
        ylabel: what the curves show.
        path: where to save a PNG; None to save nothing.
    """
    scores = {label: x[np.isfinite(x)] for label, x in scores.items() if np.isfinite(x).any()}
    color = {label: COLORS[i % len(COLORS)] for i, label in enumerate(curves)}
    pairs = list(combinations(scores, 2))
    height = 6.4 + 0.25 * max(0, max(3 * len(scores), len(pairs)) - 9)
    figure = Figure(figsize=(11, height), dpi=130, layout="constrained")
    (top_left, top_right), (bottom_left, bottom_right) = figure.subplots(2, 2)
    for label, (steps, values) in curves.items():
        name = f"{label} ({len(values)} seed{'s' * (len(values) > 1)})"
        draw_curve(top_left, steps, values, color[label], name)
    top_left.set_title("IQM over seeds, 95 % interval")
    finish_curves(top_left, ylabel)
    draw_intervals(top_right, scores, color)
    draw_profiles(bottom_left, scores, color)
    draw_improvements(bottom_right, scores, pairs)
    if path is not None:
        figure.savefig(path)
    return figure


def draw_curve(axes: Axes, steps: np.ndarray, values: np.ndarray, color: str, label: str) -> None:
    """IQM with its band, from where every run has a value."""
    values = forward_fill(np.asarray(values, float))
    complete = np.isfinite(values).all(0)
    if not complete.any():
        return
    steps, values = np.asarray(steps)[complete], values[:, complete]
    if len(values) > 1:
        low, high = bootstrap_interval(values)
        axes.fill_between(steps, low, high, color=color, alpha=0.25, linewidth=0)
    marker = "o" if len(steps) == 1 else None
    axes.plot(steps, iqm(values), color=color, linewidth=1.8, marker=marker, label=label)


def finish_curves(axes: Axes, ylabel: str) -> None:
    axes.set(xlabel="environment steps per seed", ylabel=ylabel)
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="best", fontsize="small")
    _plain(axes)


def draw_intervals(axes: Axes, scores: Mapping[str, np.ndarray], color: Mapping[str, str]) -> None:
    """IQM, median and mean of the final scores, each with its interval."""
    rows = [(name, label) for name in STATISTICS for label in scores]
    for place, (name, label) in enumerate(rows):
        statistic, x = STATISTICS[name], scores[label]
        low, high = bootstrap_interval(x, statistic)
        axes.barh(place, high - low, left=low, height=0.6, color=color[label], alpha=0.35)
        axes.plot([statistic(x)] * 2, [place - 0.3, place + 0.3], color=color[label], linewidth=2)
    axes.set_yticks(range(len(rows)), [f"{label}, {name}" for name, label in rows], fontsize=8)
    axes.use_sticky_edges = False  # so that a bar at an end can be seen
    axes.invert_yaxis()
    axes.set(xlabel="final score", title="Final scores, 95 % intervals")
    _plain(axes)


def draw_profiles(axes: Axes, scores: Mapping[str, np.ndarray], color: Mapping[str, str]) -> None:
    """Share of seeds above each score."""
    if scores:
        low, high = (f([f(x) for x in scores.values()]) for f in (min, max))
        margin = 0.03 * (high - low) or 1
        thresholds = np.linspace(low - margin, high + margin, 200)
        for label, x in scores.items():
            above = np.asarray(x)[:, None] > thresholds
            bottom, top = bootstrap_interval(above, lambda share: share.mean(0))
            axes.fill_between(
                thresholds, bottom, top, color=color[label], alpha=0.2, linewidth=0, step="post"
            )
            share = performance_profile(x, thresholds)
            axes.step(thresholds, share, where="post", color=color[label], label=label)
        axes.legend(frameon=False, loc="best", fontsize="small")
    axes.set(xlabel="final score", ylabel="share of seeds above it", ylim=(-0.02, 1.02))
    axes.set_title("Performance profiles")
    _plain(axes)


def draw_improvements(axes: Axes, scores: Mapping[str, np.ndarray], pairs: list) -> None:
    """P(a random seed of the first > one of the second), for every pair."""
    for place, (first, second) in enumerate(pairs):
        x, y = scores[first], scores[second]
        low, high = stratified_interval((x, y), probability_of_improvement)
        middle = probability_of_improvement(x, y)
        axes.plot([low, high], [place, place], color="0.35", linewidth=5, alpha=0.5)
        axes.plot(middle, place, "o", color="black", markersize=5)
    axes.axvline(0.5, color="0.5", linewidth=0.8, linestyle="--")
    names = [f"{first}\n> {second}" for first, second in pairs]
    axes.set_yticks(range(len(pairs)), names, fontsize=8)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(pairs) - 0.5, -0.5) if pairs else (1, 0))
    axes.set(xlabel="probability", title="Probability that the first is better")
    if not pairs:
        axes.text(0.5, 0.5, "needs two runs", ha="center", transform=axes.transAxes, color="0.4")
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    axes.xaxis.set_major_locator(MaxNLocator(6))
