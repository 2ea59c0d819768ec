"""Finite partially observable Markov decision processes as arrays, and their validation.

S is the number of states, A of actions, Z of observations. The agent observes z and whether the
episode has ended, but neither states nor rewards (Kaelbling, Littman & Cassandra 1998).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from flax import struct

from purejaxrl_sac.config import ConfigError, kind_of, number, whole_number
from purejaxrl_sac.mdp.model import MDP, Array, FloatArray, normalized
from purejaxrl_sac.mdp.model import validate as validate_mdp

IntArray = np.ndarray[Any, np.dtype[np.intp]]


class POMDP(struct.PyTreeNode):
    """A finite MDP whose states are observed through a kernel; all actions are legal."""

    mdp: MDP
    """The MDP of the hidden states."""
    O: Array
    """P(z | a, s') of the action taken and the state it led to, [A, S, Z]."""
    initial: Array
    """P(z | s) of the observation of a start state, [S, Z]."""


def make(mdp: MDP, O: Array, initial: Array | None = None) -> POMDP:
    """Builds and validates a POMDP of float64 arrays.

    Args:
        mdp: the MDP of the hidden states.
        O: [A, S, Z], or [S, Z] if observations do not depend on the action.
        initial: [S, Z]; by default O, where that does not depend on the action.

    Raises:
        ConfigError: the arrays are not a POMDP, or `initial` is missing.
    """
    if not isinstance(mdp, MDP):
        raise ConfigError(f"a POMDP needs an MDP, not {kind_of(mdp)}: see mdp.make")
    try:
        O = np.array(O, np.float64)
        start = None if initial is None else np.array(initial, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"O and initial must be arrays of numbers: {error}") from None
    if start is None:
        if O.ndim == 3:
            raise ConfigError("O depends on the action: give initial [S, Z], P(z | start state)")
        start = O
    if O.ndim == 2:
        O = np.array(np.broadcast_to(O, (mdp.P.shape[1], *O.shape)))
    pomdp = POMDP(mdp=mdp, O=O, initial=start)
    validate(pomdp)
    return pomdp.replace(O=normalized(O), initial=normalized(start))


def observe_actions(pomdp: POMDP) -> POMDP:
    """The POMDP whose observations also show the action that was taken: a Z + z.

    At the start, where there is none, they are A Z + z. Optimal values are the same, because an
    agent knows its own actions; but recurrent networks see observations only, and while they
    explore, actions do not follow from these.

    Raises:
        ConfigError: the arrays are not a POMDP.
    """
    validate(pomdp)
    num_actions, num_states, size = pomdp.O.shape
    O = np.zeros((num_actions, num_states, num_actions + 1, size))
    initial = np.zeros((num_states, num_actions + 1, size))
    for action in range(num_actions):
        O[action, :, action] = pomdp.O[action]
    initial[:, num_actions] = pomdp.initial
    return make(pomdp.mdp, O.reshape(num_actions, num_states, -1), initial.reshape(num_states, -1))


def validate(pomdp: POMDP) -> None:
    """Checks shapes and probabilities.

    Raises:
        ConfigError: one line, with the first invalid action and state.
    """
    validate_mdp(pomdp.mdp)
    num_states, num_actions, _ = pomdp.mdp.P.shape
    O, initial = np.asarray(pomdp.O), np.asarray(pomdp.initial)
    if O.ndim != 3 or O.shape[:2] != (num_actions, num_states) or not O.shape[2]:
        raise ConfigError(
            f"O has shape {O.shape}, but must be [A, S, Z] or [S, Z] for {num_actions} actions and"
            f" {num_states} states"
        )
    shape = (num_states, O.shape[2])
    if initial.shape != shape:
        raise ConfigError(f"initial has shape {initial.shape}, but must be {shape}, [S, Z]")
    for name, kernel in (("O", O), ("initial", initial)):
        wrong = ~np.isclose(kernel.sum(-1), 1, atol=1e-5) | ~(kernel >= 0).all(-1)
        if wrong.any():
            place = tuple(int(i) for i in np.argwhere(wrong)[0])
            row = kernel[place]
            raise ConfigError(
                f"{name}[{', '.join(map(str, place))}] sums to {row.sum():.6g} with smallest entry"
                f" {row.min():.3g}, but must be probabilities that sum to 1"
            )
    illegal = ~np.asarray(pomdp.mdp.legal)
    if illegal.any():
        state, action = np.argwhere(illegal)[0]
        raise ConfigError(
            f"action {action} is illegal in state {state}, which an agent that does not observe"
            " states cannot know: make all actions legal"
        )


class Model(NamedTuple):
    """A POMDP in double precision, without transitions into terminal states."""

    P: FloatArray  # [S, A, S]; 0 to and from terminal states
    r: FloatArray  # [S, A]; 0 in terminal states
    O: FloatArray  # [A, S, Z]
    first: FloatArray  # P(s, z) at the start of an episode, [S, Z]


def model(pomdp: POMDP) -> Model:
    """The arrays that values depend on.

    Raises:
        ConfigError: it is no POMDP, or its arrays are not one.
    """
    if not isinstance(pomdp, POMDP):
        field = ": use its field pomdp" if hasattr(pomdp, "pomdp") else ""
        raise ConfigError(f"pomdp is {kind_of(pomdp)}, but must be a POMDP{field}")
    validate(pomdp)
    P, R, O, initial, start = (
        np.asarray(x, np.float64)
        for x in (pomdp.mdp.P, pomdp.mdp.R, pomdp.O, pomdp.initial, pomdp.mdp.start)
    )
    P, O, initial, start = map(normalized, (P, O, initial, start))
    running = ~np.asarray(pomdp.mdp.terminal)
    return Model(
        P=P * running * running[:, None, None],
        r=(P * R).sum(-1) * running[:, None],
        O=O,
        first=start[:, None] * initial,
    )


def check_gamma(gamma: float) -> None:
    """Raises ConfigError if gamma is not in [0, 1]."""
    number("gamma", gamma, at_least=0, at_most=1)


def check_horizon(horizon: int) -> None:
    """Raises ConfigError unless the number of steps is a whole number of at least 1."""
    whole_number("horizon", horizon, at_least=1)
