"""Soft Actor-Critic (Haarnoja et al. 2018, arXiv 1812.05905; post, section 4).

Critics Q_i (one ensemble, twins unless said otherwise), a squashed Gaussian actor pi and a
temperature alpha:

    y       = r + gamma (min_j Q-_j(s', a') - alpha log pi(a'|s')),  a' ~ pi(.|s')
    J_Q     = E [ sum_i (Q_i(s, a) - y)^2 / 2 ]                                        (4.19)
    J_pi    = E [ alpha log pi(f(eps; s)|s) - min_i Q_i(s, f(eps; s)) ]                (4.23)
    J_alpha = E [ -alpha (log pi(a|s) + H) ]                                           (4.3.2)
    Q-      = tau Q + (1 - tau) Q-

Each minimises its own objective by Adam, in this order: the actor sees the critics' new
parameters, the temperature the actions that the actor drew before its step. The temperature is
learned through log alpha, which keeps it positive; a fixed temperature is
`alpha_learning_rate=0`.

Every part is a function, and the family (`agents.sac_family`) expressions of such parts:

    actor        (config, space, action_dim) -> mean, log std       gaussian_actor
    critics      (config, space) -> [E, B] or [E, B, K]             twin_critics
    critique     config -> Critique: what critics' outputs mean     minimum
    optimizer    (config, delay) -> optax                           usual_optimizer
    storage      config -> Storage                                  dqn.replay_storage
    memory       (config, Storage) -> Memory                        dqn.uniform_replay
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from purejaxrl_sac import envs, losses, networks
from purejaxrl_sac.agents.dqn import replay_storage, uniform_replay
from purejaxrl_sac.config import Config, ConfigError, static
from purejaxrl_sac.distributions import squashed_gaussian
from purejaxrl_sac.optimize import (
    adam,
    apply_gradients,
    delayed_update,
    is_due,
    linear_decay,
    update_target,
)
from purejaxrl_sac.types import Agent, Memory, PyTree, Sample


class SACState(NamedTuple):
    actor_params: PyTree  # phi
    critic_params: PyTree  # theta_i, leading axis [E]
    target_params: PyTree  # theta-_i, leading axis [E]
    log_alpha: jax.Array  # scalar
    actor_opt_state: PyTree
    critic_opt_state: PyTree
    alpha_opt_state: PyTree


class Critique(NamedTuple):
    """What the outputs of an ensemble of critics mean; K is 1 unless returns have distributions."""

    next_return: Callable  # (key, Q-(s', a')) -> the returns from s' on, [B, K]
    loss: Callable  # (Q(s, a), target [B, K]) -> per row, summed over critics, [B]
    value: Callable  # Q(s, a) -> what the actor climbs, [B]


def minimum(config: Config) -> Critique:
    """The least of all critics, in targets and for the actor (post, 4.3.1)."""
    return Critique(
        next_return=lambda key, q: q.min(0)[:, None],
        loss=lambda q, target: losses.soft_critic(q, target.squeeze(-1)),
        value=lambda q: q.min(0),
    )


def gaussian_actor(config: Layers, space: Any, action_dim: int) -> networks.GaussianActor:
    """An MLP for mean and log standard deviation."""
    torso = networks.torso(space, config.hidden_sizes, config.activation)
    return networks.GaussianActor(torso, action_dim)


def twin_critics(config: Layers, space: Any) -> networks.Critics:
    """Two independent MLPs."""
    return networks.Critics(networks.critic_torso(space, config.hidden_sizes, config.activation), 2)


def usual_optimizer(config: OffPolicyConfig, delay: int) -> optax.GradientTransformation:
    """Adam on gradients of a limited norm."""
    return adam(linear_decay(config, delay), config.max_grad_norm)


def continuous(algorithm: str, config: Config) -> envs.Env:
    """The environment of an algorithm for continuous actions.

    Raises:
        ConfigError: its actions are discrete.
    """
    env = envs.bind(config.env, config.env_params)
    if env.action_dim is None:
        raise ConfigError(
            f"{algorithm} needs continuous actions, but {env.name} has discrete: use discrete_sac"
            " or dqn"
        )
    return env


def sac(
    config: SACConfig,
    *,
    actor: Callable = gaussian_actor,
    critics: Callable = twin_critics,
    critique: Callable = minimum,
    optimizer: Callable = usual_optimizer,
    storage: Callable = replay_storage,
    memory: Callable = uniform_replay,
) -> tuple[Agent, Memory]:
    """SAC with an automatic or fixed temperature, out of the parts above.

    Actions and their log-probabilities are in canonical units, [-1, 1] per dimension, and so is
    the target entropy: the same one serves any bounds. In the environment's units, where
    b = low + (a + 1) (high - low) / 2, it is log pi(b|s) = log pi(a|s) - sum_d log((high_d -
    low_d) / 2), and entropies are larger by that sum.

    Raises:
        ConfigError: the environment's actions are discrete.
    """
    env = continuous("SAC", config)
    space, features = env.observation_space, networks.features(env.observation_space)
    actor, critic = actor(config, space, env.action_dim), critics(config, space)
    meaning, delay = critique(config), config.policy_delay
    critic_optimizer, actor_optimizer = optimizer(config, 1), optimizer(config, delay)
    alpha_optimizer = adam(config.alpha_learning_rate)
    target_entropy = config.target_entropy_per_dim * env.action_dim

    def init(key: jax.Array, obs: jax.Array) -> SACState:
        key_actor, key_critic = jax.random.split(key)
        actor_params = actor.init(key_actor, features(obs))
        action = jnp.zeros((obs.shape[0], env.action_dim))
        critic_params = critic.init(key_critic, features(obs), action)
        log_alpha = jnp.log(jnp.float32(config.alpha))
        return SACState(
            actor_params=actor_params,
            critic_params=critic_params,
            target_params=jax.tree.map(jnp.copy, critic_params),
            log_alpha=log_alpha,
            actor_opt_state=actor_optimizer.init(actor_params),
            critic_opt_state=critic_optimizer.init(critic_params),
            alpha_opt_state=alpha_optimizer.init(log_alpha),
        )

    def sample_action(key: jax.Array, params: PyTree, obs: jax.Array) -> tuple:
        return squashed_gaussian(*actor.apply(params, obs)).sample_and_log_prob(seed=key)

    def act(key: jax.Array, state: SACState, obs: jax.Array, step: jax.Array) -> tuple:
        action, _ = sample_action(key, state.actor_params, features(obs))
        return action, ()

    def policy(key: jax.Array, state: SACState, obs: jax.Array) -> jax.Array:
        mean, _ = actor.apply(state.actor_params, features(obs))
        return jnp.tanh(mean)

    def q_values(state: SACState, obs: jax.Array, action: jax.Array) -> jax.Array:
        """What the actor climbs, [B]."""
        return meaning.value(critic.apply(state.critic_params, features(obs), action))

    def update(key: jax.Array, state: SACState, sample: Sample, count: jax.Array) -> tuple:
        keys = jax.random.split(key, 6)
        key_next, key_actor, key_subset, *keys_dropout = keys
        dropout = [{"dropout": key} for key in keys_dropout]
        batch = sample.transition
        obs, next_obs = features(batch.obs), features(batch.next_obs)
        alpha = jnp.exp(state.log_alpha)

        next_action, next_log_prob = sample_action(key_next, state.actor_params, next_obs)
        next_q = critic.apply(state.target_params, next_obs, next_action, rngs=dropout[0])
        following = meaning.next_return(key_subset, next_q) - alpha * next_log_prob[:, None]
        backup = partial(losses.td_target, batch.reward, batch.discount, config.gamma)
        target = jax.vmap(backup, 1, 1)(following)  # [B, K]

        def critic_loss(params: PyTree) -> tuple[jax.Array, jax.Array]:
            q = critic.apply(params, obs, batch.action, rngs=dropout[1])
            return (sample.weight * meaning.loss(q, target)).mean(), meaning.value(q)

        (j_q, q), grads = jax.value_and_grad(critic_loss, has_aux=True)(state.critic_params)
        critic_params, critic_opt_state = apply_gradients(
            critic_optimizer, grads, state.critic_opt_state, state.critic_params
        )
        target_params = update_target(
            critic_params, state.target_params, config.tau, config.target_period, count
        )

        def actor_loss(params: PyTree) -> tuple[jax.Array, jax.Array]:
            action, log_prob = sample_action(key_actor, params, obs)
            q = critic.apply(critic_params, obs, action, rngs=dropout[2])
            return (alpha * log_prob - meaning.value(q)).mean(), log_prob

        def temperature_loss(log_alpha: jax.Array, log_prob: jax.Array) -> jax.Array:
            return losses.temperature(jnp.exp(log_alpha), log_prob, target_entropy).mean()

        def actor_and_temperature() -> tuple[tuple, dict]:
            (j_pi, log_prob), grads = jax.value_and_grad(actor_loss, has_aux=True)(
                state.actor_params
            )
            alpha_grad = jax.grad(temperature_loss)(state.log_alpha, log_prob)
            return (grads, alpha_grad), {"actor_loss": j_pi, "entropy": -log_prob.mean()}

        due = is_due(delay, count)
        (grads, alpha_grad), metrics = delayed_update(delay, due, actor_and_temperature)
        actor_params, actor_opt_state = apply_gradients(
            actor_optimizer, grads, state.actor_opt_state, state.actor_params, due=due
        )
        log_alpha, alpha_opt_state = apply_gradients(
            alpha_optimizer, alpha_grad, state.alpha_opt_state, state.log_alpha, due=due
        )
        state = SACState(
            actor_params=actor_params,
            critic_params=critic_params,
            target_params=target_params,
            log_alpha=log_alpha,
            actor_opt_state=actor_opt_state,
            critic_opt_state=critic_opt_state,
            alpha_opt_state=alpha_opt_state,
        )
        metrics = {"critic_loss": j_q, "q": q.mean(), "alpha": alpha, **metrics}
        return state, jnp.abs(target.mean(-1) - q), metrics

    return Agent(init, act, policy, update, q_values), memory(config, storage(config))


@struct.dataclass
class OffPolicyConfig(Config):
    """What SAC and its relatives share. Parts that need more have classes with their fields."""

    env: Any = static("Pendulum-v1")
    """Environment: a name, or any gymnax `Environment` object."""
    total_steps: int = static(20_000)
    """Environment steps over all parallel environments, warm-up included."""
    warmup_steps: int = static(1_000)
    """Environment steps of uniformly random actions before learning begins."""
    batch_size: int = static(256)
    """Transitions per gradient update."""
    capacity: int = static(100_000)
    """Transitions the replay memory keeps; a multiple of num_envs x rollout_length."""
    learning_rate: float = 1e-3
    """Step size of Adam, for the actor and the critics."""
    learning_rate_end: float = 1.0
    """Share of the step size that is left at the end, after falling in a straight line."""
    gamma: float = 0.99
    """Discount factor."""
    max_grad_norm: float = float("inf")
    """Global norm that gradients are clipped to, for each network."""


@struct.dataclass
class Layers(OffPolicyConfig):
    """Fields of MLPs."""

    hidden_sizes: tuple[int, ...] = static((64, 64))
    """Units of each hidden layer, in the actor and in each critic."""
    activation: str = static("relu")
    """Activation function, by its name in flax.linen."""


@struct.dataclass
class Targets(OffPolicyConfig):
    """Fields of target networks."""

    tau: float = 0.005
    """Share of the learned parameters that the targets take over at each target update."""
    target_period: int = 1
    """Gradient updates between two target updates."""


@struct.dataclass
class Temperature(OffPolicyConfig):
    """Fields of a temperature that is learned, and of the actor that it is learned with."""

    policy_delay: int = static(1)
    """Updates of the critics for each one of the actor and the temperature."""
    alpha: float = 1.0
    """Temperature at the start (for ever, where alpha_learning_rate is 0)."""
    alpha_learning_rate: float = 1e-3
    """Step size of Adam for log alpha; 0 keeps the temperature fixed."""
    target_entropy_per_dim: float = -1.0
    """Entropy that the temperature aims at, in nats per action dimension of width 2."""


@struct.dataclass
class SACConfig(Layers, Targets, Temperature):
    """Configuration of Soft Actor-Critic."""

    algorithm: Callable = static(sac)
