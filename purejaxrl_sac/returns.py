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

    trace = jnp.asarray(trace).at[-1].set(0)  # may be NumPy's
    xs = (reward, discount, next_value, trace)
    targets = jax.lax.scan(backward, jnp.zeros_like(reward[0]), xs, reverse=True)[1]
    return jax.lax.stop_gradient(targets)


def discounted_sum(rewards: jax.Array, gamma: Scalar) -> jax.Array:
    """r_0 + gamma r_1 + ... + gamma^(n-1) r_{n-1}, of rewards [..., n]."""
    return (rewards * gamma ** jnp.arange(rewards.shape[-1], dtype=rewards.dtype)).sum(-1)


def n_step_rows(
    reward: jax.Array, discount: jax.Array, last: jax.Array, n: int, gamma: Scalar
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """n-step transitions within sequences [T, B], as `memory.storage.n_step` makes them of a ring.

    With k <= n the number of steps until the episode or the sequence ends,

        reward   = r_t + gamma r_{t+1} + ... + gamma^(k-1) r_{t+k-1}
        discount = gamma^(k-1) d_{t+k-1}

    Returns:
        reward, discount, and the row t + k - 1 whose next observation follows, int32; [T, B] each.
    """
    length = len(reward)
    row = jnp.arange(length, dtype=jnp.int32)[:, None] + jnp.arange(n, dtype=jnp.int32)  # [T, n]
    inside, row = row < length, jnp.minimum(row, length - 1)
    ended = last[row].astype(jnp.int32)  # [T, n, B]
    valid = inside[..., None] & (jnp.cumsum(ended, axis=1) - ended == 0)
    steps = valid.sum(1, dtype=jnp.int32)
    rewards = valid.astype(jnp.float32) * reward[row]
    final = row[:, :1] + steps - 1
    shrinkage = jnp.float32(gamma) ** (steps - 1).astype(jnp.float32)
    discount = jnp.take_along_axis(discount, final, 0) * shrinkage
    return discounted_sum(rewards.swapaxes(1, 2), gamma), discount, final
