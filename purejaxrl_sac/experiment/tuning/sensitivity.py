"""Pictures of sweeps: how scores hang on each hyperparameter, and on two of them together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm
from purejaxrl_sac.experiment.tuning.points import Point

DECADES = 10.0  # values that lie further apart than this are drawn on a logarithmic scale
FEW = 12  # up to so many values of a hyperparameter, the points that share one are taken together


def varied(points: Sequence[Point]) -> list[str]:
    """The hyperparameters that have more than one value."""
    return [name for name in points[0] if len({str(point[name]) for point in points}) > 1]


def draw(points: Sequence[Point], scores: np.ndarray, best: int | None, path: Path) -> None:
    """Writes `sensitivity.png` and, where two hyperparameters vary, `heatmap.png` into a directory.

    Args:
        scores: [points, seeds]; nan where a seed has none.
        best: the point that is marked.
    """
    names = varied(points)
    if not names or not np.isfinite(scores).any():
        return
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    size = (4.2 * columns, 3.4 * rows)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axes, name in zip(panels, names, strict=False):
        draw_sensitivity(axes, name, [point[name] for point in points], scores, best)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    figure.suptitle("Final scores: IQM, 95 % intervals", fontsize="medium")
    figure.savefig(path / "sensitivity.png")
    if len(names) == 2:
        figure = Figure(figsize=(5.4, 4.2), dpi=150, layout="constrained")
        draw_heatmap(figure, figure.subplots(), names, points, scores, best)
        figure.savefig(path / "heatmap.png")


def draw_sensitivity(
    axes: Axes, name: str, values: Sequence, scores: np.ndarray, best: int | None
) -> None:
    """Every point's IQM with its interval over one hyperparameter; a line through each value's."""
    x = place(axes, "x", values)
    shown = _side_by_side(x, axes.get_xscale() == "log")
    for i, row in enumerate(scores):
        known = row[np.isfinite(row)]
        if len(known):
            axes.plot([shown[i]] * 2, bootstrap_interval(known), alpha=0.3, color="#0072B2")
            axes.plot(shown[i], iqm(known), "o", markersize=4, color="#0072B2")
        if i == best:
            axes.plot(shown[i], iqm(known), "o", markersize=10, fillstyle="none", color="black")
    every = np.unique(x)
    if len(every) <= FEW and len(every) < len(x):
        pooled = [scores[x == value] for value in every]
        middle = [iqm(s[np.isfinite(s)]) if np.isfinite(s).any() else np.nan for s in pooled]
        axes.plot(every, middle, color="#D55E00", linewidth=1.5, label="all that share it")
        axes.legend(frameon=False, fontsize="small")
    axes.set_xlabel(name.replace("_", " "))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)


def _side_by_side(x: np.ndarray, log: bool) -> np.ndarray:
    """Points that share a value, moved apart a little to the right."""
    before = np.array([list(x[:i]).count(value) for i, value in enumerate(x)], float)
    scale = np.log(x) if log else x
    shifted = scale + before * min(0.012, 0.06 / max(before.max(), 1)) * np.ptp(scale)
    return np.exp(shifted) if log else shifted


def draw_heatmap(
    figure: Figure,
    axes: Axes,
    names: Sequence[str],
    points: Sequence[Point],
    scores: np.ndarray,
    best: int | None,
) -> None:
    """IQMs over two hyperparameters: a table of colours for a grid, coloured dots for others."""
    middle = np.array([iqm(s[np.isfinite(s)]) if np.isfinite(s).any() else np.nan for s in scores])
    first, second = ([point[name] for point in points] for name in names)
    rows, columns = _distinct(first), _distinct(second)
    if len(rows) * len(columns) == len(points):
        at = [(rows.index(a), columns.index(b)) for a, b in zip(first, second, strict=True)]
        table = np.full((len(rows), len(columns)), np.nan)
        for (i, j), value in zip(at, middle, strict=True):
            table[i, j] = value
        colours = axes.imshow(table, aspect="auto", origin="lower", cmap="viridis")
        axes.set_xticks(range(len(columns)), map(_text, columns))
        axes.set_yticks(range(len(rows)), map(_text, rows))
        halfway = np.nanmean([np.nanmin(table), np.nanmax(table)])
        for (i, j), value in zip(at, middle, strict=True):
            shade = "white" if value < halfway else "black"
            axes.text(j, i, f"{value:.4g}", ha="center", va="center", color=shade, fontsize=8)
        if best is not None:
            i, j = at[best]
            frame = Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, lw=2.5, ec="#D55E00")
            axes.add_patch(frame)
    else:
        x, y = place(axes, "x", second), place(axes, "y", first)
        colours = axes.scatter(x, y, c=middle, cmap="viridis", s=60)
        if best is not None:
            axes.plot(x[best], y[best], "o", markersize=14, fillstyle="none", color="#D55E00")
    axes.set_xlabel(names[1].replace("_", " "))
    axes.set_ylabel(names[0].replace("_", " "))
    figure.colorbar(colours, label="IQM of final scores")


def place(axes: Axes, axis: Literal["x", "y"], values: Sequence) -> np.ndarray:
    """Where values lie on an axis, whose scale and ticks are made for them."""
    if not all(isinstance(value, int | float) and np.isfinite(value) for value in values):
        names = _distinct(values)
        axes.set(**{f"{axis}ticks": range(len(names)), f"{axis}ticklabels": map(_text, names)})
        return np.array([names.index(value) for value in values], float)
    x = np.array(values, float)
    if x.min() > 0 and x.max() >= DECADES * x.min():
        axes.set(**{f"{axis}scale": "log"})
        ticks = axes.xaxis if axis == "x" else axes.yaxis
        ticks.set_major_locator(LogLocator(subs=(1, 3) if x.max() < 1e3 * x.min() else (1,)))
        ticks.set_major_formatter("{x:g}")
        ticks.set_minor_formatter(NullFormatter())  # labels there run into each other
    return x


def _distinct(values: Sequence) -> list:
    found = list(dict.fromkeys(values))
    try:
        return sorted(found)
    except TypeError:
        return found


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
