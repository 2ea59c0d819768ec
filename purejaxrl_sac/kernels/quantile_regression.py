"""The sums of quantile regression over all pairs of a quantile and a target."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

Pair = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def sums(
    theta: jax.Array, fraction: jax.Array, y: jax.Array, kappa: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
    """The quantile Huber loss of each quantile and its slope, summed over targets.

    Both come from one pass, and no array of pairs is stored.

    Args:
        theta, fraction: quantiles and their fractions, [B, K].
        y: targets, [B, L].
        kappa: where the loss turns from squared to linear, above 0.

    Returns:
        values and slopes, [B, K] each.
    """

    def pair(u: jax.Array, fraction: jax.Array) -> tuple[jax.Array, jax.Array]:
        bounded = jnp.clip(u, -kappa, kappa)
        slope = jnp.abs(fraction - (u < 0)) * bounded / kappa
        return slope * (u - bounded / 2), slope

    return jax.lax.platform_dependent(
        theta, y, fraction, cpu=partial(_in_turn, pair), default=partial(_at_once, pair)
    )


def _in_turn(pair: Pair, theta: jax.Array, y: jax.Array, fraction: jax.Array) -> tuple:
    """Sums over targets, each against all of theta: faster on a CPU where they are many."""

    def add(sums: tuple, y: jax.Array) -> tuple[tuple, None]:
        return jax.tree.map(jnp.add, sums, pair(y[:, None] - theta, fraction)), None

    zeros = jnp.zeros_like(theta)
    return jax.lax.scan(add, (zeros, zeros), y.T)[0]


def _at_once(pair: Pair, theta: jax.Array, y: jax.Array, fraction: jax.Array) -> tuple:
    """The same sums as one reduction, for devices that have room for all pairs side by side."""

    def add(a: tuple, b: tuple) -> tuple:
        return a[0] + b[0], a[1] + b[1]

    pairs = pair(y[:, :, None] - theta[:, None, :], fraction[:, None, :])
    return tuple(jax.lax.reduce(pairs, (0.0, 0.0), add, (1,)))
