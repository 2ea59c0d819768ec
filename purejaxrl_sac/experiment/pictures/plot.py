"""Figures of runs, plotted from arrays, see `panels`; bands and bars are 95 % bootstrap intervals.

Functions write the figure if a path is given, in the format of its suffix: PNG, PDF, SVG.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from purejaxrl_sac.config import Config, ConfigError, unknown, whole_number
from purejaxrl_sac.experiment.pictures import bands
from purejaxrl_sac.experiment.pictures.bands import FEW_SEEDS, Band, Curve, caution
from purejaxrl_sac.experiment.pictures.layout import (
    CHARACTER,
    LINE,
    SCREEN,
    Layout,
    fit_title,
    wrapped,
)
from purejaxrl_sac.experiment.pictures.panels import (
    COLORS,
    NARROW,
    PANELS,
    SCORE,
    Content,
    Curves,
    Scores,
    Styles,
    draw_curve,
    draw_seed,
    over_steps,
)
from purejaxrl_sac.experiment.runs import files

LINES = ("-", "--", ":", "-.")  # the next one each time the colors are used up


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
        ConfigError: no such metric, one of another shape, or fewer iterations than points.
    """
    if name not in metrics:
        raise unknown("metric", name, metrics)
    points = whole_number("points", points, at_least=1)
    shape = np.shape(metrics[name])
    if len(shape) != 2 or shape[1] != config.iterations:
        raise ConfigError(
            f"{name} has shape {[*shape]}, but must be [runs, {config.iterations}]: a metric of"
            " every iteration of train, vmapped over seeds"
        )
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
    steps: np.ndarray, returns: np.ndarray, title: str, path: str | Path | None = None
) -> Figure:
    """Plot the IQM over runs with its 95 % bootstrap band, and single runs as faint lines.

    Args:
        steps: [points] environment steps of one run.
        returns: [runs, points] mean return of the episodes that ended at each point; nan where
            none did.
        path: image file to write; None for none.
    """
    return _written(run_curve(steps, returns, title)[0], path)


def run_curve(steps: np.ndarray, returns: np.ndarray, title: str) -> tuple[Figure, list[Band]]:
    """As `learning_curve`, without writing it.

    Returns:
        the figure, and the bands that it shows; of single runs, only if there are few.
    """
    with SCREEN.fonts():
        figure = Figure(figsize=(6.4, 4), dpi=SCREEN.dpi, layout="constrained")
        axes = figure.subplots()
        returns = np.asarray(returns, float)
        known = int(np.isfinite(returns).any(-1).sum())  # of which the IQM is
        label = "IQM, 95 % interval" if known > 1 else "return"
        seeds = bands.seed_curves(label, steps, returns)
        for band in seeds:
            draw_seed(axes, band, {"color": COLORS[0]}, alpha=min(0.5, 3 / len(returns)))
        shown = [draw_curve(axes, steps, returns, {"color": COLORS[0]}, label)]
        if finite := returns[np.isfinite(returns)].tolist():
            low, high = np.percentile(finite, [0.5, 100])
            axes.set_ylim(low - 0.05 * (high - low) - 1e-3, high + 0.05 * (high - low) + 1e-3)
        over_steps(axes, "episode return")
        axes.set_title(title)
        axes.legend(frameon=False, loc="best", title=caution([known]) or None)
        fit_title(axes)
    if 1 < known < FEW_SEEDS:
        shown += seeds
    return figure, [band._replace(label=title) for band in shown]


def curves(
    curves: Curves,
    ylabel: str,
    title: str = "",
    path: str | Path | None = None,
    *,
    layout: Layout = SCREEN,
) -> Figure:
    """Plot learning curves of several runs, each the IQM over its seeds with its interval."""
    content = Content(curves, {}, ylabel)
    return _written(compose(content, ("curves",), layout, title)[0], path)


def intervals(
    scores: Scores,
    xlabel: str = SCORE,
    title: str = "",
    path: str | Path | None = None,
    *,
    layout: Layout = SCREEN,
) -> Figure:
    """Plot IQM, median and mean of the final scores of several runs, with their intervals."""
    content = Content({}, scores, xlabel=xlabel)
    return _written(compose(content, ("scores",), layout, title)[0], path)


def profile(
    scores: Scores,
    xlabel: str = SCORE,
    title: str = "",
    path: str | Path | None = None,
    *,
    layout: Layout = SCREEN,
) -> Figure:
    """Plot performance profiles of several runs, with their intervals."""
    content = Content({}, scores, xlabel=xlabel)
    return _written(compose(content, ("profile",), layout, title)[0], path)


def improvement(
    scores: Scores, title: str = "", path: str | Path | None = None, *, layout: Layout = SCREEN
) -> Figure:
    """Plot P(a seed of one run > a seed of another) of several runs, with intervals."""
    return _written(compose(Content({}, scores), ("improvement",), layout, title)[0], path)


def comparison(
    curves: Curves,
    scores: Scores,
    *,
    ylabel: str,
    xlabel: str = SCORE,
    title: str = "",
    path: str | Path | None = None,
    layout: Layout = SCREEN,
) -> Figure:
    """Plot curves, final scores, profiles and probabilities of improvement side by side.

    Args:
        curves: of all labels in `scores`, and possibly more.
        ylabel: name of the curves' metric.
        xlabel: name of the scores.
        path: image file to write; None for none.
        layout: size of the figure.
    """
    content = Content(curves, scores, ylabel, xlabel)
    return _written(compose(content, tuple(PANELS), layout, title)[0], path)


def compose(
    content: Content,
    panels: Sequence[str],
    layout: Layout = SCREEN,
    title: str = "",
    panel_titles: bool = True,
) -> tuple[Figure, list[Band]]:
    """A figure of some of the `PANELS`, with a legend of the runs, and what it shows.

    Args:
        title: of the figure; empty for none.
        panel_titles: whether each panel is named.

    Returns:
        the figure, and the bands that it shows.
    """
    styles, shown = _styles(dict.fromkeys((*content.curves, *content.scores))), []
    across = 1 if len(panels) == 1 or (layout.width or 11) < NARROW else 2
    down = -(-len(panels) // across)
    with layout.fonts():
        width = layout.width or (6.4 if across == 1 else 11)
        figure = Figure(figsize=(width, 1), dpi=layout.dpi, layout="constrained")
        grid = figure.subplots(down, across, squeeze=False)
        for axes, name in zip(grid.flat, panels, strict=False):
            shown += PANELS[name](axes, content, styles)
            if not panel_titles:
                axes.set_title("", loc="left")
        if title:
            figure.suptitle(wrapped(title, 0.9 * width, mpl.rcParams["figure.titlesize"]))
        lines = _add_legend(figure, grid[0, 0], shown)
    heights = [max(2.1 if layout.width else 3.5, *map(_height, row)) for row in grid]
    grid[0, 0].get_gridspec().set_height_ratios(heights)
    below = LINE * lines if layout.width else 0
    figure.set_figheight(layout.height or sum(heights) + below)
    return figure, shown


def few_seeds(shown: Sequence[Band]) -> str:
    """What intervals of few seeds mean in a figure, in one line; empty if there are none."""
    of_iqm = [band.seeds for band in shown if band.statistic == "IQM"]
    others = [band.seeds for band in shown if band.panel in ("profile", "improvement")]
    if of_iqm and others:
        return caution(of_iqm, "unreliable; of IQMs about their range")
    return caution(of_iqm) if of_iqm else caution(others, "unreliable")


def _styles(labels: Iterable[str]) -> Styles:
    """By position, so that a run has the same style in all panels."""
    return {
        label: {
            "color": COLORS[i % len(COLORS)],
            "linestyle": LINES[i // len(COLORS) % len(LINES)],
        }
        for i, label in enumerate(labels)
    }


def _height(axes: Axes) -> float:
    """Height in inches that the labels of rows need."""
    labels = [text.get_text() for text in axes.get_yticklabels()] if axes.yaxis_inverted() else []
    least = 0.45 if axes.get_legend() else 0.3  # of a row: several symbols or one
    return 0.8 + sum(max(least, 0.08 + 0.14 * (1 + label.count("\n"))) for label in labels)


def _add_legend(figure: Figure, axes: Axes, shown: Sequence[Band]) -> int:
    """Add a legend below all panels: the runs on `axes`, and what the intervals mean.

    Returns:
        its number of lines.
    """
    width = figure.get_figwidth()
    handles, labels = axes.get_legend_handles_labels()
    runs = [wrapped(label, width - 0.6) for label in labels]
    note = wrapped(_note(shown), width)
    shown_as = (re.sub(r"\\[a-z]+|[$\\\\]", "", line) for run in runs for line in run.split("\n"))
    longest = max(map(len, shown_as), default=1)
    across = min(max(int(width / (0.5 + CHARACTER * longest)), 1), max(len(runs), 1))
    legend = figure.legend(
        handles, runs, title=note, ncols=across, loc="outside lower center", frameon=False
    )
    legend.get_title().set_multialignment("center")
    rows = max((run.count("\n") + 1 for run in runs), default=0) * -(-len(runs) // across)
    return rows + (note.count("\n") + 1) * bool(note)


def _note(shown: Sequence[Band]) -> str:
    """What the intervals of a figure mean."""
    intervals = any(np.isfinite(band.low).any() for band in shown)
    text = few_seeds(shown)
    return "; ".join(["95 % bootstrap intervals"] * intervals + [text] * bool(text))


def _written(figure: Figure, path: str | Path | None) -> Figure:
    if path is not None:
        files.write_figure(path, figure)
    return figure
