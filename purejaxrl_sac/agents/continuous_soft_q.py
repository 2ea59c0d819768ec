"""Soft Q-learning with deep energy-based policies (Haarnoja et al. 2017, arXiv 1702.08165).

Maximum entropy reinforcement learning without an actor: the policy is an energy-based model whose
energy is -Q (post, section 4.1.1),

    pi(a|s) = exp((Q(s, a) - V(s)) / alpha),    V(s) = alpha log integral exp(Q(s, a) / alpha) da

Where actions are discrete, V is a sum, and `dqn.soft_dqn` is the whole algorithm. Here they are
continuous: V is estimated from uniform actions, and a sampling network a = tanh(f(xi; s)),
xi ~ N(0, I), learns to draw from pi by following the direction of Stein variational gradient
descent. The policy may have any number of modes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_sac.agents.common import Layers, dimension_of_actions
from purejaxrl_sac.agents.off_policy import (
    ReplayConfig,
    Targets,
    encoded,
    replay_storage,
    uniform_replay,
)
from purejaxrl_sac.config import static, traced
from purejaxrl_sac.contracts import checks_parts
from purejaxrl_sac.losses import soft, td
from purejaxrl_sac.networks.continuous import Critics, Sampler, critic_torso
from purejaxrl_sac.networks.torsos import features, torso
from purejaxrl_sac.optimize import Learned, decaying_adam, gradient_step, start, update_target
from purejaxrl_sac.types import (
    Agent,
    Algorithm,
    Env,
    LossOutput,
    MakeActor,
    MakeCritics,
    MakeMemory,
    MakeOptimizer,
    MakeStorage,
    Memory,
    Metrics,
    Network,
    PyTree,
    Sample,
    Transition,
    memoryless,
)


class ContinuousSoftQState(NamedTuple):
    sampler: Learned  # phi
    critic: Learned  # theta
    target_params: PyTree  # theta-


class LossInputs(NamedTuple):
    """Inputs of a loss besides the parameters with respect to which it is differentiated."""

    config: ContinuousSoftQConfig
    sampler: Network
    critic: Network
    state: ContinuousSoftQState  # for the sampler's loss, with the critic's new parameters
    batch: Transition  # [B]; `obs` and `next_obs` are features
    weight: jax.Array  # [B], or a scalar
    key: jax.Array


def many_q(critic: Network, params: PyTree, obs: jax.Array, action: jax.Array) -> jax.Array:
    """Q(s, a) of several actions, [B, K, D] to [B, K]."""
    repeated = jnp.repeat(obs, action.shape[1], axis=0)
    q = critic.apply(params, repeated, action.reshape(-1, action.shape[-1]))
    return q.reshape(action.shape[:2])


def draw(
    sampler: Network, key: jax.Array, params: PyTree, obs: jax.Array, shape: tuple[int, int]
) -> jax.Array:
    """Actions before tanh, [B, K, D], for shape (K, D)."""
    repeated = jnp.repeat(obs, shape[0], axis=0)
    noise = jax.random.normal(key, (repeated.shape[0], shape[1]), jnp.float32)
    return sampler.apply(params, repeated, noise).reshape(obs.shape[0], *shape)


def critic_loss(params: PyTree, inputs: LossInputs) -> LossOutput:
    """E[(Q(s, a) - r - gamma d V-(s'))^2 / 2], V- from uniform actions; |TD error| as priority."""
    config, _, critic, state, batch, weight, key = inputs
    action_dim = batch.action.shape[-1]
    shape = (len(batch.action), config.num_actions, action_dim)
    uniform = jax.random.uniform(key, shape, jnp.float32, -1, 1)
    next_q = many_q(critic, state.target_params, batch.next_obs, uniform)
    log_density = -action_dim * jnp.log(2.0)
    next_value = soft.importance_soft_value(next_q, log_density, config.alpha)
    target = td.td_target(batch.reward, batch.discount, config.gamma, next_value)
    q = critic.apply(params, batch.obs, batch.action)
    loss = (weight * soft.soft_critic(q, target)).mean()
    metrics = {"critic_loss": loss, "q": q.mean(), "soft_value": next_value.mean()}
    return loss, (jnp.abs(target - q).mean(0), metrics)


def sampler_loss(params: PyTree, inputs: LossInputs) -> tuple[jax.Array, Metrics]:
    """A loss whose gradient moves the sampler's actions along SVGD's direction (equation 14)."""
    config, sampler, critic, state, batch, _, key = inputs
    shape = (config.num_particles, batch.action.shape[-1])
    u = draw(sampler, key, params, batch.obs, shape)
    particles = jax.lax.stop_gradient(u)

    def log_density(u: jax.Array) -> jax.Array:
        """log pi of actions before tanh, up to a constant, summed over all of them."""
        q = many_q(critic, state.critic.params, batch.obs, jnp.tanh(u))
        log_slope = 2 * (jnp.log(2.0) - u - jax.nn.softplus(-2 * u))  # log(1 - tanh(u)^2)
        return q.sum() / config.alpha + log_slope.sum()

    direction = jax.vmap(soft.svgd_direction)(particles, jax.grad(log_density)(particles))
    return -(u * direction).sum((1, 2)).mean() / config.num_particles, {}


def sampling_network(config: Layers, space: Any, action_dim: int) -> Sampler:
    """f: an MLP."""
    return Sampler(torso(space, config.hidden_sizes, config.activation), action_dim)


def one_critic(config: Layers, space: Any) -> Critics:
    """A single MLP."""
    return Critics(critic_torso(space, config.hidden_sizes, config.activation), 1)


@checks_parts
def continuous_soft_q(
    config: ContinuousSoftQConfig,
    env: Env,
    *,
    sampler: MakeActor = sampling_network,
    critics: MakeCritics = one_critic,
    sampler_optimizer: MakeOptimizer = decaying_adam,
    critic_optimizer: MakeOptimizer = decaying_adam,
    storage: MakeStorage = replay_storage,
    memory: MakeMemory = uniform_replay,
) -> tuple[Agent, Memory]:
    """Soft Q-learning for continuous actions; `policy` is stochastic, as the method is.

    Actions are in canonical units, [-1, 1] per dimension, and so are all volumes.

    Args:
        critics: an ensemble of one.

    Raises:
        ConfigError: the environment's actions are discrete.
    """
    space = env.observation_space
    action_dim, encode = dimension_of_actions("soft Q-learning", env, "soft_dqn"), features(space)
    sampler_net, critic = sampler(config, space, action_dim), critics(config, space)
    optimize_sampler, optimize_critic = sampler_optimizer(config), critic_optimizer(config)

    def init(key: jax.Array, obs: jax.Array) -> ContinuousSoftQState:
        key_sampler, key_critic = jax.random.split(key)
        action = jnp.zeros((obs.shape[0], action_dim), jnp.float32)
        sampler_params = sampler_net.init(key_sampler, encode(obs), action)
        critic_params = critic.init(key_critic, encode(obs), action)
        return ContinuousSoftQState(
            sampler=start(optimize_sampler, sampler_params),
            critic=start(optimize_critic, critic_params),
            target_params=jax.tree.map(jnp.copy, critic_params),
        )

    def q_values(state: ContinuousSoftQState, obs: jax.Array, action: jax.Array) -> jax.Array:
        return critic.apply(state.critic.params, encode(obs), action).squeeze(0)

    def policy(key: jax.Array, state: ContinuousSoftQState, obs: jax.Array) -> jax.Array:
        u = draw(sampler_net, key, state.sampler.params, encode(obs), (1, action_dim))
        return jnp.tanh(u).squeeze(1)

    def act(
        key: jax.Array, state: ContinuousSoftQState, obs: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        return policy(key, state, obs), ()

    def update(
        key: jax.Array, state: ContinuousSoftQState, sample: Sample, count: jax.Array
    ) -> tuple[ContinuousSoftQState, jax.Array, Metrics]:
        key_value, key_sampler = jax.random.split(key)
        batch = encoded(sample.transition, encode)
        inputs = LossInputs(config, sampler_net, critic, state, batch, sample.weight, key_value)
        new_critic, _, (priority, metrics) = gradient_step(
            optimize_critic, state.critic, critic_loss, inputs
        )
        after = inputs._replace(state=state._replace(critic=new_critic), key=key_sampler)
        new_sampler, _, _ = gradient_step(optimize_sampler, state.sampler, sampler_loss, after)
        target_params = update_target(
            new_critic.params, state.target_params, config.tau, config.target_period, count
        )
        return ContinuousSoftQState(new_sampler, new_critic, target_params), priority, metrics

    agent = memoryless(init, act, policy, update, q_values)
    return agent, memory(config, storage(config, env))


class ContinuousSoftQConfig(ReplayConfig, Layers, Targets):
    """Configuration of soft Q-learning for continuous actions."""

    algorithm: Algorithm = static(continuous_soft_q)
    env: Any = static("multi_goal")
    """Environment: a name, or any gymnax `Environment` object."""
    total_steps: int = static(20_000)
    """Environment steps over all parallel environments, warm-up included."""
    num_envs: int = static(4)
    """Parallel environments per seed."""
    num_updates: int = static(4)
    """Gradient updates in each learning phase."""
    batch_size: int = static(64)
    """Transitions per gradient update."""
    capacity: int = static(20_000)
    """Transitions the replay memory stores; a multiple of num_envs x rollout_length."""
    num_particles: int = static(16, at_least=1)
    """Actions per state that the sampler is trained with."""
    num_actions: int = static(32, at_least=1)
    """Uniform actions per state that the soft value is estimated from."""
    alpha: float = traced(10.0, above=0)
    """Temperature."""
