"""Networks for Q(s, .) of discrete actions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from purejaxrl_sac.networks.layers import Activation, MakeLayer, MakeNorm, no_norm
from purejaxrl_sac.networks.torsos import MLP, Conv, MakeConvolutions, convolutions, torso


class Linear(nn.Module):
    """K outputs for each of A actions: [..., F] -> [..., A, K].

    The output layer is always float32: near 100, bfloat16 numbers are 1/2 apart, so that most
    actions would have equal values.
    """

    mlp: Callable[[], nn.Module]
    dense: MakeLayer
    num_actions: int
    num_outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        z = self.dense(self.num_actions * self.num_outputs, dtype=jnp.float32)(self.mlp()(x))
        return z.reshape(*x.shape[:-1], self.num_actions, self.num_outputs)


class Dueling(nn.Module):
    """Q(s, a) = V(s) + A(s, a) - mean_a' A(s, a'), with two streams (Wang et al. 2016, eq. 9)."""

    mlp: Callable[[], nn.Module]
    dense: MakeLayer
    num_actions: int
    num_outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        value = Linear(self.mlp, self.dense, 1, self.num_outputs, name="value")(x)
        advantage = Linear(
            self.mlp, self.dense, self.num_actions, self.num_outputs, name="advantage"
        )(x)
        # the mean is not multiplied after its sum: a compiler may compute Q(s, .) once for its
        # maximum and again to compare with it, and round products that it adds differently
        mean = (advantage / self.num_actions).sum(-2, keepdims=True)
        return value + advantage - mean


class QNetwork(nn.Module):
    """[B, *obs_shape] -> [B, A, K]: a torso followed by a stream."""

    torso: nn.Module
    stream: nn.Module
    dense: MakeLayer = nn.Dense  # for networks with additional layers; unused here

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.stream(self.torso(x))


class Quantiles(NamedTuple):
    value: jax.Array  # [B, A, K]: quantiles of the return
    fraction: jax.Array  # [B, K]: their fractions tau in (0, 1)


class ImplicitQuantileNetwork(nn.Module):
    """[B, *obs_shape] -> Quantiles at random fractions (Dabney et al. 2018, arXiv 1806.06923).

    The torso's features are multiplied by relu(Dense(cos(pi i tau))), i = 0 .. 63. With a key "tau"
    there are N random fractions, with a key "tau_target" N'. With neither, they are the midpoints
    of K equal parts of [0, 1], transformed by `distortion`; the policy maximises the mean over
    them. (The paper's policy draws them at random.)
    """

    torso: nn.Module
    stream: nn.Module  # with one output per action
    dense: MakeLayer = nn.Dense
    num_quantiles: int = 32  # N
    num_target_quantiles: int = 32  # N'
    num_policy_quantiles: int = 32  # K
    distortion: Activation = lambda fraction: fraction

    @nn.compact
    def __call__(self, x: jax.Array) -> Quantiles:
        features = self.torso(x)
        batch = features.shape[0]
        if self.has_rng("tau"):
            fraction = jax.random.uniform(
                self.make_rng("tau"), (batch, self.num_quantiles), jnp.float32
            )
        elif self.has_rng("tau_target"):
            shape = (batch, self.num_target_quantiles)
            fraction = jax.random.uniform(self.make_rng("tau_target"), shape, jnp.float32)
        else:  # the same in all rows
            fraction = self.distortion(midpoints(self.num_policy_quantiles))[None]
        cosines = cos_pi(jnp.arange(64, dtype=jnp.float32) * fraction[..., None])
        embedding = nn.relu(self.dense(features.shape[-1])(cosines))
        value = self.stream(features[:, None] * embedding).squeeze(-1)  # [B, K, A]
        fraction = jnp.broadcast_to(fraction, (batch, fraction.shape[-1]))
        return Quantiles(value.swapaxes(1, 2), fraction)


SERIES = [(-1) ** k * math.pi ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(6)]
"""The Taylor coefficients of sin(pi z) / z in z^2: exact to float32's rounding for |z| <= 1/2."""


def cos_pi(x: jax.Array) -> jax.Array:
    """cos(pi x), which `jnp.cos` computes several times as slowly on a CPU, and less accurately.

    Whole periods are removed from x before it is multiplied by pi.
    """
    z = 0.5 - jnp.abs(x - 2 * jnp.round(x / 2))  # cos(pi x) = sin(pi z), |z| <= 1/2
    return z * jnp.polyval(jnp.array(SERIES[::-1], x.dtype), z * z)


def midpoints(count: int) -> jax.Array:
    """The midpoints of `count` equal parts of [0, 1]."""
    return (jnp.arange(count, dtype=jnp.float32) + 0.5) / count


def q_network(
    config: Any,
    space: Any,
    num_actions: int,
    num_outputs: int,
    *,
    stream: Callable[..., nn.Module] = Linear,
    network: Callable[..., nn.Module] = QNetwork,
    dense: MakeLayer = nn.Dense,
    norm: MakeNorm | None = None,
    layers: MakeConvolutions = convolutions,
    before: int = -1,
) -> nn.Module:
    """Builds a network for Q(s, .) from its parts.

    Args:
        config: hidden_sizes, activation and compute_dtype, the dtype of the hidden layers'
            computations; parameters and the output layer are always float32.
        space: gymnax observation space.
        num_actions: A.
        num_outputs: K.
        stream: `Linear` or `Dueling`.
        network: combines torso and stream, such as `QNetwork`.
        dense: `nn.Dense` or `NoisyDense`.
        norm: normalisation before every activation, such as `LayerNorm`.
        layers: the convolutions, as in `torso`.
        before: hidden layers before the stream, which contains the others; -1 for all but one.
    """
    dtype = jnp.dtype(config.compute_dtype)
    dense = partial(dense, dtype=dtype)
    conv = partial(Conv, dtype=dtype)
    norm = partial(norm, dtype=dtype) if norm else no_norm
    below, last = config.hidden_sizes[:before], config.hidden_sizes[before:]
    features = torso(
        space, below, config.activation, layers=layers, dense=dense, conv=conv, norm=norm
    )
    mlp = partial(MLP, tuple(last), getattr(nn, config.activation), dense=dense, norm=norm)
    return network(features, stream(mlp, dense, num_actions, num_outputs), dense)
