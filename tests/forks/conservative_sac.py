"""SAC with a conservative penalty on the critics (CQL, Kumar et al. 2020, arXiv 2006.04779)."""

from functools import partial

import jax
import jax.numpy as jnp

import purejaxrl_sac as prl
from purejaxrl_sac.agents.sac import LossInputs, critic_loss
from purejaxrl_sac.types import Algorithm, LossOutput, PyTree


def conservative_loss(params: PyTree, inputs: LossInputs) -> LossOutput:
    loss, (priority, metrics) = critic_loss(params, inputs)
    networks, batch = inputs.networks, inputs.batch
    action, _ = networks.sample(inputs.keys.action, inputs.state.actor.params, batch.obs)
    uniform = jax.random.uniform(inputs.keys.critique, action.shape, minval=-1, maxval=1)
    q = jnp.stack([networks.critic(params, batch.obs, a) for a in (action, uniform)])
    penalty = (jax.nn.logsumexp(q, 0) - networks.critic(params, batch.obs, batch.action)).mean()
    return loss + inputs.config.penalty * penalty, (priority, metrics | {"penalty": penalty})


class ConservativeSACConfig(prl.SACConfig):
    algorithm: Algorithm = prl.static(partial(prl.sac, critic_loss=conservative_loss))
    penalty: float = prl.traced(1.0, at_least=0)
    """Weight of the conservative penalty."""
