"""TD3 (Fujimoto et al. 2018, arXiv 1802.09477): the deterministic neighbour of SAC.

    y    = r + gamma min_j Q-_j(s', clip(mu-(s') + eps, -1, 1)),   eps ~ clip(N(0, sigma^2), +-c)
    J_Q  = E [ sum_i (Q_i(s, a) - y)^2 / 2 ]
    J_mu = -E [ Q_1(s, mu(s)) ],  every `policy_delay` updates, as are the targets

It has no entropy to explore by and adds noise to its actions instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from purejaxrl_sac import losses, networks
from purejaxrl_sac.agents.dqn import replay_storage, uniform_replay
from purejaxrl_sac.agents.sac import Layers, continuous, twin_critics
from purejaxrl_sac.config import static
from purejaxrl_sac.optimize import (
    adam,
    apply_gradients,
    delayed_update,
    is_due,
    linear_decay,
    update_target,
)
from purejaxrl_sac.types import Agent, Memory, PyTree, Sample


class TD3State(NamedTuple):
    actor_params: PyTree  # phi
    critic_params: PyTree  # theta_i, leading axis [2]
    target_actor_params: PyTree  # phi-
    target_critic_params: PyTree  # theta-_i, leading axis [2]
    actor_opt_state: PyTree
    critic_opt_state: PyTree


def td3(
    config: TD3Config,
    *,
    critics: Callable = twin_critics,
    storage: Callable = replay_storage,
    memory: Callable = uniform_replay,
) -> tuple[Agent, Memory]:
    """TD3; parts as those of `sac`.

    Raises:
        ConfigError: the environment's actions are discrete.
    """
    env = continuous("TD3", config)
    space, features = env.observation_space, networks.features(env.observation_space)
    torso = networks.torso(space, config.hidden_sizes, config.activation)
    actor, critic = networks.DeterministicActor(torso, env.action_dim), critics(config, space)
    delay = config.policy_delay
    critic_optimizer = adam(linear_decay(config), config.max_grad_norm)
    actor_optimizer = adam(linear_decay(config, delay), config.max_grad_norm)

    def init(key: jax.Array, obs: jax.Array) -> TD3State:
        key_actor, key_critic = jax.random.split(key)
        actor_params = actor.init(key_actor, features(obs))
        action = jnp.zeros((obs.shape[0], env.action_dim))
        critic_params = critic.init(key_critic, features(obs), action)
        return TD3State(
            actor_params=actor_params,
            critic_params=critic_params,
            target_actor_params=jax.tree.map(jnp.copy, actor_params),
            target_critic_params=jax.tree.map(jnp.copy, critic_params),
            actor_opt_state=actor_optimizer.init(actor_params),
            critic_opt_state=critic_optimizer.init(critic_params),
        )

    def policy(key: jax.Array, state: TD3State, obs: jax.Array) -> jax.Array:
        return actor.apply(state.actor_params, features(obs))

    def act(key: jax.Array, state: TD3State, obs: jax.Array, step: jax.Array) -> tuple:
        action = policy(key, state, obs)
        noise = config.exploration_noise * jax.random.normal(key, action.shape)
        return jnp.clip(action + noise, -1, 1), ()

    def q_values(state: TD3State, obs: jax.Array, action: jax.Array) -> jax.Array:
        """What the actor climbs, [B]."""
        return critic.apply(state.critic_params, features(obs), action)[0]

    def update(key: jax.Array, state: TD3State, sample: Sample, count: jax.Array) -> tuple:
        batch = sample.transition
        obs, next_obs = features(batch.obs), features(batch.next_obs)

        noise = config.target_noise * jax.random.normal(key, batch.action.shape)
        noise = jnp.clip(noise, -config.target_noise_clip, config.target_noise_clip)
        next_action = jnp.clip(actor.apply(state.target_actor_params, next_obs) + noise, -1, 1)
        next_q = critic.apply(state.target_critic_params, next_obs, next_action).min(0)
        target = losses.td_target(batch.reward, batch.discount, config.gamma, next_q)

        def critic_loss(params: PyTree) -> tuple[jax.Array, jax.Array]:
            q = critic.apply(params, obs, batch.action)
            return (sample.weight * losses.soft_critic(q, target)).mean(), q

        (j_q, q), grads = jax.value_and_grad(critic_loss, has_aux=True)(state.critic_params)
        critic_params, critic_opt_state = apply_gradients(
            critic_optimizer, grads, state.critic_opt_state, state.critic_params
        )

        def actor_loss(params: PyTree) -> jax.Array:
            return -critic.apply(critic_params, obs, actor.apply(params, obs))[0].mean()

        def actor_gradient() -> tuple[PyTree, dict]:
            j_mu, grads = jax.value_and_grad(actor_loss)(state.actor_params)
            return grads, {"actor_loss": j_mu}

        due = is_due(delay, count)
        grads, metrics = delayed_update(delay, due, actor_gradient)
        actor_params, actor_opt_state = apply_gradients(
            actor_optimizer, grads, state.actor_opt_state, state.actor_params, due=due
        )
        targets = (state.target_actor_params, state.target_critic_params)
        target_actor_params, target_critic_params = update_target(
            (actor_params, critic_params), targets, config.tau, delay, count
        )
        state = TD3State(
            actor_params=actor_params,
            critic_params=critic_params,
            target_actor_params=target_actor_params,
            target_critic_params=target_critic_params,
            actor_opt_state=actor_opt_state,
            critic_opt_state=critic_opt_state,
        )
        metrics = {"critic_loss": j_q, "q": q.mean(), **metrics}
        return state, jnp.abs(target - q).mean(0), metrics

    return Agent(init, act, policy, update, q_values), memory(config, storage(config))


@struct.dataclass
class TD3Config(Layers):
    """Configuration of TD3."""

    algorithm: Callable = static(td3)
    tau: float = 0.005
    """Share of theta and phi that the targets take over at each of the actor's updates."""
    policy_delay: int = static(2)
    """Updates of the critics for each one of the actor and the targets."""
    exploration_noise: float = 0.1
    """Standard deviation of the noise on actions taken."""
    target_noise: float = 0.2
    """sigma: standard deviation of the noise on actions in targets."""
    target_noise_clip: float = 0.5
    """c: where the latter is cut off."""
