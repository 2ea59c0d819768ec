"""Value functions of finite MDPs as heat maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.pictures import layout
from purejaxrl_sac.experiment.runs import files
from purejaxrl_sac.mdp import MDP, Grid


def value_map(mdp: MDP, q: np.ndarray, title: str, path: Path | None = None) -> Figure:
    """Plot V(s) = max_a Q(s, a) as a heat map with an arrow for every greedy action.

    An MDP without a map, or with several states in one cell, is plotted as its table Q(s, a).

    Args:
        q: [S, A]; -inf for actions that do not exist.
        path: image file to write; None for none.

    Raises:
        ConfigError: q and the MDP have different shapes.
    """
    q = np.asarray(q, float)
    if q.shape != mdp.P.shape[:2]:
        raise ConfigError(f"q has shape {q.shape}, but the MDP {mdp.P.shape[:2]}")
    if mdp.grid is None or not _is_map(mdp.grid):
        figure = Figure(figsize=(6.4, 2.8), dpi=150, layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(np.ma.masked_invalid(q.T), aspect="auto", interpolation="nearest")
        axes.set(xlabel="state", ylabel="action", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        label = "Q(s, a)"
    else:
        figure = Figure(figsize=_size(mdp.grid), dpi=150, layout="constrained")
        axes = figure.subplots()
        image = draw_value_map(axes, mdp, q, title)
        label = "V(s)"
    figure.colorbar(image, ax=axes, label=label, shrink=0.8)
    layout.fit_title(axes)
    if path is not None:
        files.write_figure(path, figure)
    return figure


def _is_map(grid: Grid) -> bool:
    """Whether every cell has at most one state."""
    cells = [cell for cell in grid.position if cell[0] >= 0]
    return len(set(cells)) == len(cells)


def _size(grid: Grid) -> tuple[float, float]:
    """Of the figure, in inches."""
    rows, columns = len(grid.rows), len(grid.rows[0])
    scale = 4.0 / max(rows, columns / 1.6)
    return max(4.0, scale * columns + 1.4), max(2.2, scale * rows + 0.6)


def _draw_grid(axes: Axes, grid: Grid, title: str) -> None:
    """Draw walls, letters and frame."""
    rows, columns = len(grid.rows), len(grid.rows[0])
    for i, row in enumerate(grid.rows):
        for j, letter in enumerate(row):
            if letter == "#":
                axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, color="0.35"))
            elif letter not in "F.":
                mark = axes.text(j, i + 0.3, letter, ha="center", va="center", color="0.35")
                mark.set(fontsize=8, path_effects=[withStroke(linewidth=2, foreground="white")])
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), xticks=[], yticks=[])
    axes.set_aspect("equal")
    axes.set_title(title, fontsize=10)


def draw_value_map(axes: Axes, mdp: MDP, q: np.ndarray, title: str = "") -> AxesImage:
    """As `value_map`, on existing axes; the MDP must have a map.

    Returns:
        the heat map, for a colour bar.

    Raises:
        ConfigError: the MDP has no map.
    """
    grid, q = mdp.grid, np.asarray(q, float)
    if grid is None:
        raise ConfigError("this MDP has no map: use value_map, which plots a table")
    blank = np.array(  # no action is ever chosen there
        [
            end or grid.rows[i][j] == "C"
            for (i, j), end in zip(grid.position, np.asarray(mdp.terminal), strict=True)
        ]
    )
    v = np.where(blank, np.nan, q.max(-1))
    image = np.full((len(grid.rows), len(grid.rows[0])), np.nan)
    for state, (i, j) in enumerate(grid.position):
        if i >= 0:
            image[i, j] = v[state]
    heat_map = axes.imshow(image, cmap="viridis", alpha=0.75)
    _draw_grid(axes, grid, title)
    scale = np.nanmax(np.abs(v), initial=1e-12)
    for state, (i, j) in enumerate(grid.position):
        if i < 0 or blank[state]:
            continue
        for action, (down, right) in enumerate(grid.moves):
            if q[state, action] >= q[state].max() - 1e-5 * scale:
                style = {
                    "arrowstyle": "->",
                    "color": "black",
                    "lw": 1.1,
                    "shrinkA": 0,
                    "shrinkB": 0,
                }
                tip = (j + 0.36 * right, i + 0.36 * down)
                axes.annotate("", xy=tip, xytext=(j, i), arrowprops=style)
    return heat_map
