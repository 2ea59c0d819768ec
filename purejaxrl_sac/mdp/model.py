"""Finite Markov decision processes as arrays (post, section 1.1), and their checks.

S is the number of states, A the number of actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import struct

from purejaxrl_sac.config import ConfigError, static

Array = jax.Array | np.ndarray


class Grid(NamedTuple):
    """How to draw an MDP whose states are places on a map."""

    rows: tuple[str, ...]  # the map, a letter per cell
    position: tuple[tuple[int, int], ...]  # [S] (row, column) of each state; (-1, -1) is nowhere
    moves: tuple[tuple[int, int], ...]  # [A] (rows, columns) that each action is meant to move


@struct.dataclass
class MDP:
    """A finite MDP: a pytree of arrays, so `vmap` over stacked MDPs works."""

    P: Array
    """P(s' | s, a), [S, A, S]; terminal states lead to themselves."""
    R: Array
    """Expected reward of the transition (s, a, s'), [S, A, S]."""
    start: Array
    """Probability that an episode begins in s, [S]."""
    terminal: Array
    """Where episodes end, [S] bool; the value of these states is 0."""
    noise: Array
    """Standard deviation of Gaussian noise on the reward, [S, A]."""
    legal: Array
    """Which actions exist, [S, A] bool; a missing one has value -inf and does nothing. In
    terminal states all do."""
    grid: Grid | None = static(None)
    """How to draw it; None if it is not a map."""

    @property
    def r(self) -> Array:
        """r(s, a), the expected reward, [S, A]."""
        return (self.P * self.R).sum(-1)


def make(
    P: Array,
    R: Array,
    *,
    start: Array | int = 0,
    terminal: Array | Sequence[int] = (),
    noise: Array | float = 0.0,
    legal: Array | None = None,
    grid: Grid | None = None,
) -> MDP:
    """A checked MDP of arrays in float64, which JAX takes in its own precision.

    Args:
        P: [S, A, S]; rows of terminal states and of missing actions may be anything.
        R: [S, A, S], or [S, A] where the reward does not depend on the successor.
        start: [S] probabilities, or the one state in which every episode begins.
        terminal: [S] bool, or the terminal states' indices.
        noise: standard deviation of the reward's Gaussian noise; broadcasts to [S, A].
        legal: [S, A] bool; None if every action exists everywhere.
        grid: how to draw it.

    Raises:
        ConfigError: the arrays are not an MDP.
    """
    try:
        P, R, noise = (np.array(x, np.float64) for x in (P, R, noise))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"P, R and noise must be arrays of numbers: {error}") from None
    if P.ndim != 3 or P.shape[0] != P.shape[2]:
        raise ConfigError(f"P has shape {P.shape}, but must be [S, A, S]")
    num_states, num_actions, _ = P.shape
    R = R[:, :, None] if R.shape == (num_states, num_actions) else R
    if R.shape not in (P.shape, (num_states, num_actions, 1)):
        raise ConfigError(
            f"R has shape {R.shape}, but must be [S, A] or [S, A, S] for {num_states} states and"
            f" {num_actions} actions, like P"
        )
    R = np.array(np.broadcast_to(R, P.shape))

    terminal = np.asarray(terminal)
    if terminal.dtype == bool and terminal.shape != (num_states,):
        raise ConfigError(f"terminal has shape {terminal.shape}, but must be {(num_states,)}")
    if terminal.dtype != bool:
        if terminal.size and not np.issubdtype(terminal.dtype, np.integer):
            raise ConfigError("terminal must be indices of states, or [S] bool")
        if terminal.size and (terminal.min() < 0 or terminal.max() >= num_states):
            raise ConfigError(
                f"terminal has state {terminal.max()}, but the states are 0 to {num_states - 1}"
            )
        terminal = np.isin(np.arange(num_states), terminal)
    shape = (num_states, num_actions)
    legal = np.ones(shape, bool) if legal is None else np.array(legal, bool)
    if legal.shape != shape:
        raise ConfigError(f"legal has shape {legal.shape}, but must be {shape}")
    legal[terminal] = True  # whatever is done there, nothing happens
    if noise.shape not in ((), shape):
        raise ConfigError(f"noise has shape {noise.shape}, but must be a number or {shape}")
    if np.ndim(start) == 0:
        if not isinstance(start, Integral):
            raise ConfigError(f"start is {start!r}, but must be a state's number, or [S]")
        if not 0 <= start < num_states:
            raise ConfigError(f"start is state {start}, but the states are 0 to {num_states - 1}")
        start = np.arange(num_states) == start
    idle = terminal[:, None] | ~legal
    P[idle] = np.broadcast_to(np.eye(num_states)[:, None], P.shape)[idle]
    R[idle] = 0
    mdp = MDP(
        P=P,
        R=R,
        start=np.asarray(start, np.float64),
        terminal=terminal,
        noise=np.where(idle, 0, np.broadcast_to(noise, legal.shape)).astype(np.float64),
        legal=legal,
        grid=grid,
    )
    validate(mdp)
    return mdp


def validate(mdp: MDP) -> None:
    """Checks that probabilities are probabilities and that episodes can begin.

    Raises:
        ConfigError: one line, with the state and action at fault.
    """
    P, R, start = np.asarray(mdp.P), np.asarray(mdp.R), np.asarray(mdp.start)
    terminal, legal = np.asarray(mdp.terminal), np.asarray(mdp.legal)
    num_states = len(P)
    for name, array, shape in (
        ("start", start, (num_states,)),
        ("terminal", terminal, (num_states,)),
        ("legal", legal, P.shape[:2]),
    ):
        if array.shape != shape:
            raise ConfigError(f"{name} has shape {array.shape}, but must be {shape}, like P")
    wrong = ~np.isclose(P.sum(-1), 1, atol=1e-5) | ~(P >= 0).all(-1)
    if wrong.any():
        state, action = np.argwhere(wrong)[0]
        row = P[state, action]
        raise ConfigError(
            f"P[{state}, {action}] sums to {row.sum():.6g} with smallest entry {row.min():.3g}, but"
            " must be probabilities that sum to 1"
        )
    if not np.isfinite(R).all():
        raise ConfigError("rewards must be finite numbers")
    noise = np.asarray(mdp.noise)
    if not (np.isfinite(noise).all() and (noise >= 0).all()):
        raise ConfigError("noise must be finite and zero or more: it is a standard deviation")
    if not (np.isclose(start.sum(), 1, atol=1e-5) and (start >= 0).all()):
        raise ConfigError(
            f"start sums to {start.sum():.6g}, but must be probabilities that sum to 1: episodes"
            " need a state to begin in"
        )
    if (start[terminal] > 0).any():
        state = np.flatnonzero((start > 0) & terminal)[0]
        raise ConfigError(f"state {state} is a start and terminal at once: choose another start")
    if mdp.grid is not None and len(mdp.grid.position) != num_states:
        raise ConfigError(f"grid has {len(mdp.grid.position)} positions for {num_states} states")
    stuck = ~legal.any(-1)
    if stuck.any():
        raise ConfigError(f"state {np.flatnonzero(stuck)[0]} has no legal action: give it one")


def check_discount(mdp: MDP, gamma: Any, pi: Array | None = None) -> None:
    """Checks that values are finite: gamma < 1, or a terminal state in reach of every state.

    What is traced has no value yet and passes.

    Args:
        pi: [S, A], to ask it of this policy rather than of any.

    Raises:
        ConfigError: gamma is 1 and some state never gets to a terminal one, or gamma is not in
            [0, 1].
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((mdp, gamma, pi))):
        return
    gamma = np.max(gamma)
    if not 0 <= gamma <= 1:
        raise ConfigError(f"gamma is {gamma}, but must be between 0 and 1")
    if gamma < 1 or np.ndim(mdp.P) > 3:
        return
    allowed = np.asarray(mdp.legal) if pi is None else np.asarray(pi) > 0
    edges = ((np.asarray(mdp.P) > 0) & allowed[:, :, None]).any(1)
    lost = ~reaches(edges, np.asarray(mdp.terminal))
    if lost.any():
        who = "no terminal state can be reached" if pi is None else "the policy never terminates"
        raise ConfigError(
            f"gamma is 1, but from state {np.flatnonzero(lost)[0]} {who}, so that values diverge:"
            " lower gamma"
        )


def check_policy(mdp: MDP, pi: Array) -> None:
    """Checks that pi [S, A] is a policy of this MDP; what is traced passes.

    Raises:
        ConfigError: one line that says why not.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((mdp, pi))):
        return
    pi, legal = np.asarray(pi), np.asarray(mdp.legal)
    if pi.shape != legal.shape:
        raise ConfigError(f"pi has shape {pi.shape}, but must be {legal.shape}")
    if not ((pi >= 0).all() and np.allclose(pi.sum(-1), 1, atol=1e-4)):
        raise ConfigError("every row of pi must be probabilities that sum to 1")
    if (pi[~legal] > 0).any():
        state, action = np.argwhere((pi > 0) & ~legal)[0]
        raise ConfigError(f"pi takes action {action} in state {state}, where it does not exist")


def reaches(edges: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Which states [S] a path along edges [S, S] leads from into targets [S]."""
    while True:
        wider = targets | (edges & targets).any(1)
        if (wider == targets).all():
            return targets
        targets = wider
