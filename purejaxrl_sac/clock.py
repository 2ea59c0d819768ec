"""The one clock, and the writes it places, kept out of vmap's reach.

All seeds and sweep lanes of a vmapped run are at the same step. If vmap gave each lane a clock
of its own, every write into a memory would become a scatter and every comparison with the clock
a select over whole arrays. These functions carry vmap rules that prevent it.
"""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from purejaxrl_sac.types import PyTree


@custom_vmap
def unbatched(step: jax.Array) -> jax.Array:
    """The identity, except that vmap cannot batch it: every lane gets the first one's clock."""
    return step


@unbatched.def_vmap
def _unbatch(axis_size: int, in_batched: list[bool], step: jax.Array) -> tuple[jax.Array, bool]:
    return unbatched(step[0]) if in_batched[0] else step, False


@custom_vmap
def batched(tree: PyTree) -> PyTree:
    """The identity, except that vmap gives each lane its own copy of every array.

    What begins as a constant (a counter, a time) stays unbatched in a fresh run, but comes back
    batched when a run is continued: another program, which rounds differently. So that a run
    continues bit for bit, it begins in the form in which it continues.
    """
    return tree


@batched.def_vmap
def _batch(axis_size: int, in_batched: tuple[PyTree], tree: PyTree) -> tuple[PyTree, PyTree]:
    def lanes(x: jax.Array, batched: bool) -> jax.Array:
        return x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))

    everywhere = jax.tree.map(lambda _: True, in_batched[0])
    return batched(jax.tree.map(lanes, tree, in_batched[0])), everywhere


def write_rows(ring: jax.Array, block: jax.Array, row: jax.Array) -> jax.Array:
    """Writes block [T, ...] into ring [rows, ...] from `row` on: one dynamic_update_slice.

    Under vmap it stays one, along the second axis, where vmap by itself makes a scatter of it.
    `row` comes from the clock and must not be batched.
    """
    return _writer(0)(ring, block, row)


@cache
def _writer(axis: int) -> custom_vmap:
    @custom_vmap
    def write(ring: jax.Array, block: jax.Array, row: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(ring, block, row, axis)

    @write.def_vmap
    def vmapped(axis_size: int, in_batched: list[bool], *operands: jax.Array) -> tuple:
        ring, block, row = operands
        if in_batched[2]:
            raise ValueError("write_rows needs a row that is the same in every lane of a vmap")
        ring, block = (
            x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))
            for x, batched in zip((ring, block), in_batched, strict=False)
        )
        return _writer(axis + 1)(ring, block, row), True

    return write
