"""Penalties on critics, and those of conservative Q-learning (CQL, Kumar et al. 2020, 2006.04779).

A penalty is a part of the families of SAC, TD3 and DQN: a function of the critics' parameters and
the loss's inputs (observations, actions, policy samples), whose value is added to the loss. The
penalties below are for DQN, and for SAC and CrossQ, whose inputs have a stochastic policy:

    partial(sac, penalty=conservative_critics)
    partial(crossq, penalty=conservative_critics)
    partial(dqn, penalty=conservative_values)

CQL(H) lowers the values of all actions and raises those of the dataset,

    w E_D[ log sum_a exp Q(s, a) - Q(s, a_D) ]
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_sac import losses
from purejaxrl_sac.agents import crossq, dqn, sac
from purejaxrl_sac.config import Config, static, traced
from purejaxrl_sac.types import Algorithm, Metrics, PyTree


class Conservative(Config):
    """Fields of the conservative penalties."""

    conservative_weight: float = traced(1.0, at_least=0)
    """w: weight of the conservative penalty."""


def conservative_values(params: PyTree, inputs: dqn.LossInputs) -> tuple[jax.Array, Metrics]:
    """w E_D[log sum_a exp Q(s, a) - Q(s, a_D)] for discrete actions (equation 4)."""
    keys = {"noise": inputs.keys.loss, "tau": inputs.keys.tau}
    q = inputs.head.expectation(inputs.outputs(params, inputs.batch.obs, **keys))
    legal = inputs.legal(inputs.batch.obs, q)
    gap = jax.nn.logsumexp(legal, -1) - losses.select_action(q, inputs.batch.action)
    penalty = (inputs.weight * gap).mean()
    return inputs.config.conservative_weight * penalty, {"conservative_gap": penalty}


def conservative_critics(
    params: PyTree, inputs: sac.LossInputs | crossq.LossInputs
) -> tuple[jax.Array, Metrics]:
    """The same for continuous actions, summed over critics.

    The integral is estimated from `conservative_samples` uniform actions and as many of the policy
    at s and at s', each weighted by the inverse of its density (appendix F).
    """
    config: Any = inputs.config
    networks, batch, keys = inputs.networks, inputs.batch, inputs.keys
    samples = config.conservative_samples
    dim = batch.action.shape[-1]

    def of_policy(key: jax.Array, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vmap(lambda key: networks.sample(key, inputs.state.actor.params, obs))(
            jax.random.split(key, samples)
        )

    shape = (samples, *batch.action.shape)
    uniform = jax.random.uniform(keys.critique, shape, jnp.float32, -1, 1)
    log_uniform = jnp.full(shape[:-1], -dim * math.log(2), jnp.float32)
    drawn = (
        (uniform, log_uniform),
        of_policy(keys.action, batch.obs),
        of_policy(keys.next_action, batch.next_obs),
    )
    actions, log_density = (jnp.concatenate(x) for x in zip(*drawn, strict=True))  # [3 K, B, ...]
    q = jax.vmap(lambda action: networks.critic(params, batch.obs, action))(actions)  # [3 K, E, B]
    count = len(actions)
    integral = jax.nn.logsumexp(q - log_density[:, None], 0) - jnp.log(count)
    gap = (integral - networks.critic(params, batch.obs, batch.action)).sum(0)
    penalty = (inputs.weight * gap).mean()
    return config.conservative_weight * penalty, {"conservative_gap": penalty}


conservative_dqn = partial(dqn.dqn, penalty=conservative_values)
conservative_sac = partial(sac.sac, penalty=conservative_critics)
conservative_crossq = partial(crossq.crossq, penalty=conservative_critics)


class ConservativeDQNConfig(dqn.DQNConfig, Conservative):
    """Configuration of DQN with a conservative penalty."""

    algorithm: Algorithm = static(conservative_dqn)


class ConservativeCritics(Conservative):
    """Fields of the conservative penalty on continuous actions."""

    conservative_weight: float = 5.0
    """w: weight of the conservative penalty."""
    conservative_samples: int = static(10, at_least=1)
    """Actions drawn from each of three distributions to estimate the integral over actions."""


class ConservativeSACConfig(sac.SACConfig, ConservativeCritics):
    """Configuration of SAC with a conservative penalty."""

    algorithm: Algorithm = static(conservative_sac)


class ConservativeCrossQConfig(crossq.CrossQConfig, ConservativeCritics):
    """Configuration of CrossQ with a conservative penalty."""

    algorithm: Algorithm = static(conservative_crossq)
