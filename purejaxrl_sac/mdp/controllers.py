"""Exact values of given policies of finite POMDPs: memoryless ones, and those with finite memory.

The states of a POMDP and of the policy's memory are together a Markov chain, whose value is the
solution of V = r + gamma P V. With a horizon, values are expected returns under a time limit of so
many steps.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from purejaxrl_sac.config import ConfigError, kind_of, whole_number
from purejaxrl_sac.mdp.model import Array, FloatArray, normalized, reaches
from purejaxrl_sac.mdp.pomdp import POMDP, Model, check_gamma, check_horizon, model


class Controller(NamedTuple):
    """A policy with a memory of M states (Meuleau et al. 1999, arXiv 1301.6720)."""

    pi: Array  # P(a | m), [M, A]
    transition: Array  # P(m' | m, a, z) of the next memory, [M, A, Z, M]
    start: Array  # P(m | z) of the memory after the first observation, [Z, M]


def memoryless(pi: Array) -> Controller:
    """The controller of a memoryless policy pi [Z, A], whose memory is the last observation.

    Raises:
        ConfigError: pi has another number of dimensions.
    """
    pi = np.asarray(pi, np.float64)
    if pi.ndim != 2:
        raise ConfigError(f"pi has shape {pi.shape}, but must be [Z, A]")
    num_observations, num_actions = pi.shape
    last = np.eye(num_observations)
    shape = (num_observations, num_actions, num_observations, num_observations)
    return Controller(pi, np.broadcast_to(last, shape), last)


def evaluate_memoryless(pomdp: POMDP, gamma: float, pi: Array, horizon: int | None = None) -> float:
    """The value of a policy that depends on the last observation only.

    Args:
        pi: [Z, A] probabilities.
        horizon: number of steps; None for an infinite one.

    Raises:
        ConfigError: pi is not a policy, gamma is not in [0, 1], or it is 1 without a horizon and
            the policy does not always terminate.
    """
    found = model(pomdp)
    num_actions, _, num_observations = found.O.shape
    pi = _distribution("pi", pi, (num_observations, num_actions))
    return _evaluate_memoryless(found, gamma, pi, horizon)


def _evaluate_memoryless(found: Model, gamma: float, pi: FloatArray, horizon: int | None) -> float:
    size = found.r.size  # of a chain over (s, a)
    chain = np.einsum("sat,atb->satb", found.P, found.O @ pi).reshape(size, size)
    return _chain_value(chain, found.r.ravel(), (found.first @ pi).ravel(), gamma, horizon)


def best_memoryless(
    pomdp: POMDP, gamma: float, horizon: int | None = None, max_policies: int = 10_000
) -> tuple[FloatArray, float]:
    """The best deterministic policy that depends on the last observation only, by enumeration.

    Stochastic ones can be better (Singh, Jaakkola & Jordan 1994).

    Args:
        horizon: number of steps; None for an infinite one.
        max_policies: the largest number of policies to enumerate.

    Returns:
        the policy [Z, A], which takes action 0 where an observation cannot occur; its value.

    Raises:
        ConfigError: there are more policies; or as for `evaluate_memoryless`.
    """
    found, max_policies = model(pomdp), whole_number("max_policies", max_policies)
    num_actions, _, num_observations = found.O.shape
    arrivals = found.P.max(0)[:, :, None] > 0  # [A, S, 1]
    occurs = (found.first > 0).any(0) | ((found.O > 0) & arrivals).any((0, 1))
    count = num_actions ** int(occurs.sum())
    if count > max_policies:
        raise ConfigError(
            f"there are {num_actions}^{occurs.sum()} = {count:.3g} deterministic memoryless"
            f" policies, but max_policies is {max_policies}: raise it, or evaluate single policies"
        )
    best, best_value = np.zeros((0, 0)), -np.inf
    actions = np.zeros(num_observations, np.intp)
    for choice in itertools.product(range(num_actions), repeat=int(occurs.sum())):
        actions[occurs] = choice
        pi = np.eye(num_actions)[actions]
        value = _evaluate_memoryless(found, gamma, pi, horizon)
        if value > best_value:
            best, best_value = pi, value
    return best, best_value


def evaluate_controller(
    pomdp: POMDP, gamma: float, controller: Controller, horizon: int | None = None
) -> float:
    """The value of a policy with finite memory, by the Markov chain over (state, memory).

    Args:
        horizon: number of steps; None for an infinite one.

    Raises:
        ConfigError: the controller is invalid, gamma is not in [0, 1], or it is 1 without a horizon
            and the policy does not always terminate.
    """
    found = model(pomdp)
    if not isinstance(controller, Controller):
        raise ConfigError(
            f"controller is {kind_of(controller)}, but must be a Controller: use memoryless(pi)"
        )
    num_actions, num_states, num_observations = found.O.shape
    memories = len(np.atleast_1d(controller.pi))
    pi = _distribution("pi", controller.pi, (memories, num_actions))
    shape = (memories, num_actions, num_observations, memories)
    transition = _distribution("transition", controller.transition, shape)
    start = _distribution("start", controller.start, (num_observations, memories))
    following = np.einsum("atz,mazn->matn", found.O, transition)
    chain = np.einsum("ma,sat,matn->smtn", pi, found.P, following, optimize=True)
    size = num_states * memories
    r = (found.r @ pi.T).ravel()
    return _chain_value(chain.reshape(size, size), r, (found.first @ start).ravel(), gamma, horizon)


def _chain_value(
    chain: FloatArray, r: FloatArray, start: FloatArray, gamma: float, horizon: int | None
) -> float:
    """start (I - gamma chain)^-1 r, or its first `horizon` terms.

    Args:
        chain: [N, N] probabilities to continue with.
        r: [N] expected rewards.
        start: [N] probabilities.
    """
    check_gamma(gamma)
    if horizon is not None:
        check_horizon(horizon)
        v = np.zeros(len(r))
        for _ in range(horizon):
            v = r + gamma * chain @ v
        return float(start @ v)
    occurs = reaches((chain > 0).T, start > 0)
    chain, r, start = chain[np.ix_(occurs, occurs)], r[occurs], start[occurs]
    ends = reaches(chain > 0, chain.sum(1) < 1 - 1e-9)
    if gamma == 1 and not ends.all():
        raise ConfigError(
            "gamma is 1, but the policy does not always terminate: lower gamma, or give a horizon"
        )
    return float(start @ np.linalg.solve(np.eye(len(r)) - gamma * chain, r))


def _distribution(name: str, kernel: Array, shape: tuple[int, ...]) -> FloatArray:
    kernel = np.asarray(kernel, np.float64)
    if kernel.shape != shape:
        raise ConfigError(f"{name} has shape {kernel.shape}, but must be {shape}")
    if not ((kernel >= 0).all() and np.allclose(kernel.sum(-1), 1, atol=1e-5)):
        raise ConfigError(f"every row of {name} must be probabilities that sum to 1")
    return normalized(kernel)
