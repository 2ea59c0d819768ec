"""DQN with an auxiliary loss, and its metric, for similar Q-values in successive states."""

from functools import partial

import jax.numpy as jnp

import purejaxrl_sac as prl
from purejaxrl_sac.agents.dqn import LossInputs, q_loss
from purejaxrl_sac.types import Algorithm, LossOutput, PyTree


def smooth_loss(params: PyTree, inputs: LossInputs) -> LossOutput:
    loss, (priority, metrics) = q_loss(params, inputs)
    head, batch = inputs.head, inputs.batch
    here = head.expectation(inputs.outputs(params, batch.obs))
    there = head.expectation(inputs.outputs(params, batch.next_obs))
    roughness = (batch.discount[:, None] * jnp.square(here - there)).mean()
    loss += inputs.config.smoothness * roughness
    return loss, (priority, metrics | {"loss": loss, "roughness": roughness})


class SmoothDQNConfig(prl.DQNConfig):
    algorithm: Algorithm = prl.static(partial(prl.dqn, loss=smooth_loss))
    smoothness: float = prl.traced(0.1, at_least=0)
    """Weight of the auxiliary loss."""
