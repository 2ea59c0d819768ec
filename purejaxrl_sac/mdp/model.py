"""Finite Markov decision processes as arrays (post, section 1.1), and their validation.

S is the number of states, A the number of actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import struct

from purejaxrl_sac.config import Bounds, ConfigError, kind_of, static
from purejaxrl_sac.types import Scalar

BoolArray = np.ndarray[Any, np.dtype[np.bool_]]
Array = jax.Array | np.ndarray[Any, Any]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]


class Grid(NamedTuple):
    """The map of an MDP whose states are cells, for plots."""

    rows: tuple[str, ...]  # the map, one letter per cell
    position: tuple[tuple[int, int], ...]  # [S] (row, column) of each state; (-1, -1): not on it
    moves: tuple[tuple[int, int], ...]  # [A] (rows, columns) by which each action should move


class MDP(struct.PyTreeNode):
    """A finite MDP as a pytree of arrays; `vmap` over stacked MDPs works."""

    P: Array
    """P(s' | s, a), [S, A, S]; terminal states are absorbing."""
    R: Array
    """Expected reward of the transition (s, a, s'), [S, A, S]."""
    start: Array
    """Probability that an episode starts in s, [S]."""
    terminal: Array
    """Which states are terminal, [S] bool; their values are 0."""
    noise: Array
    """Standard deviation of Gaussian noise on the reward, [S, A]."""
    legal: Array
    """Which actions are legal, [S, A] bool; an illegal one has value -inf and does not change the
    state. In terminal states all actions are legal."""
    grid: Grid | None = static(None)
    """Its map; None if it has none."""

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
    """Builds and validates an MDP of float64 arrays, which JAX converts to its own precision.

    Args:
        P: [S, A, S]; rows of terminal states and of illegal actions are ignored.
        R: [S, A, S], or [S, A] if the reward does not depend on the next state.
        start: [S] probabilities, or the index of the only start state.
        terminal: [S] bool, or the indices of the terminal states.
        noise: standard deviation of Gaussian noise on the reward; broadcasts to [S, A].
        legal: [S, A] bool; None if all actions are legal everywhere.
        grid: its map.

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
    legal[terminal] = True  # no action has an effect there
    if noise.shape not in ((), shape):
        raise ConfigError(f"noise has shape {noise.shape}, but must be a number or {shape}")
    if np.ndim(start) == 0:
        if not isinstance(start, Integral):
            raise ConfigError(f"start is {start!r}, but must be the index of a state, or [S]")
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
    return mdp.replace(P=normalized(P), start=normalized(mdp.start))


def normalized(rows: Array) -> FloatArray:
    """Valid probabilities [..., N] divided by their sums, in double precision.

    An error of the sums is one of values times 1 / (1 - gamma), and with gamma = 1 a chance that
    episodes end.
    """
    rows = np.asarray(rows, np.float64)
    normal: FloatArray = rows / rows.sum(-1, keepdims=True)
    return normal


def validate(mdp: MDP) -> None:
    """Checks shapes, probabilities, rewards and start states.

    Raises:
        ConfigError: one line, with the first invalid state and action.
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
            f"start sums to {start.sum():.6g}, but must be probabilities that sum to 1"
        )
    if (start[terminal] > 0).any():
        state = np.flatnonzero((start > 0) & terminal)[0]
        raise ConfigError(f"state {state} is both a start and terminal: choose another start")
    if mdp.grid is not None and len(mdp.grid.position) != num_states:
        raise ConfigError(f"grid has {len(mdp.grid.position)} positions for {num_states} states")
    without_action = ~legal.any(-1)
    if without_action.any():
        state = np.flatnonzero(without_action)[0]
        raise ConfigError(f"state {state} has no legal action: give it one")


def check_discount(mdp: MDP, gamma: Scalar, pi: Array | None = None) -> None:
    """Checks that values are finite: gamma < 1, or every state can reach a terminal one.

    Tracers have no values and pass.

    Args:
        pi: [S, A]; if given, a terminal state must be reachable under this policy.

    Raises:
        ConfigError: gamma is 1 and some state cannot reach a terminal one, or gamma is not in
            [0, 1].
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((mdp, gamma, pi))):
        return
    check_numbers("gamma", gamma, at_least=0, at_most=1)
    gamma = np.max(gamma)
    if gamma < 1 or np.ndim(mdp.P) > 3:
        return
    possible = np.asarray(mdp.legal) if pi is None else np.asarray(pi) > 0
    edges = np.any((np.asarray(mdp.P) > 0) & possible[:, :, None], axis=1)
    endless = ~reaches(edges, np.asarray(mdp.terminal))
    if endless.any():
        state = np.flatnonzero(endless)[0]
        reason = "no terminal state can be reached" if pi is None else "the policy never terminates"
        raise ConfigError(
            f"gamma is 1, but from state {state} {reason}, so that values diverge: lower gamma"
        )


def check_numbers(name: str, value: Scalar, **bounds: Any) -> None:
    """Checks that a number, or all of an array, are within bounds; tracers pass.

    Args:
        **bounds: fields of `config.Bounds`.

    Raises:
        ConfigError: they are not.
    """
    if isinstance(value, jax.core.Tracer):
        return
    for x in (value,) if np.ndim(value) == 0 else (np.min(value), np.max(value)):
        Bounds(float, **bounds).check(name, x)


def check_mdp(mdp: MDP) -> None:
    """Raises ConfigError unless this is an MDP."""
    if not isinstance(mdp, MDP):
        field = ": use its field mdp" if hasattr(mdp, "mdp") else ""
        raise ConfigError(f"mdp is {kind_of(mdp)}, but must be an MDP{field}")


def check_policy(mdp: MDP, pi: Array) -> None:
    """Checks that pi [S, A] is a policy of this MDP; tracers pass.

    Raises:
        ConfigError: it is not, or there is no MDP.
    """
    check_mdp(mdp)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((mdp, pi))):
        return
    pi, legal = np.asarray(pi), np.asarray(mdp.legal)
    if pi.shape != legal.shape:
        raise ConfigError(f"pi has shape {pi.shape}, but must be {legal.shape}")
    if not ((pi >= 0).all() and np.allclose(pi.sum(-1), 1, atol=1e-4)):
        raise ConfigError("every row of pi must be probabilities that sum to 1")
    if (pi[~legal] > 0).any():
        state, action = np.argwhere((pi > 0) & ~legal)[0]
        raise ConfigError(f"pi takes action {action} in state {state}, where it is illegal")


def reaches(edges: BoolArray, targets: BoolArray) -> BoolArray:
    """Which states [S] have a path along edges [S, S] to one of the targets [S]."""
    while True:
        wider = targets | (edges & targets).any(1)
        if (wider == targets).all():
            return targets
        targets = wider
