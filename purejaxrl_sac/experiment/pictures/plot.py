"""Pictures of runs, drawn from arrays; bands and bars are 95 % bootstrap intervals.

A figure is made of the functions that draw on axes (`draw_...`), and saved where a path is given,
in the format of its suffix: PNG, PDF, SVG.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, MaxNLocator

from purejaxrl_sac.config import Config, ConfigError, unknown
from purejaxrl_sac.experiment.statistics import (
    bootstrap_interval,
    iqm,
    performance_profile,
    probability_of_improvement,
    stratified_interval,
)

# Okabe and Ito's, which the colour-blind can tell apart, with an olive for their yellow
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
LINES = ("-", "--", ":", "-.")  # for further runs
STATISTICS = {  # name: statistic and marker
    "IQM": (iqm, "D"),
    "median": (partial(np.median, axis=0), "o"),
    "mean": (partial(np.mean, axis=0), "s"),
}
SCORE = "final score of a seed"
MANY = 6  # of more runs than these, the first is compared with each

Curve = tuple[np.ndarray, np.ndarray]  # steps [points], values [runs, points]
Curves = Mapping[str, Curve]  # label -> a curve, with steps and seeds of its own
Scores = Mapping[str, np.ndarray]  # label -> [runs], nan for a seed without a score
Styles = Mapping[str, dict[str, str]]  # label -> color and linestyle


def forward_fill(returns: np.ndarray) -> np.ndarray:
    """Repeats each run's last known value where no episode ended.

    Args:
        returns: [runs, points], nan where nothing is known.

    Returns:
        the same, with nan only before a run's first episode.
    """
    known = np.where(np.isnan(returns), 0, np.arange(returns.shape[1]))
    return np.take_along_axis(returns, np.maximum.accumulate(known, axis=1), axis=1)


def series(
    metrics: Mapping[str, np.ndarray], config: Config, name: str = "returns", points: int = 50
) -> Curve:
    """A metric of `train`, vmapped over seeds, as a curve: a point for each share of the run.

    Args:
        metrics: [runs, iterations] each, of a whole run of `config`.
        name: `returns` or `lengths` for the mean over the episodes that ended in each share, nan
            where none did; any other metric for its mean over each share.
        points: how many shares; iterations left over at the end are not shown.

    Returns:
        environment steps at the end of each share, [points], and values, [runs, points].

    Raises:
        ConfigError: there is no such metric, or there are fewer iterations than points.
    """
    if name not in metrics:
        raise unknown("metric", name, metrics)
    share = config.iterations // points
    if share < 1:
        raise ConfigError(f"{config.iterations} iterations have no {points} points: lower points")
    steps = (
        config.warmup_iterations + share * np.arange(1, points + 1)
    ) * config.steps_per_iteration

    def shares(name: str) -> np.ndarray:
        values = np.asarray(metrics[name], float)[:, : points * share]
        return values.reshape(len(values), points, share)

    if name not in ("returns", "lengths"):
        return steps, shares(name).mean(-1)
    episodes = shares("episodes").sum(-1)
    found = np.full(episodes.shape, np.nan)
    return steps, np.divide(shares(name).sum(-1), episodes, out=found, where=episodes > 0)


def learning_curve(
    steps: np.ndarray, returns: np.ndarray, title: str, path: Path | None = None
) -> Figure:
    """IQM over runs with its 95 % bootstrap band, and every single run faintly.

    Args:
        steps: [points] environment steps of one run.
        returns: [runs, points] mean return of the episodes that ended at each point; nan where
            none did.
        path: where to save it; None to save nothing.
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
    """Learning curves of several runs, each the IQM over its seeds with its interval."""
    figure, axes = _page(4)
    draw_curves(axes, curves, _styles(curves), ylabel)
    return _saved(figure, axes, title, path)


def intervals(
    scores: Scores, xlabel: str = SCORE, title: str = "", path: Path | None = None
) -> Figure:
    """IQM, median and mean of several runs' final scores, with their intervals."""
    return _of_scores(partial(draw_intervals, xlabel=xlabel), scores, title, path)


def profile(
    scores: Scores, xlabel: str = SCORE, title: str = "", path: Path | None = None
) -> Figure:
    """Performance profiles of several runs, with their intervals."""
    return _of_scores(partial(draw_profiles, xlabel=xlabel), scores, title, path)


def improvement(scores: Scores, title: str = "", path: Path | None = None) -> Figure:
    """How probably a seed of one run scores higher than one of another, with intervals."""
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
    """Runs beside each other: curves, final scores, their profiles, and who beats whom how often.

    Args:
        curves: their labels include those of the scores.
        ylabel: what the curves show.
        xlabel: what the scores are.
        path: where to save it; None to save nothing.
    """
    scores, styles = _with_scores(scores), _styles(curves)
    figure, axes = _page(2 * _height(scores), columns=2, rows=2)
    draw_curves(axes[0, 0], curves, styles, ylabel)
    draw_intervals(axes[0, 1], scores, styles, xlabel)
    draw_profiles(axes[1, 0], scores, styles, xlabel)
    draw_improvements(axes[1, 1], scores, styles)
    return _saved(figure, axes[0, 0], title, path)


def draw_curve(
    axes: Axes, steps: np.ndarray, values: np.ndarray, style: Mapping[str, str], label: str
) -> None:
    """IQM with its band, from where every seed that ever has a value has one."""
    values = forward_fill(np.asarray(values, float))
    known = values[np.isfinite(values[:, -1])]
    seeds = _seeds(len(values))
    if len(known) < len(values):
        seeds = f"{len(known)} of {seeds}"
    complete = np.isfinite(known).all(0) if len(known) else np.zeros(len(steps), bool)
    steps, known = np.asarray(steps)[complete], known[:, complete]
    if len(known) > 1:
        band, edge = bootstrap_interval(known), 3 if len(steps) == 1 else 0  # a band has a width
        axes.fill_between(steps, *band, color=style["color"], alpha=0.25, linewidth=edge)
    marker = "o" if len(steps) == 1 else None
    middle = iqm(known) if len(known) else []
    axes.plot(steps, middle, linewidth=1.8, marker=marker, label=f"{label} ({seeds})", **style)


def draw_curves(axes: Axes, curves: Curves, styles: Styles, ylabel: str) -> None:
    """Every run's curve."""
    for label, (steps, values) in curves.items():
        draw_curve(axes, steps, values, styles[label], label)
    axes.set_title("Learning curves: IQM, 95 % intervals", loc="left", fontsize="medium")
    _over_steps(axes, ylabel)


def draw_intervals(axes: Axes, scores: Scores, styles: Styles, xlabel: str = SCORE) -> None:
    """IQM, median and mean of every run, each with its interval."""
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
    """Share of seeds above each score."""
    every = np.concatenate([*scores.values(), []])
    if len(every):
        margin = 0.03 * np.ptp(every) or 1
        thresholds = np.linspace(every.min() - margin, every.max() + margin, 300)
        share = partial(performance_profile, thresholds=thresholds)
        for label, x in scores.items():
            band, color = stratified_interval([x], share), styles[label]["color"]
            axes.fill_between(thresholds, *band, color=color, alpha=0.2, linewidth=0, step="post")
            axes.step(thresholds, share(x), where="post", label=label, **styles[label])
    axes.set_title("Performance profiles, 95 % intervals", loc="left", fontsize="medium")
    axes.set(xlabel=xlabel, ylabel="share of seeds above it", ylim=(-0.02, 1.02))
    _plain(axes)


def draw_improvements(axes: Axes, scores: Scores, styles: Styles) -> None:
    """P(a random seed of one > one of another), for every pair, or the first and any other."""
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


def _bar(axes: Axes, place: float, ends: Iterable[float], color: str) -> None:
    axes.plot(
        list(ends), [place, place], color=color, linewidth=5, alpha=0.4, solid_capstyle="butt"
    )


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """From the top down."""
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
    """Everyone with everyone; of many runs, the first with everyone."""
    first = [(label, other) for label in list(scores)[:1] for other in list(scores)[1:]]
    return first if len(scores) > MANY else list(combinations(scores, 2))


def _styles(labels: Iterable[str]) -> Styles:
    """By place, so that a run looks alike in all panels."""
    return {
        label: {
            "color": COLORS[i % len(COLORS)],
            "linestyle": LINES[i // len(COLORS) % len(LINES)],
        }
        for i, label in enumerate(labels)
    }


def _with_scores(scores: Scores) -> Scores:
    """Without the seeds that have none, and the runs where no seed has one."""
    known = {label: np.asarray(x, float) for label, x in scores.items()}
    known = {label: x[np.isfinite(x)] for label, x in known.items()}
    return {label: x for label, x in known.items() if len(x)}


def _of_scores(draw: Callable, scores: Scores, title: str, path: Path | None) -> Figure:
    styles, scores = _styles(scores), _with_scores(scores)
    figure, axes = _page(_height(scores))
    draw(axes, scores, styles)
    return _saved(figure, axes, title, path)


def _height(scores: Scores) -> float:
    """Inches that a row of text for every run, or pair of runs, needs."""
    return max(3.5, 0.8 + 0.45 * len(scores), 0.8 + 0.3 * len(_pairs(scores)))


def _page(height: float, columns: int = 1, rows: int = 1) -> tuple[Figure, Axes]:
    width = 6.4 if columns == 1 else 5.5 * columns
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return figure, figure.subplots(rows, columns)


def _saved(
    figure: Figure, axes: Axes | None = None, title: str = "", path: Path | None = None
) -> Figure:
    """With the runs that are named on the axes listed below them, where they hide nothing."""
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
        figure.savefig(path)
    return figure
