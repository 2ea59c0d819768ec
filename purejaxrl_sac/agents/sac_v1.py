"""The original SAC (Haarnoja et al. 2018, arXiv 1801.01290): a value network, a fixed temperature.

    J_V  = E [ (V(s) - (min_i Q_i(s, a) - alpha log pi(a|s)))^2 / 2 ],   a ~ pi(.|s)
    J_Q  = E [ sum_i (Q_i(s, a) - (c r + gamma d V-(s')))^2 / 2 ]
    J_pi = E [ alpha log pi(f(eps; s)|s) - min_i Q_i(s, f(eps; s)) ]
    V-   = tau V + (1 - tau) V-

The optimal policy depends on the reward scale c and the temperature only through c / alpha. The
paper has alpha = 1 and chooses c for each environment; the default here is c = 1 and alpha = 0.2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_sac.agents.common import Layers, LogStd, actor_and_critics, dimension_of_actions
from purejaxrl_sac.agents.off_policy import Targets, encoded, replay_storage, uniform_replay
from purejaxrl_sac.agents.sac import ContinuousConfig, default_critic_optimizer
from purejaxrl_sac.config import static, traced
from purejaxrl_sac.contracts import checks_parts
from purejaxrl_sac.distributions import squashed_gaussian
from purejaxrl_sac.losses import soft, td
from purejaxrl_sac.networks.continuous import Head, gaussian_actor, twin_critics
from purejaxrl_sac.networks.torsos import features, torso
from purejaxrl_sac.optimize import (
    Learned,
    decaying_adam,
    gradient_step,
    joined,
    penalized,
    start,
    update_target,
)
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
    MakeValue,
    Memory,
    Metrics,
    Network,
    Penalty,
    PyTree,
    Sample,
    Transition,
    memoryless,
)


class SACv1State(NamedTuple):
    actor: Learned  # phi
    critic: Learned  # theta_i, leading axis [2]
    value: Learned  # psi
    target_params: PyTree  # psi-


class LossInputs(NamedTuple):
    """Inputs of a loss besides the parameters with respect to which it is differentiated."""

    config: SACv1Config
    actor: Network
    critic: Network
    value: Network
    state: SACv1State
    batch: Transition  # [B]; `obs` and `next_obs` are features
    weight: jax.Array  # [B], or a scalar
    key: jax.Array


def critic_loss(params: PyTree, inputs: LossInputs) -> LossOutput:
    """J_Q, and |y - Q(s, a)| [B], averaged over critics, as priority."""
    config, batch = inputs.config, inputs.batch
    next_value = inputs.value.apply(inputs.state.target_params, batch.next_obs).squeeze(-1)
    scale = config.reward_scale
    reward = batch.reward if scale is None else scale * batch.reward
    target = td.td_target(reward, batch.discount, config.gamma, next_value)
    q = inputs.critic.apply(params, batch.obs, batch.action)
    loss = (inputs.weight * soft.soft_critic(q, target)).mean()
    return loss, (jnp.abs(target - q).mean(0), {"critic_loss": loss, "q": q.mean()})


def actor_loss(params: PyTree, inputs: LossInputs) -> LossOutput:
    """J_pi, and the soft value [B] of the action drawn."""
    obs = inputs.batch.obs
    pi = squashed_gaussian(*inputs.actor.apply(params, obs))
    action, log_prob = pi.sample_and_log_prob(seed=inputs.key)
    q = inputs.critic.apply(inputs.state.critic.params, obs, action)
    soft_value = soft.soft_value(q, log_prob, inputs.config.alpha)
    loss = -soft_value.mean()
    return loss, (soft_value, {"actor_loss": loss, "entropy": -log_prob.mean()})


def value_loss(
    params: PyTree, inputs: LossInputs, soft_value: jax.Array
) -> tuple[jax.Array, Metrics]:
    """J_V."""
    value = inputs.value.apply(params, inputs.batch.obs).squeeze(-1)
    error = value - jax.lax.stop_gradient(soft_value)
    loss = 0.5 * (inputs.weight * jnp.square(error)).mean()
    return loss, {"value_loss": loss}


def value_network(config: Layers, space: Any) -> Head:
    """An MLP."""
    return Head(torso(space, config.hidden_sizes, config.activation), 1)


@checks_parts
def sac_v1(
    config: SACv1Config,
    env: Env,
    *,
    actor: MakeActor = gaussian_actor,
    critics: MakeCritics = twin_critics,
    value: MakeValue = value_network,
    actor_optimizer: MakeOptimizer = decaying_adam,
    critic_optimizer: MakeOptimizer = default_critic_optimizer,
    value_optimizer: MakeOptimizer = decaying_adam,
    penalty: Penalty | None = None,
    storage: MakeStorage = replay_storage,
    memory: MakeMemory = uniform_replay,
) -> tuple[Agent, Memory]:
    """SAC as first published; the parts are those of `sac`, and the network and optimiser of V.

    Raises:
        ConfigError: the environment's actions are discrete.
    """
    action_dim, space = dimension_of_actions("SAC", env), env.observation_space
    encode = features(space)
    actor_net, critic = actor_and_critics(config, env, action_dim, actor, critics)
    value_net = value(config, space)
    optimize_actor, optimize_critic = actor_optimizer(config), critic_optimizer(config)
    optimize_value = value_optimizer(config)

    def init(key: jax.Array, obs: jax.Array) -> SACv1State:
        key_actor, key_critic, key_value = jax.random.split(key, 3)
        action = jnp.zeros((obs.shape[0], action_dim), jnp.float32)
        value_params = value_net.init(key_value, encode(obs))
        return SACv1State(
            actor=start(optimize_actor, actor_net.init(key_actor, encode(obs))),
            critic=start(optimize_critic, critic.init(key_critic, encode(obs), action)),
            value=start(optimize_value, value_params),
            target_params=jax.tree.map(jnp.copy, value_params),
        )

    def act(
        key: jax.Array, state: SACv1State, obs: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        pi = squashed_gaussian(*actor_net.apply(state.actor.params, encode(obs)))
        return pi.sample_and_log_prob(seed=key)[0], ()

    def policy(key: jax.Array, state: SACv1State, obs: jax.Array) -> jax.Array:
        mean, _ = actor_net.apply(state.actor.params, encode(obs))
        return jnp.tanh(mean)

    def q_values(state: SACv1State, obs: jax.Array, action: jax.Array) -> jax.Array:
        return td.least_value(critic.apply(state.critic.params, encode(obs), action))

    def update(
        key: jax.Array, state: SACv1State, sample: Sample, count: jax.Array
    ) -> tuple[SACv1State, jax.Array, Metrics]:
        batch = encoded(sample.transition, encode)
        weight = sample.weight
        inputs = LossInputs(config, actor_net, critic, value_net, state, batch, weight, key)
        new_actor, _, (soft_value, actor_metrics) = gradient_step(
            optimize_actor, state.actor, actor_loss, inputs
        )
        new_critic, _, (priority, metrics) = gradient_step(
            optimize_critic, state.critic, penalized(critic_loss, penalty), inputs
        )
        new_value, _, value_metrics = gradient_step(
            optimize_value, state.value, value_loss, inputs, soft_value
        )
        target_params = update_target(
            new_value.params, state.target_params, config.tau, config.target_period, count
        )
        state = SACv1State(new_actor, new_critic, new_value, target_params)
        return state, priority, joined(metrics, actor_metrics, value_metrics)

    agent = memoryless(init, act, policy, update, q_values)
    return agent, memory(config, storage(config, env))


class SACv1Config(ContinuousConfig, Layers, Targets, LogStd):
    """Configuration of the original SAC."""

    algorithm: Algorithm = static(sac_v1)
    alpha: float = traced(0.2, above=0)
    """Temperature."""
    reward_scale: float | None = traced(None, kind=float, above=0, optional=True)
    """c, a factor of the rewards; None: 1."""
