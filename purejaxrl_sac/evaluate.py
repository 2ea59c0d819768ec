"""Policies out of a training state, and what they earn."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from purejaxrl_sac import envs
from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.train import build
from purejaxrl_sac.types import TrainState

Policy = Callable[[jax.Array, jax.Array], jax.Array]


def policy(config: Config, state: TrainState) -> Policy:
    """The policy to deploy: greedy for value-based agents, the Gaussian's centre for SAC.

    Args:
        state: one seed's state; vmap for many.

    Returns:
        (key, obs [N, ...]) -> actions [N, ...] in the environment's own units.
    """
    env, agent, _ = build(config)
    return lambda key, obs: env.to_env(agent.policy(key, state.agent, obs))


def exploring_policy(config: Config, state: TrainState) -> Policy:
    """The policy that trains: stochastic, with the exploration of the state's own step.

    Arguments and result as for `policy`.
    """
    env, agent, _ = build(config)
    return lambda key, obs: env.to_env(agent.act(key, state.agent, obs, state.step)[0])


def q_values(config: Config, state: TrainState, obs: jax.Array) -> jax.Array:
    """Q(s, .) of an agent with discrete actions.

    Args:
        state: one seed's state; vmap for many.
        obs: [N, ...].

    Returns:
        [N, num_actions].

    Raises:
        ConfigError: the agent has no values of discrete actions.
    """
    _, agent, _ = build(config)
    if agent.q_values is None:
        raise ConfigError(
            "this algorithm has no values of discrete actions: q_values needs one such as dqn"
        )
    return agent.q_values(state.agent, obs)


def evaluate(
    key: jax.Array,
    config: Config,
    state: TrainState,
    episodes: int = 128,
    *,
    policy: Callable[[Config, TrainState], Policy] = policy,
    max_steps: int | None = None,
) -> jax.Array:
    """Plays episodes from fresh starts, all in parallel, and returns what each earned.

    Every episode runs in an environment of its own for `max_steps` steps, of which those after
    its end do not count; the same key gives the same starts. Nothing of `state` changes.

    Args:
        key: decides start states, environment noise and action noise; keep it apart from the
            training key.
        state: one seed's state; vmap for many.
        episodes: how many; a number known at compile time.
        policy: `policy` (the default) or `exploring_policy`, or your own.
        max_steps: the longest episode; None for the environment's time limit.

    Returns:
        undiscounted returns, [episodes] float32.

    Raises:
        ConfigError: no time limit is known, because the environment has none or because
            env_params are traced.
    """
    env = envs.bind(config.env, config.env_params)
    max_steps = env.max_steps if max_steps is None else max_steps
    if max_steps is None or isinstance(max_steps, jax.core.Tracer):
        raise ConfigError(
            f"the time limit of {env.name} is not known before compilation: pass max_steps"
        )
    choose = policy(config, state)
    key_reset, key_steps = jax.random.split(key)

    def body(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
        env_state, returns, running = carry
        keys = jax.random.split(key, 1 + episodes)
        action = choose(keys[0], env_state.obs)
        env_state, transition, _ = env.step(keys[1:], env_state, action)
        returns += jnp.where(running, transition.reward, 0)
        return (env_state, returns, running & ~transition.last), None

    env_state = env.reset(key_reset, episodes)
    carry = (env_state, jnp.zeros(episodes), jnp.ones(episodes, bool))
    keys = jax.random.split(key_steps, int(max_steps))
    (_, returns, _), _ = jax.lax.scan(body, carry, keys)
    return returns
