"""Stein variational gradient descent (Liu & Wang 2016, arXiv 1608.04471)."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp


def direction(particles: jax.Array, score: jax.Array) -> jax.Array:
    """Where to move each particle for all of them to become samples of p, and stay apart.

        phi(x_i) = 1/K sum_j [ k(x_j, x_i) grad log p(x_j) + grad_{x_j} k(x_j, x_i) ]

    with k(x, y) = exp(-|x - y|^2 / h) and h = median |x_i - x_j|^2 / log(K + 1). It is the
    steepest descent of KL(q || p) among functions of unit norm in the kernel's space.

    Args:
        particles: x, [K, d].
        score: grad log p at each of them, [K, d].
    """
    chex.assert_rank([particles, score], 2)
    chex.assert_equal_shape([particles, score])
    size = len(particles)
    difference = particles[:, None] - particles[None]  # [j, i, d]: x_j - x_i
    distance = jnp.square(difference).sum(-1)
    width = jnp.maximum(jnp.median(distance) / jnp.log(size + 1.0), 1e-8)
    kernel = jnp.exp(-distance / width)
    repulsion = -2 / width * kernel[..., None] * difference
    return (jnp.einsum("ji,jd->id", kernel, score) + repulsion.sum(0)) / size
