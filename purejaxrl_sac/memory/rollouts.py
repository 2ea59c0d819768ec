"""Memories of on-policy agents: the latest rollout, whole, in minibatches or in sequences."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from purejaxrl_sac.types import Index, Memory, PyTree, Sample, Transition


def zeros(spec: PyTree) -> PyTree:
    """Arrays of zeros in the shapes and dtypes of `spec`."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), spec)


def latest() -> Memory:
    """Keeps the latest rollout only, which is the sample, [T, N]: for on-policy learning."""
    return Memory(
        init=zeros,
        add=lambda state, step, rollout: rollout,
        draw=lambda key, state, step, num_updates: None,
        sample=lambda state, draw: Sample(state, jnp.float32(1)),
    )


def latest_before(limit: int | jax.Array) -> Memory:
    """The latest rollout, whose last limit - 1 of T steps have weight 0.

    All others have the same weight, T / (T - limit + 1), so that the mean is 1.

    Args:
        limit: the longest episode: those of the other steps end in the rollout.
    """

    def sample(state: Transition, draw: None) -> Sample:
        steps = state.reward.shape[0]
        used = steps - limit + 1
        weight = jnp.where(jnp.arange(steps) < used, steps / used, 0).astype(jnp.float32)
        return Sample(state, jnp.broadcast_to(weight[:, None], state.reward.shape))

    return latest()._replace(sample=sample)


def latest_with_next_action() -> Memory:
    """The latest T transitions whose next action is known, for SARSA: the rollout, one step late.

    `extras` is the action taken in the next step, [T, N], meaningless where `last`. The first row
    of the run has no predecessor and weight 0.
    """

    def init(rollout: Transition) -> Transition:  # [1 + T, N]: the step before it first
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

    return Memory(init, add, draw, sample)


def minibatches(num_epochs: int, num_minibatches: int) -> Memory:
    """Minibatches of the latest rollout, reshuffled in every epoch: for on-policy learning.

    Each of num_epochs x num_minibatches updates gets T x N / num_minibatches transitions.
    """

    def draw(key: jax.Array, state: Transition, step: jax.Array, num_updates: int) -> jax.Array:
        rows = jnp.arange(state.reward.size)
        shuffled = [jax.random.permutation(k, rows) for k in jax.random.split(key, num_epochs)]
        return jnp.stack(shuffled).reshape(num_epochs * num_minibatches, -1)

    def sample(state: Transition, draw: jax.Array) -> Sample:
        def gather(x: jax.Array) -> jax.Array:
            return x.reshape(-1, *x.shape[2:]).at[draw].get(mode="promise_in_bounds")

        return Sample(jax.tree.map(gather, state), jnp.float32(1))

    return latest()._replace(draw=draw, sample=sample)


def sequences(num_epochs: int, num_minibatches: int, length: int) -> Memory:
    """Minibatches of sequences, reshuffled in every epoch.

    A rollout [T, N] has T / length x N sequences. Each of num_epochs x num_minibatches updates gets
    a part of them, [length, B], B = T / length x N / num_minibatches.

    Args:
        length: of each sequence; divides T.
    """

    def draw(key: jax.Array, state: Transition, step: jax.Array, num_updates: int) -> Index:
        steps, num_envs = state.reward.shape
        number, keys = steps // length * num_envs, jax.random.split(key, num_epochs)
        order = jnp.stack([jax.random.permutation(k, number) for k in keys])
        order = order.reshape(num_epochs * num_minibatches, -1)
        return Index(order // num_envs * length, order % num_envs)  # of first steps

    def sample(state: Transition, draw: Index) -> Sample:
        time = draw.time + jnp.arange(length)[:, None]  # [length, B]

        def gather(x: jax.Array) -> jax.Array:
            return x.at[time, draw.env].get(mode="promise_in_bounds")

        return Sample(jax.tree.map(gather, state), jnp.float32(1))

    return latest()._replace(draw=draw, sample=sample)
