"""Running normalisation of observations and rewards: wrappers around agents.

    config.replace(wrappers=(normalize.observations, normalize.rewards))

A wrapper is a function (config, env, Agent) -> Agent. Memories store what the environment
returned; it is scaled when it is acted on or learned from. Everything in one iteration (acting,
advantages, updates) is scaled alike: the statistics of its rollout take effect in the next one,
and those of the warm-up in the second, because the first starts unscaled. Evaluation scales as the
next iteration would and does not change the statistics. As long as there are none, values are
neither scaled nor clipped; from then on they are clipped to `normalization_limit` deviations.

A nan or infinite observation makes the statistics nan, and with them every loss from the next
iteration on: the run reports that seed as diverged.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_sac import references
from purejaxrl_sac.config import Config, ConfigError, unknown
from purejaxrl_sac.returns import discounted_sum
from purejaxrl_sac.types import Agent, Env, Metrics, PyTree, Sample, Transition, Wrapper, enclosing

EPSILON = 1e-8


class Total(NamedTuple):
    """A running total of float32 numbers and its rounding error, which `add` carries along.

    Together they have about 48 bits: additions of 1 remain exact far beyond 2^24.
    """

    value: jax.Array  # [...]
    error: jax.Array  # [...]


class Moments(NamedTuple):
    """Moments of a stream of values of any shape [...]."""

    number: Total  # number of values, scalar
    mean: Total  # [...]
    scatter: Total  # [...]: the sum of squared deviations from the mean


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
    zeros, zero = jnp.zeros(shape, jnp.float32), jnp.float32(0)
    return Moments(Total(zero, zero), Total(zeros, zeros), Total(zeros, zeros))


def add(total: Total, x: jax.Array) -> Total:
    """Adds x [...] with its rounding error (Knuth's two-sum; Kahan 1965)."""
    x = x + total.error
    value = total.value + x
    rounded = value - total.value
    return Total(value, (total.value - (value - rounded)) + (x - rounded))


def include(moments: Moments, values: jax.Array) -> Moments:
    """Adds values [B, ...] to the moments of others (Chan et al. 1979)."""
    added = jnp.float32(len(values))
    number = add(moments.number, added)
    deviations = (values.astype(jnp.float32) - moments.mean.value) - moments.mean.error
    delta = deviations.mean(0)  # of the means
    between = jnp.square(delta) * added * (moments.number.value / number.value)
    scatter = jnp.square(deviations - delta).sum(0) + between
    mean = add(moments.mean, delta * (added / number.value))
    return Moments(number, mean, add(moments.scatter, scatter))


def deviation(moments: Moments) -> jax.Array:
    """The standard deviation [...]; 1 as long as there is no value."""
    number = moments.number.value
    variance = moments.scatter.value / jnp.maximum(number, 1)
    return jnp.where(number > 0, jnp.sqrt(variance + EPSILON), 1.0)


def _clip(config: Config, moments: Moments, scaled: jax.Array) -> jax.Array:
    """Clips scaled values to the limit; not as long as there are no statistics."""
    limit = jnp.where(moments.number.value > 0, config.normalization_limit, jnp.inf)
    return jnp.clip(scaled, -limit, limit)


def observations(config: Config, env: Env, agent: Agent) -> Agent:
    """(obs - mean) / standard deviation, both of the observations acted on so far.

    Raises:
        ConfigError: observations are not floats, or legal actions follow from them.
    """
    space = env.observation_space
    if hasattr(space, "n") or not jnp.issubdtype(space.dtype, jnp.floating):
        raise ConfigError(
            "normalize.observations needs observations that are floats: remove it from wrappers"
        )

    if env.legal_actions is not None:
        raise ConfigError(
            f"the legal actions of {env.name} follow from its observations, which"
            " normalize.observations scales: remove it from wrappers"
        )

    def normal(state: Normalized, obs: jax.Array) -> jax.Array:
        centred = (obs - state.used.mean.value) - state.used.mean.error
        return _clip(config, state.used, centred / deviation(state.used))

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
    """r / standard deviation of discounted returns (Engstrom et al. 2020, arXiv 2005.12729).

    Every reward is scaled and clipped by itself, before an n-step return sums them.
    """

    def scale(state: Scaled, reward: jax.Array) -> jax.Array:
        return _clip(config, state.used, reward / deviation(state.used))

    def init(key: jax.Array, obs: jax.Array) -> Scaled:
        moments = no_moments(())
        return Scaled(agent.init(key, obs), moments, moments, jnp.zeros(len(obs), jnp.float32))

    def process_rollout(state: Scaled, rollout: Transition) -> tuple[Scaled, Transition]:
        def accumulate(
            earned: jax.Array, xs: tuple[jax.Array, jax.Array]
        ) -> tuple[jax.Array, jax.Array]:
            reward, last = xs
            earned = config.gamma * earned + reward
            return jnp.where(last, 0, earned), earned

        earned, returns = jax.lax.scan(accumulate, state.earned, (rollout.reward, rollout.last))
        scaled = rollout._replace(reward=scale(state, rollout.reward))
        inner, processed = agent.process_rollout(state.agent, scaled)
        seen = include(state.seen, returns.reshape(-1))
        stored = processed._replace(reward=rollout.reward)
        return state._replace(agent=inner, seen=seen, earned=earned), stored

    def update(
        key: jax.Array, state: Scaled, sample: Sample, count: jax.Array
    ) -> tuple[Scaled, jax.Array, Metrics]:
        if sample.rewards is None:
            reward = scale(state, sample.transition.reward)
        else:
            reward = discounted_sum(scale(state, sample.rewards), config.gamma)
        scaled = sample._replace(transition=sample.transition._replace(reward=reward))
        inner, priority, metrics = agent.update(key, state.agent, scaled, count)
        return _next(config, state._replace(agent=inner), count), priority, metrics

    return enclosing(agent)._replace(init=init, update=update, process_rollout=process_rollout)


def with_statistics(state: Any, learner: Any) -> Any:
    """The learner's state, with the running statistics of another state of the same agent."""
    if not hasattr(state, "agent"):
        return learner
    agent = with_statistics(state.agent, learner.agent)
    kept = state if isinstance(state, Normalized | Scaled) else learner  # of another wrapper
    if dataclasses.is_dataclass(kept):
        return dataclasses.replace(kept, agent=agent)  # type: ignore[type-var]
    return kept._replace(agent=agent)


def _next(config: Config, state: Any, count: jax.Array) -> Any:
    """After the last update of an iteration, the statistics take effect."""
    finished = (count + 1) % config.num_updates == 0
    used = jax.tree.map(lambda x, y: jnp.where(finished, x, y), state.seen, state.used)
    return state._replace(used=used)


WRAPPERS: dict[str, Wrapper] = {"observations": observations, "rewards": rewards}
"""The wrappers by the names that configuration files and the command line use."""


def wrapper(name: str) -> Wrapper:
    """The wrapper of a listed name or of a reference, which is imported.

    Raises:
        ConfigError: there is none.
    """
    if name in WRAPPERS:
        return WRAPPERS[name]
    if not references.is_reference(name):
        raise unknown("wrapper", name, WRAPPERS, "name one of your own as file.py:name")
    found: Wrapper = references.load(name)
    return found
