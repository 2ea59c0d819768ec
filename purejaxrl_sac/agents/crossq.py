"""CrossQ (Bhatt et al. 2024, arXiv 1902.05605): SAC with batch renormalisation, without targets.

Q(s, a) and Q(s', a') come out of one pass over both halves of a joint batch, so that they are
normalised alike; that is what makes the target network dispensable:

    y = r + gamma (min_j Q_j(s', a') - alpha log pi(a'|s')),   a' ~ pi(.|s')

It needs observations that vary: where all of a batch are alike, its statistics are of noise.
Unlike the authors' networks these normalise before each activation and not their inputs. Adam's
b1 is 0.9 where theirs is 0.5, critics have 256 units a layer where theirs have 2,048, and plain
batch normalisation lasts 5,000 updates where theirs lasts 100,000.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from purejaxrl_sac import losses, networks
from purejaxrl_sac.agents.dqn import replay_storage, uniform_replay
from purejaxrl_sac.agents.sac import Layers, Temperature, continuous
from purejaxrl_sac.config import static
from purejaxrl_sac.distributions import squashed_gaussian
from purejaxrl_sac.optimize import (
    adam,
    apply_gradients,
    delayed_update,
    is_due,
    linear_decay,
    where,
)
from purejaxrl_sac.types import Agent, Memory, PyTree, Sample

STATISTICS = "batch_stats"


class CrossQState(NamedTuple):
    actor: PyTree  # {"params": phi, "batch_stats": running statistics}
    critic: PyTree  # the same of theta_i, leading axis [2]
    log_alpha: jax.Array  # scalar
    actor_opt_state: PyTree
    critic_opt_state: PyTree
    alpha_opt_state: PyTree


def crossq(
    config: CrossQConfig, *, storage: Callable = replay_storage, memory: Callable = uniform_replay
) -> tuple[Agent, Memory]:
    """CrossQ, with an automatic or fixed temperature; parts as those of `sac`.

    Raises:
        ConfigError: the environment's actions are discrete.
    """
    env = continuous("CrossQ", config)
    space, features = env.observation_space, networks.features(env.observation_space)
    parts = {
        "activation": config.activation,
        "norm": partial(networks.BatchRenorm, config.renorm_warmup),
        "dense": partial(nn.Dense, use_bias=False),  # what normalises takes biases out again
    }
    actor = networks.GaussianActor(
        networks.torso(space, config.hidden_sizes, **parts), env.action_dim
    )
    critic = networks.Critics(networks.critic_torso(space, config.critic_hidden_sizes, **parts), 2)
    delay = config.policy_delay
    critic_optimizer = adam(linear_decay(config), config.max_grad_norm)
    actor_optimizer = adam(linear_decay(config, delay), config.max_grad_norm)
    alpha_optimizer = adam(config.alpha_learning_rate)
    target_entropy = config.target_entropy_per_dim * env.action_dim

    def init(key: jax.Array, obs: jax.Array) -> CrossQState:
        key_actor, key_critic = jax.random.split(key)
        action = jnp.zeros((obs.shape[0], env.action_dim))
        actor_variables = actor.init(key_actor, features(obs))
        critic_variables = critic.init(key_critic, features(obs), action)
        log_alpha = jnp.log(jnp.float32(config.alpha))
        return CrossQState(
            actor=actor_variables,
            critic=critic_variables,
            log_alpha=log_alpha,
            actor_opt_state=actor_optimizer.init(actor_variables["params"]),
            critic_opt_state=critic_optimizer.init(critic_variables["params"]),
            alpha_opt_state=alpha_optimizer.init(log_alpha),
        )

    def act(key: jax.Array, state: CrossQState, obs: jax.Array, step: jax.Array) -> tuple:
        outputs = actor.apply(state.actor, features(obs))
        return squashed_gaussian(*outputs).sample(seed=key), ()

    def policy(key: jax.Array, state: CrossQState, obs: jax.Array) -> jax.Array:
        mean, _ = actor.apply(state.actor, features(obs))
        return jnp.tanh(mean)

    def q_values(state: CrossQState, obs: jax.Array, action: jax.Array) -> jax.Array:
        return critic.apply(state.critic, features(obs), action).min(0)

    def update(key: jax.Array, state: CrossQState, sample: Sample, count: jax.Array) -> tuple:
        key_next, key_actor = jax.random.split(key)
        batch = sample.transition
        obs, next_obs = features(batch.obs), features(batch.next_obs)
        alpha = jnp.exp(state.log_alpha)

        outputs = actor.apply(state.actor, next_obs)
        next_action, next_log_prob = squashed_gaussian(*outputs).sample_and_log_prob(seed=key_next)
        both_obs = jnp.concatenate([obs, next_obs])
        both_actions = jnp.concatenate([batch.action, next_action])

        def critic_loss(params: PyTree) -> tuple[jax.Array, tuple]:
            variables = {**state.critic, "params": params}
            both, seen = critic.apply(variables, both_obs, both_actions, mutable=[STATISTICS])
            q, next_q = jnp.split(both, 2, axis=1)
            next_value = losses.soft_value(next_q, next_log_prob, alpha)
            target = losses.td_target(batch.reward, batch.discount, config.gamma, next_value)
            loss = (sample.weight * losses.soft_critic(q, target)).mean()
            return loss, (seen, q, jnp.abs(target - q).mean(0))

        (j_q, (seen, q, priority)), grads = jax.value_and_grad(critic_loss, has_aux=True)(
            state.critic["params"]
        )
        critic_params, critic_opt_state = apply_gradients(
            critic_optimizer, grads, state.critic_opt_state, state.critic["params"]
        )
        critic_variables = {"params": critic_params, **seen}

        def actor_loss(params: PyTree) -> tuple[jax.Array, tuple]:
            variables = {**state.actor, "params": params}
            outputs, seen = actor.apply(variables, obs, mutable=[STATISTICS])
            action, log_prob = squashed_gaussian(*outputs).sample_and_log_prob(seed=key_actor)
            q = critic.apply(critic_variables, obs, action)
            return losses.soft_actor(q, log_prob, alpha).mean(), (seen, log_prob)

        def temperature_loss(log_alpha: jax.Array, log_prob: jax.Array) -> jax.Array:
            return losses.temperature(jnp.exp(log_alpha), log_prob, target_entropy).mean()

        def actor_and_temperature() -> tuple[tuple, dict]:
            (j_pi, (seen, log_prob)), grads = jax.value_and_grad(actor_loss, has_aux=True)(
                state.actor["params"]
            )
            alpha_grad = jax.grad(temperature_loss)(state.log_alpha, log_prob)
            metrics = {"actor_loss": j_pi, "entropy": -log_prob.mean()}
            return (grads, alpha_grad, seen), metrics

        due = is_due(delay, count)
        (grads, alpha_grad, seen), metrics = delayed_update(delay, due, actor_and_temperature)
        actor_params, actor_opt_state = apply_gradients(
            actor_optimizer, grads, state.actor_opt_state, state.actor["params"], due=due
        )
        log_alpha, alpha_opt_state = apply_gradients(
            alpha_optimizer, alpha_grad, state.alpha_opt_state, state.log_alpha, due=due
        )
        seen = where(due, seen, {STATISTICS: state.actor[STATISTICS]})
        state = CrossQState(
            actor={"params": actor_params, **seen},
            critic=critic_variables,
            log_alpha=log_alpha,
            actor_opt_state=actor_opt_state,
            critic_opt_state=critic_opt_state,
            alpha_opt_state=alpha_opt_state,
        )
        return state, priority, {"critic_loss": j_q, "q": q.mean(), "alpha": alpha, **metrics}

    return Agent(init, act, policy, update, q_values), memory(config, storage(config))


@struct.dataclass
class CrossQConfig(Layers, Temperature):
    """Configuration of CrossQ."""

    algorithm: Callable = static(crossq)
    policy_delay: int = static(3)
    """Updates of the critics for each one of the actor and the temperature."""
    critic_hidden_sizes: tuple[int, ...] = static((256, 256))
    """Units of each hidden layer of the critics; the actor has `hidden_sizes`."""
    renorm_warmup: int = static(5_000)
    """Updates, of each network its own, of plain batch normalisation before renormalisation."""
