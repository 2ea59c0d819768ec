"""Actors and critics of continuous actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.networks.layers import MakeLayer
from purejaxrl_sac.networks.torsos import convolutions, flat, torso


class Head(nn.Module):
    """A torso and a linear layer: [B, ...] -> [B, num_outputs]."""

    torso: nn.Module
    num_outputs: int
    dense: MakeLayer = nn.Dense

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dense(self.num_outputs)(self.torso(x))


class Critics(nn.Module):
    """An ensemble Q_1 .. Q_E(s, a): (obs [B, ...], action [B, D]) -> [E, B] or [E, B, K].

    The torso receives the concatenation of observation and action. The critics are independent;
    their parameters have a leading axis [E], and they are computed as batched products.

    Attributes:
        num_outputs: K; None for [E, B].
        dense: the output layer of each critic.
    """

    torso: nn.Module
    size: int = 2
    num_outputs: int | None = None
    dense: MakeLayer = nn.Dense

    @nn.compact
    def __call__(self, obs: jax.Array, action: jax.Array) -> jax.Array:
        x = jnp.concatenate([flat(obs), action], axis=-1)
        # one input per critic, so that all products, in the backward pass too, are batched
        x = jnp.broadcast_to(x, (self.size, *x.shape))
        head = nn.vmap(
            Head,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True, "dropout": True},
        )
        z = head(self.torso, self.num_outputs or 1, self.dense)(x)
        return z.squeeze(-1) if self.num_outputs is None else z


class Sampler(nn.Module):
    """f(xi; s), a sampler of arbitrary distributions: (obs, noise xi [B, D]) -> samples [B, D]."""

    torso: nn.Module
    action_dim: int

    @nn.compact
    def __call__(self, obs: jax.Array, noise: jax.Array) -> jax.Array:
        x = jnp.concatenate([flat(obs), noise], axis=-1)
        return nn.Dense(self.action_dim)(self.torso(x))


class DeterministicActor(nn.Module):
    """mu(s) in [-1, 1]: [B, *obs_shape] -> [B, D]."""

    torso: nn.Module
    action_dim: int

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        return jnp.tanh(nn.Dense(self.action_dim)(self.torso(obs)))


Bound = Callable[[jax.Array, float, float], jax.Array]  # (x, low, high) -> within [low, high]


def rescaled_tanh(x: jax.Array, low: float, high: float) -> jax.Array:
    """tanh(x), rescaled from [-1, 1] to [low, high]; unlike `jnp.clip`, its slope is never zero."""
    return low + 0.5 * (high - low) * (1 + jnp.tanh(x))


class GaussianActor(nn.Module):
    """pi(a|s) before squashing: [B, *obs_shape] -> mean and log standard deviation, [B, D] each.

    Attributes:
        bound: how log standard deviations are bounded, `jnp.clip` or `rescaled_tanh`.
        dense: the output layer.
    """

    torso: nn.Module
    action_dim: int
    log_std_min: float = -20.0
    log_std_max: float = 2.0
    bound: Bound = jnp.clip
    dense: MakeLayer = nn.Dense

    @nn.compact
    def __call__(self, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = self.dense(2 * self.action_dim)(self.torso(obs))
        mean, log_std = jnp.split(x, 2, axis=-1)
        return mean, self.bound(log_std, self.log_std_min, self.log_std_max)


def critic_torso(
    space: Any, hidden_sizes: Sequence[int], activation: str, **parts: Any
) -> nn.Module:
    """`torso` for concatenated observations and actions, as in `Critics`; same arguments.

    Raises:
        ConfigError: observations are images, which cannot be concatenated with actions.
    """
    if convolutions(space):
        raise ConfigError(
            f"critics of continuous actions need observations that are vectors, not images of shape"
            f" {space.shape}: wrap the environment to flatten them, or use a2c or ppo"
        )
    return torso(space, hidden_sizes, activation, **parts)


def gaussian_actor(
    config: Any, space: Any, action_dim: int, *, bound: Bound = jnp.clip, **parts: Any
) -> GaussianActor:
    """An MLP for the mean and the log standard deviation.

    Args:
        config: hidden_sizes, activation, log_std_min and log_std_max.
        space: gymnax observation space.
        action_dim: D.
        bound: how log standard deviations are bounded, `jnp.clip` or `rescaled_tanh`.
        **parts: as for `torso`.
    """
    mlp = torso(space, config.hidden_sizes, config.activation, **parts)
    return GaussianActor(mlp, action_dim, config.log_std_min, config.log_std_max, bound)


def deterministic_actor(config: Any, space: Any, action_dim: int) -> DeterministicActor:
    """An MLP with tanh outputs.

    Args:
        config: hidden_sizes and activation.
        space: gymnax observation space.
        action_dim: D.
    """
    mlp = torso(space, config.hidden_sizes, config.activation)
    return DeterministicActor(mlp, action_dim)


def twin_critics(config: Any, space: Any, **parts: Any) -> Critics:
    """Two independent MLPs.

    Args:
        config: hidden_sizes and activation.
        space: gymnax observation space.
        **parts: as for `torso`.

    Raises:
        ConfigError: observations are images.
    """
    return Critics(critic_torso(space, config.hidden_sizes, config.activation, **parts), 2)
