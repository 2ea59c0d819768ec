"""Running normalisation of observations and rewards: wrappers around agents.

    config.replace(wrappers=(normalize.observations, normalize.rewards))

A wrapper is a function (config, env, Agent) -> Agent. Memories store what the environment
returned; it is scaled when it is acted on or learned from. Everything in one iteration (acting,
advantages, updates) is scaled alike: the statistics of its rollout take effect in the next one,
and those of the warm-up in the second, because the first starts unscaled. Evaluation scales as the
last iteration would and does not change the statistics.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.types import Agent, Env, Metrics, PyTree, Sample, Transition, Wrapper

LIMIT = 10.0  # standard deviations that values are clipped to
EPSILON = 1e-8


class Moments(NamedTuple):
    """Moments of a stream of values of any shape [...]."""

    number: jax.Array  # number of values, float32 scalar
    mean: jax.Array  # [...]
    scatter: jax.Array  # [...]: the sum of squared deviations from the mean


class Normalized(NamedTuple):
    """State of an agent with normalised observations."""

    agent: PyTree
    used: Moments  # what this iteration is scaled by
    seen: Moments  # of all observations so far


class Scaled(NamedTuple):
    """State of an agent with scaled rewards."""

    agent: PyTree
    used: Moments  # what this iteration is scaled by
    seen: Moments  # of all discounted returns so far
    earned: jax.Array  # [N]: the discounted return of the running episodes so far


def no_moments(shape: tuple[int, ...]) -> Moments:
    """The moments of no values."""
    return Moments(jnp.float32(0), jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.float32))


def include(moments: Moments, values: jax.Array) -> Moments:
    """Adds values [B, ...] to the moments of others, exactly (Chan et al. 1979)."""
    values, added = values.astype(jnp.float32), jnp.float32(len(values))
    number = moments.number + added
    mean = values.mean(0)
    delta = mean - moments.mean
    scatter = jnp.square(values - mean).sum(0) + jnp.square(delta) * moments.number * added / number
    return Moments(number, moments.mean + delta * added / number, moments.scatter + scatter)


def deviation(moments: Moments) -> jax.Array:
    """The standard deviation [...]; 1 as long as there is no value."""
    variance = moments.scatter / jnp.maximum(moments.number, 1)
    return jnp.where(moments.number > 0, jnp.sqrt(variance + EPSILON), 1.0)


def observations(config: Config, env: Env, agent: Agent) -> Agent:
    """(obs - mean) / standard deviation, both of the observations acted on so far.

    Raises:
        ConfigError: observations are not floats.
    """
    space = env.observation_space
    if hasattr(space, "n") or not jnp.issubdtype(space.dtype, jnp.floating):
        raise ConfigError(
            "normalize.observations needs observations that are floats: remove it from wrappers"
        )

    def normal(state: Normalized, obs: jax.Array) -> jax.Array:
        scaled = (obs - state.used.mean) / deviation(state.used)
        return jnp.clip(scaled, -LIMIT, LIMIT)

    def both(state: Normalized, transition: Transition) -> Transition:
        next_obs = jax.tree.map(partial(normal, state), transition.next_obs)  # may be ()
        return transition._replace(obs=normal(state, transition.obs), next_obs=next_obs)

    def init(key: jax.Array, obs: jax.Array) -> Normalized:
        moments = no_moments(obs.shape[1:])
        return Normalized(agent.init(key, obs), moments, moments)

    def act(
        key: jax.Array, state: Normalized, obs: jax.Array, step: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree, PyTree]:
        return agent.act(key, state.agent, normal(state, obs), step, carry)

    def policy(
        key: jax.Array, state: Normalized, obs: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree]:
        return agent.policy(key, state.agent, normal(state, obs), carry)

    def q_values(state: Normalized, obs: jax.Array, *action: jax.Array) -> jax.Array:
        assert agent.q_values is not None
        return agent.q_values(state.agent, normal(state, obs), *action)

    def process_rollout(state: Normalized, rollout: Transition) -> tuple[Normalized, Transition]:
        inner, processed = agent.process_rollout(state.agent, both(state, rollout))
        seen = include(state.seen, rollout.obs.reshape(-1, *rollout.obs.shape[2:]))
        next_obs = () if isinstance(processed.next_obs, tuple) else rollout.next_obs
        stored = processed._replace(obs=rollout.obs, next_obs=next_obs)
        return state._replace(agent=inner, seen=seen), stored

    def update(
        key: jax.Array, state: Normalized, sample: Sample, count: jax.Array
    ) -> tuple[Normalized, jax.Array, Metrics]:
        scaled = sample._replace(transition=both(state, sample.transition))
        inner, priority, metrics = agent.update(key, state.agent, scaled, count)
        return _next(config, state._replace(agent=inner), count), priority, metrics

    return agent._replace(
        init=init,
        act=act,
        policy=policy,
        update=update,
        q_values=agent.q_values and q_values,
        process_rollout=process_rollout,
    )


def rewards(config: Any, env: Env, agent: Agent) -> Agent:
    """r / standard deviation of discounted returns (Engstrom et al. 2020, arXiv 2005.12729)."""

    def scale(state: Scaled, transition: Transition) -> Transition:
        reward = transition.reward / deviation(state.used)
        return transition._replace(reward=jnp.clip(reward, -LIMIT, LIMIT))

    def init(key: jax.Array, obs: jax.Array) -> Scaled:
        moments = no_moments(())
        return Scaled(agent.init(key, obs), moments, moments, jnp.zeros(len(obs), jnp.float32))

    def act(
        key: jax.Array, state: Scaled, obs: jax.Array, step: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree, PyTree]:
        return agent.act(key, state.agent, obs, step, carry)

    def policy(
        key: jax.Array, state: Scaled, obs: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree]:
        return agent.policy(key, state.agent, obs, carry)

    def q_values(state: Scaled, obs: jax.Array, *action: jax.Array) -> jax.Array:
        assert agent.q_values is not None
        return agent.q_values(state.agent, obs, *action)

    def process_rollout(state: Scaled, rollout: Transition) -> tuple[Scaled, Transition]:
        def accumulate(
            earned: jax.Array, xs: tuple[jax.Array, jax.Array]
        ) -> tuple[jax.Array, jax.Array]:
            reward, last = xs
            earned = config.gamma * earned + reward
            return jnp.where(last, 0, earned), earned

        earned, returns = jax.lax.scan(accumulate, state.earned, (rollout.reward, rollout.last))
        inner, processed = agent.process_rollout(state.agent, scale(state, rollout))
        seen = include(state.seen, returns.reshape(-1))
        stored = processed._replace(reward=rollout.reward)
        return state._replace(agent=inner, seen=seen, earned=earned), stored

    def update(
        key: jax.Array, state: Scaled, sample: Sample, count: jax.Array
    ) -> tuple[Scaled, jax.Array, Metrics]:
        scaled = sample._replace(transition=scale(state, sample.transition))
        inner, priority, metrics = agent.update(key, state.agent, scaled, count)
        return _next(config, state._replace(agent=inner), count), priority, metrics

    return agent._replace(
        init=init,
        act=act,
        policy=policy,
        update=update,
        q_values=agent.q_values and q_values,
        process_rollout=process_rollout,
    )


def _next(config: Config, state: Any, count: jax.Array) -> Any:
    """After the last update of an iteration, the statistics take effect."""
    finished = (count + 1) % config.num_updates == 0
    used = jax.tree.map(lambda x, y: jnp.where(finished, x, y), state.seen, state.used)
    return state._replace(used=used)


WRAPPERS: dict[str, Wrapper] = {"observations": observations, "rewards": rewards}
"""The wrappers by the names that configuration files and the command line use."""
