"""A sum tree: draws in proportion to priorities, for prioritised replay.

The leaves are summed, `FAN_OUT` children into a parent, level by level. A parent is always
recomputed as the sum of its children, never updated by a difference, so no rounding error outlives
the next write. A draw descends from the root and chooses among children by their sums, with a
random number for each level, and never returns a leaf of value zero, whatever was rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from purejaxrl_sac.clock import write_rows

FAN_OUT = 8  # the fastest of 2 to 1,024 on a CPU: scripts/benchmark_priorities.py

# sums from the leaves [C] upwards, each level padded to whole families
Tree = tuple[jax.Array, ...]


def read_rows(flat: jax.Array, row: jax.Array, width: int) -> jax.Array:
    """Rows [..., width] of a matrix that is stored flat, [rows * width]; row [...] is in bounds.

    One gather of contiguous slices. Of the matrix a TPU would make a copy in tiles of 8 x 128,
    which is several times as large where rows are short.
    """
    slices = jax.lax.GatherDimensionNumbers((row.ndim,), (), (0,))
    mode = jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
    return jax.lax.gather(flat, row[..., None] * width, slices, (width,), mode=mode)


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
