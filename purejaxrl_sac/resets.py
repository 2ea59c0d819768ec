"""Periodic resets, for many updates per environment step (SR-SAC, D'Oro et al. 2023).

    config.replace(num_updates=32, wrappers=(partial(resets.periodic, period=100_000),))

Networks that are updated too often on the first experience lose their ability to learn from later
experience (Nikishin et al. 2022, arXiv 2205.07802). New ones recover quickly, because the memory is
kept.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from purejaxrl_sac.config import Bounds, Config
from purejaxrl_sac.normalize import with_statistics
from purejaxrl_sac.types import Agent, Env, Metrics, PyTree, Sample


def periodic(config: Config, env: Env, agent: Agent, *, period: int) -> Agent:
    """An agent whose learner is reinitialised after every `period` updates.

    All parameters (of targets and the temperature, too) and all optimiser states are initialised,
    with the schedules of learning rates. The replay memory and running statistics of observations
    and rewards are kept. A reset precedes an update, so that no run ends with one.

    Args:
        config: num_envs.
        env: its observation space.
        agent: any agent.
        period: gradient updates between two resets.

    Raises:
        ConfigError: the period is not a whole number of at least 1.
    """
    Bounds(int, at_least=1).check("period", period)
    space = env.observation_space

    def update(
        key: jax.Array, state: PyTree, sample: Sample, count: jax.Array
    ) -> tuple[PyTree, jax.Array, Metrics]:
        key_init, key_update = jax.random.split(key)

        def reset() -> PyTree:
            obs = jnp.zeros((config.num_envs, *space.shape), sample.transition.obs.dtype)
            return with_statistics(state, agent.init(key_init, obs))

        # a cond on the number of updates, which is never batched: other updates cost nothing
        due = (count > 0) & (count % period == 0)
        state = jax.lax.cond(due, reset, lambda: state)
        return agent.update(key_update, state, sample, count)

    return agent._replace(update=update)
