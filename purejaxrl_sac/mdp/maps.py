"""Grid worlds from text maps."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from purejaxrl_sac.config import ConfigError, number, shown, whole_number
from purejaxrl_sac.mdp.model import MDP, Grid, make, reaches

LEFT_DOWN_RIGHT_UP = ((0, -1), (1, 0), (0, 1), (-1, 0))
UP_RIGHT_DOWN_LEFT = ((-1, 0), (0, 1), (1, 0), (0, -1))
LETTERS = "S start, . or F free, G goal and H hole (both terminal), C cliff (back to start), # wall"


def from_map(
    rows: str | Sequence[str],
    *,
    rewards: Mapping[str, float] | None = None,
    turn: Sequence[float] = (1.0, 0.0, 0.0, 0.0),
    moves: Sequence[tuple[int, int]] = UP_RIGHT_DOWN_LEFT,
) -> MDP:
    """Builds a grid world from a text map.

    The letters are S (start; uniform over several), `.` or F (free), G (goal) and H (hole), both
    terminal, C (cliff: gives its reward and leads back to the start) and # (wall, not a state).
    Moves into walls or off the map do not change the state. States are numbered row by row.

    Args:
        rows: the map, as text or as a list of rows.
        rewards: letter -> reward of a move onto it; others 0. By default {"G": 1}.
        turn: [4], the probability that action a moves like action (a + i) % 4.
        moves: [4], (rows, columns) of each action, in rotational order.

    Raises:
        ConfigError: the map, the rewards, the moves or the probabilities are invalid.
    """
    rows = _checked_map(rows)
    rewards = {"G": 1.0} if rewards is None else rewards
    if not isinstance(rewards, Mapping):
        raise ConfigError(f"rewards is {shown(rewards)}, but must be like {{'G': 1.0, 'H': -1.0}}")
    for letter, reward in rewards.items():
        number(f"the reward of {letter!r}", reward)
        if letter not in set("S.FGHC"):
            raise ConfigError(f"rewards has the letter {letter!r}: use {LETTERS}")
    cells = [(i, j) for i, row in enumerate(rows) for j, x in enumerate(row) if x != "#"]
    letters = np.array([rows[i][j] for i, j in cells])
    starts = letters == "S"
    if np.shape(moves) != (4, 2):
        raise ConfigError(f"moves has shape {np.shape(moves)}, but must be four (rows, columns)")
    for step in itertools.chain(*moves):
        whole_number("a number of rows or columns in moves", step)
    if np.shape(turn) != (4,) or min(turn) < 0 or not np.isclose(sum(turn), 1):
        raise ConfigError(f"turn is {turn}, but must be four probabilities that sum to 1")

    states = {cell: state for state, cell in enumerate(cells)}
    num_states = len(cells)
    start = starts / starts.sum()
    P, expected = np.zeros((2, num_states, 4, num_states))
    for state, (i, j) in enumerate(cells):
        for action in range(4):
            for probability, (down, right) in zip(
                turn, np.roll(moves, -action, axis=0), strict=True
            ):
                successor = states.get((i + down, j + right), state)
                reward = rewards.get(letters[successor], 0.0)
                landing = start if letters[successor] == "C" else np.eye(num_states)[successor]
                P[state, action] += probability * landing
                expected[state, action] += probability * landing * reward
    terminal = np.isin(letters, ("G", "H"))
    edges = (P > 0).any(1) & ~terminal[:, None]
    goals = letters == "G"
    without_goal = starts & ~reaches(edges, goals) & goals.any()
    if without_goal.any():
        i, j = cells[np.flatnonzero(without_goal)[0]]
        raise ConfigError(f"no G can be reached from the S in row {i}, column {j}: remove walls")
    R = np.divide(expected, P, out=np.zeros_like(P), where=P > 0)
    grid = Grid(rows, tuple(cells), tuple((down, right) for down, right in moves))
    return make(P, R, start=start, terminal=terminal, grid=grid)


def _checked_map(rows: str | Sequence[str]) -> tuple[str, ...]:
    try:
        rows = tuple(rows.split() if isinstance(rows, str) else ("".join(row) for row in rows))
    except TypeError:
        raise ConfigError(f"the map must be text, or a list of its rows: use {LETTERS}") from None
    if not rows:
        raise ConfigError(f"the map is empty: use {LETTERS}")
    if len({len(row) for row in rows}) != 1:
        lengths = sorted({len(row) for row in rows})
        raise ConfigError(f"the map has rows of {lengths} letters: make them all equally long")
    for i, row in enumerate(rows):
        for letter in row:
            if letter not in set("S.FGHC#"):
                raise ConfigError(f"row {i} of the map has the letter {letter!r}: use {LETTERS}")
    if "S" not in "".join(rows):
        raise ConfigError("the map has no S: mark a start")
    return rows
