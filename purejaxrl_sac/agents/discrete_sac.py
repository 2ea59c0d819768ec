"""SAC for discrete actions (Christodoulou 2019, arXiv 1910.07207): expectations are exact sums.

    V(s)    = sum_a pi(a|s) (min_i Q_i(s, a) - alpha log pi(a|s))                      (4.4)
    y       = r + gamma V-(s')
    J_pi    = E [ sum_a pi(a|s) (alpha log pi(a|s) - min_i Q_i(s, a)) ]
    J_alpha = E [ alpha (H(pi(.|s)) - H) ]

The target entropy H is a share of log A, the most there can be, and may fall over the run. The
usual 0.98 keeps the best of two actions below a probability of 0.58: tune it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from purejaxrl_sac import envs, exploration, losses, networks
from purejaxrl_sac.agents.dqn import ReplayConfig, replay_storage, uniform_replay
from purejaxrl_sac.config import ConfigError, static
from purejaxrl_sac.optimize import adam, apply_gradients, linear_decay, update_target
from purejaxrl_sac.types import Agent, Memory, PyTree, Sample


class DiscreteSACState(NamedTuple):
    actor_params: PyTree  # phi
    critic_params: PyTree  # theta_i, leading axis [2]
    target_params: PyTree  # theta-_i, leading axis [2]
    log_alpha: jax.Array  # scalar
    actor_opt_state: PyTree
    critic_opt_state: PyTree
    alpha_opt_state: PyTree


def discrete_sac(
    config: DiscreteSACConfig,
    *,
    network: Callable = networks.q_network,
    storage: Callable = replay_storage,
    memory: Callable = uniform_replay,
) -> tuple[Agent, Memory]:
    """SAC for discrete actions, with an automatic or fixed temperature.

    Args:
        network: of the actor and of each critic, as for `dqn`.

    Raises:
        ConfigError: the environment's actions are continuous.
    """
    env = envs.bind(config.env, config.env_params)
    if env.num_actions is None:
        raise ConfigError(
            f"discrete SAC needs discrete actions, but {env.name} has continuous: use sac"
        )
    features = networks.features(env.observation_space)
    actor = critic = network(config, env.observation_space, env.num_actions, 1)
    optimizer = adam(linear_decay(config), config.max_grad_norm)
    alpha_optimizer = adam(config.alpha_learning_rate)
    most = jnp.log(float(env.num_actions))

    def init(key: jax.Array, obs: jax.Array) -> DiscreteSACState:
        key_actor, key_critic = jax.random.split(key)
        actor_params = actor.init(key_actor, features(obs))
        twins = jax.vmap(critic.init, (0, None))(jax.random.split(key_critic), features(obs))
        log_alpha = jnp.log(jnp.float32(config.alpha))
        return DiscreteSACState(
            actor_params=actor_params,
            critic_params=twins,
            target_params=jax.tree.map(jnp.copy, twins),
            log_alpha=log_alpha,
            actor_opt_state=optimizer.init(actor_params),
            critic_opt_state=optimizer.init(twins),
            alpha_opt_state=alpha_optimizer.init(log_alpha),
        )

    def log_pi(params: PyTree, obs: jax.Array) -> jax.Array:
        """log pi(.|s), [B, A]."""
        return nn.log_softmax(actor.apply(params, obs).squeeze(-1))

    def twin_q(params: PyTree, obs: jax.Array) -> jax.Array:
        """Q_i(s, .), [2, B, A]."""
        return jax.vmap(critic.apply, (0, None))(params, obs).squeeze(-1)

    def q_values(state: DiscreteSACState, obs: jax.Array) -> jax.Array:
        return twin_q(state.critic_params, features(obs)).min(0)

    def act(key: jax.Array, state: DiscreteSACState, obs: jax.Array, step: jax.Array) -> tuple:
        pi = jnp.exp(log_pi(state.actor_params, features(obs)))
        return exploration.sample(key, pi), ()

    def policy(key: jax.Array, state: DiscreteSACState, obs: jax.Array) -> jax.Array:
        return log_pi(state.actor_params, features(obs)).argmax(-1).astype(jnp.int32)

    def update(key: jax.Array, state: DiscreteSACState, sample: Sample, count: jax.Array) -> tuple:
        batch = sample.transition
        obs, next_obs = features(batch.obs), features(batch.next_obs)
        alpha = jnp.exp(state.log_alpha)

        next_log_pi = log_pi(state.actor_params, next_obs)
        next_q = twin_q(state.target_params, next_obs).min(0)
        next_value = losses.discrete_soft_value(next_q, next_log_pi, alpha)
        target = losses.td_target(batch.reward, batch.discount, config.gamma, next_value)

        def critic_loss(params: PyTree) -> tuple[jax.Array, jax.Array]:
            chosen = partial(losses.select_action, action=batch.action)
            q = jax.vmap(chosen)(twin_q(params, obs))
            return (sample.weight * losses.soft_critic(q, target)).mean(), q

        (j_q, q), grads = jax.value_and_grad(critic_loss, has_aux=True)(state.critic_params)
        critic_params, critic_opt_state = apply_gradients(
            optimizer, grads, state.critic_opt_state, state.critic_params
        )
        least = twin_q(critic_params, obs).min(0)

        def actor_loss(params: PyTree) -> tuple[jax.Array, jax.Array]:
            log_probability = log_pi(params, obs)
            entropy = losses.entropy(jnp.exp(log_probability))
            return -losses.discrete_soft_value(least, log_probability, alpha).mean(), entropy

        (j_pi, entropy), grads = jax.value_and_grad(actor_loss, has_aux=True)(state.actor_params)
        actor_params, actor_opt_state = apply_gradients(
            optimizer, grads, state.actor_opt_state, state.actor_params
        )

        progress = config.step_at(count) * config.num_envs / config.total_steps
        ratio = exploration.linear_schedule(
            config.target_entropy_ratio, config.target_entropy_ratio_end, progress
        )

        def temperature_loss(log_alpha: jax.Array) -> jax.Array:
            return losses.temperature(jnp.exp(log_alpha), -entropy, ratio * most).mean()

        grads = jax.grad(temperature_loss)(state.log_alpha)
        log_alpha, alpha_opt_state = apply_gradients(
            alpha_optimizer, grads, state.alpha_opt_state, state.log_alpha
        )

        target_params = update_target(
            critic_params, state.target_params, config.tau, config.target_period, count
        )
        metrics = {
            "critic_loss": j_q,
            "actor_loss": j_pi,
            "q": q.mean(),
            "entropy": entropy.mean(),
            "alpha": alpha,
        }
        state = DiscreteSACState(
            actor_params=actor_params,
            critic_params=critic_params,
            target_params=target_params,
            log_alpha=log_alpha,
            actor_opt_state=actor_opt_state,
            critic_opt_state=critic_opt_state,
            alpha_opt_state=alpha_opt_state,
        )
        return state, jnp.abs(target - q).mean(0), metrics

    return Agent(init, act, policy, update, q_values), memory(config, storage(config))


@struct.dataclass
class DiscreteSACConfig(ReplayConfig):
    """Configuration of SAC for discrete actions."""

    algorithm: Callable = static(discrete_sac)
    tau: float = 0.005
    """Share of theta that theta- takes over at each target update; 1 copies it."""
    target_period: int = 1
    """Gradient updates between two target updates."""
    alpha: float = 1.0
    """Temperature at the start (for ever, where alpha_learning_rate is 0)."""
    alpha_learning_rate: float = 1e-3
    """Step size of Adam for log alpha; 0 keeps the temperature fixed."""
    target_entropy_ratio: float = 0.5
    """Entropy that the temperature aims at at first, as a share of log A."""
    target_entropy_ratio_end: float = 0.1
    """The same at the end of the run; in between it moves in a straight line."""
