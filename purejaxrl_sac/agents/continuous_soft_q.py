"""Soft Q-learning with deep energy-based policies (Haarnoja et al. 2017, arXiv 1702.08165).

Maximum entropy reinforcement learning without an actor: the policy is an energy-based model, the
energy being -Q (post, section 4.1.1),

    pi(a|s) = exp((Q(s, a) - V(s)) / alpha),    V(s) = alpha log integral exp(Q(s, a) / alpha) da

Where actions are discrete, V is a sum and `soft_dqn` all there is to it. Where they are
continuous, V is estimated from uniform actions, and a sampling network a = tanh(f(xi; s)),
xi ~ N(0, I), learns to draw from pi: it follows the direction in which Stein variational
gradient descent would move its own samples. The policy may have any number of modes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from purejaxrl_sac import envs, losses, networks
from purejaxrl_sac.agents import dqn as parts
from purejaxrl_sac.config import Config, ConfigError, static
from purejaxrl_sac.memory import uniform
from purejaxrl_sac.memory.storage import ring
from purejaxrl_sac.optimize import adam, apply_gradients, update_target
from purejaxrl_sac.types import Agent, Memory, PyTree, Sample

soft_dqn = partial(parts.dqn, bootstrap=parts.soft, explore=parts.boltzmann)


@struct.dataclass
class SoftDQNConfig(parts.Soft, parts.Scalar):
    """Configuration of soft DQN: it explores by its own soft policy."""

    algorithm: Callable = static(soft_dqn)


class ContinuousSoftQState(NamedTuple):
    sampler_params: PyTree  # phi
    critic_params: PyTree  # theta
    target_params: PyTree  # theta-
    sampler_opt_state: PyTree
    critic_opt_state: PyTree


def continuous_soft_q(config: ContinuousSoftQConfig) -> tuple[Agent, Memory]:
    """Soft Q-learning for continuous actions; `policy` is stochastic, as the method is.

    Actions are in canonical units, [-1, 1] per dimension, of which all volumes are.

    Raises:
        ConfigError: the environment's actions are discrete.
    """
    env = envs.bind(config.env, config.env_params)
    if env.action_dim is None:
        raise ConfigError(
            f"soft_q needs continuous actions, but {env.name} has discrete: use soft_dqn"
        )
    features = networks.features(env.observation_space)
    sizes = (env.observation_space, config.hidden_sizes, config.activation)
    sampler = networks.Sampler(networks.torso(*sizes), env.action_dim)
    critic = networks.Critics(networks.critic_torso(*sizes), 1)
    optimizer = adam(config.learning_rate, config.max_grad_norm)
    log_volume = env.action_dim * jnp.log(2.0)

    def init(key: jax.Array, obs: jax.Array) -> ContinuousSoftQState:
        key_sampler, key_critic = jax.random.split(key)
        action = jnp.zeros((obs.shape[0], env.action_dim))
        sampler_params = sampler.init(key_sampler, features(obs), action)
        critic_params = critic.init(key_critic, features(obs), action)
        return ContinuousSoftQState(
            sampler_params=sampler_params,
            critic_params=critic_params,
            target_params=jax.tree.map(jnp.copy, critic_params),
            sampler_opt_state=optimizer.init(sampler_params),
            critic_opt_state=optimizer.init(critic_params),
        )

    def q_values(state: ContinuousSoftQState, obs: jax.Array, action: jax.Array) -> jax.Array:
        return critic.apply(state.critic_params, features(obs), action).squeeze(0)

    def many_q(params: PyTree, obs: jax.Array, action: jax.Array) -> jax.Array:
        """Q(s, a) of several actions, [B, K, action_dim] to [B, K]."""
        many = jnp.repeat(obs, action.shape[1], axis=0)
        q = critic.apply(params, many, action.reshape(-1, env.action_dim))
        return q.reshape(action.shape[:2])

    def draw(key: jax.Array, params: PyTree, obs: jax.Array, size: int) -> jax.Array:
        """Actions before tanh, [B, size, action_dim]."""
        many = jnp.repeat(obs, size, axis=0)
        noise = jax.random.normal(key, (many.shape[0], env.action_dim))
        return sampler.apply(params, many, noise).reshape(obs.shape[0], size, env.action_dim)

    def policy(key: jax.Array, state: ContinuousSoftQState, obs: jax.Array) -> jax.Array:
        return jnp.tanh(draw(key, state.sampler_params, features(obs), 1)).squeeze(1)

    def act(key: jax.Array, state: ContinuousSoftQState, obs: jax.Array, step: jax.Array) -> tuple:
        return policy(key, state, obs), ()

    def update(
        key: jax.Array, state: ContinuousSoftQState, sample: Sample, count: jax.Array
    ) -> tuple:
        key_value, key_sampler = jax.random.split(key)
        batch = sample.transition
        obs, next_obs = features(batch.obs), features(batch.next_obs)

        uniform_actions = jax.random.uniform(
            key_value, (obs.shape[0], config.num_actions, env.action_dim), minval=-1, maxval=1
        )
        next_q = many_q(state.target_params, next_obs, uniform_actions)
        next_value = losses.importance_soft_value(next_q, -log_volume, config.alpha)
        target = losses.td_target(batch.reward, batch.discount, config.gamma, next_value)

        def critic_loss(params: PyTree) -> tuple[jax.Array, jax.Array]:
            q = critic.apply(params, obs, batch.action)
            return (sample.weight * losses.soft_critic(q, target)).mean(), q

        (j_q, q), grads = jax.value_and_grad(critic_loss, has_aux=True)(state.critic_params)
        critic_params, critic_opt_state = apply_gradients(
            optimizer, grads, state.critic_opt_state, state.critic_params
        )

        def log_density(u: jax.Array) -> jax.Array:
            """log pi of actions before tanh, up to a constant, summed over all of them."""
            q = many_q(critic_params, obs, jnp.tanh(u))
            log_slope = 2 * (jnp.log(2.0) - u - jax.nn.softplus(-2 * u))  # log(1 - tanh(u)^2)
            return q.sum() / config.alpha + log_slope.sum()

        def sampler_loss(params: PyTree) -> jax.Array:
            u = draw(key_sampler, params, obs, config.num_particles)
            fixed = jax.lax.stop_gradient(u)
            uphill = jax.vmap(losses.svgd_direction)(fixed, jax.grad(log_density)(fixed))
            return -(u * uphill).sum((1, 2)).mean() / config.num_particles

        grads = jax.grad(sampler_loss)(state.sampler_params)
        sampler_params, sampler_opt_state = apply_gradients(
            optimizer, grads, state.sampler_opt_state, state.sampler_params
        )

        target_params = update_target(
            critic_params, state.target_params, config.tau, config.target_period, count
        )
        metrics = {"critic_loss": j_q, "q": q.mean(), "soft_value": next_value.mean()}
        state = ContinuousSoftQState(
            sampler_params, critic_params, target_params, sampler_opt_state, critic_opt_state
        )
        return state, jnp.abs(target - q).mean(0), metrics

    memory = uniform(ring(config.capacity, config.num_envs), config.batch_size)
    return Agent(init, act, policy, update, q_values), memory


@struct.dataclass
class ContinuousSoftQConfig(Config):
    """Configuration of soft Q-learning for continuous actions."""

    algorithm: Callable = static(continuous_soft_q)
    env: Any = static("multi_goal")
    """Environment: a name, or any gymnax `Environment` object."""
    total_steps: int = static(20_000)
    """Environment steps over all parallel environments, warm-up included."""
    num_envs: int = static(4)
    """Parallel environments per seed."""
    num_updates: int = static(4)
    """Gradient updates in each learning phase."""
    warmup_steps: int = static(1_000)
    """Environment steps of uniformly random actions before learning begins."""
    batch_size: int = static(64)
    """Transitions per gradient update."""
    capacity: int = static(20_000)
    """Transitions the replay memory keeps; a multiple of num_envs x rollout_length."""
    hidden_sizes: tuple[int, ...] = static((64, 64))
    """Units of each hidden layer, in the sampler and in the critic."""
    num_particles: int = static(16)
    """Actions per state that the sampler is trained with."""
    num_actions: int = static(32)
    """Uniform actions per state that the soft value is estimated from."""
    activation: str = static("relu")
    """Activation function, by its name in flax.linen."""
    learning_rate: float = 1e-3
    """Step size of Adam, for the sampler and the critic."""
    gamma: float = 0.99
    """Discount factor."""
    tau: float = 0.005
    """Share of theta that the target critic takes over at each target update."""
    target_period: int = 1
    """Gradient updates between two target updates."""
    alpha: float = 10.0
    """Temperature."""
    max_grad_norm: float = float("inf")
    """Global norm that gradients are clipped to, for the sampler and for the critic."""
