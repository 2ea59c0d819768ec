"""Pictures of what a table has learned: values on the map, and episodes."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
from matplotlib.animation import PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.evaluate import Policy
from purejaxrl_sac.mdp import MDP, Grid


def values(mdp: MDP, q: np.ndarray, title: str, path: Path | None = None) -> Figure:
    """V(s) = max_a Q(s, a) as a heat map with an arrow for every greedy action.

    An MDP that is not a map, or has several states in one place, is drawn as its table Q(s, a).

    Args:
        q: [S, A]; -inf for actions that do not exist.
        path: where to save a PNG; None to save nothing.

    Raises:
        ConfigError: q has another shape than the MDP.
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
        image = _heat_map(axes, mdp, q, title)
        label = "V(s)"
    figure.colorbar(image, ax=axes, label=label, shrink=0.8)
    if path is not None:
        figure.savefig(path)
    return figure


def episode(
    key: jax.Array,
    mdp: MDP,
    q: np.ndarray,
    policy: Policy,
    *,
    title: str,
    path: Path,
    steps: int = 100,
) -> None:
    """One episode on the map, as a GIF of at most `steps` moves.

    Args:
        q: [S, A], the values drawn underneath.
        policy: (key, state [1]) -> action [1].

    Raises:
        ConfigError: the MDP is not a map.
    """
    if mdp.grid is None:
        raise ConfigError("this MDP has no grid to draw an episode on")
    states, rewards, over = walk(key, mdp, policy, steps)
    figure = Figure(figsize=_size(mdp.grid), dpi=80, layout="constrained")
    axes = figure.subplots()
    if _is_map(mdp.grid):
        _heat_map(axes, mdp, np.asarray(q, float), title)
    else:
        _paper(axes, mdp.grid, title)
    (agent,) = axes.plot([], [], "o", color="tab:red", markeredgecolor="white", markersize=13)
    writer = PillowWriter(fps=4)
    with writer.saving(figure, str(path), dpi=80):
        for t, state in enumerate(states):
            row, column = mdp.grid.position[state]
            agent.set_data([column] if row >= 0 else [], [row] if row >= 0 else [])
            earned = f"step {t}, return {sum(rewards[:t]):g}"
            end = t == len(states) - 1
            axes.set_xlabel(earned + (", over" if over else ", cut here") * end)
            for _ in range(4 if end else 1):  # the end is held for a second
                writer.grab_frame()


def walk(
    key: jax.Array, mdp: MDP, policy: Policy, steps: int
) -> tuple[list[int], list[float], bool]:
    """One episode: the states, the expected rewards of its moves, and whether it terminated."""
    key, key_start = jax.random.split(key)
    state = int(jax.random.choice(key_start, len(mdp.P), p=np.asarray(mdp.start)))
    states, rewards = [state], []
    while len(rewards) < steps and not mdp.terminal[state]:
        key, key_act, key_step = jax.random.split(key, 3)
        action = int(policy(key_act, np.array([state]))[0])
        row = np.asarray(mdp.P)[state, action]
        successor = int(jax.random.choice(key_step, len(row), p=row))
        rewards.append(float(mdp.R[state, action, successor]))
        state = successor
        states.append(state)
    return states, rewards, bool(mdp.terminal[state])


def _is_map(grid: Grid) -> bool:
    places = [place for place in grid.position if place[0] >= 0]
    return len(set(places)) == len(places)


def _size(grid: Grid) -> tuple[float, float]:
    rows, columns = len(grid.rows), len(grid.rows[0])
    scale = 4.0 / max(rows, columns / 1.6)
    return max(4.0, scale * columns + 1.4), max(2.2, scale * rows + 0.6)


def _paper(axes: Axes, grid: Grid, title: str) -> None:
    """The empty map: walls, letters, frame."""
    rows, columns = len(grid.rows), len(grid.rows[0])
    for i, row in enumerate(grid.rows):
        for j, letter in enumerate(row):
            if letter == "#":
                axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, color="0.35"))
            elif letter not in "F.":
                axes.text(j, i + 0.3, letter, ha="center", va="center", color="0.35", fontsize=8)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), xticks=[], yticks=[])
    axes.set_aspect("equal")
    axes.set_title(title, fontsize=10)


def _heat_map(axes: Axes, mdp: MDP, q: np.ndarray, title: str) -> AxesImage:
    grid = mdp.grid
    blank = np.array(  # nobody ever chooses an action there
        [
            end or grid.rows[i][j] == "C"
            for (i, j), end in zip(grid.position, mdp.terminal, strict=True)
        ]
    )
    v = np.where(blank, np.nan, q.max(-1))
    image = np.full((len(grid.rows), len(grid.rows[0])), np.nan)
    for state, (i, j) in enumerate(grid.position):
        if i >= 0:
            image[i, j] = v[state]
    shown = axes.imshow(image, cmap="viridis", alpha=0.75)
    _paper(axes, grid, title)
    spread = np.nanmax(np.abs(v), initial=1e-12)
    for state, (i, j) in enumerate(grid.position):
        if i < 0 or blank[state]:
            continue
        for action, (down, right) in enumerate(grid.moves):
            if q[state, action] >= q[state].max() - 1e-5 * spread:
                tip = {"arrowstyle": "->", "color": "black", "lw": 1.1, "shrinkA": 0, "shrinkB": 0}
                end = (j + 0.36 * right, i + 0.36 * down)
                axes.annotate("", xy=end, xytext=(j, i), arrowprops=tip)
    return shown
