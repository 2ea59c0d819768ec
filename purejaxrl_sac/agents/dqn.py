"""DQN and Double DQN (post, section 2).

The Q-network minimises the squared TD error (post, 2.6) against a delayed copy of itself,

    L(theta) = E_D [ w (Q(s, a; theta) - y)^2 / 2 ],    y = r + gamma V(s'; theta, theta-),

over a replay memory D. The algorithms differ in the bootstrap V alone: DQN (Mnih et al. 2015)
takes max_a' Q(s', a'; theta-), Double DQN (van Hasselt et al. 2016) evaluates by theta- the
action chosen by theta.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from purejaxrl_sac import envs, exploration, losses, networks
from purejaxrl_sac.config import Config, ConfigError, static
from purejaxrl_sac.memory import uniform
from purejaxrl_sac.optimize import adam, track
from purejaxrl_sac.types import Agent, Memory, PyTree, Sample


class DQNState(NamedTuple):
    params: PyTree  # theta
    target_params: PyTree  # theta-
    opt_state: PyTree


def dqn(config: DQNConfig, bootstrap: Callable = losses.max_bootstrap) -> tuple[Agent, Memory]:
    """DQN with experience replay and a target network.

    Args:
        bootstrap: (q_online [B, A], q_target [B, A]) at s' -> V(s') [B].

    Raises:
        ConfigError: the environment's actions are continuous.
    """
    env = envs.bind(config.env, config.env_params)
    if env.num_actions is None:
        raise ConfigError(f"DQN needs discrete actions, but {env.name} has continuous: use sac")
    features = networks.features(env.observation_space)
    torso = networks.torso(env.observation_space, config.hidden_sizes, config.activation)
    network = networks.Head(torso, env.num_actions)
    optimizer = adam(config.learning_rate, config.max_grad_norm)

    def init(key: jax.Array, obs: jax.Array) -> DQNState:
        params = network.init(key, features(obs))
        return DQNState(params, jax.tree.map(jnp.copy, params), optimizer.init(params))

    def q_values(state: DQNState, obs: jax.Array) -> jax.Array:
        return network.apply(state.params, features(obs))

    def act(key: jax.Array, state: DQNState, obs: jax.Array, step: jax.Array) -> tuple:
        epsilon = exploration.annealed_epsilon(config, step)
        pi = exploration.epsilon_greedy(q_values(state, obs), epsilon)
        return exploration.sample(key, pi), ()

    def policy(key: jax.Array, state: DQNState, obs: jax.Array) -> jax.Array:
        return q_values(state, obs).argmax(-1).astype(jnp.int32)

    def update(key: jax.Array, state: DQNState, sample: Sample, count: jax.Array) -> tuple:
        batch = sample.transition
        next_features = features(batch.next_obs)
        next_value = bootstrap(
            network.apply(state.params, next_features),
            network.apply(state.target_params, next_features),
        )
        target = losses.td_target(batch.reward, batch.discount, config.gamma, next_value)

        def loss(params: PyTree) -> tuple[jax.Array, tuple]:
            q = losses.select_action(network.apply(params, features(batch.obs)), batch.action)
            td_error = target - q
            loss = (sample.weight * losses.huber(td_error, config.huber_delta)).mean()
            return loss, (td_error, q.mean())

        (value, (td_error, q)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state)
        params = optax.apply_updates(state.params, updates)
        target_params = track(params, state.target_params, config.tau, config.target_period, count)
        metrics = {"loss": value, "q": q}
        return DQNState(params, target_params, opt_state), jnp.abs(td_error), metrics

    agent = Agent(init, act, policy, update, q_values)
    return agent, uniform(config.capacity, config.batch_size)


double_dqn = partial(dqn, bootstrap=losses.double_bootstrap)


@struct.dataclass
class DQNConfig(Config):
    """Configuration of DQN and its relatives."""

    algorithm: Callable = static(dqn)
    warmup_steps: int = static(1_000)
    """Environment steps of uniformly random actions before learning begins."""
    batch_size: int = static(128)
    """Transitions per gradient update."""
    capacity: int = static(10_000)
    """Transitions the replay memory keeps; a multiple of num_envs x rollout_length."""
    hidden_sizes: tuple[int, ...] = static((64, 64))
    """Units of each hidden layer."""
    activation: str = static("relu")
    """Activation function, by its name in flax.linen."""
    learning_rate: float = 1e-3
    """Step size of Adam."""
    gamma: float = 0.99
    """Discount factor."""
    tau: float = 1.0
    """Share of theta that theta- takes over at each target update; 1 copies it."""
    target_period: int = 100
    """Gradient updates between two target updates."""
    epsilon_start: float = 1.0
    """Probability of a random action at the first step."""
    epsilon_end: float = 0.05
    """Probability of a random action once the schedule has ended."""
    epsilon_fraction: float = 0.2
    """Share of total_steps over which epsilon falls, in a straight line."""
    huber_delta: float = float("inf")
    """Where the loss turns from squared to linear; inf is the squared loss."""
    max_grad_norm: float = float("inf")
    """Global norm that gradients are clipped to."""
