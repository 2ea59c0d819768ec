"""Exploration with discrete actions: policies pi(a|s) from Q(s, .), and sampling from them.

A value of -inf marks an action that does not exist: no policy takes it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def linear_schedule(
    start: jax.Array | float, end: jax.Array | float, fraction: jax.Array | float
) -> jax.Array:
    """Linear interpolation from `start` to `end`, clipped at both ends."""
    return start + (end - start) * jnp.clip(fraction, 0, 1)


def annealed_epsilon(config: Any, step: jax.Array) -> jax.Array:
    """Epsilon at `step` of each environment: linear decay over epsilon_fraction of total_steps."""
    decay_steps = config.epsilon_fraction * (config.total_steps / config.num_envs)
    progress = step.astype(jnp.float32) / jnp.maximum(decay_steps, 1)
    return linear_schedule(config.epsilon_start, config.epsilon_end, progress)


def sample(key: jax.Array, probabilities: jax.Array) -> jax.Array:
    """An action for each environment, drawn independently.

    Args:
        probabilities: [N, A].

    Returns:
        actions, [N] int32; never one whose probability is 0.
    """
    cumulative = probabilities.cumsum(-1)
    u = jax.random.uniform(key, cumulative.shape[:-1], cumulative.dtype) * cumulative[..., -1]
    return (cumulative <= u[..., None]).sum(-1).astype(jnp.int32)


def greedy(q: jax.Array) -> jax.Array:
    """All probability on argmax_a Q(s, a), split evenly between ties; [..., A] to [..., A]."""
    best = (q == q.max(-1, keepdims=True)).astype(q.dtype)
    return best / best.sum(-1, keepdims=True)


def epsilon_greedy(q: jax.Array, epsilon: jax.Array | float) -> jax.Array:
    """A random action with probability epsilon, else argmax_a Q(s, a) (post, section 1.4).

    Args:
        q: [..., A].

    Returns:
        probabilities, [..., A].
    """
    legal = (q > -jnp.inf).astype(q.dtype)
    return epsilon * legal / legal.sum(-1, keepdims=True) + (1 - epsilon) * greedy(q)


def boltzmann(q: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """pi(a|s) = exp(Q(s, a) / alpha) / Z(s): the energy-based policy (post, section 4.1.1).

    Args:
        q: [..., A].
        alpha: the temperature.

    Returns:
        probabilities, [..., A].
    """
    return jax.nn.softmax(q / alpha, axis=-1)


def upper_confidence(q: jax.Array, visits: jax.Array, bonus: jax.Array | float) -> jax.Array:
    """Greedy in Q(s, a) + c sqrt(ln N(s) / N(s, a)): UCB1 (Auer et al. 2002).

    Untried actions come first.

    Args:
        q, visits: [..., A].
        bonus: c.

    Returns:
        probabilities, [..., A].
    """
    total = visits.sum(-1, keepdims=True)
    width = jnp.sqrt(jnp.log(jnp.maximum(total, 1)) / jnp.maximum(visits, 1))
    optimistic = jnp.where(visits == 0, jnp.inf, q + bonus * width)
    return greedy(jnp.where(q > -jnp.inf, optimistic, -jnp.inf))
