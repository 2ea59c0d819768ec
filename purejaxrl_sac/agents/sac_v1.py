"""The first SAC (Haarnoja et al. 2018, arXiv 1801.01290): a value network, a fixed temperature.

    J_V  = E [ (V(s) - (min_i Q_i(s, a) - alpha log pi(a|s)))^2 / 2 ],   a ~ pi(.|s)
    J_Q  = E [ sum_i (Q_i(s, a) - (r + gamma V-(s')))^2 / 2 ]
    J_pi = E [ alpha log pi(f(eps; s)|s) - min_i Q_i(s, f(eps; s)) ]
    V-   = tau V + (1 - tau) V-

The paper's reward scale is 1 / alpha.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from purejaxrl_sac import losses, networks
from purejaxrl_sac.agents.dqn import replay_storage, uniform_replay
from purejaxrl_sac.agents.sac import Layers, Targets, continuous, gaussian_actor, twin_critics
from purejaxrl_sac.config import static
from purejaxrl_sac.distributions import squashed_gaussian
from purejaxrl_sac.optimize import adam, apply_gradients, linear_decay, update_target
from purejaxrl_sac.types import Agent, Memory, PyTree, Sample


class SACv1State(NamedTuple):
    actor_params: PyTree  # phi
    critic_params: PyTree  # theta_i, leading axis [2]
    value_params: PyTree  # psi
    target_params: PyTree  # psi-
    actor_opt_state: PyTree
    critic_opt_state: PyTree
    value_opt_state: PyTree


def sac_v1(
    config: SACv1Config, *, storage: Callable = replay_storage, memory: Callable = uniform_replay
) -> tuple[Agent, Memory]:
    """SAC as first published; parts as those of `sac`.

    Raises:
        ConfigError: the environment's actions are discrete.
    """
    env = continuous("SAC", config)
    space, features = env.observation_space, networks.features(env.observation_space)
    actor, critic = gaussian_actor(config, space, env.action_dim), twin_critics(config, space)
    value = networks.Head(networks.torso(space, config.hidden_sizes, config.activation), 1)
    optimizer = adam(linear_decay(config), config.max_grad_norm)

    def init(key: jax.Array, obs: jax.Array) -> SACv1State:
        key_actor, key_critic, key_value = jax.random.split(key, 3)
        action = jnp.zeros((obs.shape[0], env.action_dim))
        actor_params = actor.init(key_actor, features(obs))
        critic_params = critic.init(key_critic, features(obs), action)
        value_params = value.init(key_value, features(obs))
        return SACv1State(
            actor_params=actor_params,
            critic_params=critic_params,
            value_params=value_params,
            target_params=jax.tree.map(jnp.copy, value_params),
            actor_opt_state=optimizer.init(actor_params),
            critic_opt_state=optimizer.init(critic_params),
            value_opt_state=optimizer.init(value_params),
        )

    def sample_action(key: jax.Array, params: PyTree, obs: jax.Array) -> tuple:
        return squashed_gaussian(*actor.apply(params, obs)).sample_and_log_prob(seed=key)

    def act(key: jax.Array, state: SACv1State, obs: jax.Array, step: jax.Array) -> tuple:
        action, _ = sample_action(key, state.actor_params, features(obs))
        return action, ()

    def policy(key: jax.Array, state: SACv1State, obs: jax.Array) -> jax.Array:
        mean, _ = actor.apply(state.actor_params, features(obs))
        return jnp.tanh(mean)

    def q_values(state: SACv1State, obs: jax.Array, action: jax.Array) -> jax.Array:
        """What the actor climbs, [B]."""
        return critic.apply(state.critic_params, features(obs), action).min(0)

    def update(key: jax.Array, state: SACv1State, sample: Sample, count: jax.Array) -> tuple:
        batch = sample.transition
        obs, next_obs = features(batch.obs), features(batch.next_obs)
        next_value = value.apply(state.target_params, next_obs).squeeze(-1)
        target = losses.td_target(batch.reward, batch.discount, config.gamma, next_value)

        def critic_loss(params: PyTree) -> tuple[jax.Array, jax.Array]:
            q = critic.apply(params, obs, batch.action)
            return (sample.weight * losses.soft_critic(q, target)).mean(), q

        def actor_loss(params: PyTree) -> tuple[jax.Array, tuple]:
            action, log_prob = sample_action(key, params, obs)
            soft_value = losses.soft_value(
                critic.apply(state.critic_params, obs, action), log_prob, config.alpha
            )
            return -soft_value.mean(), (soft_value, log_prob)

        (j_pi, (soft_value, log_prob)), actor_grads = jax.value_and_grad(actor_loss, has_aux=True)(
            state.actor_params
        )

        def value_loss(params: PyTree) -> jax.Array:
            error = value.apply(params, obs).squeeze(-1) - jax.lax.stop_gradient(soft_value)
            return 0.5 * (sample.weight * jnp.square(error)).mean()

        (j_q, q), critic_grads = jax.value_and_grad(critic_loss, has_aux=True)(state.critic_params)
        j_v, value_grads = jax.value_and_grad(value_loss)(state.value_params)

        def step(grads: PyTree, opt_state: PyTree, params: PyTree) -> tuple:
            return apply_gradients(optimizer, grads, opt_state, params)

        actor_params, actor_opt_state = step(actor_grads, state.actor_opt_state, state.actor_params)
        critic_params, critic_opt_state = step(
            critic_grads, state.critic_opt_state, state.critic_params
        )
        value_params, value_opt_state = step(value_grads, state.value_opt_state, state.value_params)
        target_params = update_target(
            value_params, state.target_params, config.tau, config.target_period, count
        )
        metrics = {
            "critic_loss": j_q,
            "actor_loss": j_pi,
            "value_loss": j_v,
            "q": q.mean(),
            "entropy": -log_prob.mean(),
        }
        state = SACv1State(
            actor_params=actor_params,
            critic_params=critic_params,
            value_params=value_params,
            target_params=target_params,
            actor_opt_state=actor_opt_state,
            critic_opt_state=critic_opt_state,
            value_opt_state=value_opt_state,
        )
        return state, jnp.abs(target - q).mean(0), metrics

    return Agent(init, act, policy, update, q_values), memory(config, storage(config))


@struct.dataclass
class SACv1Config(Layers, Targets):
    """Configuration of the first SAC."""

    algorithm: Callable = static(sac_v1)
    alpha: float = 0.2
    """Temperature, 1 / the paper's reward scale."""
