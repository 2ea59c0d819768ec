"""Layers, normalisation and initialisers that flax does not have."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import DTypeLike

from purejaxrl_sac.types import PyTree

Activation = Callable[[jax.Array], jax.Array]
MakeLayer = Callable[..., nn.Module]  # such as nn.Dense: (features) -> layer
MakeNorm = Callable[..., Activation]  # such as `LayerNorm`: () -> layer


def no_norm() -> Activation:
    """No normalisation: the identity."""
    return lambda x: x


class Dropout(nn.Module):
    """Dropout if there is a "dropout" key, else the identity.

    Keys are given only to the critics of `sac` and its forks, in their losses: actors, recurrent
    networks and those of other algorithms have no dropout.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dropout(self.rate, deterministic=not self.has_rng("dropout"))(x)


LayerNorm = partial(nn.LayerNorm, use_fast_variance=False)
"""flax's, with the variance computed from centred values, which is numerically stable."""


class BatchRenorm(nn.Module):
    """Batch renormalisation (Ioffe 2017, arXiv 1702.03275) over the leading axis of [B, F].

    If the collection "batch_stats" is mutable, it is in training mode: it normalises by batch
    statistics, corrected towards the running ones, and updates the latter. Otherwise it normalises
    by the running statistics. The first `warmup` batches are plain batch normalisation.
    """

    warmup: int
    momentum: float = 0.99
    epsilon: float = 1e-3
    r_max: float = 3.0
    d_max: float = 5.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        seen = self.variable("batch_stats", "seen", jnp.zeros, (), jnp.float32)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        std = jnp.sqrt(var.value + self.epsilon)
        if not self.is_mutable_collection("batch_stats") or self.is_initializing():
            return scale * (x - mean.value) / std + bias
        batch_mean, batch_var = x.mean(0), x.var(0)
        batch_std = jnp.sqrt(batch_var + self.epsilon)
        warm = seen.value >= self.warmup
        r = jnp.where(warm, jnp.clip(batch_std / std, 1 / self.r_max, self.r_max), 1.0)
        shift = jnp.clip((batch_mean - mean.value) / std, -self.d_max, self.d_max)
        d = jnp.where(warm, shift, 0.0)
        r, d = jax.lax.stop_gradient((r, d))
        decay = self.momentum
        mean.value = decay * mean.value + (1 - decay) * jax.lax.stop_gradient(batch_mean)
        var.value = decay * var.value + (1 - decay) * jax.lax.stop_gradient(batch_var)
        seen.value = seen.value + 1
        return scale * ((x - batch_mean) / batch_std * r + d) + bias


class NoisyDense(nn.Module):
    """A linear layer with factorised Gaussian noise (Fortunato et al. 2018, arXiv 1706.10295).

    y = x (mu_w + sigma_w * f(e) f(e')^T) + mu_b + sigma_b * f(e'),   f(e) = sgn(e) sqrt|e|

    with a number e for each input and e' for each output.
    The noise is a variable of the collection "noise", see `draw_noise`, and is the same for all
    rows of a batch. Without that collection, the layer is deterministic.
    """

    features: int
    dtype: DTypeLike | None = None
    sigma: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        bound = width**-0.5

        def init_mu(key: jax.Array, shape: Sequence[int]) -> jax.Array:
            return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

        init_sigma = nn.initializers.constant(self.sigma * bound)
        mu_w = self.param("mu_w", init_mu, (width, self.features))
        mu_b = self.param("mu_b", init_mu, (self.features,))
        sigma_w = self.param("sigma_w", init_sigma, (width, self.features), jnp.float32)
        sigma_b = self.param("sigma_b", init_sigma, (self.features,), jnp.float32)
        dtype = self.dtype or jnp.float32
        x, mu_w, mu_b, sigma_w, sigma_b = (
            value.astype(dtype) for value in (x, mu_w, mu_b, sigma_w, sigma_b)
        )
        if not self.has_variable("noise", "f"):
            return x @ mu_w + mu_b
        noise: jax.Array = self.get_variable("noise", "f").astype(dtype)
        f_in, f_out = noise[:width], noise[width:]
        if x.size == width:  # for one row, two products cost less than forming the sum of matrices
            return x @ mu_w + mu_b + ((x * f_in) @ sigma_w + sigma_b) * f_out
        return x @ (mu_w + sigma_w * jnp.outer(f_in, f_out)) + (mu_b + sigma_b * f_out)


def draw_noise(key: jax.Array, params: PyTree) -> PyTree:
    """Samples the noise of all `NoisyDense` layers of a network: `{**params, **draw_noise(...)}`.

    In one call, because each call of a random number generator costs as much as a small layer. With
    e = sqrt(2) erf_inv(u), as `jax.random.normal` samples it, f(e) has the sign of u: were it taken
    from e, XLA's CPU compiler would compute erf_inv again for each row of a batch.

    Returns:
        {"noise": ...}, with f(e), [inputs + outputs], for each layer; empty if there is none.
    """
    layers = [
        (path[:-1], sum(x.shape))
        for path, x in flatten_dict(params["params"]).items()
        if path[-1] == "sigma_w"
    ]
    if not layers:
        return {"noise": {}}
    sizes = [size for _, size in layers]
    above_minus_one = np.nextafter(np.float32(-1), np.float32(0))
    u = jax.random.uniform(key, (sum(sizes),), jnp.float32, above_minus_one, 1.0)
    e = np.float32(math.sqrt(2)) * jax.lax.erf_inv(jnp.abs(u))
    noise = jnp.sign(u) * jnp.sqrt(e)
    parts = jnp.split(noise, list(itertools.accumulate(sizes))[:-1])
    named = {(*path, "f"): part for (path, _), part in zip(layers, parts, strict=False)}
    return {"noise": unflatten_dict(named)}


def orthogonal(scale: float) -> MakeLayer:
    """Dense layers with orthogonal initialisation, the standard choice of on-policy methods."""
    return partial(nn.Dense, kernel_init=partial(_orthogonal, scale=scale))


def _orthogonal(
    key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32, *, scale: float
) -> jax.Array:
    """`scale` times a uniformly distributed matrix [n, m] with orthonormal rows or columns.

    The polar factor of a Gaussian matrix, by the Newton-Schulz iteration, which moves all singular
    values to 1. QR would deadlock on a CPU: it waits for threads of the pool that it runs in, so
    that as many concurrent calls as there are cores never finish (jaxlib 0.10).
    """
    x = jax.random.normal(key, (max(shape), min(shape)), dtype)
    x = x / jnp.linalg.norm(x)
    x = jax.lax.fori_loop(0, 40, lambda _, x: 1.5 * x - 0.5 * x @ (x.T @ x), x)
    return scale * (x if shape[0] >= shape[1] else x.T)
