"""Exact values and policies of finite MDPs, by dynamic programming.

All functions are built from one backup and four definitions of the value of a state,

    Q(s, a) = r(s, a) + gamma sum_s' P(s'|s, a) V(s')                                (post, 4.5)

    V(s) = max_a Q(s, a)                                 optimality                  (post, 1.2.1)
    V(s) = E_pi[Q(s, a)]                                 expectation                 (post, 1.1)
    V(s) = E_pi[Q(s, a) - alpha log pi(a|s)]             soft expectation            (post, 4.4)
    V(s) = alpha log sum_a exp(Q(s, a) / alpha)          soft optimality

with V = 0 in terminal states and Q = -inf for illegal actions. Solvers are compiled, and can be
vmapped over MDPs, gamma, alpha and policies. They compute in JAX's precision: single, unless
`jax_enable_x64` is set.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac import losses
from purejaxrl_sac.config import ConfigError, whole_number
from purejaxrl_sac.exploration import boltzmann
from purejaxrl_sac.mdp import MDP, check_discount, check_policy
from purejaxrl_sac.mdp.model import check_mdp, check_numbers
from purejaxrl_sac.types import Scalar

Solver = TypeVar("Solver", bound=Callable[..., Any])


def compiled(solve: Solver, static: str | None = None) -> Solver:
    """Compiles a function of (mdp, gamma[, alpha]), and checks its arguments and results."""
    program = jax.jit(solve, static_argnames=static)

    @wraps(solve)
    def checked(mdp: MDP, gamma: Scalar, *args: Any, **kwargs: Any) -> Any:
        check_mdp(mdp)
        check_discount(mdp, gamma)
        alpha = kwargs.get("alpha", args[0] if args else 1.0)
        check_numbers("alpha", alpha, above=0)
        values = program(mdp, gamma, *args, **kwargs)
        leaves = jax.tree.leaves(values)
        if any(not isinstance(x, jax.core.Tracer) and np.isnan(x).any() for x in leaves):
            double = "" if jnp.result_type(float) == jnp.float64 else ", set jax_enable_x64"
            raise ConfigError(
                f"values do not converge at gamma {gamma}: lower gamma{double}, or use policy"
                " iteration, which solves linear equations"
            )
        return values

    return cast(Solver, checked)


def backup(mdp: MDP, gamma: Scalar, v: jax.Array) -> jax.Array:
    """Q(s, a) = r(s, a) + gamma E[V(s')]; v [S] -> [S, A] (post, 4.3 and 4.5)."""
    q = mdp.r + gamma * jnp.asarray(mdp.P) @ jnp.where(mdp.terminal, 0, v)
    return jnp.where(mdp.legal, jnp.where(mdp.terminal[:, None], 0, q), -jnp.inf)


def optimality(mdp: MDP, gamma: Scalar, q: jax.Array) -> jax.Array:
    """T Q(s, a) = E[r + gamma max_a' Q(s', a')], q [S, A] (post, sections 1.2.1 and 1.3)."""
    return backup(mdp, gamma, q.max(-1))


def expectation(mdp: MDP, gamma: Scalar, pi: jax.Array, q: jax.Array) -> jax.Array:
    """T_pi Q(s, a) = E[r + gamma E_pi Q(s', a')], pi and q [S, A] (post, 4.5)."""
    return backup(mdp, gamma, losses.expected_value(q, pi))


def soft_expectation(
    mdp: MDP, gamma: Scalar, alpha: Scalar, pi: jax.Array, q: jax.Array
) -> jax.Array:
    """T_pi Q(s, a) = r + gamma E[E_pi(Q(s', a') - alpha log pi(a'|s'))] (post, 4.3 and 4.4)."""
    return backup(mdp, gamma, losses.expected_value(q, pi) + alpha * policy_entropy(pi))


def soft_optimality(mdp: MDP, gamma: Scalar, alpha: Scalar, q: jax.Array) -> jax.Array:
    """T Q(s, a) = r + gamma E[alpha log sum_a' exp(Q(s', a') / alpha)] (Haarnoja et al. 2017)."""
    return backup(mdp, gamma, losses.log_sum_exp(q, alpha))


def policy_entropy(pi: jax.Array) -> jax.Array:
    """H(pi(.|s)) = -sum_a pi(a|s) log pi(a|s) in nats; pi [..., A] -> [...] (post, 4.6)."""
    return losses.entropy(pi)


def fixed_point(
    operator: Callable[[jax.Array], jax.Array],
    start: jax.Array,
    tolerance: float = 0.0,
    max_iterations: int = 100_000,
) -> jax.Array:
    """Applies an operator until its result changes by no more than `tolerance`.

    The distance between the result and the fixed point of a gamma-contraction is at most
    gamma / (1 - gamma) times the last change. If values are many times larger than the changes
    of one iteration, as with gamma near 1, single precision converges too early: set
    `jax_enable_x64`.

    Args:
        operator: maps arrays to arrays of the same shape.
        start: the initial array.
        tolerance: maximum change, in the sup norm; with 0, until rounding leaves no change.
        max_iterations: maximum number of applications.

    Returns:
        the fixed point; nan if it has not converged after `max_iterations`.
    """

    Carry = tuple[jax.Array, jax.Array, jax.Array]  # values, their last change, iterations

    def unfinished(carry: Carry) -> jax.Array:
        _, change, i = carry
        return (change > tolerance) & (i < max_iterations)

    def apply(carry: Carry) -> Carry:
        q, _, i = carry
        following = operator(q)
        change = jnp.max(jnp.where(following == q, 0, jnp.abs(following - q)))  # -inf == -inf
        return following, change, i + 1

    start = jnp.asarray(start, jnp.result_type(float))
    initial = (start, jnp.full((), jnp.inf, start.dtype), jnp.int32(0))
    q, change, _ = jax.lax.while_loop(unfinished, apply, initial)
    largest = jnp.max(jnp.abs(jnp.where(jnp.isfinite(q), q, 0)))
    converged = change <= jnp.maximum(tolerance, 4 * jnp.finfo(q.dtype).eps * largest)
    return jnp.where(converged, q, jnp.nan)


@compiled
def value_iteration(mdp: MDP, gamma: Scalar) -> jax.Array:
    """Q*, [S, A]: the fixed point of the Bellman optimality operator (post, section 1.3).

    Raises:
        ConfigError: gamma is 1 and some state cannot reach a terminal one.
    """
    return fixed_point(lambda q: optimality(mdp, gamma, q), jnp.zeros(mdp.legal.shape))


@compiled
def soft_value_iteration(mdp: MDP, gamma: Scalar, alpha: Scalar) -> jax.Array:
    """The soft Q*, [S, A]: the fixed point of the soft optimality operator.

    Args:
        alpha: the temperature, above 0.

    Raises:
        ConfigError: gamma is 1 and some state cannot reach a terminal one.
    """
    return fixed_point(lambda q: soft_optimality(mdp, gamma, alpha, q), jnp.zeros(mdp.legal.shape))


def policy_evaluation(mdp: MDP, gamma: Scalar, pi: jax.Array) -> jax.Array:
    """V^pi, [S], the solution of V = r_pi + gamma P_pi V (post, 4.5).

    Args:
        pi: [S, A] probabilities.

    Raises:
        ConfigError: gamma is 1 and the policy does not always terminate.
    """
    return soft_policy_evaluation(mdp, gamma, 0.0, pi)


def soft_policy_evaluation(mdp: MDP, gamma: Scalar, alpha: Scalar, pi: jax.Array) -> jax.Array:
    """The soft V^pi, [S], the limit of repeated backups, as a linear solve (post, Lemma 1).

    Args:
        alpha: the temperature, the coefficient of the policy's entropy in the reward.
        pi: [S, A] probabilities.

    Raises:
        ConfigError: gamma is 1 and the policy does not always terminate.
    """
    check_policy(mdp, pi)
    check_discount(mdp, gamma, pi)
    check_numbers("alpha", alpha)
    return _evaluate(mdp, gamma, alpha, pi)


@jax.jit
def _evaluate(mdp: MDP, gamma: Scalar, alpha: Scalar, pi: jax.Array) -> jax.Array:
    pi = _normalized(pi)
    running = 1.0 - jnp.asarray(mdp.terminal)
    r_pi = running * ((pi * mdp.r).sum(-1) + alpha * policy_entropy(pi))
    P_pi = running[:, None] * jnp.einsum("sa,sat->st", pi, mdp.P) * running
    return jnp.linalg.solve(jnp.eye(len(r_pi)) - gamma * P_pi, r_pi)


def _normalized(pi: jax.Array) -> jax.Array:
    """Rows that sum to 1: an error of theirs is one of the values times 1 / (1 - gamma)."""
    return pi / pi.sum(-1, keepdims=True)


def uniform_policy(mdp: MDP) -> jax.Array:
    """The uniform policy over legal actions, [S, A]."""
    legal = jnp.asarray(mdp.legal)
    return legal / legal.sum(-1, keepdims=True)


def policy_iteration(mdp: MDP, gamma: Scalar) -> tuple[jax.Array, jax.Array]:
    """Q* and an optimal policy, [S, A] each: policy iteration until values no longer improve.

    Args:
        gamma: below 1. At 1, a policy that is evaluated may never terminate, so that its linear
            system is singular; `value_iteration` solves none.

    Raises:
        ConfigError: gamma is not below 1.
    """
    check_numbers("gamma", gamma)
    if not isinstance(gamma, jax.core.Tracer) and np.max(gamma) >= 1:
        raise ConfigError(f"policy iteration needs gamma < 1, not {gamma}: use value_iteration")
    return _policy_iteration(mdp, gamma)


@compiled
def _policy_iteration(mdp: MDP, gamma: Scalar) -> tuple[jax.Array, jax.Array]:
    def evaluate(pi: jax.Array) -> jax.Array:
        return backup(mdp, gamma, _evaluate(mdp, gamma, 0.0, pi))

    Carry = tuple[jax.Array, jax.Array, jax.Array, jax.Array]  # q, pi, v, improved

    def improve(carry: Carry) -> Carry:
        q, _, previous, _ = carry
        pi = jax.nn.one_hot(q.argmax(-1), q.shape[-1])
        q = evaluate(pi)
        v = q.max(-1)
        # compares values, because rounding may switch between equally good policies forever; their
        # sum would hide improvements that are smaller than its rounding
        return q, pi, v, (v - previous).sum() > 0

    pi = uniform_policy(mdp)
    q = evaluate(pi)
    initial = (q, pi, jnp.full(len(q), -jnp.inf, q.dtype), jnp.bool_(True))
    q, pi, *_ = jax.lax.while_loop(lambda carry: carry[-1], improve, initial)
    return q, pi


def soft_policy_improvement(q: jax.Array, alpha: Scalar) -> jax.Array:
    """pi = argmin KL(pi || exp(Q / alpha) / Z) = softmax(Q / alpha), [S, A] (post, Lemma 2)."""
    return boltzmann(q, alpha)


@partial(compiled, static="rounds")
def soft_policy_iteration(
    mdp: MDP, gamma: Scalar, alpha: Scalar, rounds: int = 100
) -> tuple[jax.Array, jax.Array]:
    """Soft policy iteration from the uniform policy, Lemmas 1 and 2 in turn (post, Theorem 1).

    Args:
        alpha: the temperature, above 0.
        rounds: number of evaluations and improvements; static.

    Returns:
        the policy of each round and its soft Q^pi, [rounds, S, A] each.

    Raises:
        ConfigError: gamma is 1 and some state cannot reach a terminal one.
    """
    rounds = whole_number("rounds", rounds, at_least=1)

    def iteration(pi: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        q = backup(mdp, gamma, _evaluate(mdp, gamma, alpha, pi))
        return soft_policy_improvement(q, alpha), (pi, q)

    return jax.lax.scan(iteration, uniform_policy(mdp), length=rounds)[1]


def finite_horizon_evaluation(mdp: MDP, gamma: Scalar, pi: jax.Array, horizon: int) -> jax.Array:
    """The expected return of `horizon` steps, [S]: V^pi under a time limit.

    Args:
        pi: [S, A] probabilities.
        horizon: number of steps; static.

    Raises:
        ConfigError: pi is not a policy, gamma is not a number, or horizon not a whole one.
    """
    check_policy(mdp, pi)
    check_numbers("gamma", gamma)
    return _finite_horizon(mdp, gamma, pi, whole_number("horizon", horizon, at_least=0))


@partial(jax.jit, static_argnums=3)
def _finite_horizon(mdp: MDP, gamma: Scalar, pi: jax.Array, horizon: int) -> jax.Array:
    pi = _normalized(pi)

    def step(_: int, v: jax.Array) -> jax.Array:
        return losses.expected_value(backup(mdp, gamma, v), pi)

    return jax.lax.fori_loop(0, horizon, step, jnp.zeros(mdp.start.shape))
