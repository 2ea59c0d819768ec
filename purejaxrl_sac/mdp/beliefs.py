"""Beliefs of finite POMDPs, and optimal values by enumeration of those that can occur.

A belief b [S] is the distribution of the state given all observations and actions of an episode
that has not ended. After action a and observation z it is

    b'(s') = O(z | a, s') sum_s P(s'|s, a) b(s) / P(z | b, a)       in states that are not terminal

where P(z | b, a) normalises: the probability of z and that the episode continues. The optimal value
of h steps is that of an MDP of beliefs (Kaelbling, Littman & Cassandra 1998),

    V_h(b) = max_a sum_s b(s) r(s, a) + gamma sum_z P(z | b, a) V_h-1(b'),        V_0 = 0

Beliefs that can occur are few where observations are deterministic or repeat, as in the T-maze and
the tiger; `alpha_vectors` computes V_h at all beliefs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from purejaxrl_sac.config import ConfigError, whole_number
from purejaxrl_sac.mdp.model import Array, FloatArray
from purejaxrl_sac.mdp.pomdp import POMDP, IntArray, check_gamma, check_horizon, model

DECIMALS = 12  # to which beliefs are equal


def initial_belief(pomdp: POMDP, z: int) -> tuple[FloatArray, float]:
    """The belief [S] after the first observation, and the probability of that observation.

    Raises:
        ConfigError: z has probability 0, or is no observation.
    """
    found = model(pomdp)
    _check_index("observation", z, found.O.shape[2])
    return _normalized(found.first[:, z], f"no episode starts with observation {z}")


def belief_update(pomdp: POMDP, belief: Array, action: int, z: int) -> tuple[FloatArray, float]:
    """The belief after an action and an observation with which the episode does not end.

    Args:
        belief: [S] probabilities.

    Returns:
        the new belief [S]; the probability of z and that the episode continues.

    Raises:
        ConfigError: this probability is 0, `belief` is not a distribution over states, or there is
            no such action or observation.
    """
    found = model(pomdp)
    _check_index("action", action, found.O.shape[0])
    _check_index("observation", z, found.O.shape[2])
    joint = _checked(pomdp, belief) @ found.P[:, action] * found.O[action, :, z]
    return _normalized(
        joint, f"after action {action}, observation {z} has probability 0 under this belief"
    )


def _normalized(joint: FloatArray, message: str) -> tuple[FloatArray, float]:
    probability = float(joint.sum())
    if not probability > 0:
        raise ConfigError(f"{message}: take another observation")
    return joint / probability, probability


def _check_index(name: str, index: int, size: int) -> None:
    if not 0 <= whole_number(name, index) < size:
        raise ConfigError(f"there is no {name} {index}: use 0 to {size - 1}")


def _checked(pomdp: POMDP, belief: Array) -> FloatArray:
    belief = np.asarray(belief, np.float64)
    shape = np.shape(pomdp.mdp.start)
    if belief.shape != shape:
        raise ConfigError(f"belief has shape {belief.shape}, but must be {shape}")
    if not ((belief >= 0).all() and np.isclose(belief.sum(), 1, atol=1e-5)):
        raise ConfigError(
            f"belief sums to {belief.sum():.6g} with smallest entry {belief.min():.3g}, but must be"
            " probabilities that sum to 1"
        )
    return belief


class BeliefMDP(NamedTuple):
    """Beliefs that can occur within a horizon, N of them, as an MDP with known states."""

    beliefs: FloatArray  # [N, S]
    start: FloatArray  # [N] probability that an episode begins with this belief
    r: FloatArray  # [N, A] expected reward
    successor: IntArray  # [N, A, Z] index of the next belief
    probability: FloatArray  # [N, A, Z] of z and that the episode continues


def reachable_beliefs(
    pomdp: POMDP, horizon: int, belief: Array | None = None, max_beliefs: int = 100_000
) -> BeliefMDP:
    """Enumerates the beliefs that can occur before the last of `horizon` steps.

    Beliefs are taken as equal if they are to 12 decimals, so that values have errors of about
    1e-12 times the largest one. Successors of beliefs that occur first at the last step have
    index 0 and are not used.

    Args:
        horizon: number of steps.
        belief: [S], that an episode begins with; None for that after the first observation.
        max_beliefs: the largest number of beliefs to enumerate.

    Raises:
        ConfigError: more beliefs can occur, or `belief` or `horizon` is invalid.
    """
    found = model(pomdp)
    check_horizon(horizon)
    max_beliefs = whole_number("max_beliefs", max_beliefs)
    first = found.first.T if belief is None else _checked(pomdp, belief)[None]
    beliefs: list[FloatArray] = []
    numbers: dict[bytes, int] = {}

    def number(joint: FloatArray) -> tuple[int, float]:
        probability = float(joint.sum())
        if not probability > 0:
            return 0, 0.0
        normalized = joint / probability
        key = np.round(normalized, DECIMALS).tobytes()
        if key not in numbers:
            if len(beliefs) == max_beliefs:
                raise ConfigError(
                    f"more than {max_beliefs} beliefs can occur in {horizon} steps: lower the"
                    " horizon, or use alpha-vectors"
                )
            numbers[key] = len(beliefs)
            beliefs.append(normalized)
        return numbers[key], probability

    starts = [number(joint) for joint in first]
    successor: list[list[list[int]]] = []
    probabilities: list[list[list[float]]] = []
    frontier = 0
    for _ in range(horizon - 1):
        end = len(beliefs)
        for i in range(frontier, end):
            predicted = np.einsum("s,sat->at", beliefs[i], found.P)
            joint = (predicted[:, :, None] * found.O).swapaxes(1, 2)  # [A, Z, S]
            pairs = [[number(row) for row in of_action] for of_action in joint]
            successor.append([[n for n, _ in row] for row in pairs])
            probabilities.append([[p for _, p in row] for row in pairs])
        frontier = end
    num_actions, _, num_observations = found.O.shape
    shape = (len(beliefs), num_actions, num_observations)
    follows, weights = np.zeros(shape, np.intp), np.zeros(shape)
    if frontier:
        follows[:frontier], weights[:frontier] = successor, probabilities
    all_beliefs, start = np.array(beliefs), np.zeros(len(beliefs))
    for n, probability in starts:
        start[n] += probability
    return BeliefMDP(
        beliefs=all_beliefs,
        start=start,
        r=all_beliefs @ found.r,
        successor=follows,
        probability=weights,
    )


def optimal_value(
    pomdp: POMDP,
    gamma: float,
    horizon: int,
    belief: Array | None = None,
    max_beliefs: int = 100_000,
) -> float:
    """The optimal value of `horizon` steps, by backward induction over reachable beliefs.

    Args:
        belief: [S]; None for the start of an episode.
        max_beliefs: the largest number of beliefs to enumerate.

    Raises:
        ConfigError: as for `reachable_beliefs`, or gamma is not in [0, 1].
    """
    check_gamma(gamma)
    tree = reachable_beliefs(pomdp, horizon, belief, max_beliefs)
    v = np.zeros(len(tree.beliefs))
    for _ in range(horizon):
        q = tree.r + gamma * (tree.probability * v[tree.successor]).sum(-1)
        v = q.max(-1)
    return float(tree.start @ v)
