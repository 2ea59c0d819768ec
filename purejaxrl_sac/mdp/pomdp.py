"""Finite partially observable Markov decision processes as arrays, and their validation.

S is the number of states, A of actions, Z of observations. The agent observes z and whether the
episode has ended, but neither states nor rewards (Kaelbling, Littman & Cassandra 1998).
"""

from __future__ import annotations

import numpy as np
from flax import struct

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.mdp.model import MDP, Array
from purejaxrl_sac.mdp.model import validate as validate_mdp


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
        raise ConfigError(f"a POMDP needs an MDP, not a {type(mdp).__name__}: see mdp.make")
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
    return pomdp


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
