"""Experience replay over any storage: uniform and prioritised.

Prioritised replay is the proportional variant of Schaul et al. (2016, arXiv 1511.05952). A
transition of priority p is drawn with probability P(i) = p_i^omega / sum_k p_k^omega, and its
gradient is weighted by (N P(i))^-beta, relative to the largest weight of its batch. (omega is the
paper's alpha, which is the temperature here.)
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_sac.exploration import linear_schedule
from purejaxrl_sac.memory.sum_tree import Tree, draw_leaves, empty_tree, write_block, write_tree
from purejaxrl_sac.types import Index, Memory, PyTree, Sample, Storage, Transition

SMALLEST = 1e-6  # added to every priority, so that none is zero


def uniform(storage: Storage, batch_size: int) -> Memory:
    """Replays what `storage` holds uniformly, with replacement (post, section 2.3.2).

    Args:
        batch_size: B, transitions per sample.
    """
    num_envs = storage.num_envs
    rows = storage.capacity // num_envs

    def draw(key: jax.Array, state: PyTree, step: jax.Array, num_updates: int) -> Sample:
        stored = jnp.minimum(step, rows)
        drawn = jax.random.randint(key, (num_updates, batch_size), 0, stored * num_envs)
        index = Index(step - stored + drawn // num_envs, drawn % num_envs)
        return storage.read(state, step, index)  # one gather serves every update

    return Memory(
        init=storage.init,
        add=storage.add,
        draw=draw,
        sample=lambda state, draw: draw,
        update_priorities=lambda state, sample, priority: state,
    )


class Prioritized(NamedTuple):
    storage: PyTree
    tree: Tree  # p^omega of every row
    largest: jax.Array  # the largest p so far, which new transitions are given


class Draw(NamedTuple):
    uniform: jax.Array  # [B, number of levels]
    step: jax.Array  # the clock when the update takes place


def prioritized(
    storage: Storage,
    batch_size: int,
    omega: jax.Array | float,
    beta: jax.Array | float,
    total_steps: int,
) -> Memory:
    """Replays what `storage` holds, what surprised most the most often.

    Args:
        batch_size: B.
        omega: how much priorities count, from 0 (uniform) to 1.
        beta: how much of the bias is corrected at first; it rises in a line to 1 at the end.
        total_steps: environment steps after which that is, over all environments.
    """
    num_envs = storage.num_envs
    rows = storage.capacity // num_envs

    def init(rollout: Transition) -> Prioritized:
        return Prioritized(storage.init(rollout), empty_tree(storage.capacity), jnp.float32(1))

    def add(state: Prioritized, step: jax.Array, rollout: Transition) -> Prioritized:
        count = rollout.reward.size
        value = jnp.broadcast_to(state.largest**omega, count)
        tree = write_block(state.tree, step % rows * num_envs, value)
        return state._replace(storage=storage.add(state.storage, step, rollout), tree=tree)

    def draw(key: jax.Array, state: Prioritized, step: jax.Array, num_updates: int) -> Draw:
        uniform = jax.random.uniform(key, (num_updates, batch_size, len(state.tree)))
        return Draw(uniform, jnp.broadcast_to(step, num_updates))

    def sample(state: Prioritized, draw: Draw) -> Sample:
        leaf, probability = draw_leaves(state.tree, draw.uniform)
        row, step = leaf // num_envs, draw.step
        index = Index(step - 1 - (step - 1 - row) % rows, leaf % num_envs)
        read = storage.read(state.storage, step, index)
        stored = jnp.minimum(step, rows) * num_envs
        exponent = linear_schedule(beta, 1, step / (total_steps / num_envs))
        # before the largest is taken: what is lost is drawn so rarely that it would be that
        weight = read.weight * (stored * probability) ** -exponent
        largest = jnp.maximum(weight.max(), jnp.finfo(weight.dtype).tiny)
        return read._replace(weight=weight / largest, index=leaf)

    def update_priorities(state: Prioritized, sample: Sample, priority: jax.Array) -> Prioritized:
        # what is lost has weight 0 and no TD error that means anything: it sinks to the bottom
        priority = jnp.where(sample.weight > 0, jnp.abs(priority), 0) + SMALLEST
        tree = write_tree(state.tree, sample.index, priority**omega)
        return state._replace(tree=tree, largest=jnp.maximum(state.largest, priority.max()))

    return Memory(init, add, draw, sample, update_priorities)
