"""Experience replay from any storage: uniform and prioritised.

Prioritised replay is the proportional variant of Schaul et al. (2016, arXiv 1511.05952). A
transition of priority p_i is drawn with probability P(i) = p_i^omega / sum_k p_k^omega, and its
gradient is weighted by (N P(i))^-beta, divided by the largest weight of the batch. (omega is the
paper's alpha, which denotes the temperature in this package.)
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_sac.checks import check_priority
from purejaxrl_sac.exploration import linear_schedule
from purejaxrl_sac.memory.indices import divided
from purejaxrl_sac.memory.sum_tree import Tree, draw_leaves, empty_tree, write_block, write_tree
from purejaxrl_sac.types import Index, Memory, PyTree, Sample, Scalar, Storage, Transition

SMALLEST = 1e-6  # added to every priority, so that none is zero


def uniform(storage: Storage, batch_size: int) -> Memory:
    """Uniform replay, with replacement (post, section 2.3.2).

    Args:
        batch_size: B, transitions per sample.
    """
    num_envs = storage.num_envs
    rows = storage.capacity // num_envs

    def draw(key: jax.Array, state: PyTree, step: jax.Array, num_updates: int) -> Sample:
        stored = jnp.minimum(step, rows)
        drawn = jax.random.randint(key, (num_updates, batch_size), 0, stored * num_envs)
        row, env = divided(drawn, num_envs)
        index = Index(step - stored + row, env)
        return storage.read(state, step, index)  # one gather for all updates

    return Memory(storage.init, storage.add, draw, sample=lambda state, draw: draw)


class Prioritized(NamedTuple):
    storage: PyTree
    tree: Tree  # p^omega of every row
    largest: jax.Array  # the largest p so far, the priority of new transitions


class Draw(NamedTuple):
    uniform: jax.Array  # [B, number of levels]
    step: jax.Array  # the clock when the update takes place


def prioritized(
    storage: Storage,
    batch_size: int,
    omega: Scalar,
    beta: Scalar,
    total_steps: int,
) -> Memory:
    """Prioritised replay: transitions of large TD errors are drawn more often.

    Args:
        batch_size: B, transitions per sample.
        omega: exponent of the priorities, from 0 (uniform replay) to 1.
        beta: initial exponent of the importance weights, increased linearly to 1.
        total_steps: environment steps until beta is 1, over all environments.
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
        uniform = jax.random.uniform(key, (num_updates, batch_size, len(state.tree)), jnp.float32)
        return Draw(uniform, jnp.broadcast_to(step, num_updates))

    def sample(state: Prioritized, draw: Draw) -> Sample:
        leaf, probability = draw_leaves(state.tree, draw.uniform)
        (row, env), step = divided(leaf, num_envs), draw.step
        _, age = divided(step - 1 - row, rows)
        index = Index(step - 1 - age, env)
        read = storage.read(state.storage, step, index)
        stored = jnp.minimum(step, rows) * num_envs
        progress = step.astype(jnp.float32) / (total_steps / num_envs)
        return importance(read, leaf, probability, stored, beta, progress)

    def update_priorities(state: Prioritized, sample: Sample, priority: jax.Array) -> Prioritized:
        check_priority(priority, sample.index.shape)
        # TD errors of transitions that are overwritten in part, whose weight is 0, are meaningless:
        # they get the lowest priority
        priority = jnp.where(sample.weight > 0, jnp.abs(priority), 0)
        return set_priorities(state, sample.index, priority, omega)

    return Memory(init, add, draw, sample, update_priorities)


def importance(
    read: Sample,
    leaf: jax.Array,
    probability: jax.Array,
    stored: jax.Array,
    beta: Scalar,
    progress: jax.Array,
) -> Sample:
    """A sample with importance weights, and the leaves that it was drawn from as its index.

    Args:
        read: what was read; its weights are 0 where a part is overwritten.
        leaf, probability: [B], of the draws.
        stored: the number of leaves that can be drawn.
        beta: the exponent at the beginning; it rises linearly to 1.
        progress: the fraction of the run that is over.
    """
    exponent = linear_schedule(beta, 1, progress)
    # before the maximum: those overwritten in part have tiny probabilities, so the largest weights
    weight = read.weight * (stored.astype(jnp.float32) * probability) ** -exponent
    largest = jnp.maximum(weight.max(), jnp.finfo(weight.dtype).tiny)
    return read._replace(weight=weight / largest, index=leaf)


def set_priorities(
    state: Prioritized, leaf: jax.Array, priority: jax.Array, omega: Scalar
) -> Prioritized:
    """The state after leaves [B] have been given priorities [B], of at least 0."""
    priority = priority + SMALLEST
    tree = write_tree(state.tree, leaf, priority**omega)
    return state._replace(tree=tree, largest=jnp.maximum(state.largest, priority.max()))
