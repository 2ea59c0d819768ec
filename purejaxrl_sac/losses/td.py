"""Temporal-difference learning: targets, values of actions and the Huber loss."""

from __future__ import annotations

from functools import reduce

import chex
import jax
import jax.numpy as jnp


def huber(error: jax.Array, delta: jax.Array | float) -> jax.Array:
    """1/2 e^2 where |e| <= delta, linear beyond (Huber 1964); delta = inf is the squared loss."""
    magnitude = jnp.abs(error)
    quadratic = jnp.minimum(magnitude, delta)
    return quadratic * (magnitude - 0.5 * quadratic)


def td_target(
    reward: jax.Array, discount: jax.Array, gamma: jax.Array | float, next_value: jax.Array
) -> jax.Array:
    """y = r + gamma V(s'), and y = r where the episode terminated (post, 1.2.1).

    Args:
        reward, discount, next_value: [B]; discount is 0 at terminations, 1 elsewhere (for rewards
            of k steps gamma^(k-1)).
    """
    chex.assert_equal_shape([reward, discount, next_value])
    return jax.lax.stop_gradient(reward + gamma * discount * next_value)


def rescale(x: jax.Array, epsilon: float = 1e-3) -> jax.Array:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x (Pohlen et al. 2018, arXiv 1805.11593)."""
    return x / (jnp.sqrt(jnp.abs(x) + 1) + 1) + epsilon * x  # without cancellation near 0


def unscale(y: jax.Array, epsilon: float = 1e-3) -> jax.Array:
    """h^-1(y), the inverse of `rescale`.

    d = sqrt(|x| + 1) - 1 solves epsilon d^2 + (1 + 2 epsilon) d = |y|, and |x| = d (d + 2).
    """
    slope = 1 + 2 * epsilon
    d = 2 * y / (slope + jnp.sqrt(slope**2 + 4 * epsilon * jnp.abs(y)))  # with the sign of y
    return d * (jnp.abs(d) + 2)


def rescaled_td_target(
    reward: jax.Array, discount: jax.Array, gamma: jax.Array | float, next_value: jax.Array
) -> jax.Array:
    """y = h(r + gamma h^-1(V(s'))): the `td_target` of values in units of `rescale`.

    V(s') must be the value of one action: h is not linear, and h^-1 of a mean of rescaled values is
    not their mean.
    """
    return jax.lax.stop_gradient(rescale(td_target(reward, discount, gamma, unscale(next_value))))


def select_action(q: jax.Array, action: jax.Array) -> jax.Array:
    """Q(s, a): picks action [B] out of q [B, A], exactly.

    As a masked sum, whose gradient is a product; the gradient of indexing is a scatter.
    """
    chex.assert_equal_shape_prefix([q, action], action.ndim)
    taken = action[..., None] == jnp.arange(q.shape[-1])
    return jnp.where(taken, q, 0).sum(-1)


def least_value(q: jax.Array) -> jax.Array:
    """min_i Q_i, the minimum over an ensemble (Fujimoto et al. 2018, arXiv 1802.09477).

    By comparisons of its members: the gradient of `jnp.min` compares each with the result instead,
    which XLA may compute and round once more, and is NaN where none is equal.

    Args:
        q: [E, ...], with the members of the ensemble first.

    Returns:
        [...], of which the gradient is that of the first least member.
    """
    return reduce(lambda least, other: jnp.where(least <= other, least, other), q)


def expected_value(q: jax.Array, pi: jax.Array) -> jax.Array:
    """V(s) = E_pi[Q(s, a)] (post, section 1.1); actions of probability 0 may have any value.

    Args:
        q, pi: [B, A]; pi are probabilities.
    """
    chex.assert_equal_shape([q, pi])
    return jnp.where(pi > 0, pi * q, 0).sum(-1)
