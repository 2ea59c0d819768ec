"""Targets that look further ahead than one step, over rollouts [T, N]."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp


def lambda_returns(
    reward: jax.Array,
    discount: jax.Array,
    next_value: jax.Array,
    trace: jax.Array,
    gamma: jax.Array | float,
) -> jax.Array:
    """G_t = r_t + gamma d_t ((1 - lambda_t) V(s_{t+1}) + lambda_t G_{t+1}).

    The forward view of TD(lambda) (Sutton & Barto 2018, 12.18) inside a rollout: beyond its last
    step nothing is known but the value of its successor.

    Args:
        reward, discount, next_value: [T, ...]; discount is 0 at terminations, 1 elsewhere.
        trace: lambda_t, [T, ...]: 0 wherever step t + 1 does not continue step t, which is at the
            end of every episode; the last row is taken for 0.

    Returns:
        G, [T, ...]; with trace 0 the one-step targets.
    """
    chex.assert_equal_shape([reward, discount, next_value, trace])

    def backward(following: jax.Array, xs: tuple) -> tuple[jax.Array, jax.Array]:
        reward, discount, next_value, trace = xs
        mixed = (1 - trace) * next_value + trace * following
        target = reward + gamma * discount * mixed
        return target, target

    trace = trace.at[-1].set(0)
    xs = (reward, discount, next_value, trace)
    targets = jax.lax.scan(backward, jnp.zeros_like(reward[0]), xs, reverse=True)[1]
    return jax.lax.stop_gradient(targets)
