"""Figures of runs, plotted from arrays; bands and bars are 95 % bootstrap intervals.

Functions named `draw_...` draw on existing axes; all others make a figure, and write it if a path
is given, in the format of its suffix: PNG, PDF, SVG.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from purejaxrl_sac.config import Config, ConfigError, unknown
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
from purejaxrl_sac.experiment.runs import files

Curves = Mapping[str, Curve]  # label -> curve; steps and seeds may differ
Scores = Mapping[str, np.ndarray]  # label -> [runs], nan for a seed without a score


class Style(TypedDict):
    """Line style of a run."""

    color: str
    linestyle: NotRequired[str]


Styles = Mapping[str, Style]  # label -> style

# the colour-blind-safe palette of Okabe and Ito, with olive instead of yellow
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
LINES = ("-", "--", ":", "-.")  # the next one each time the colors are used up
MARKERS = {"IQM": "D", "median": "o", "mean": "s"}
SCORE = "final score of a seed"
forward_fill = bands.forward_fill
NARROW = 5.0  # inches, below which panels and their legends are above one another
MAX_ALL_PAIRS = 6  # with more runs, only the first is compared with each of the others


class Content(NamedTuple):
    """What the panels of a comparison show."""

    curves: Curves  # of all labels in `scores`, and possibly more
    scores: Scores
    ylabel: str = ""  # name of the curves' metric
    xlabel: str = SCORE  # name of the scores
    log_x: bool = False  # learning curves over the logarithm of the steps


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
        label = "IQM, 95 % interval" if len(returns) > 1 else "return"
        seeds = bands.seed_curves(label, steps, returns)
        for band in seeds:
            _draw_seed(axes, band, {"color": COLORS[0]}, alpha=min(0.5, 3 / len(returns)))
        shown = [draw_curve(axes, steps, returns, {"color": COLORS[0]}, label)]
        if finite := returns[np.isfinite(returns)].tolist():
            low, high = np.percentile(finite, [0.5, 100])
            axes.set_ylim(low - 0.05 * (high - low) - 1e-3, high + 0.05 * (high - low) + 1e-3)
        _over_steps(axes, "episode return")
        axes.set_title(title)
        axes.legend(frameon=False, loc="best", title=caution([len(returns)]) or None)
        fit_title(axes)
    if 1 < len(returns) < FEW_SEEDS:
        shown += seeds
    return figure, [band._replace(label=title) for band in shown]


def curves(
    curves: Curves,
    ylabel: str,
    title: str = "",
    path: Path | None = None,
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
    path: Path | None = None,
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
    path: Path | None = None,
    *,
    layout: Layout = SCREEN,
) -> Figure:
    """Plot performance profiles of several runs, with their intervals."""
    content = Content({}, scores, xlabel=xlabel)
    return _written(compose(content, ("profile",), layout, title)[0], path)


def improvement(
    scores: Scores, title: str = "", path: Path | None = None, *, layout: Layout = SCREEN
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
    path: Path | None = None,
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
    if of_iqm := [band.seeds for band in shown if band.statistic == "IQM"]:
        return caution(of_iqm)
    return caution([band.seeds for band in shown], "too few to be reliable")


def draw_curve(axes: Axes, steps: np.ndarray, values: np.ndarray, style: Style, label: str) -> Band:
    """Draw the IQM with its band, over seeds with a value, from where all of them have one.

    Points are where a seed has a new value; lines join them.

    Args:
        values: [seeds, points], nan where nothing was measured.

    Returns:
        what was drawn.
    """
    band = bands.curve(label, steps, values)
    name = _named(label, band.seeds, len(values))
    if band.seeds > 1:
        edge = 3 if len(band.x) == 1 else 0  # of one point, only the edge is visible
        color = style["color"]
        axes.fill_between(band.x, band.low, band.high, color=color, alpha=0.25, linewidth=edge)
    marker = "o" if len(band.x) == 1 else None
    width = 1.2 * mpl.rcParams["lines.linewidth"]
    axes.plot(band.x, band.y, linewidth=width, marker=marker, label=name, **style)
    return band


def _draw_seed(axes: Axes, band: Band, style: Style, alpha: float) -> None:
    """Draw the curve of one seed as a thin line, below those of the IQM."""
    marker = "." if len(band.x) == 1 else None
    axes.plot(band.x, band.y, linewidth=0.5, alpha=alpha, zorder=1.5, marker=marker, **style)


def draw_curves(
    axes: Axes, curves: Curves, styles: Styles, ylabel: str, log_x: bool = False
) -> list[Band]:
    """Draw the curve of every run; of few seeds, also that of each seed, as a thin line.

    Args:
        log_x: whether the axis of the steps is logarithmic.

    Returns:
        what was drawn.
    """
    shown = []
    for label, (steps, values) in curves.items():
        shown.append(draw_curve(axes, steps, values, styles[label], label))
        if 1 < shown[-1].seeds < FEW_SEEDS:
            seeds = bands.seed_curves(label, steps, values)
            for band in seeds:
                _draw_seed(axes, band, styles[label], alpha=0.5)
            shown += seeds
    axes.set_title("Learning curves (IQM)", loc="left")
    _over_steps(axes, ylabel, log_x)
    return shown


def draw_intervals(axes: Axes, scores: Scores, styles: Styles, xlabel: str = SCORE) -> list[Band]:
    """Draw IQM, median and mean of every run, each with its interval; of few seeds, also each.

    Returns:
        what was drawn.
    """
    shifts = np.linspace(-0.25, 0.25, len(MARKERS))
    shown, known = [], _with_scores(scores)
    for place, (label, x) in enumerate(known.items()):
        color = styles[label]["color"]
        for shift, (statistic, marker) in zip(shifts, MARKERS.items(), strict=True):
            shown.append(bands.score(label, x, statistic))
            _bar(axes, place + shift, shown[-1], color)
            axes.plot(shown[-1].y, place + shift, color=color, marker=marker, markersize=5)
        if 1 < len(x) < FEW_SEEDS:
            seeds = bands.seed_scores(label, scores[label])
            for band in seeds:
                axes.plot(band.y, place + 0.4, color=color, marker="|", markersize=5)
            shown += seeds
    signs: list[Any] = [
        Line2D([], [], color="0.35", marker=marker, markersize=5, linestyle="none", label=name)
        for name, marker in MARKERS.items()
    ]
    if any(band.statistic not in MARKERS for band in shown):
        signs.append(Line2D([], [], color="0.35", marker="|", linestyle="none", label="seed"))
    if any(len(x) > 1 for x in known.values()):
        signs.append(Patch(color="0.35", alpha=0.4, linewidth=0, label="interval"))
    axes.legend(
        handles=signs, ncols=len(signs), loc="lower right", bbox_to_anchor=(1, 1), frameon=False,
        handlelength=1, handletextpad=0.4, columnspacing=1, borderaxespad=0.4, borderpad=0,
    )  # fmt: skip
    above = _width(axes) < NARROW or len(signs) > len(MARKERS) + 1
    axes.set_title("Final scores", loc="left", pad=18 if above else None)
    axes.set_xlabel(xlabel)
    _plain(axes)
    _rows(axes, [f"{label}\n{_seeds(len(x))}" for label, x in known.items()])
    return shown


def draw_profiles(axes: Axes, scores: Scores, styles: Styles, xlabel: str = SCORE) -> list[Band]:
    """Draw the fraction of seeds above each score.

    Returns:
        what was drawn.
    """
    shown, scores = [], _with_scores(scores)
    every = np.concatenate([*scores.values(), []])
    if len(every):
        margin = 0.03 * np.ptp(every) or 1
        thresholds = np.linspace(every.min() - margin, every.max() + margin, 300)
        for label, x in scores.items():
            band, style = bands.profile(label, x, thresholds), styles[label]
            ends = (band.low, band.high)
            axes.fill_between(
                thresholds, *ends, color=style["color"], alpha=0.2, linewidth=0, step="post"
            )
            name = _named(label, len(x), len(x))
            axes.step(thresholds, band.y, where="post", label=name, **style)
            shown.append(band)
    axes.set_title("Performance profiles", loc="left")
    axes.set(xlabel=xlabel, ylabel="fraction of seeds above it", ylim=(-0.02, 1.02))
    _plain(axes)
    return shown


def draw_improvements(axes: Axes, scores: Scores, styles: Styles) -> list[Band]:
    """Draw P(a seed of one run > a seed of another) for every pair, or the first and any other.

    Returns:
        what was drawn.
    """
    shown, scores = [], _with_scores(scores)
    pairs = _pairs(scores)
    for place, pair in enumerate(pairs):
        band, (left, right) = bands.improvement(scores, *pair), (styles[x] for x in pair)
        _bar(axes, place, band, "0.35")
        axes.plot(
            band.y, place, marker="o", markersize=8, fillstyle="left", color=left["color"],
            markerfacecoloralt=right["color"], markeredgecolor="white",
        )  # fmt: skip
        shown.append(band)
    if pairs:
        axes.axvline(0.5, color="0.5", linewidth=0.8, linestyle="--", zorder=0)
        for label, x in scores.items():
            name, color = _named(label, len(x), len(x)), styles[label]["color"]
            axes.plot([], [], marker="o", linestyle="none", color=color, label=name)
    else:
        axes.text(0.5, 0.5, "needs two runs", ha="center", transform=axes.transAxes, color="0.4")
    axes.set_title("Probability of improvement", loc="left")
    axes.set(xlim=(-0.02, 1.02), xlabel="P(first > second)")
    _plain(axes)
    _rows(axes, [f"{first}\n> {second}" for first, second in pairs])
    return shown


DrawPanel = Callable[[Axes, Content, Styles], list[Band]]
PANELS: dict[str, DrawPanel] = {
    "curves": lambda axes, x, styles: draw_curves(axes, x.curves, styles, x.ylabel, x.log_x),
    "scores": lambda axes, x, styles: draw_intervals(axes, x.scores, styles, x.xlabel),
    "profile": lambda axes, x, styles: draw_profiles(axes, x.scores, styles, x.xlabel),
    "improvement": lambda axes, x, styles: draw_improvements(axes, x.scores, styles),
}


def _bar(axes: Axes, place: float, band: Band, color: str) -> None:
    ends = [*band.low, *band.high]
    axes.plot(ends, [place, place], color=color, linewidth=5, alpha=0.4, solid_capstyle="butt")


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Label the rows, from the top down."""
    if (width := _width(axes)) < NARROW:
        rows = (name.split("\n") for name in names)
        names = ["\n".join(wrapped(line, 0.45 * width) for line in row) for row in rows]
    axes.set_yticks(range(len(names)), names)
    axes.tick_params("y", labelsize=8)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)


def _width(axes: Axes) -> float:
    """Width of a panel in inches."""
    figure: Any = axes.figure
    grid: Any = axes.get_gridspec()
    return figure.get_figwidth() / grid.ncols


def _over_steps(axes: Axes, ylabel: str, log: bool = False) -> None:
    axes.set(xlabel="environment steps per seed", ylabel=ylabel)
    _plain(axes)
    if log:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1e3 * low else (1,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.tick_params("x", labelsize=mpl.rcParams["xtick.labelsize"])
    axes.tick_params("y", labelsize=mpl.rcParams["ytick.labelsize"])


def _seeds(number: int) -> str:
    return "1 seed" if number == 1 else f"{number} seeds"


def _named(label: str, known: int, seeds: int) -> str:
    """Name of a run in a legend; matplotlib leaves out names that start with an underscore."""
    counted = _seeds(seeds) if known == seeds else f"{known} of {_seeds(seeds)}"
    return f"{' ' * label.startswith('_')}{label} ({counted})"


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


def _written(figure: Figure, path: Path | None) -> Figure:
    if path is not None:
        files.write_figure(path, figure)
    return figure
