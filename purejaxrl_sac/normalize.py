"""Observations and rewards in units of what has been seen of them: wrappers around agents.

    config.replace(wrappers=(normalize.observations, normalize.rewards))

A wrapper is a function (config, Agent) -> Agent. Memories keep what the environment gave; it is
scaled when it is acted on or learned from. All that happens in one iteration (acting, advantages,
updates) is scaled alike: what its rollout adds to the statistics counts from the next one on, and
what the warm-up saw from the second one on, because the first has begun unscaled.
Evaluation scales as the last iteration would and adds nothing.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_sac import envs
from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.types import Agent, PyTree, Sample, Transition

LIMIT = 10.0  # standard deviations beyond which values are cut off
EPSILON = 1e-8


class Moments(NamedTuple):
    """What is known of a stream of values of any shape [...]."""

    count: jax.Array  # float32 scalar
    mean: jax.Array  # [...]
    scatter: jax.Array  # [...]: the sum of squared distances to the mean


class Normalized(NamedTuple):
    """State of a wrapped agent."""

    agent: PyTree
    used: Moments  # what this iteration is scaled by
    seen: Moments  # of all there has been


class Scaled(NamedTuple):
    """State of an agent whose rewards are scaled."""

    agent: PyTree
    used: Moments
    seen: Moments
    earned: jax.Array  # [N]: the discounted return so far of the running episodes


def nothing_seen(shape: tuple[int, ...]) -> Moments:
    """The moments of no values."""
    return Moments(jnp.float32(0), jnp.zeros(shape), jnp.zeros(shape))


def include(moments: Moments, values: jax.Array) -> Moments:
    """Adds values [B, ...] to the moments of others, exactly (Chan et al. 1979)."""
    added = jnp.float32(len(values))
    count = moments.count + added
    mean = values.mean(0)
    delta = mean - moments.mean
    scatter = jnp.square(values - mean).sum(0) + jnp.square(delta) * moments.count * added / count
    return Moments(count, moments.mean + delta * added / count, moments.scatter + scatter)


def deviation(moments: Moments) -> jax.Array:
    """The standard deviation [...]; 1 as long as there is no value."""
    variance = moments.scatter / jnp.maximum(moments.count, 1)
    return jnp.where(moments.count > 0, jnp.sqrt(variance + EPSILON), 1.0)


def observations(config: Config, agent: Agent) -> Agent:
    """(obs - mean) / standard deviation, both of the observations acted on so far.

    Raises:
        ConfigError: observations are not numbers of type float32.
    """
    space = envs.bind(config.env, config.env_params).observation_space
    if hasattr(space, "n") or not jnp.issubdtype(space.dtype, jnp.floating):
        raise ConfigError("normalize.observations needs observations that are floats: leave it out")

    def normal(state: Normalized, obs: jax.Array) -> jax.Array:
        scaled = (obs - state.used.mean) / deviation(state.used)
        return jnp.clip(scaled, -LIMIT, LIMIT)

    def both(state: Normalized, transition: Transition) -> Transition:
        next_obs = jax.tree.map(partial(normal, state), transition.next_obs)  # may be ()
        return transition._replace(obs=normal(state, transition.obs), next_obs=next_obs)

    def init(key: jax.Array, obs: jax.Array) -> Normalized:
        nothing = nothing_seen(obs.shape[1:])
        return Normalized(agent.init(key, obs), nothing, nothing)

    def act(key: jax.Array, state: Normalized, obs: jax.Array, step: jax.Array) -> tuple:
        return agent.act(key, state.agent, normal(state, obs), step)

    def policy(key: jax.Array, state: Normalized, obs: jax.Array) -> jax.Array:
        return agent.policy(key, state.agent, normal(state, obs))

    def q_values(state: Normalized, obs: jax.Array, *action: jax.Array) -> jax.Array:
        return agent.q_values(state.agent, normal(state, obs), *action)

    def process_rollout(state: Normalized, rollout: Transition) -> tuple[Normalized, Transition]:
        inner, observed = agent.process_rollout(state.agent, both(state, rollout))
        seen = include(state.seen, rollout.obs.reshape(-1, *rollout.obs.shape[2:]))
        next_obs = () if isinstance(observed.next_obs, tuple) else rollout.next_obs
        remembered = observed._replace(obs=rollout.obs, next_obs=next_obs)
        return state._replace(agent=inner, seen=seen), remembered

    def update(key: jax.Array, state: Normalized, sample: Sample, count: jax.Array) -> tuple:
        scaled = sample._replace(transition=both(state, sample.transition))
        inner, priority, metrics = agent.update(key, state.agent, scaled, count)
        return _next(config, state._replace(agent=inner), count), priority, metrics

    return Agent(init, act, policy, update, agent.q_values and q_values, process_rollout)


def rewards(config: Config, agent: Agent) -> Agent:
    """r / standard deviation of the discounted returns so far (Engstrom et al. 2020)."""

    def scale(state: Scaled, transition: Transition) -> Transition:
        reward = transition.reward / deviation(state.used)
        return transition._replace(reward=jnp.clip(reward, -LIMIT, LIMIT))

    def init(key: jax.Array, obs: jax.Array) -> Scaled:
        nothing = nothing_seen(())
        return Scaled(agent.init(key, obs), nothing, nothing, jnp.zeros(len(obs)))

    def act(key: jax.Array, state: Scaled, obs: jax.Array, step: jax.Array) -> tuple:
        return agent.act(key, state.agent, obs, step)

    def policy(key: jax.Array, state: Scaled, obs: jax.Array) -> jax.Array:
        return agent.policy(key, state.agent, obs)

    def q_values(state: Scaled, obs: jax.Array, *action: jax.Array) -> jax.Array:
        return agent.q_values(state.agent, obs, *action)

    def process_rollout(state: Scaled, rollout: Transition) -> tuple[Scaled, Transition]:
        def accumulate(earned: jax.Array, xs: tuple) -> tuple[jax.Array, jax.Array]:
            reward, last = xs
            earned = config.gamma * earned + reward
            return jnp.where(last, 0, earned), earned

        earned, returns = jax.lax.scan(accumulate, state.earned, (rollout.reward, rollout.last))
        inner, observed = agent.process_rollout(state.agent, scale(state, rollout))
        seen = include(state.seen, returns.reshape(-1))
        remembered = observed._replace(reward=rollout.reward)
        return state._replace(agent=inner, seen=seen, earned=earned), remembered

    def update(key: jax.Array, state: Scaled, sample: Sample, count: jax.Array) -> tuple:
        scaled = sample._replace(transition=scale(state, sample.transition))
        inner, priority, metrics = agent.update(key, state.agent, scaled, count)
        return _next(config, state._replace(agent=inner), count), priority, metrics

    return Agent(init, act, policy, update, agent.q_values and q_values, process_rollout)


def _next(config: Config, state: Normalized | Scaled, count: jax.Array) -> Normalized | Scaled:
    """After an iteration's last update, what has been seen is what the next one uses."""
    finished = (count + 1) % config.num_updates == 0
    used = jax.tree.map(lambda x, y: jnp.where(finished, x, y), state.seen, state.used)
    return state._replace(used=used)


WRAPPERS = {"observations": observations, "rewards": rewards}
"""The wrappers by name, as configurations are written down and the command line says them."""
