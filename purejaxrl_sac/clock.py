"""The clock of a run, and writes at positions that follow from it, with their own vmap rules.

All seeds and sweep lanes of a vmapped run are at the same step. If vmap batched the clock, every
write into a memory would become a scatter, and every comparison with the clock a select over
whole arrays. The vmap rules of these functions prevent that.
"""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from purejaxrl_sac.types import PyTree


@custom_vmap
def unbatched(step: jax.Array) -> jax.Array:
    """The identity, except that vmap does not batch it: all lanes get the first lane's clock."""
    return step


@unbatched.def_vmap
def _unbatch(axis_size: int, in_batched: list[bool], step: jax.Array) -> tuple[jax.Array, bool]:
    return unbatched(step[0]) if in_batched[0] else step, False


@custom_vmap
def batched(tree: PyTree) -> PyTree:
    """The identity, except that vmap batches every array.

    Without it, arrays that start as constants (counters, times) would be unbatched in a new run,
    but batched in a resumed one, which is a different program with different rounding errors. With
    it, both are the same program, so that a run is resumed bit for bit.
    """
    return tree


@batched.def_vmap
def _batch(axis_size: int, in_batched: tuple[PyTree], tree: PyTree) -> tuple[PyTree, PyTree]:
    tree = jax.tree.map(partial(_with_lanes, axis_size), tree, in_batched[0])
    return batched(tree), jax.tree.map(lambda _: True, in_batched[0])


def _with_lanes(axis_size: int, x: jax.Array, batched: bool) -> jax.Array:
    return x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))


def write_rows(ring: jax.Array, block: jax.Array, row: jax.Array) -> jax.Array:
    """Writes block [T, ...] into ring [rows, ...] from `row` on, by one dynamic_update_slice.

    vmapped, it is still one dynamic_update_slice, along the second axis, whereas JAX's own rule
    makes it a scatter. `row` follows from the clock and must not be batched.
    """
    return _writer(0)(ring, block, row)


@cache
def _writer(axis: int) -> custom_vmap:
    @custom_vmap
    def write(ring: jax.Array, block: jax.Array, row: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(ring, block, row, axis)

    @write.def_vmap
    def vmapped(
        axis_size: int, in_batched: list[bool], ring: jax.Array, block: jax.Array, row: jax.Array
    ) -> tuple[jax.Array, bool]:
        if in_batched[2]:
            raise ValueError("write_rows needs a row that is the same in every lane of a vmap")
        ring = _with_lanes(axis_size, ring, in_batched[0])
        block = _with_lanes(axis_size, block, in_batched[1])
        return _writer(axis + 1)(ring, block, row), True

    return write
