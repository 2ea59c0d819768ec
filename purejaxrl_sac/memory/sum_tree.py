"""A sum tree: sampling in proportion to priorities, for prioritised replay.

A parent is the sum of its `FAN_OUT` children. It is always recomputed from them, never updated by
a difference, so that rounding errors do not accumulate. A draw descends from the root and chooses
among children by their sums, with one random number per level; it never returns a leaf of value
zero, whatever the rounding.

Draws are stratified (Schaul et al. 2016, arXiv 1511.05952, appendix B.2.1): the total is divided
into one range for each draw of a batch. The variance of the batch's mean of any function of leaves
is at most that of independent draws.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_sac.clock import write_rows
from purejaxrl_sac.memory.indices import divided

FAN_OUT = 8  # of 2 to 1,024 the fastest on a CPU, or close to it: scripts/benchmark_priorities.py

# the levels from the leaves [C] to the root's children, each padded to a multiple of the fan-out
Tree = tuple[jax.Array, ...]
# (siblings [B, F], points [B] between 0 and their sum) -> the child that contains each point: its
# position [B] int32, the sum of those before it [B] and its own value [B]
Choose = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]


def read_rows(flat: jax.Array, row: jax.Array, width: int) -> jax.Array:
    """Rows [..., width] of a matrix stored flat, [rows * width]; row [...] must be in bounds.

    One gather of contiguous slices. A TPU would copy the matrix into tiles of 8 x 128, several
    times as large where rows are short.
    """
    slices = jax.lax.GatherDimensionNumbers((row.ndim,), (), (0,))
    mode = jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
    return jax.lax.gather(flat, row[..., None] * width, slices, (width,), mode=mode)


def empty_tree(capacity: int, fan_out: int = FAN_OUT) -> Tree:
    """A tree of `capacity` leaves, all zero."""
    levels, size = [], capacity
    while True:
        parents = -(-size // fan_out)
        levels.append(jnp.zeros(parents * fan_out, jnp.float32))
        if parents == 1:
            return tuple(levels)
        size = parents


def write_tree(tree: Tree, leaf: jax.Array, value: jax.Array, fan_out: int = FAN_OUT) -> Tree:
    """Sets leaves [B] to values [B], the largest for a leaf that repeats, and updates the sums."""
    leaves = tree[0].at[leaf].set(0).at[leaf].max(value)
    levels = [leaves]
    for above in tree[1:]:
        leaf, _ = divided(leaf, fan_out)
        levels.append(above.at[leaf].set(read_rows(levels[-1], leaf, fan_out).sum(-1)))
    return tuple(levels)


def write_block(tree: Tree, start: jax.Array, value: jax.Array, fan_out: int = FAN_OUT) -> Tree:
    """Sets the leaves from `start` on to values [B]; `start` must not be batched by a vmap.

    The changes are contiguous on every level: no scatters, only dynamic_update_slices.
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
    """Samples leaves in proportion to their values, one from each of B equal ranges of their sum.

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
    tree: Tree, uniform: jax.Array, fan_out: int, choose: Choose
) -> tuple[jax.Array, jax.Array]:
    """`draw_leaves` with a given way to choose among siblings."""
    chosen = jnp.zeros(uniform.shape[:1], jnp.int32)
    total = mass = _sum(_columns(read_rows(tree[-1], chosen, fan_out)))
    # the part of a draw's range that the chosen node contains, relative to the node's beginning: a
    # new random number on each level then costs no precision, however small the leaves
    edges = np.arange(len(uniform) + 1, dtype=np.float32) / np.float32(len(uniform))
    low, high = total * edges[:-1], total * edges[1:]
    for level, u in zip(reversed(tree), uniform.T, strict=True):
        siblings = read_rows(level, chosen, fan_out)
        child, before, mass = choose(siblings, low + u * jnp.maximum(high - low, 0))
        low, high = jnp.maximum(low - before, 0), jnp.minimum(high - before, mass)
        chosen = (chosen * fan_out + child).astype(jnp.int32)
    return chosen, mass / total


def choose_by_reductions(
    siblings: jax.Array, point: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The last nonzero child for which the sum of those before is at most the point: for CPUs."""
    before = jnp.pad(siblings.cumsum(-1)[:, :-1], ((0, 0), (1, 0)))
    possible = (before <= point[:, None]) & (siblings > 0)
    child = jnp.where(possible, np.arange(siblings.shape[1], dtype=np.int32), 0).max(-1)
    mass = jnp.take_along_axis(siblings, child[:, None], -1).squeeze(-1)
    return child, jnp.where(possible, before, 0).max(-1), mass


def choose_by_comparisons(
    siblings: jax.Array, point: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The same, elementwise: reductions would take two kernels per level on accelerators."""
    masses = _columns(siblings)
    child, before, mass = jnp.zeros(point.shape, jnp.int32), jnp.zeros_like(point), masses[0]
    total = masses[0]
    for i, candidate in enumerate(masses[1:], start=1):
        chosen = (total <= point) & (candidate > 0)
        child, before = jnp.where(chosen, i, child), jnp.where(chosen, total, before)
        mass = jnp.where(chosen, candidate, mass)
        total = total + candidate
    return child, before, mass


def _columns(x: jax.Array) -> list[jax.Array]:
    return [x[:, i] for i in range(x.shape[1])]


def _sum(terms: list[jax.Array]) -> jax.Array:
    """Adds term by term: a reduction would be a separate kernel."""
    return sum(terms[1:], start=terms[0])
