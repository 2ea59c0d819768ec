"""Action distributions: what the outputs of actors mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp

from purejaxrl_sac import networks
from purejaxrl_sac.types import Env


def squashed_gaussian(mean: jax.Array, log_std: jax.Array) -> distrax.Transformed:
    """a = tanh(mean + std * eps), eps ~ N(0, I) (Haarnoja et al. 2018, appendix C; post, 4.22).

    Use only `sample_and_log_prob`: it corrects for tanh at the Gaussian sample, where
    log(1 - tanh^2) is exact, while `log_prob(action)` has to invert tanh and is nan or infinite
    near |a| = 1. Log-probabilities are densities of actions in [-1, 1]; in an environment's
    units, subtract log((high - low) / 2) per dimension.

    Args:
        mean, log_std: [B, action_dim].
    """
    gaussian = distrax.MultivariateNormalDiag(mean, jnp.exp(log_std))
    return distrax.Transformed(gaussian, distrax.Block(distrax.Tanh(), 1))


class ActionDistribution(NamedTuple):
    """What an actor's outputs mean, for methods that differentiate log pi(a|s) of stored actions.

    They draw a sample, take the action that it maps to, store the sample and differentiate its
    log-probability. The policy gradient is unbiased, because the map from samples to actions does
    not depend on the actor's parameters.
    """

    head: Callable[[], nn.Module]  # [B, F] -> outputs
    distribution: Callable[[Any], distrax.Distribution]  # outputs -> distribution of samples
    action: Callable[[jax.Array], jax.Array]  # samples -> canonical actions


def categorical(env: Env) -> ActionDistribution:
    """pi(a|s) = softmax(logits), for discrete actions."""
    assert env.num_actions is not None
    head = partial(networks.Logits, env.num_actions)
    return ActionDistribution(
        head, lambda logits: distrax.Categorical(logits, dtype=jnp.int32), lambda a: a
    )


def clipped_gaussian(env: Env) -> ActionDistribution:
    """N(mean(s), std^2 I) clipped to the bounds.

    The standard deviation is a parameter that does not depend on the state. Entropies are those of
    the Gaussian before clipping.
    """
    return _gaussian(env, lambda sample: jnp.clip(sample, -1, 1))


def tanh_gaussian(env: Env) -> ActionDistribution:
    """tanh of N(mean(s), std^2 I): as `clipped_gaussian`, but smoothly bounded."""
    return _gaussian(env, jnp.tanh)


def default(env: Env) -> ActionDistribution:
    """`categorical` where actions are discrete, `clipped_gaussian` where they are continuous."""
    return categorical(env) if env.num_actions else clipped_gaussian(env)


def _gaussian(env: Env, bound: Callable[[jax.Array], jax.Array]) -> ActionDistribution:
    assert env.action_dim is not None

    def distribution(outputs: tuple[jax.Array, jax.Array]) -> distrax.Distribution:
        mean, log_std = outputs
        return distrax.MultivariateNormalDiag(mean, jnp.exp(log_std))

    return ActionDistribution(partial(networks.Gaussian, env.action_dim), distribution, bound)
