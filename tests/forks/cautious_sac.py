"""SAC whose targets are below the critics' mean by a multiple of their standard deviation.

A fixed degree of pessimism as in TOP (Moskovitz et al. 2021, arXiv 2102.03765). With two critics
and a caution of 1 this is SAC: their minimum is their mean less their standard deviation.
"""

from functools import partial

import jax
import jax.numpy as jnp

import purejaxrl_sac as prl
from purejaxrl_sac.agents.sac import LossInputs
from purejaxrl_sac.types import Algorithm


def cautious_target(inputs: LossInputs) -> jax.Array:
    config, networks, state, batch = inputs.config, inputs.networks, inputs.state, inputs.batch
    action, log_prob = networks.sample(inputs.keys.next_action, state.actor.params, batch.next_obs)
    q = networks.critic(state.target_params, batch.next_obs, action)  # [E, B]
    value = q.mean(0) - config.caution * q.std(0) - jnp.exp(state.log_alpha.params) * log_prob
    return batch.reward + config.gamma * batch.discount * value


class CautiousSACConfig(prl.SACConfig):
    algorithm: Algorithm = prl.static(partial(prl.sac, critic_target=cautious_target))
    caution: float = prl.traced(1.0)
    """Standard deviations of the critics that are subtracted from their mean in targets."""
