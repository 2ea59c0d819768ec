"""How discrete agents explore."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def linear_schedule(
    start: jax.Array | float, end: jax.Array | float, fraction: jax.Array | float
) -> jax.Array:
    """From `start` to `end` in a straight line; `fraction` of the way, held at `end` beyond 1."""
    return start + (end - start) * jnp.clip(fraction, 0, 1)


def epsilon_greedy(key: jax.Array, q: jax.Array, epsilon: jax.Array | float) -> jax.Array:
    """A random action with probability epsilon, else argmax_a Q(s, a) (post, section 1.4).

    Args:
        q: [N, A]; each of the N environments tosses its own coin.

    Returns:
        actions, [N] int32.
    """
    key_coin, key_action = jax.random.split(key)
    num_envs, num_actions = q.shape
    explore = jax.random.uniform(key_coin, (num_envs,)) < epsilon
    random = jax.random.randint(key_action, (num_envs,), 0, num_actions)
    return jnp.where(explore, random, q.argmax(-1)).astype(jnp.int32)
