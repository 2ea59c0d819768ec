"""Multi-step targets over rollouts [T, N]."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from purejaxrl_sac.types import Scalar


def lambda_returns(
    reward: jax.Array,
    discount: jax.Array,
    next_value: jax.Array,
    trace: jax.Array,
    gamma: Scalar,
) -> jax.Array:
    """G_t = r_t + gamma d_t ((1 - lambda_t) V(s_{t+1}) + lambda_t G_{t+1}).

    The lambda-return (Sutton & Barto 2018, equation 12.18), truncated at the end of the rollout by
    bootstrapping there.

    Args:
        reward, discount, next_value: [T, ...]; discount is 0 at terminations, 1 elsewhere.
        trace: lambda_t, [T, ...]; must be 0 at the last step of every episode. The last row is
            treated as 0.
        gamma: discount factor.

    Returns:
        G, [T, ...], without gradients; one-step targets where the trace is 0.
    """
    chex.assert_equal_shape([reward, discount, next_value, trace])

    def backward(following: jax.Array, xs: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        reward, discount, next_value, trace = xs
        mixed = (1 - trace) * next_value + trace * following
        target = reward + gamma * discount * mixed
        return target, target

    trace = trace.at[-1].set(0)
    xs = (reward, discount, next_value, trace)
    targets = jax.lax.scan(backward, jnp.zeros_like(reward[0]), xs, reverse=True)[1]
    return jax.lax.stop_gradient(targets)


def discounted_sum(rewards: jax.Array, gamma: Scalar) -> jax.Array:
    """r_0 + gamma r_1 + ... + gamma^(n-1) r_{n-1}, of rewards [..., n]."""
    return (rewards * gamma ** jnp.arange(rewards.shape[-1], dtype=rewards.dtype)).sum(-1)
