"""SAC on rewards that are divided by a running mean of their magnitude: a state of its own."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

import purejaxrl_sac as prl
from purejaxrl_sac.agents.sac import SACState
from purejaxrl_sac.types import Agent, Env, Memory, Metrics, Sample, enclosing


class ScaledState(NamedTuple):
    agent: SACState
    scale: jax.Array  # running mean of |r|


def scaled_sac(config: prl.SACConfig, env: Env) -> tuple[Agent, Memory]:
    agent, memory = prl.sac(config, env)

    def init(key: jax.Array, obs: jax.Array) -> ScaledState:
        return ScaledState(agent.init(key, obs), jnp.float32(1.0))

    def update(
        key: jax.Array, state: ScaledState, sample: Sample, count: jax.Array
    ) -> tuple[ScaledState, jax.Array, Metrics]:
        batch = sample.transition
        scale = 0.99 * state.scale + 0.01 * jnp.abs(batch.reward).mean()
        sample = sample._replace(transition=batch._replace(reward=batch.reward / scale))
        learned, priority, metrics = agent.update(key, state.agent, sample, count)
        return ScaledState(learned, scale), priority, metrics | {"reward_scale": scale}

    return enclosing(agent)._replace(init=init, update=update), memory
