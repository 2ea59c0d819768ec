"""Optimal values of finite POMDPs at all beliefs, by alpha-vectors.

V_h is the maximum of finitely many linear functions, V_h(b) = max_k alpha_k b (Smallwood & Sondik
1973), those of the plans of h steps that are best for some belief. They are computed by incremental
pruning (Cassandra, Littman & Zhang 1997, arXiv 1302.1525), for problems of few states: their number
can grow exponentially.
"""

from __future__ import annotations

import numpy as np

from purejaxrl_sac.config import ConfigError, number
from purejaxrl_sac.mdp.model import Array, FloatArray
from purejaxrl_sac.mdp.pomdp import (
    POMDP,
    IntArray,
    Model,
    check_gamma,
    check_horizon,
    model,
)


def optimal_vectors(
    pomdp: POMDP, gamma: float, horizon: int | None = None, tolerance: float = 1e-6
) -> FloatArray:
    """Alpha-vectors [K, S] of the optimal value, V(b) = max_k alpha_k b, for all beliefs b.

    Args:
        horizon: number of steps; None for an infinite one.
        tolerance: the largest error of an infinite horizon's values. They are those of so many
            steps k that the rest is at most gamma^k max |r| / (1 - gamma).

    Raises:
        ConfigError: gamma is not in [0, 1], or is 1 without a horizon, or `horizon` or `tolerance`
            is not positive.
    """
    check_gamma(gamma)
    found = model(pomdp)
    if horizon is None:
        if gamma == 1:
            raise ConfigError("gamma is 1: lower it, or give a horizon")
        number("tolerance", tolerance, above=0)
        rest = np.abs(found.r).max() / (1 - gamma)
        horizon = 1
        while gamma**horizon * rest > tolerance:
            horizon += 1
    check_horizon(horizon)
    alphas = np.zeros((1, len(found.r)))
    for _ in range(horizon):
        alphas = _backup(found, gamma, alphas)
    return alphas


def value(alphas: FloatArray, belief: Array) -> float:
    """V(b) = max_k alpha_k b of alpha-vectors [K, S] at a belief [S]."""
    return float((alphas @ np.asarray(belief, np.float64)).max())


def start_value(pomdp: POMDP, alphas: FloatArray) -> float:
    """The value of alpha-vectors [K, S] at the start: sum_z P(z) V(b_z), after the first z."""
    return float((alphas @ model(pomdp).first).max(0).sum())


def backup(pomdp: POMDP, gamma: float, alphas: FloatArray) -> FloatArray:
    """Alpha-vectors [K', S] of h + 1 steps from those of h steps, [K, S]."""
    return _backup(model(pomdp), gamma, alphas)


def _backup(found: Model, gamma: float, alphas: FloatArray) -> FloatArray:
    candidates = []
    for a, O in enumerate(found.O):
        vectors = found.r[None, :, a]
        for z in np.flatnonzero(O.any(0)):
            following = prune(gamma * (alphas * O[:, z]) @ found.P[:, a].T)
            vectors = prune((vectors[:, None] + following).reshape(-1, len(found.r)))
        candidates.append(vectors)
    return prune(np.concatenate(candidates))


def prune(vectors: FloatArray) -> FloatArray:
    """The vectors that are larger than all others at some belief, [K', S] of [K, S].

    Those that are so by less than about 1e-9 of the largest entry may be removed.
    """
    differ = (vectors != vectors[0]).any(0)  # not so in terminal states
    scaled = vectors[:, differ] / max(np.abs(vectors).max(), np.finfo(float).tiny)
    if scaled.shape[1] <= 1:
        return vectors[[scaled.sum(1).argmax()]]
    kept = _prune_lines(scaled) if scaled.shape[1] == 2 else _prune_by_programs(scaled)
    return vectors[kept]


def _prune_lines(vectors: FloatArray) -> IntArray:
    """`prune` for two states: the upper envelope of lines over P(state 1), from 0 to 1."""
    at_0, slope = vectors[:, 0], vectors[:, 1] - vectors[:, 0]
    order = np.lexsort((at_0, slope))
    order = order[np.append(np.diff(slope[order]) > 0, True)]  # the highest of each slope
    at_0, slope = at_0[order], slope[order]
    line = int(np.flatnonzero(at_0 == at_0.max())[-1])
    kept = [line]
    while line < len(order) - 1:
        steeper = slice(line + 1, None)
        crossing = (at_0[line] - at_0[steeper]) / (slope[steeper] - slope[line])
        if crossing.min() >= 1 - 1e-12:
            break
        line += 1 + int(np.flatnonzero(crossing <= crossing.min() + 1e-12)[-1])
        kept.append(line)
    return order[kept]


def _prune_by_programs(vectors: FloatArray) -> IntArray:
    """`prune` for any number of states, by linear programs (Lark, in White 1991)."""
    vectors, index = np.unique(vectors, axis=0, return_index=True)
    others = ~np.eye(len(vectors), dtype=bool)
    left = [i for i, x in enumerate(vectors) if not ((vectors >= x).all(1) & others[i]).any()]
    kept: list[int] = []
    while left:
        belief = _witness(vectors[left[0]], vectors[kept])
        if belief is None:
            left.pop(0)
        else:  # rows are sorted: of those equal at this belief, the last is not dominated
            best = max(left, key=lambda i: (round(float(vectors[i] @ belief), 12), i))
            kept.append(best)
            left.remove(best)
    return index[kept]


def _witness(vector: FloatArray, others: FloatArray) -> FloatArray | None:
    """A belief at which a vector [S] is larger than all others [K, S]; None if there is none."""
    from scipy.optimize import linprog

    size = len(vector)
    if not len(others):
        return np.full(size, 1 / size)
    precise = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    # maximises d subject to (vector - others) b >= d
    solved = linprog(
        np.append(np.zeros(size), -1.0),
        A_ub=np.column_stack([others - vector, np.ones(len(others))]),
        b_ub=np.zeros(len(others)),
        A_eq=[np.append(np.ones(size), 0.0)],
        b_eq=[1.0],
        bounds=[(0, 1)] * size + [(None, None)],
        options=precise,
    )
    if not solved.success:
        raise RuntimeError(f"a linear program of alpha-vectors failed: {solved.message}")
    return np.asarray(solved.x[:-1]) if solved.x[-1] > 1e-9 else None
