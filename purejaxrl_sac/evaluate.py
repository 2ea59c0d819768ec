"""Policies from a training state, and episodes played by them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from purejaxrl_sac import envs, losses
from purejaxrl_sac.checks import (
    check_actions,
    check_actions_like,
    check_carry,
    check_key,
    check_observations,
    check_one_seed,
    check_state,
)
from purejaxrl_sac.config import Config, ConfigError, validate, whole_number
from purejaxrl_sac.train import build
from purejaxrl_sac.types import EnvState, InitCarry, PyTree, TrainState, Transition

Step = Callable[[jax.Array, jax.Array, PyTree], tuple[jax.Array, PyTree]]
Total = TypeVar("Total")
Output = TypeVar("Output")


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """(key, obs [N, ...]) -> actions [N, ...] in the environment's units.

    A policy with a carry, the agent's memory of its episode, is (key, obs, carry) -> actions,
    carry; `init_carry(N)` is the carry at the beginning of N episodes.
    """

    step: Step
    init_carry: InitCarry

    def __call__(self, key: jax.Array, obs: jax.Array, carry: PyTree = None) -> Any:
        initial = self.init_carry(1)
        if not jax.tree.leaves(initial):
            return self.step(key, obs, initial)[0]
        if carry is None:
            raise ConfigError(
                "this policy has a carry: call policy(key, obs, carry), first with"
                " policy.init_carry(num_envs)"
            )
        return self.step(key, obs, carry)


PolicyFactory = Callable[[Config, TrainState], Callable[..., Any]]
"""`policy`, `exploring_policy`, or a function of your own whose result is (key, obs) -> actions."""


def policy(config: Config, state: TrainState) -> Policy:
    """The policy to deploy: greedy for value-based agents, tanh of the Gaussian's mean for SAC.

    Args:
        state: one seed's state; vmap for many.

    Raises:
        ConfigError: the configuration cannot run, or the state is of several seeds or of another
            configuration.
    """
    env, agent, _ = build(config)
    check_state(config, env, agent, state)

    def step(key: jax.Array, obs: jax.Array, carry: PyTree) -> tuple[jax.Array, PyTree]:
        check_key(key)
        obs = check_observations(env, obs)
        check_carry(agent.init_carry, obs, carry)
        action, carry = agent.policy(key, state.agent, obs, carry)
        return env.to_env(action), carry

    return Policy(step, agent.init_carry)


def exploring_policy(config: Config, state: TrainState) -> Policy:
    """The policy that collects rollouts, with the exploration of the state's own step.

    Each step has noise of its own, also where `noise_repeat` repeats it in training.

    Arguments, result and errors as for `policy`.
    """
    env, agent, _ = build(config)
    check_state(config, env, agent, state)

    def step(key: jax.Array, obs: jax.Array, carry: PyTree) -> tuple[jax.Array, PyTree]:
        check_key(key)
        obs = check_observations(env, obs)
        check_carry(agent.init_carry, obs, carry)
        action, _, carry = agent.act(key, state.agent, obs, state.step, carry)
        return env.to_env(action), carry

    return Policy(step, agent.init_carry)


def q_values(
    config: Config, state: TrainState, obs: jax.Array, action: jax.Array | None = None
) -> jax.Array:
    """Q(s, .) of an agent with discrete actions, or Q(s, a), of observations as the environment
    returns them.

    Values are in the units that the agent learns in: with `normalize.rewards`, those of rewards
    divided by the standard deviation of discounted returns that the last iteration used, and
    clipped. Soft values include entropies in these units. Illegal actions have the value -inf.

    Args:
        state: one seed's state; vmap for many.
        obs: [N, ...].
        action: [N] discrete, or [N, D] in [-1, 1]; required where actions are continuous.

    Returns:
        [N, A], or [N] where `action` is given.

    Raises:
        ConfigError: the agent has no such values, actions are continuous and none is given, or the
            state is of several seeds or of another configuration.
    """
    env, agent, _ = build(config)
    check_state(config, env, agent, state)
    if agent.q_values is None:
        raise ConfigError(
            "this algorithm has no q_values of single observations: use one that learns them, such"
            " as dqn or sac"
        )
    obs = check_observations(env, obs)
    if action is not None:
        check_actions(env, action, obs.shape[0], "action is")
    if env.num_actions is not None:
        q = agent.q_values(state.agent, obs)
        return q if action is None else losses.select_action(q, action)
    if action is None:
        raise ConfigError(f"{env.name} has continuous actions: pass an action to q_values")
    return agent.q_values(state.agent, obs, action)


def evaluate(
    key: jax.Array,
    config: Config,
    state: TrainState,
    episodes: int = 128,
    *,
    policy: PolicyFactory = policy,
    max_steps: int | None = None,
) -> jax.Array:
    """Returns of episodes that a policy plays from initial states, in parallel.

    Every episode has its own environment, which takes `max_steps` steps; rewards after the end of
    the episode are not counted. The same key gives the same initial states.

    Args:
        key: determines initial states, environment noise and action noise; use a different one
            than for training.
        state: one seed's state; vmap for many.
        episodes: a static number.
        policy: `policy` (the default) or `exploring_policy`, or your own.
        max_steps: the longest episode; None for the environment's time limit.

    Returns:
        undiscounted returns, [episodes] float32.

    Raises:
        ConfigError: no time limit is known, because the environment has none or because
            env_params are traced; the state is of several seeds or of another configuration; the
            policy's actions have another shape or type than the environment's; or `episodes` or
            `max_steps` is not a static whole number > 0.
    """

    def add(
        total: jax.Array, env_state: EnvState, transition: Transition, running: jax.Array
    ) -> tuple[jax.Array, None]:
        return total + jnp.where(running, transition.reward, 0), None

    start = partial(jnp.zeros, dtype=jnp.float32)
    return _scan(key, config, state, episodes, policy, max_steps, start, add)[0]


def rollout_episodes(
    key: jax.Array,
    config: Config,
    state: TrainState,
    episodes: int = 128,
    *,
    policy: PolicyFactory = policy,
    max_steps: int | None = None,
) -> tuple[Transition, jax.Array]:
    """All transitions of the episodes that `evaluate` plays.

    For trajectories, discounted returns, or values of the states visited. Arguments and errors as
    for `evaluate`.

    Returns:
        transitions, [max_steps, episodes], actions in the environment's units; and which of them
        belong to the episode, [max_steps, episodes] bool.
    """
    return _scan(
        key, config, state, episodes, policy, max_steps, lambda _: None,
        lambda _, env_state, transition, running: (None, (transition, running)),
    )[1]  # fmt: skip


def rollout_states(
    key: jax.Array,
    config: Config,
    state: TrainState,
    episodes: int = 128,
    *,
    policy: PolicyFactory = policy,
    max_steps: int | None = None,
) -> tuple[PyTree, Transition, jax.Array]:
    """As `rollout_episodes`, with the environments' own states, for example to render them.

    Returns:
        the environments' states before each step, [max_steps, episodes]; transitions; and which of
        them belong to the episode.
    """
    return _scan(
        key, config, state, episodes, policy, max_steps, lambda _: None,
        lambda _, env_state, transition, running: (None, (env_state.state, transition, running)),
    )[1]  # fmt: skip


def _scan(
    key: jax.Array,
    config: Config,
    state: TrainState,
    episodes: int,
    policy: PolicyFactory,
    max_steps: int | None,
    start: Callable[[int], Total],
    accumulate: Callable[[Total, EnvState, Transition, jax.Array], tuple[Total, Output]],
) -> tuple[Total, Output]:
    """Plays episodes.

    Args:
        start: number of episodes -> initial value of the quantity that is accumulated over steps.
        accumulate: (total, environments before the step, transition, whether it belongs to the
            episode [N]) -> total, output of the step. Only outputs are stacked: without jit,
            unused ones would be stored as well.

    Returns:
        the last total, and the outputs with leading axis [max_steps].
    """
    check_key(key)
    validate(config)
    check_one_seed(state)
    episodes = whole_number("episodes", episodes, at_least=1)
    env = envs.bind(config.env, config.env_params)
    if max_steps is None:
        max_steps = env.max_steps
        if max_steps is None or isinstance(max_steps, jax.core.Tracer):
            raise ConfigError(
                f"the time limit of {env.name} is not known before compilation: pass max_steps"
            )
    max_steps = whole_number("max_steps", max_steps, at_least=1)
    own = callable(policy) and not isinstance(policy, Policy)
    chosen = policy(config, state) if own else None
    if not callable(chosen):
        raise ConfigError(
            "policy must be a function (config, state) -> policy, as prl.policy itself is, whose"
            " result is a function (key, obs) -> actions"
        )
    expected = jax.eval_shape(lambda key: env.to_env(env.random_action(key, episodes)), key)

    def choose(key: jax.Array, obs: jax.Array, carry: PyTree) -> tuple[jax.Array, PyTree]:
        own = chosen if isinstance(chosen, Policy) else None
        action, carry = own.step(key, obs, carry) if own else (chosen(key, obs), ())
        action = jnp.asarray(action)
        if jnp.promote_types(action.dtype, expected.dtype) == expected.dtype:
            action = action.astype(expected.dtype)  # such as bool -> int32, and int32 -> float32
        check_actions_like(expected, action, "the policy returned actions that are")
        return action, carry

    carry: PyTree = chosen.init_carry(episodes) if isinstance(chosen, Policy) else ()

    def body(
        loop: tuple[EnvState, PyTree, jax.Array, Total], key: jax.Array
    ) -> tuple[tuple[EnvState, PyTree, jax.Array, Total], Output]:
        env_state, carry, running, total = loop
        keys = jax.random.split(key, 1 + episodes)
        action, carry = choose(keys[0], env_state.obs, carry)
        after, transition, _ = env.step(keys[1:], env_state, action)
        total, output = accumulate(total, env_state, transition, running)
        return (after, carry, running & ~transition.last, total), output

    key_reset, key_steps = jax.random.split(key)
    loop = (env.reset(key_reset, episodes), carry, jnp.ones(episodes, bool), start(episodes))
    loop, outputs = jax.lax.scan(body, loop, jax.random.split(key_steps, max_steps))
    return loop[-1], outputs
