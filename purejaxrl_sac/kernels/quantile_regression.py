"""Sums over all pairs of a quantile and a target, for quantile regression."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from purejaxrl_sac.types import Scalar

Pair = tuple[jax.Array, jax.Array]  # loss and slope, of equal shape
PairLoss = Callable[[jax.Array, jax.Array], Pair]  # (target - quantile, fraction) -> Pair


def sums(
    theta: jax.Array, fraction: jax.Array, y: jax.Array, kappa: Scalar
) -> tuple[jax.Array, jax.Array]:
    """The quantile Huber loss of each quantile and its slope, summed over targets.

    Both are computed in one pass, without storing an array of pairs.

    Args:
        theta, fraction: quantiles and their fractions, [B, K].
        y: targets, [B, L].
        kappa: error above which the loss is linear instead of squared, above 0.

    Returns:
        losses and slopes, [B, K] each.
    """

    def pair(u: jax.Array, fraction: jax.Array) -> Pair:
        bounded = jnp.clip(u, -kappa, kappa)
        slope = jnp.abs(fraction - (u < 0).astype(u.dtype)) * bounded / kappa
        return slope * (u - bounded / 2), slope

    return jax.lax.platform_dependent(
        theta, y, fraction, cpu=partial(_sequential, pair), default=partial(_parallel, pair)
    )


def _sequential(pair: PairLoss, theta: jax.Array, y: jax.Array, fraction: jax.Array) -> Pair:
    """A scan over targets, each with all quantiles: faster on CPUs if there are many."""

    def add(sums: Pair, y: jax.Array) -> tuple[Pair, None]:
        return jax.tree.map(jnp.add, sums, pair(y[:, None] - theta, fraction)), None

    zeros = jnp.zeros_like(theta)
    return jax.lax.scan(add, (zeros, zeros), y.T)[0]


def _parallel(pair: PairLoss, theta: jax.Array, y: jax.Array, fraction: jax.Array) -> Pair:
    """The same sums as one reduction over all pairs, for accelerators."""

    def add(a: Pair, b: Pair) -> Pair:
        return a[0] + b[0], a[1] + b[1]

    pairs = pair(y[:, :, None] - theta[:, None, :], fraction[:, None, :])
    zero = jnp.zeros((), theta.dtype)
    loss, slope = jax.lax.reduce(pairs, (zero, zero), add, (1,))
    return loss, slope
