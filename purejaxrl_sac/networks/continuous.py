"""Actors and critics of continuous actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.networks.torsos import convolutions, flat, torso


class Head(nn.Module):
    """A linear layer on a torso: [B, ...] -> [B, num_outputs]."""

    torso: nn.Module
    num_outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(self.num_outputs)(self.torso(x))


class Critics(nn.Module):
    """Q_1 .. Q_E(s, a): independent critics as one batched product, [E, B] (or [E, B, K]) out.

    Observation and action go side by side into each critic's own torso. Parameters have a
    leading axis [E].

    Args:
        num_outputs: K; None for a single number, without an axis of its own.
    """

    torso: nn.Module
    size: int = 2
    num_outputs: int | None = None

    @nn.compact
    def __call__(self, obs: jax.Array, action: jax.Array) -> jax.Array:
        x = jnp.concatenate([obs.reshape(obs.shape[0], -1), action], axis=-1)
        # one input per critic, so that every product, backwards too, is batched over critics
        x = jnp.broadcast_to(x, (self.size, *x.shape))
        rngs = {"params": True, "dropout": True}
        axes = {"params": 0, "batch_stats": 0}
        head = nn.vmap(Head, variable_axes=axes, split_rngs=rngs)
        z = head(self.torso, self.num_outputs or 1)(x)
        return z.squeeze(-1) if self.num_outputs is None else z


class Sampler(nn.Module):
    """f(xi; s): noise [B, action_dim] to samples [B, action_dim] of any distribution."""

    torso: nn.Module
    action_dim: int

    @nn.compact
    def __call__(self, obs: jax.Array, noise: jax.Array) -> jax.Array:
        x = jnp.concatenate([flat(obs), noise], axis=-1)
        return nn.Dense(self.action_dim)(self.torso(x))


class DeterministicActor(nn.Module):
    """mu(s) = tanh(...), [B, action_dim]."""

    torso: nn.Module
    action_dim: int

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        return jnp.tanh(nn.Dense(self.action_dim)(self.torso(obs)))


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


def critic_torso(
    space: Any, hidden_sizes: Sequence[int], activation: str, **parts: Callable
) -> nn.Module:
    """`torso` for observations that have an action beside them, as those of `Critics`.

    Raises:
        ConfigError: observations are images, which no action can be laid beside.
    """
    if convolutions(space):
        raise ConfigError(
            f"critics of continuous actions need observations that are vectors, not images of shape"
            f" {space.shape}: flatten them in an environment of your own, or use a2c or ppo"
        )
    return torso(space, hidden_sizes, activation, **parts)
