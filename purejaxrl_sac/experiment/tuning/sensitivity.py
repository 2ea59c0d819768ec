"""Figures of sweeps: scores over each hyperparameter, and over two of them together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from purejaxrl_sac.experiment.pictures.bands import caution
from purejaxrl_sac.experiment.pictures.layout import wrapped
from purejaxrl_sac.experiment.runs import files
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm
from purejaxrl_sac.experiment.tuning.points import ENV_PARAMS, Point

LOG_RATIO = 10.0  # largest / smallest value from which an axis is logarithmic
MAX_POOLED = 12  # values of a hyperparameter up to which points that share a value are pooled


def varied(points: Sequence[Point]) -> list[str]:
    """The hyperparameters with more than one value."""
    return [name for name in points[0] if len({str(point[name]) for point in points}) > 1]


def write_figures(
    points: Sequence[Point],
    scores: np.ndarray,
    best: int | None,
    path: Path,
    title: str,
    measure: str = "",
    *,
    diverged: np.ndarray,
) -> None:
    """Write `sensitivity.png` and, if two hyperparameters vary, `heatmap.png` into a directory.

    Args:
        scores: [points, seeds]; nan where a seed has no score.
        best: index of the point to mark.
        path: the directory.
        title: what was trained, such as "sac on Pendulum-v1".
        measure: what the values are instead of scores; `sensitivity-MEASURE.png` are its files.
        diverged: [points, seeds] whether a seed diverged.
    """
    what, end = (measure or "final score"), f"{'-' * bool(measure)}{measure}.png"
    names, known = varied(points), np.isfinite(scores).sum(1).tolist()
    if not names or not any(known):
        return
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    size = (4.2 * columns, 3.4 * rows)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axes, name in zip(panels, names, strict=False):
        draw_sensitivity(axes, name, points, scores, best)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for axes in panels[::columns]:
        axes.set_ylabel(what.replace("_", " "))
    missing = _missing(scores, diverged, what.replace("_", " "))
    notes = (f"{title}: IQM, 95 % bootstrap intervals", missing, caution(known))
    note = "; ".join(filter(None, notes))
    figure.suptitle(wrapped(note, 0.8 * size[0]), fontsize="medium")
    if lines := panels[0].get_legend_handles_labels()[0]:
        style: Any = {"frameon": False, "fontsize": "small", "ncols": len(lines)}
        figure.legend(handles=lines, loc="outside lower center", **style)
    files.write_figure(path / f"sensitivity{end}", figure)
    if len(names) == 2:
        figure = Figure(figsize=(5.4, 4.2), dpi=150, layout="constrained")
        draw_heatmap(figure, figure.subplots(), names, points, scores, best, what)
        framed = "" if best is None else "framed: the best point"
        note = "; ".join(filter(None, (framed, missing)))
        figure.suptitle(wrapped(f"{title} ({note})" if note else title, 4.3), fontsize="medium")
        files.write_figure(path / f"heatmap{end}", figure)


def draw_sensitivity(
    axes: Axes, name: str, points: Sequence[Point], scores: np.ndarray, best: int | None
) -> None:
    """Draw every point's IQM with its interval over one hyperparameter.

    Points of one value are drawn side by side; those with seeds without a score are hollow. If the
    others are `crossed`, a line joins the IQMs of all of them of each value.
    """
    x = axis_positions(axes, "x", [point[name] for point in points])
    shifted = dodged(x, axes.get_xscale() == "log")
    complete = np.isfinite(scores).all(1)
    for i, row in enumerate(scores):
        known = row[np.isfinite(row)]
        if len(known) > 1:
            axes.plot([shifted[i]] * 2, bootstrap_interval(known), alpha=0.3, color="#0072B2")
        if len(known):
            face = "#0072B2" if complete[i] else "white"
            axes.plot(shifted[i], iqm(known), "o", markersize=4, color="#0072B2", mfc=face)
        if i == best and len(known):
            ring: Any = {"fillstyle": "none", "linestyle": "none", "color": "black"}
            axes.plot(shifted[i], iqm(known), "o", markersize=10, label="best final score", **ring)
    distinct = np.unique(x[complete])
    if 0 < len(distinct) <= MAX_POOLED and crossed(name, list(compress(points, complete))):
        pooled = [_known_iqm(scores[complete & (x == value)]) for value in distinct]
        axes.plot(distinct, pooled, color="#D55E00", linewidth=1.5, label="pooled by value")
    axes.set_xlabel(_label(name))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)


def crossed(name: str, points: Sequence[Point]) -> bool:
    """Whether each value of a hyperparameter is combined with the same, several, values of all
    others, so that points pooled by it differ in nothing else."""
    others: dict[str, list[str]] = {}
    for point in points:
        rest = {field: x for field, x in point.items() if field != name}
        others.setdefault(str(point[name]), []).append(str(rest))
    first, *remaining = map(sorted, others.values())
    return len(first) > 1 and all(rest == first for rest in remaining)


def _missing(scores: np.ndarray, diverged: np.ndarray, what: str) -> str:
    """What hollow and missing points are; empty if there is none."""
    missing = ~np.isfinite(scores)
    if not missing.any():
        return ""
    seeds = f"seeds that have no {what}" if (missing & ~diverged).any() else "diverged seeds"
    return f"hollow or missing: without {seeds}"


def _label(name: str) -> str:
    return name.removeprefix(ENV_PARAMS).replace("_", " ")


def _known_iqm(scores: np.ndarray) -> float:
    """IQM of the finite scores; nan if there is none."""
    known = scores[np.isfinite(scores)]
    return float(iqm(known)) if len(known) else np.nan


def dodged(x: np.ndarray, log: bool) -> np.ndarray:
    """Move points that share a value apart, symmetrically, so that their bars do not overlap.

    Args:
        x: [points] positive if `log`.
        log: whether the axis is logarithmic, where equal distances are equal ratios.

    Returns:
        [points], in the order of the points around each value.
    """
    position = np.log(x) if log else x
    values, value, shared = np.unique(position, return_inverse=True, return_counts=True)
    before = np.array([(position[:i] == place).sum() for i, place in enumerate(position)])
    width = np.ptp(position) or 1.0
    gap = min(np.diff(values), default=width)
    step = min(0.03 * width, 0.8 * gap / shared.max())
    shifted = position + step * (before - (shared[value] - 1) / 2)
    return np.exp(shifted) if log else shifted


def draw_heatmap(
    figure: Figure,
    axes: Axes,
    names: Sequence[str],
    points: Sequence[Point],
    scores: np.ndarray,
    best: int | None,
    what: str = "final score",
) -> None:
    """Draw IQMs over two hyperparameters: a heat map for a grid of points, else a scatter plot.

    Points with seeds without a score are hollow.
    """
    iqms, hollow = [_known_iqm(row) for row in scores], ~np.isfinite(scores).all(1)
    first, second = ([point[name] for point in points] for name in names)
    rows, columns = _distinct(first), _distinct(second)
    if len(rows) * len(columns) == len(points):
        cells = [(rows.index(a), columns.index(b)) for a, b in zip(first, second, strict=True)]
        table = np.full((len(rows), len(columns)), np.nan)
        for (i, j), value in zip(cells, iqms, strict=True):
            table[i, j] = value
        colors: ScalarMappable = axes.imshow(table, aspect="auto", origin="lower", cmap="viridis")
        axes.set_xticks(range(len(columns)), map(_text, columns))
        axes.set_yticks(range(len(rows)), map(_text, rows))
        midpoint = np.nanmean([np.nanmin(table), np.nanmax(table)])
        for (i, j), value, empty in zip(cells, iqms, hollow, strict=True):
            if empty:
                axes.add_patch(Rectangle((j - 0.4, i - 0.4), 0.8, 0.8, color="white"))
            color = "white" if value < midpoint and not empty else "black"
            axes.text(j, i, f"{value:.4g}", ha="center", va="center", color=color, fontsize=8)
        if best is not None:
            i, j = cells[best]
            frame = Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, lw=2.5, ec="#D55E00")
            axes.add_patch(frame)
    else:
        x, y = axis_positions(axes, "x", second), axis_positions(axes, "y", first)
        colors = axes.scatter(x, y, c=iqms, cmap="viridis", s=60)
        axes.plot(x[hollow], y[hollow], "o", markersize=4, color="white")
        if best is not None:
            axes.plot(x[best], y[best], "o", markersize=14, fillstyle="none", color="#D55E00")
    axes.set_xlabel(_label(names[1]))
    axes.set_ylabel(_label(names[0]))
    figure.colorbar(colors, label=f"IQM of {what}")


def axis_positions(axes: Axes, axis: Literal["x", "y"], values: Sequence[Any]) -> np.ndarray:
    """Set the scale and ticks of an axis to suit values of a hyperparameter.

    Returns:
        their positions on the axis, [points].
    """
    if not all(isinstance(value, int | float) and np.isfinite(value) for value in values):
        names = _distinct(values)
        axes.set(**{f"{axis}ticks": range(len(names)), f"{axis}ticklabels": map(_text, names)})
        return np.array([names.index(value) for value in values], float)
    x = np.array(values, float)
    ticks = axes.xaxis if axis == "x" else axes.yaxis
    ticks.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    log = x.min() > 0 and x.max() >= LOG_RATIO * x.min()
    if log:
        axes.set(**{f"{axis}scale": "log"})
        ticks.set_major_locator(LogLocator(subs=(1, 3) if x.max() < 1e3 * x.min() else (1,)))
        ticks.set_major_formatter("{x:g}")
        ticks.set_minor_formatter(NullFormatter())  # their labels would overlap
    place = np.unique(np.log(x) if log else x)
    if 1 < len(place) < 7 and np.diff(place).min() > 0.15 * np.ptp(place):
        axes.set(**{f"{axis}ticks": np.unique(x)})
        axes.set(**{f"{axis}ticklabels": map(_text, np.unique(x).tolist())})
    return x


def _distinct(values: Sequence[Any]) -> list[Any]:
    """Distinct values, sorted where they can be."""
    found = list(dict.fromkeys(values))
    try:
        return sorted(found)
    except TypeError:
        return found


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
