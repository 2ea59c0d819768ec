"""The panels of figures of runs; bands and bars are 95 % bootstrap intervals.

Each function draws on existing axes, and returns what it has drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple, NotRequired, TypedDict

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from purejaxrl_sac.experiment.pictures import bands
from purejaxrl_sac.experiment.pictures.bands import FEW_SEEDS, Band, Curve
from purejaxrl_sac.experiment.pictures.layout import wrapped

Curves = Mapping[str, Curve]  # label -> curve; steps and seeds may differ
Scores = Mapping[str, np.ndarray]  # label -> [runs], nan for a seed without a score


class Style(TypedDict):
    """Line style of a run."""

    color: str
    linestyle: NotRequired[str]


Styles = Mapping[str, Style]  # label -> style

# the colour-blind-safe palette of Okabe and Ito, with olive instead of yellow
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
MARKERS = {"IQM": "D", "median": "o", "mean": "s"}
SCORE = "final score of a seed"
NARROW = 5.0  # inches, below which panels and their legends are above one another
MAX_ALL_PAIRS = 6  # with more runs, only the first is compared with each of the others


class Content(NamedTuple):
    """What the panels of a comparison show."""

    curves: Curves  # of all labels in `scores`, and possibly more
    scores: Scores
    ylabel: str = ""  # name of the curves' metric
    xlabel: str = SCORE  # name of the scores
    log_x: bool = False  # learning curves over the logarithm of the steps


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


def draw_seed(axes: Axes, band: Band, style: Style, alpha: float) -> None:
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
                draw_seed(axes, band, styles[label], alpha=0.5)
            shown += seeds
    axes.set_title("Learning curves (IQM)", loc="left")
    over_steps(axes, ylabel, log_x)
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
    _rows(axes, [f"{label}\n{_counted(len(x), len(scores[label]))}" for label, x in known.items()])
    return shown


def draw_profiles(axes: Axes, scores: Scores, styles: Styles, xlabel: str = SCORE) -> list[Band]:
    """Draw the fraction of seeds above each score.

    Returns:
        what was drawn.
    """
    shown, known = [], _with_scores(scores)
    every = np.concatenate([*known.values(), []])
    if len(every):
        margin = 0.03 * np.ptp(every) or 1
        thresholds = np.linspace(every.min() - margin, every.max() + margin, 300)
        for label, x in known.items():
            band, style = bands.profile(label, x, thresholds), styles[label]
            ends = (band.low, band.high)
            axes.fill_between(
                thresholds, *ends, color=style["color"], alpha=0.2, linewidth=0, step="post"
            )
            name = _named(label, len(x), len(scores[label]))
            axes.step(thresholds, band.y, where="post", label=name, **style)
            shown.append(band)
    axes.set_title("Performance profiles", loc="left")
    axes.set(xlabel=xlabel, ylabel="fraction with score > x", ylim=(-0.02, 1.02))
    _plain(axes)
    return shown


def draw_improvements(axes: Axes, scores: Scores, styles: Styles) -> list[Band]:
    """Draw P(a seed of one run > a seed of another) for every pair, or the first and any other.

    Returns:
        what was drawn.
    """
    shown, known = [], _with_scores(scores)
    pairs = _pairs(known)
    for place, pair in enumerate(pairs):
        band, (left, right) = bands.improvement(known, *pair), (styles[x] for x in pair)
        _bar(axes, place, band, "0.35")
        axes.plot(
            band.y, place, marker="o", markersize=8, fillstyle="left", color=left["color"],
            markerfacecoloralt=right["color"], markeredgecolor="white",
        )  # fmt: skip
        shown.append(band)
    if pairs:
        axes.axvline(0.5, color="0.5", linewidth=0.8, linestyle="--", zorder=0)
        for label, x in known.items():
            name, color = _named(label, len(x), len(scores[label])), styles[label]["color"]
            axes.plot([], [], marker="o", linestyle="none", color=color, label=name)
    else:
        axes.text(
            0.5,
            0.5,
            "needs two runs with scores",
            ha="center",
            transform=axes.transAxes,
            color="0.4",
        )
    axes.set_title("Probability of improvement", loc="left")
    axes.set(xlim=(-0.02, 1.02), xlabel="P(X > Y)")
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


def over_steps(axes: Axes, ylabel: str, log: bool = False) -> None:
    axes.set(xlabel="environment steps per seed", ylabel=ylabel)
    _plain(axes)
    if log:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1e3 * low else (1,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.tick_params("x", labelsize=mpl.rcParams["xtick.labelsize"])
    axes.tick_params("y", labelsize=mpl.rcParams["ytick.labelsize"])


def _seeds(number: int) -> str:
    return "1 seed" if number == 1 else f"{number} seeds"


def _counted(known: int, seeds: int) -> str:
    """How many seeds have a value, of how many."""
    return _seeds(seeds) if known == seeds else f"{known} of {_seeds(seeds)}"


def _named(label: str, known: int, seeds: int) -> str:
    """Name of a run in a legend; matplotlib leaves out names that start with an underscore."""
    return f"{' ' * label.startswith('_')}{label} ({_counted(known, seeds)})"


def _pairs(scores: Scores) -> list[tuple[str, str]]:
    """All pairs of runs; of many runs, the first with each of the others."""
    first = [(label, other) for label in list(scores)[:1] for other in list(scores)[1:]]
    return first if len(scores) > MAX_ALL_PAIRS else list(combinations(scores, 2))


def _with_scores(scores: Scores) -> Scores:
    """Drop seeds without a score, and runs without any."""
    known = {label: np.asarray(x, float) for label, x in scores.items()}
    known = {label: x[np.isfinite(x)] for label, x in known.items()}
    return {label: x for label, x in known.items() if len(x)}
