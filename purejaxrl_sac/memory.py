"""Memories: the rollout just collected, and uniform experience replay (post, section 2.3.2)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from purejaxrl_sac.clock import write_rows
from purejaxrl_sac.types import Memory, PyTree, Sample, Transition


def zeros(spec: PyTree) -> PyTree:
    """Arrays of zeros in the shapes and dtypes of `spec`."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), spec)


def latest() -> Memory:
    """Remembers the last rollout only: on-policy learning. A sample is the rollout, [T, N]."""
    return Memory(
        init=zeros,
        add=lambda state, step, rollout: rollout,
        draw=lambda key, state, step, num_updates: None,
        sample=lambda state, draw: Sample(state, jnp.float32(1)),
        revise=lambda state, sample, priority: state,
    )


def latest_with_next_action() -> Memory:
    """The last T transitions whose next action is known: the last rollout, one step late.

    `extras` is the action that was then taken in the next step [T, N], meaningless where `last`.
    The run's very first row has no predecessor and weight 0. For SARSA.
    """

    def init(rollout: Transition) -> Transition:  # the step before, and the rollout
        return jax.tree.map(lambda x: jnp.zeros((x.shape[0] + 1, *x.shape[1:]), x.dtype), rollout)

    def add(state: Transition, step: jax.Array, rollout: Transition) -> Transition:
        return jax.tree.map(lambda old, new: jnp.concatenate([old[-1:], new]), state, rollout)

    def draw(key: jax.Array, state: Transition, step: jax.Array, num_updates: int) -> jax.Array:
        length = state.reward.shape[0] - 1
        weight = (step - length + jnp.arange(length) > 0).astype(jnp.float32)
        return jnp.broadcast_to(weight[:, None], (num_updates, length, 1))

    def sample(state: Transition, draw: jax.Array) -> Sample:
        rows = jax.tree.map(lambda x: x[:-1], state)
        return Sample(rows._replace(extras=state.action[1:]), draw)

    return Memory(init, add, draw, sample, lambda state, sample, priority: state)


def uniform(capacity: int, batch_size: int) -> Memory:
    """Replays the last `capacity` transitions uniformly, with replacement.

    The state is a Transition of [rows, N, ...] arrays, rows = capacity / N, used as a ring. A
    rollout is written as one block, which never wraps because T divides rows; a batch costs
    O(batch_size), whatever the capacity.

    Args:
        capacity: transitions kept, over all parallel environments; a multiple of T x N.
        batch_size: B, transitions per sample.
    """

    def init(rollout: Transition) -> Transition:
        def ring(leaf: jax.ShapeDtypeStruct) -> jax.Array:
            num_envs = leaf.shape[1]
            return jnp.zeros((capacity // num_envs, num_envs, *leaf.shape[2:]), leaf.dtype)

        return jax.tree.map(ring, rollout)

    def add(state: Transition, step: jax.Array, rollout: Transition) -> Transition:
        def write(ring: jax.Array, block: jax.Array) -> jax.Array:
            return write_rows(ring, block, step % ring.shape[0])

        return jax.tree.map(write, state, rollout)

    def draw(key: jax.Array, state: Transition, step: jax.Array, num_updates: int) -> Transition:
        rows, num_envs = state.reward.shape
        filled = jnp.minimum(step, rows) * num_envs
        index = jax.random.randint(key, (num_updates, batch_size), 0, filled)

        def gather(ring: jax.Array) -> jax.Array:  # one gather serves every update
            flat = ring.reshape(rows * num_envs, *ring.shape[2:])
            return flat.at[index].get(mode="promise_in_bounds")

        return jax.tree.map(gather, state)

    return Memory(
        init=init,
        add=add,
        draw=draw,
        sample=lambda state, draw: Sample(draw, jnp.float32(1)),
        revise=lambda state, sample, priority: state,
    )
