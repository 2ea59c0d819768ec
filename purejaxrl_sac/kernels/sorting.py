"""A sorting network, for many short columns at once.

A network compares the same pairs of rows in all columns, so that each of its stages is two vector
operations. On a CPU, 256 columns of 125 numbers take XLA's sort some 80 times as long.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def ascending(x: jax.Array) -> jax.Array:
    """Every column of [N, B] from its least to its largest number; a nan spreads in its column.

    Batcher's bitonic network (1968, "Sorting networks and their applications"), log2(N) (log2(N)
    + 1) / 2 stages where N is rounded up to a power of two: for hundreds of rows, not thousands.
    """
    size = len(x)
    width = 1 << (size - 1).bit_length()
    x = jnp.pad(x, ((0, width - size), (0, 0)), constant_values=jnp.inf)
    half = 1
    while half < width:  # pairs of sorted blocks become one, twice as long
        x = _exchange(x, half, slice(None, None, -1))
        distance = half // 2
        while distance:
            x = _exchange(x, distance, slice(None))
            distance //= 2
        half *= 2
    return x[:size]


def _exchange(x: jax.Array, half: int, order: slice) -> jax.Array:
    """In blocks of 2 x half rows, the lesser of each pair above the larger.

    Row i of a block's upper half makes a pair with row i of its lower half, taken in `order`.
    """
    blocks = x.reshape(-1, 2, half, x.shape[1])
    upper, lower = blocks[:, 0], blocks[:, 1, order]
    less, more = jnp.minimum(upper, lower), jnp.maximum(upper, lower)
    return jnp.stack([less, more[:, order]], axis=1).reshape(x.shape)
