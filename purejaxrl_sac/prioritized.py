"""Prioritised experience replay (Schaul et al. 2016, arXiv 1511.05952), proportional.

A transition of priority p is drawn with probability P(i) = p_i^omega / sum_k p_k^omega, and its
gradient weighted by (N P(i))^-beta, relative to the largest weight of its batch. (omega is the
paper's alpha, which is the temperature here.)

The p^omega are the leaves of a tree that sums `FAN_OUT` children into a parent. A parent is always
the sum of its children anew, never the old sum plus a difference: no rounding error outlives
the next write. A draw goes down from the root and chooses among children by their own sums, with
a random number for each level, and never takes one of priority zero, whatever was rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_sac.clock import write_rows
from purejaxrl_sac.exploration import linear_schedule
from purejaxrl_sac.memory import read_rows
from purejaxrl_sac.types import Index, Memory, PyTree, Sample, Storage, Transition

FAN_OUT = 8  # the fastest of 2 to 1,024 on a CPU: scripts/benchmark_priorities.py
SMALLEST = 1e-6  # added to every priority, so that none is zero

# sums from the leaves [C] upwards, each level padded to whole families
Tree = tuple[jax.Array, ...]


def empty_tree(capacity: int, fan_out: int = FAN_OUT) -> Tree:
    """A tree of `capacity` leaves, all zero."""
    levels, size = [], capacity
    while True:
        families = -(-size // fan_out)
        levels.append(jnp.zeros(families * fan_out))
        if families == 1:
            return tuple(levels)
        size = families


def write_tree(tree: Tree, leaf: jax.Array, value: jax.Array, fan_out: int = FAN_OUT) -> Tree:
    """Sets leaves [B] to values [B], to the largest where one comes twice, and renews the sums."""
    leaves = tree[0].at[leaf].set(0).at[leaf].max(value)
    levels = [leaves]
    for above in tree[1:]:
        leaf = leaf // fan_out
        levels.append(above.at[leaf].set(read_rows(levels[-1], leaf, fan_out).sum(-1)))
    return tuple(levels)


def write_block(tree: Tree, start: jax.Array, value: jax.Array, fan_out: int = FAN_OUT) -> Tree:
    """Sets the leaves from `start` on to values [B]; `start` must not be batched by a vmap.

    What changes is contiguous on every level: no scatters, only dynamic_update_slices.
    """
    levels = [write_rows(tree[0], value, start)]
    count = len(value)
    for above in tree[1:]:
        below, parents = levels[-1], len(levels[-1]) // fan_out
        count = min((count + fan_out - 2) // fan_out + 1, parents)
        start = jnp.minimum(start // fan_out, parents - count)
        changed = jax.lax.dynamic_slice_in_dim(below, start * fan_out, count * fan_out)
        levels.append(write_rows(above, _sum(_columns(changed.reshape(count, fan_out))), start))
    return tuple(levels)


def draw_leaves(
    tree: Tree, uniform: jax.Array, fan_out: int = FAN_OUT
) -> tuple[jax.Array, jax.Array]:
    """Draws leaves in proportion to their values.

    Args:
        uniform: [B, number of levels], each in [0, 1).

    Returns:
        leaves [B] int32, and their probabilities [B].
    """
    return jax.lax.platform_dependent(
        tree,
        uniform,
        cpu=partial(descend, fan_out=fan_out, choose=choose_by_reductions),
        default=partial(descend, fan_out=fan_out, choose=choose_by_comparisons),
    )


def descend(
    tree: Tree, uniform: jax.Array, fan_out: int, choose: Callable
) -> tuple[jax.Array, jax.Array]:
    """`draw_leaves`, by a function (family [B, F], u [B]) -> child [B] and its probability [B]."""
    chosen = jnp.zeros(uniform.shape[:1], jnp.int32)
    probability = jnp.ones(uniform.shape[:1])
    for level, u in zip(reversed(tree), uniform.T, strict=True):
        family = read_rows(level, chosen, fan_out)
        child, share = choose(family, u)
        probability *= share
        chosen = (chosen * fan_out + child).astype(jnp.int32)
    return chosen, probability


def choose_by_reductions(family: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The first child whose cumulative sum exceeds u times the total: for CPUs."""
    cumulative = family.cumsum(-1)
    total = cumulative[:, -1]
    possible = (cumulative > (u * total)[:, None]) & (family > 0)
    # none is left where a parallel sum rounded its end to less than its middle
    child = jnp.where(possible.any(-1), possible.argmax(-1), family.argmax(-1))
    mass = jnp.take_along_axis(family, child[:, None], -1).squeeze(-1)
    return child, mass / total


def choose_by_comparisons(family: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same, element by element: reductions would cost accelerators two kernels a level.

    It takes the last child that is not zero and before which the sum is at most u times the total.
    """
    masses = _columns(family)
    total = _sum(masses)
    before, mass, child = masses[0], masses[0], jnp.zeros(u.shape, jnp.int32)
    for i, candidate in enumerate(masses[1:], start=1):
        taken = (before <= u * total) & (candidate > 0)
        child, mass = jnp.where(taken, i, child), jnp.where(taken, candidate, mass)
        before = before + candidate
    return child, mass / total


def _columns(x: jax.Array) -> list[jax.Array]:
    return [x[:, i] for i in range(x.shape[1])]


def _sum(terms: list[jax.Array]) -> jax.Array:
    """Added one by one: a reduction would be a kernel of its own."""
    return sum(terms[1:], start=terms[0])


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

    def revise(state: Prioritized, sample: Sample, priority: jax.Array) -> Prioritized:
        # what is lost has weight 0 and no TD error that means anything: it sinks to the bottom
        priority = jnp.where(sample.weight > 0, jnp.abs(priority), 0) + SMALLEST
        tree = write_tree(state.tree, sample.index, priority**omega)
        return state._replace(tree=tree, largest=jnp.maximum(state.largest, priority.max()))

    return Memory(init, add, draw, sample, revise)
