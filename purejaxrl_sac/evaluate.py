"""Policies out of a training state, and what they earn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from purejaxrl_sac import envs, losses
from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.train import build
from purejaxrl_sac.types import EnvState, PyTree, TrainState, Transition

Policy = Callable[[jax.Array, jax.Array], jax.Array]
Output = TypeVar("Output")


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


def q_values(
    config: Config, state: TrainState, obs: jax.Array, action: jax.Array | None = None
) -> jax.Array:
    """Q(s, .) of an agent with discrete actions, or Q(s, a).

    Args:
        state: one seed's state; vmap for many.
        obs: [N, ...].
        action: [N] discrete, or [N, action_dim] in [-1, 1]; needed where actions are continuous.

    Returns:
        [N, num_actions], or [N] where `action` is given.

    Raises:
        ConfigError: the agent has no such values, or actions are continuous and none is given.
    """
    env, agent, _ = build(config)
    if agent.q_values is None:
        raise ConfigError(
            "this algorithm has no values of actions: q_values needs one such as dqn or sac"
        )
    if env.num_actions is not None:
        q = agent.q_values(state.agent, obs)
        return q if action is None else losses.select_action(q, action)
    if action is None:
        raise ConfigError(f"{env.name} has continuous actions: give q_values the action, too")
    return agent.q_values(state.agent, obs, action)


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
    env, start, keys = _begin(key, config, episodes, max_steps)
    choose = policy(config, state)

    def body(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
        env_state, returns, running = carry
        keys = jax.random.split(key, 1 + episodes)
        action = choose(keys[0], env_state.obs)
        env_state, transition, _ = env.step(keys[1:], env_state, action)
        returns += jnp.where(running, transition.reward, 0)
        return (env_state, returns, running & ~transition.last), None

    carry = (start, jnp.zeros(episodes), jnp.ones(episodes, bool))
    (_, returns, _), _ = jax.lax.scan(body, carry, keys)
    return returns


def rollout_episodes(
    key: jax.Array,
    config: Config,
    state: TrainState,
    episodes: int = 128,
    *,
    policy: Callable[[Config, TrainState], Policy] = policy,
    max_steps: int | None = None,
) -> tuple[Transition, jax.Array]:
    """Plays the episodes that `evaluate` plays, and returns every step of them.

    For paths, discounted returns, or states to look at values in. Arguments and errors as for
    `evaluate`.

    Returns:
        transitions, [max_steps, episodes], actions in the environment's own units; and which of
        them belong to the episode, [max_steps, episodes] bool: those after its end are of others.
    """
    return _rollout(
        key, config, state, episodes, policy, max_steps,
        lambda env_state, transition, running: (transition, running),
    )  # fmt: skip


def rollout_states(
    key: jax.Array,
    config: Config,
    state: TrainState,
    episodes: int = 128,
    *,
    policy: Callable[[Config, TrainState], Policy] = policy,
    max_steps: int | None = None,
) -> tuple[PyTree, Transition, jax.Array]:
    """As `rollout_episodes`, with the environments' own states, for example to render them.

    Returns:
        the environments' states before each step, [max_steps, episodes]; transitions; and which of
        them belong to the episode.
    """
    return _rollout(
        key, config, state, episodes, policy, max_steps,
        lambda env_state, transition, running: (env_state.state, transition, running),
    )  # fmt: skip


def _rollout(
    key: jax.Array,
    config: Config,
    state: TrainState,
    episodes: int,
    policy: Callable[[Config, TrainState], Policy],
    max_steps: int | None,
    output: Callable[[EnvState, Transition, jax.Array], Output],
) -> Output:
    """Play episodes, and stack what `output` selects of each step.

    Args:
        output: (environments before the step, transition, whether it belongs to the episode [N])
            -> pytree. Only what it returns is kept, also where nothing is compiled.
    """
    env, start, keys = _begin(key, config, episodes, max_steps)
    choose = policy(config, state)

    def body(
        carry: tuple[EnvState, jax.Array], key: jax.Array
    ) -> tuple[tuple[EnvState, jax.Array], Output]:
        env_state, running = carry
        keys = jax.random.split(key, 1 + episodes)
        action = choose(keys[0], env_state.obs)
        after, transition, _ = env.step(keys[1:], env_state, action)
        return (after, running & ~transition.last), output(env_state, transition, running)

    return jax.lax.scan(body, (start, jnp.ones(episodes, bool)), keys)[1]


def _begin(
    key: jax.Array, config: Config, episodes: int, max_steps: int | None
) -> tuple[envs.Env, EnvState, jax.Array]:
    """The environment, where its episodes start, and a key for every step."""
    env = envs.bind(config.env, config.env_params)
    max_steps = env.max_steps if max_steps is None else max_steps
    if max_steps is None or isinstance(max_steps, jax.core.Tracer):
        raise ConfigError(
            f"the time limit of {env.name} is not known before compilation: pass max_steps"
        )
    key_reset, key_steps = jax.random.split(key)
    keys = jax.random.split(key_steps, int(max_steps))
    return env, env.reset(key_reset, episodes), keys
