"""Division of indices, which are never negative.

For numbers that may be, `//` and `%` have six more operations each. XLA repeats the arithmetic of
an index for every word that is read with it, so that it takes as long as the read itself on a CPU.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def divided(index: jax.Array, divisor: int) -> tuple[jax.Array, jax.Array]:
    """index // divisor and index % divisor, for integers index >= 0 of any shape."""
    d = jnp.asarray(divisor, index.dtype)
    return jax.lax.div(index, d), jax.lax.rem(index, d)
