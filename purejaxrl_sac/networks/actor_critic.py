"""Actors and critics of on-policy methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from purejaxrl_sac.networks.layers import orthogonal
from purejaxrl_sac.networks.torsos import NATURE, convolutions, torso


class Logits(nn.Module):
    """[B, F] -> [B, A], almost zero at first: every action is as likely as any other."""

    num_actions: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return orthogonal(0.01)(self.num_actions)(x)


class Gaussian(nn.Module):
    """[B, F] -> mean and log standard deviation, [B, action_dim] each; the latter a constant."""

    action_dim: int
    log_std: float = 0.0  # at first

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean = orthogonal(0.01)(self.action_dim)(x)
        at_first = nn.initializers.constant(self.log_std)
        log_std = self.param("log_std", at_first, (self.action_dim,))
        return mean, jnp.broadcast_to(log_std, mean.shape)


class ActorCritic(nn.Module):
    """[B, *obs_shape] -> the actor's outputs, and V(s) [B]. The torsos may be one and the same."""

    actor_torso: nn.Module
    critic_torso: nn.Module
    head: nn.Module

    @nn.compact
    def __call__(self, obs: jax.Array) -> tuple:
        value = orthogonal(1.0)(1)(self.critic_torso(obs))
        return self.head(self.actor_torso(obs)), value.squeeze(-1)


def separate(
    config: Any,
    space: Any,
    policy: Any,
    *,
    layers: Callable[[Any], Sequence[tuple[int, int, int]]] = convolutions,
) -> nn.Module:
    """Actor and critic that share nothing.

    Args:
        config: hidden_sizes and activation.
        policy: a `distributions.Policy`.
        layers: the convolutions, as in `torso`.
    """
    kinds = {"dense": orthogonal(2**0.5), "layers": layers}
    torsos = [torso(space, config.hidden_sizes, config.activation, **kinds) for _ in range(2)]
    return ActorCritic(*torsos, policy.head())


def shared(config: Any, space: Any, policy: Any) -> nn.Module:
    """Actor and critic on one torso; arguments as for `separate`."""
    kinds = {"dense": orthogonal(2**0.5)}
    both = torso(space, config.hidden_sizes, config.activation, **kinds)
    return ActorCritic(both, both, policy.head())


def default_actor_critic(config: Any, space: Any, policy: Any) -> nn.Module:
    """`shared` with convolutions for images of 36 x 36 and more, `separate` MLPs elsewhere.

    On MinAtar's 10 x 10, MLPs learned as much from a step as convolutions, at a third of the cost.
    """
    if convolutions(space) == NATURE:
        return shared(config, space, policy)
    return separate(config, space, policy, layers=lambda space: ())
