"""Return distributions: categorical projection and quantile regression."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from purejaxrl_sac.kernels import quantile_regression


def categorical_projection(value: jax.Array, probability: jax.Array, atoms: jax.Array) -> jax.Array:
    """Splits each value's probability between the adjacent atoms (Bellemare et al. 2017, eq. 7).

    Values outside the support are clipped to it; within it, the expectation is preserved.

    Args:
        value, probability: [B, L], a distribution over any values.
        atoms: [K], evenly spaced and increasing.

    Returns:
        probabilities of the atoms, [B, K].
    """
    chex.assert_equal_shape([value, probability])
    chex.assert_rank(atoms, 1)
    share = (jnp.clip(value, atoms[0], atoms[-1]) - atoms[0]) / (atoms[-1] - atoms[0])
    position = share * (len(atoms) - 1)
    distance = jnp.abs(position[:, None, :] - jnp.arange(len(atoms), dtype=value.dtype)[:, None])
    shares = jnp.clip(1 - distance, 0, 1) * probability[:, None, :]
    return jax.lax.stop_gradient(shares.sum(-1))


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """-sum_k target_k log softmax(logits)_k; [B, K] and [B, K] to [B]."""
    chex.assert_equal_shape([logits, target])
    return -(target * jax.nn.log_softmax(logits)).sum(-1)


def quantile_huber(
    quantiles: jax.Array, fraction: jax.Array, target: jax.Array, kappa: jax.Array | float
) -> jax.Array:
    """Quantile Huber loss (Dabney et al. 2018, arXiv 1710.10044, eq. 10; / kappa as 1806.06923).

    With u_ij = target_j - theta_i, the sum over i and mean over j of

        |tau_i - 1{u_ij < 0}| huber(u_ij, kappa) / kappa.

    Values and slopes of all pairs are summed in one pass, and no array of pairs is stored. The
    gradient, with respect to `quantiles` only, is exact; second derivatives are not (they are 0).

    Args:
        quantiles: theta, [B, K]; fraction: tau, [K] or [B, K]; target: [B, L].
        kappa: above 0.
    """
    chex.assert_rank([quantiles, target], 2)
    theta = jax.lax.stop_gradient(quantiles)
    value, slope = quantile_regression.sums(
        theta, jnp.broadcast_to(fraction, theta.shape), jax.lax.stop_gradient(target), kappa
    )
    return (value - slope * (quantiles - theta)).sum(-1) / target.shape[1]
