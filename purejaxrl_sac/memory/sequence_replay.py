"""Replay of sequences: a storage that reads them, and memories that sample them.

A sequence is L consecutive steps of one environment, from the first step of a rollout on. L is a
multiple of the rollout length T: sequences that begin in neighbouring rollouts overlap by L - T
steps. `Index(t, e)` identifies the sequence of environment e whose first step is t. A sequence is
sampled from the time when its last step is stored until its first one is overwritten, so that none
contains the place where the next rollout is written. Episodes may begin and end inside.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_sac.clock import write_rows
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.memory.replay import Draw, Prioritized, importance, prioritized, set_priorities
from purejaxrl_sac.memory.sum_tree import draw_leaves, empty_tree, write_block
from purejaxrl_sac.types import Index, Memory, PyTree, Sample, Scalar, Storage, Transition


class Sequences(NamedTuple):
    steps: PyTree  # the storage of transitions
    carry: PyTree  # [R / T, N, ...]: the carries before the first step of each rollout


def sequence_storage(storage: Storage, length: int) -> Storage:
    """Sequences of transitions from any storage, each with the carry before its first step.

    `extras` of the rollouts have a field `carry` [T, N, ...], of which the first row is stored.
    Reading indices [B] returns transitions [L, B], whose `extras.carry` is [1, B, ...].

    Args:
        length: L; a multiple of T, at most capacity / N.

    Raises:
        ConfigError: when read, if the transitions are of several steps.
    """
    rows = storage.capacity // storage.num_envs

    def init(rollout: Transition) -> Sequences:
        rollouts = rows // rollout.reward.shape[0]
        carry = jax.tree.map(
            lambda x: jnp.zeros((rollouts, *x.shape[1:]), x.dtype), rollout.extras.carry
        )
        return Sequences(storage.init(_with_carry(rollout, ())), carry)

    def add(state: Sequences, step: jax.Array, rollout: Transition) -> Sequences:
        row = step % rows // rollout.reward.shape[0]
        return Sequences(
            storage.add(state.steps, step, _with_carry(rollout, ())),
            jax.tree.map(
                lambda x, new: write_rows(x, new[:1], row), state.carry, rollout.extras.carry
            ),
        )

    def read(state: Sequences, step: jax.Array, index: Index) -> Sample:
        time = index.time + jnp.arange(length, dtype=jnp.int32)[:, None]  # [L, B]
        every = Index(time, jnp.broadcast_to(index.env, time.shape))
        sample = storage.read(state.steps, step, every)
        if sample.rewards is not None:
            raise ConfigError(
                "sequences have n steps of their own, but the storage sums the rewards of n steps"
                " already: use replay_storage"
            )

        def at_first_step(x: jax.Array) -> jax.Array:
            row = index.time % rows // (rows // len(x))
            return x.at[row, index.env].get(mode="promise_in_bounds")[None]

        carry = jax.tree.map(at_first_step, state.carry)
        return sample._replace(transition=_with_carry(sample.transition, carry), index=index)

    return Storage(init, add, read, storage.capacity, storage.num_envs)


class SequenceDraw(NamedTuple):
    chosen: jax.Array  # [B] int32: the sequences
    step: jax.Array  # the clock when the update takes place


def uniform_sequences(storage: Storage, batch_size: int, length: int, period: int) -> Memory:
    """Uniform replay of sequences, with replacement.

    Args:
        storage: of sequences, see `sequence_storage`.
        batch_size: B, sequences per sample.
        length: L.
        period: T, steps between the beginnings of two sequences.
    """
    num_envs = storage.num_envs
    rows = storage.capacity // num_envs

    def draw(key: jax.Array, state: PyTree, step: jax.Array, num_updates: int) -> SequenceDraw:
        number = _number(step, rows, length, period) * num_envs
        drawn = jax.random.randint(key, (num_updates, batch_size), 0, number)
        return SequenceDraw(drawn, jnp.broadcast_to(step, num_updates))

    def sample(state: PyTree, draw: SequenceDraw) -> Sample:
        oldest = draw.step - jnp.minimum(draw.step, rows)
        index = Index(oldest + draw.chosen // num_envs * period, draw.chosen % num_envs)
        return storage.read(state, draw.step, index)

    return Memory(storage.init, storage.add, draw, sample)


def prioritized_sequences(
    storage: Storage,
    batch_size: int,
    length: int,
    period: int,
    omega: Scalar,
    beta: Scalar,
    eta: Scalar,
    total_steps: int,
) -> Memory:
    """`prioritized` replay of sequences (Kapturowski et al. 2019, section 2.3).

    The priority of a sequence is eta max_t p_t + (1 - eta) mean_t p_t over the priorities p_t of
    those of its steps that were learned from.

    Args:
        storage, batch_size, length, period: as for `uniform_sequences`.
        omega, beta, total_steps: as for `prioritized`.
        eta: from 0 to 1.
    """
    num_envs = storage.num_envs
    rows = storage.capacity // num_envs

    def leaf_of(time: jax.Array) -> jax.Array:
        """The first leaf of the sequences that begin at this time."""
        return time % rows // period * num_envs

    def init(rollout: Transition) -> Prioritized:
        tree = empty_tree(rows // period * num_envs)
        return Prioritized(storage.init(rollout), tree, jnp.float32(1))

    def add(state: Prioritized, step: jax.Array, rollout: Transition) -> Prioritized:
        complete = step + period - length  # where those begin that this rollout ends
        value = jnp.where(complete >= 0, state.largest**omega, 0)
        nothing = jnp.zeros(num_envs, jnp.float32)
        tree = write_block(state.tree, leaf_of(step), nothing)  # those that it overwrites
        tree = write_block(tree, leaf_of(complete), nothing + value)
        return state._replace(storage=storage.add(state.storage, step, rollout), tree=tree)

    def sample(state: Prioritized, draw: Draw) -> Sample:
        leaf, probability = draw_leaves(state.tree, draw.uniform)
        latest, step = draw.step - length, draw.step
        time = latest - (latest - leaf // num_envs * period) % rows
        read = storage.read(state.storage, step, Index(time, leaf % num_envs))
        number = _number(step, rows, length, period) * num_envs
        progress = step.astype(jnp.float32) / (total_steps / num_envs)
        return importance(read, leaf, probability, number, beta, progress)

    def update_priorities(state: Prioritized, sample: Sample, priority: jax.Array) -> Prioritized:
        priority = jnp.abs(priority.reshape(-1, batch_size))  # of the last steps of each sequence
        weight = jnp.broadcast_to(sample.weight, sample.transition.last.shape)[-len(priority) :]
        learned = (weight > 0).astype(jnp.float32)
        priority = jnp.where(weight > 0, priority, 0)
        mean = priority.sum(0) / jnp.maximum(learned.sum(0), 1)
        mixed = eta * priority.max(0) + (1 - eta) * mean
        return set_priorities(state, sample.index, mixed, omega)

    draw = prioritized(storage, batch_size, omega, beta, total_steps).draw
    return Memory(init, add, draw, sample, update_priorities)


def _number(step: jax.Array, rows: int, length: int, period: int) -> jax.Array:
    """Sequences of each environment that are stored from their first to their last step."""
    return (jnp.minimum(step, rows) - length) // period + 1


def _with_carry(transition: Transition, carry: PyTree) -> Transition:
    return transition._replace(extras=transition.extras._replace(carry=carry))
