"""Figures of runs, plotted from arrays; bands and bars are 95 % bootstrap intervals.

Functions named `draw_...` draw on existing axes; all others make a figure, and write it if a path
is given, in the format of its suffix: PNG, PDF, SVG.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, MaxNLocator

from purejaxrl_sac.config import Config, ConfigError, unknown
from purejaxrl_sac.experiment.runs import files
from purejaxrl_sac.experiment.statistics import (
    Interval,
    bootstrap_interval,
    iqm,
    performance_profile,
    probability_of_improvement,
    stratified_interval,
)

Statistic = Callable[[np.ndarray], np.ndarray]  # [runs, ...] -> [...]
Curve = tuple[np.ndarray, np.ndarray]  # steps [points], values [runs, points]
Curves = Mapping[str, Curve]  # label -> curve; steps and seeds may differ
Scores = Mapping[str, np.ndarray]  # label -> [runs], nan for a seed without a score


class Style(TypedDict):
    """Line style of a run."""

    color: str
    linestyle: NotRequired[str]


Styles = Mapping[str, Style]  # label -> style
DrawScores = Callable[[Axes, Scores, Styles], None]

# the colour-blind-safe palette of Okabe and Ito, with olive instead of yellow
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
LINES = ("-", "--", ":", "-.")  # the next one each time the colors are used up
STATISTICS: dict[str, tuple[Statistic, str]] = {  # name -> statistic, marker
    "IQM": (iqm, "D"),
    "median": (lambda x: np.median(x, axis=0), "o"),
    "mean": (lambda x: np.mean(x, axis=0), "s"),
}
SCORE = "final score of a seed"
MAX_ALL_PAIRS = 6  # with more runs, only the first is compared with each of the others


def forward_fill(returns: np.ndarray) -> np.ndarray:
    """Replace nan by the last known value of the same run.

    Args:
        returns: [runs, points], nan where no episode ended.

    Returns:
        [runs, points], nan only before a run's first episode.
    """
    known = np.where(np.isnan(returns), 0, np.arange(returns.shape[1]))
    return np.take_along_axis(returns, np.maximum.accumulate(known, axis=1), axis=1)


def series(
    metrics: Mapping[str, np.ndarray], config: Config, name: str = "returns", points: int = 50
) -> Curve:
    """A metric of `train`, vmapped over seeds, as a curve: each point averages a part of the run.

    Args:
        metrics: [runs, iterations] each, of a whole run of `config`.
        name: `returns` or `lengths` for the mean over the episodes that ended in each part, nan
            where none did; any other metric for its mean over each part.
        points: number of parts; a remainder of iterations at the end is left out.

    Returns:
        environment steps at the end of each part, [points], and values, [runs, points].

    Raises:
        ConfigError: no such metric, or fewer iterations than points.
    """
    if name not in metrics:
        raise unknown("metric", name, metrics)
    part = config.iterations // points
    if part < 1:
        raise ConfigError(
            f"points is {points}, but the run has {config.iterations} iterations: lower points"
        )
    iterations = config.warmup_iterations + part * np.arange(1, points + 1)
    steps = iterations * config.steps_per_iteration

    def parts(name: str) -> np.ndarray:
        values = np.asarray(metrics[name], float)[:, : points * part]
        return values.reshape(len(values), points, part)

    if name not in ("returns", "lengths"):
        return steps, parts(name).mean(-1)
    episodes = parts("episodes").sum(-1)
    means = np.full(episodes.shape, np.nan)
    return steps, np.divide(parts(name).sum(-1), episodes, out=means, where=episodes > 0)


def learning_curve(
    steps: np.ndarray, returns: np.ndarray, title: str, path: Path | None = None
) -> Figure:
    """Plot the IQM over runs with its 95 % bootstrap band, and single runs as faint lines.

    Args:
        steps: [points] environment steps of one run.
        returns: [runs, points] mean return of the episodes that ended at each point; nan where
            none did.
        path: image file to write; None for none.
    """
    figure, axes = _page(4)
    filled = forward_fill(np.asarray(returns, float))
    axes.plot(steps, filled.T, color=COLORS[0], alpha=min(0.5, 3 / len(filled)), linewidth=0.6)
    label = "IQM, 95 % interval" if len(filled) > 1 else "return"
    draw_curve(axes, steps, filled, {"color": COLORS[0]}, label)
    if finite := filled[np.isfinite(filled)].tolist():
        low, high = np.percentile(finite, [0.5, 100])
        axes.set_ylim(low - 0.05 * (high - low) - 1e-3, high + 0.05 * (high - low) + 1e-3)
    _over_steps(axes, "return of training episodes")
    axes.set_title(title)
    axes.legend(frameon=False, loc="best", fontsize="small")
    return _saved(figure, path=path)


def curves(curves: Curves, ylabel: str, title: str = "", path: Path | None = None) -> Figure:
    """Plot learning curves of several runs, each the IQM over its seeds with its interval."""
    figure, axes = _page(4)
    draw_curves(axes, curves, _styles(curves), ylabel)
    return _saved(figure, axes, title, path)


def intervals(
    scores: Scores, xlabel: str = SCORE, title: str = "", path: Path | None = None
) -> Figure:
    """Plot IQM, median and mean of the final scores of several runs, with their intervals."""
    return _of_scores(partial(draw_intervals, xlabel=xlabel), scores, title, path)


def profile(
    scores: Scores, xlabel: str = SCORE, title: str = "", path: Path | None = None
) -> Figure:
    """Plot performance profiles of several runs, with their intervals."""
    return _of_scores(partial(draw_profiles, xlabel=xlabel), scores, title, path)


def improvement(scores: Scores, title: str = "", path: Path | None = None) -> Figure:
    """Plot P(a seed of one run > a seed of another) of several runs, with intervals."""
    return _of_scores(draw_improvements, scores, title, path)


def comparison(
    curves: Curves,
    scores: Scores,
    *,
    ylabel: str,
    xlabel: str = SCORE,
    title: str = "",
    path: Path | None = None,
) -> Figure:
    """Plot curves, final scores, profiles and probabilities of improvement side by side.

    Args:
        curves: of all labels in `scores`, and possibly more.
        ylabel: name of the curves' metric.
        xlabel: name of the scores.
        path: image file to write; None for none.
    """
    scores, styles = _with_scores(scores), _styles(curves)
    figure = Figure(figsize=(11, 2 * _height(scores)), dpi=150, layout="constrained")
    panels = figure.subplots(2, 2)
    draw_curves(panels[0, 0], curves, styles, ylabel)
    draw_intervals(panels[0, 1], scores, styles, xlabel)
    draw_profiles(panels[1, 0], scores, styles, xlabel)
    draw_improvements(panels[1, 1], scores, styles)
    return _saved(figure, panels[0, 0], title, path)


def draw_curve(axes: Axes, steps: np.ndarray, values: np.ndarray, style: Style, label: str) -> None:
    """Draw the IQM with its band, over seeds with a value, from where all of them have one."""
    values = forward_fill(np.asarray(values, float))
    known = values[np.isfinite(values[:, -1])]
    seeds = _seeds(len(values))
    if len(known) < len(values):
        seeds = f"{len(known)} of {seeds}"
    complete = np.isfinite(known).all(0) if len(known) else np.zeros(len(steps), bool)
    steps, known = np.asarray(steps)[complete], known[:, complete]
    if len(known) > 1:
        edge = 3 if len(steps) == 1 else 0  # of one point, only the edge is visible
        low, high = bootstrap_interval(known)
        axes.fill_between(steps, low, high, color=style["color"], alpha=0.25, linewidth=edge)
    marker = "o" if len(steps) == 1 else None
    middle = iqm(known) if len(known) else np.empty(0)
    axes.plot(steps, middle, linewidth=1.8, marker=marker, label=f"{label} ({seeds})", **style)


def draw_curves(axes: Axes, curves: Curves, styles: Styles, ylabel: str) -> None:
    """Draw the curve of every run."""
    for label, (steps, values) in curves.items():
        draw_curve(axes, steps, values, styles[label], label)
    axes.set_title("Learning curves: IQM, 95 % intervals", loc="left", fontsize="medium")
    _over_steps(axes, ylabel)


def draw_intervals(axes: Axes, scores: Scores, styles: Styles, xlabel: str = SCORE) -> None:
    """Draw IQM, median and mean of every run, each with its interval."""
    shifts = np.linspace(-0.25, 0.25, len(STATISTICS))
    for place, (label, x) in enumerate(scores.items()):
        color = styles[label]["color"]
        for shift, (statistic, marker) in zip(shifts, STATISTICS.values(), strict=True):
            _bar(axes, place + shift, bootstrap_interval(x, statistic), color)
            axes.plot(statistic(x), place + shift, color=color, marker=marker, markersize=5)
    _rows(axes, [f"{label}\n{_seeds(len(x))}" for label, x in scores.items()])
    signs = [
        Line2D([], [], color="0.35", marker=marker, markersize=5, linestyle="none", label=name)
        for name, (_, marker) in STATISTICS.items()
    ]
    axes.legend(
        handles=[*signs, Patch(color="0.35", alpha=0.4, linewidth=0, label="95 % interval")],
        ncols=len(signs) + 1, loc="lower right", bbox_to_anchor=(1, 1), frameon=False,
        fontsize="small", handlelength=1, handletextpad=0.4, columnspacing=1, borderaxespad=0.2,
    )  # fmt: skip
    axes.set_title("Final scores", loc="left", fontsize="medium")
    axes.set_xlabel(xlabel)
    _plain(axes)


def draw_profiles(axes: Axes, scores: Scores, styles: Styles, xlabel: str = SCORE) -> None:
    """Draw the fraction of seeds above each score."""
    every = np.concatenate([*scores.values(), []])
    if len(every):
        margin = 0.03 * np.ptp(every) or 1
        thresholds = np.linspace(every.min() - margin, every.max() + margin, 300)
        profile = partial(performance_profile, thresholds=thresholds)
        for label, x in scores.items():
            band, color = stratified_interval([x], profile), styles[label]["color"]
            axes.fill_between(thresholds, *band, color=color, alpha=0.2, linewidth=0, step="post")
            axes.step(thresholds, profile(x), where="post", label=label, **styles[label])
    axes.set_title("Performance profiles, 95 % intervals", loc="left", fontsize="medium")
    axes.set(xlabel=xlabel, ylabel="fraction of seeds above it", ylim=(-0.02, 1.02))
    _plain(axes)


def draw_improvements(axes: Axes, scores: Scores, styles: Styles) -> None:
    """Draw P(a seed of one run > a seed of another) for every pair, or the first and any other."""
    pairs = _pairs(scores)
    for place, pair in enumerate(pairs):
        samples, (left, right) = [scores[label] for label in pair], (styles[x] for x in pair)
        _bar(axes, place, stratified_interval(samples, probability_of_improvement), "0.35")
        axes.plot(
            probability_of_improvement(*samples), place, marker="o", markersize=8, fillstyle="left",
            color=left["color"], markerfacecoloralt=right["color"], markeredgecolor="white",
        )  # fmt: skip
    _rows(axes, [f"{first}\n> {second}" for first, second in pairs])
    if pairs:
        axes.axvline(0.5, color="0.5", linewidth=0.8, linestyle="--", zorder=0)
    else:
        axes.text(0.5, 0.5, "needs two runs", ha="center", transform=axes.transAxes, color="0.4")
    axes.set_title("Probability of improvement, 95 % intervals", loc="left", fontsize="medium")
    axes.set(xlim=(-0.02, 1.02), xlabel="P(a seed of the first scores higher)")
    _plain(axes)


def _bar(axes: Axes, place: float, ends: Interval, color: str) -> None:
    axes.plot(
        list(ends), [place, place], color=color, linewidth=5, alpha=0.4, solid_capstyle="butt"
    )


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Label the rows, from the top down."""
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)


def _over_steps(axes: Axes, ylabel: str) -> None:
    axes.set(xlabel="environment steps per seed", ylabel=ylabel)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))


def _seeds(number: int) -> str:
    return "1 seed" if number == 1 else f"{number} seeds"


def _pairs(scores: Scores) -> list[tuple[str, str]]:
    """All pairs of runs; of many runs, the first with each of the others."""
    first = [(label, other) for label in list(scores)[:1] for other in list(scores)[1:]]
    return first if len(scores) > MAX_ALL_PAIRS else list(combinations(scores, 2))


def _styles(labels: Iterable[str]) -> Styles:
    """By position, so that a run has the same style in all panels."""
    return {
        label: {
            "color": COLORS[i % len(COLORS)],
            "linestyle": LINES[i // len(COLORS) % len(LINES)],
        }
        for i, label in enumerate(labels)
    }


def _with_scores(scores: Scores) -> Scores:
    """Drop seeds without a score, and runs without any."""
    known = {label: np.asarray(x, float) for label, x in scores.items()}
    known = {label: x[np.isfinite(x)] for label, x in known.items()}
    return {label: x for label, x in known.items() if len(x)}


def _of_scores(draw: DrawScores, scores: Scores, title: str, path: Path | None) -> Figure:
    styles, scores = _styles(scores), _with_scores(scores)
    figure, axes = _page(_height(scores))
    draw(axes, scores, styles)
    return _saved(figure, axes, title, path)


def _height(scores: Scores) -> float:
    """Height in inches, with a row of text for every run or pair of runs."""
    return max(3.5, 0.8 + 0.45 * len(scores), 0.8 + 0.3 * len(_pairs(scores)))


def _page(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, height), dpi=150, layout="constrained")
    return figure, figure.subplots()


def _saved(
    figure: Figure, axes: Axes | None = None, title: str = "", path: Path | None = None
) -> Figure:
    """Add a title, and a legend of the runs on `axes` below all panels; write the file."""
    if title:
        figure.suptitle(title)
    if axes is not None and (runs := axes.get_legend_handles_labels()[1]):
        across = int(figure.get_figwidth() / (0.6 + 0.07 * max(map(len, runs))))
        handles = axes.get_legend_handles_labels()[0]
        figure.legend(
            handles, runs, loc="outside lower center", ncols=min(max(across, 1), len(runs)),
            frameon=False, fontsize="small",
        )  # fmt: skip
    if path is not None:
        files.write_figure(path, figure)
    return figure
