"""Memory of recurrent on-policy agents: whole sequences of the latest rollout."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from purejaxrl_sac.memory.rollouts import latest
from purejaxrl_sac.types import Index, Memory, Sample, Transition


def sequences(num_epochs: int, num_minibatches: int, length: int) -> Memory:
    """Minibatches of sequences, reshuffled in every epoch.

    A rollout [T, N] has T / length x N sequences. Each of num_epochs x num_minibatches updates gets
    a part of them, [length, B], B = T / length x N / num_minibatches.

    Args:
        length: of each sequence; divides T.
    """

    def draw(key: jax.Array, state: Transition, step: jax.Array, num_updates: int) -> Index:
        steps, num_envs = state.reward.shape
        rows = jnp.arange(steps // length * num_envs)
        shuffled = [jax.random.permutation(k, rows) for k in jax.random.split(key, num_epochs)]
        order = jnp.stack(shuffled).reshape(num_epochs * num_minibatches, -1)
        return Index(order // num_envs * length, order % num_envs)  # of first steps

    def sample(state: Transition, draw: Index) -> Sample:
        time = draw.time + jnp.arange(length)[:, None]  # [length, B]

        def gather(x: jax.Array) -> jax.Array:
            return x.at[time, draw.env].get(mode="promise_in_bounds")

        return Sample(jax.tree.map(gather, state), jnp.float32(1))

    return latest()._replace(draw=draw, sample=sample)
