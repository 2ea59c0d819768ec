"""Actors and critics of on-policy methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from purejaxrl_sac.networks.layers import orthogonal
from purejaxrl_sac.networks.torsos import NATURE, MakeConvolutions, convolutions, torso
from purejaxrl_sac.types import PyTree

if TYPE_CHECKING:
    from purejaxrl_sac.distributions import ActionDistribution


class Logits(nn.Module):
    """[B, F] -> [B, A], initially close to zero, so that the policy is almost uniform."""

    num_actions: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return orthogonal(0.01)(self.num_actions)(x)


class Gaussian(nn.Module):
    """[B, F] -> mean and log standard deviation, [B, D] each; the latter independent of states."""

    action_dim: int
    log_std: float = 0.0  # initially

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean = orthogonal(0.01)(self.action_dim)(x)
        initializer = nn.initializers.constant(self.log_std)
        log_std = self.param("log_std", initializer, (self.action_dim,), jnp.float32)
        return mean, jnp.broadcast_to(log_std, mean.shape)


class ActorCritic(nn.Module):
    """[B, *obs_shape] -> the head's outputs and V(s) [B]. Both torsos may be the same module.

    The parameters of the actor are those of `actor_torso` and `head`.
    """

    actor_torso: nn.Module
    critic_torso: nn.Module
    head: nn.Module

    @nn.compact
    def __call__(self, obs: jax.Array) -> tuple[PyTree, jax.Array]:
        value = orthogonal(1.0)(1)(self.critic_torso(obs))
        return self.head(self.actor_torso(obs)), value.squeeze(-1)


def separate_torsos(
    config: Any,
    space: Any,
    distribution: ActionDistribution,
    *,
    layers: MakeConvolutions = convolutions,
) -> nn.Module:
    """Actor and critic without shared parameters.

    Args:
        config: hidden_sizes and activation.
        space: gymnax observation space.
        distribution: the distribution of the policy; it builds the head.
        layers: the convolutions, as in `torso`.
    """
    actor, critic = (
        torso(
            space, config.hidden_sizes, config.activation, layers=layers, dense=orthogonal(2**0.5)
        )
        for _ in range(2)
    )
    return ActorCritic(actor, critic, distribution.head())


def shared_torso(config: Any, space: Any, distribution: ActionDistribution) -> nn.Module:
    """Actor and critic with a shared torso; arguments as for `separate_torsos`."""
    both = torso(space, config.hidden_sizes, config.activation, dense=orthogonal(2**0.5))
    return ActorCritic(both, both, distribution.head())


def actor_and_critic(variables: PyTree) -> PyTree:
    """Labels each parameter of `separate_torsos` with the network it belongs to.

    For `optax.multi_transform`, which gives each of them an optimiser of its own.

    Returns:
        "actor" or "critic" in place of every array.
    """

    def label(path: tuple[Any, ...], _: jax.Array) -> str:
        return "actor" if {"actor_torso", "head"} & {entry.key for entry in path} else "critic"

    return jax.tree_util.tree_map_with_path(label, variables)


def default_actor_critic(config: Any, space: Any, distribution: ActionDistribution) -> nn.Module:
    """A shared CNN for images of 36 x 36 and more, separate MLPs for all other observations.

    On MinAtar's 10 x 10, MLPs learned as much per step as CNNs, at a third of the cost.
    """
    if convolutions(space) == NATURE:
        return shared_torso(config, space, distribution)
    return separate_torsos(config, space, distribution, layers=lambda space: ())
