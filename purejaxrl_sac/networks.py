"""Networks: what maps observations to numbers. No losses, no loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Activation = Callable[[jax.Array], jax.Array]


class MLP(nn.Module):
    """[B, ...] -> [B, hidden_sizes[-1]]; everything after the batch axis is flattened."""

    hidden_sizes: Sequence[int]
    activation: Activation = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        for size in self.hidden_sizes:
            x = self.activation(nn.Dense(size)(x))
        return x


class CNN(nn.Module):
    """[B, H, W, C] -> [B, F]: one 3x3 convolution of 16 filters, the MinAtar network.

    Source: Young & Tian 2019, "MinAtar", section 3; follow it with an MLP.
    """

    features: Sequence[int] = (16,)
    activation: Activation = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for features in self.features:
            x = self.activation(nn.Conv(features, (3, 3), padding="VALID")(x))
        return x.reshape(x.shape[0], -1)


class Head(nn.Module):
    """A linear layer on a torso: [B, ...] -> [B, num_outputs]."""

    torso: nn.Module
    num_outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(self.num_outputs)(self.torso(x))


class Critics(nn.Module):
    """Q_1 .. Q_E(s, a): independent critics as one batched product, [E, B] out.

    Observation and action go side by side into each critic's own torso. Parameters have a
    leading axis [E].
    """

    torso: nn.Module
    size: int = 2

    @nn.compact
    def __call__(self, obs: jax.Array, action: jax.Array) -> jax.Array:
        x = jnp.concatenate([obs.reshape(obs.shape[0], -1), action], axis=-1)
        # one input per critic, so that every product, backwards too, is batched over critics
        x = jnp.broadcast_to(x, (self.size, *x.shape))
        head = nn.vmap(Head, variable_axes={"params": 0}, split_rngs={"params": True})
        return head(self.torso, 1)(x).squeeze(-1)


class GaussianActor(nn.Module):
    """pi(a|s) before squashing: mean and log standard deviation, each [B, action_dim]."""

    torso: nn.Module
    action_dim: int
    log_std_min: float = -20.0
    log_std_max: float = 2.0

    @nn.compact
    def __call__(self, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = nn.Dense(2 * self.action_dim)(self.torso(obs))
        mean, log_std = jnp.split(x, 2, axis=-1)
        return mean, jnp.clip(log_std, self.log_std_min, self.log_std_max)


def features(space: Any) -> Callable[[jax.Array], jax.Array]:
    """What networks see of an observation: one-hot where it is Discrete, float32 elsewhere.

    Observations stay in the environment's own dtype everywhere else, the memory included.
    """
    if hasattr(space, "n"):
        return lambda obs: jax.nn.one_hot(obs, space.n)
    return lambda obs: obs.astype(jnp.float32)


def torso(space: Any, hidden_sizes: Sequence[int], activation: str) -> nn.Module:
    """The usual torso for a gymnax observation space: images [H, W, C] pass a CNN first."""
    mlp = MLP(tuple(hidden_sizes), getattr(nn, activation))
    is_image = not hasattr(space, "n") and len(space.shape) == 3
    return nn.Sequential([CNN(activation=getattr(nn, activation)), mlp]) if is_image else mlp
