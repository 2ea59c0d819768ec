"""TD3 (Fujimoto et al. 2018, arXiv 1802.09477): SAC's deterministic counterpart.

    y    = r + gamma d min_j Q-_j(s', clip(mu-(s') + eps, -1, 1)),   eps ~ clip(N(0, sigma^2), +-c)
    J_Q  = E [ sum_i (Q_i(s, a) - y)^2 / 2 ]
    J_mu = -E [ Q_1(s, mu(s)) ]

J_mu is minimised every `policy_delay` updates, when the targets are updated as well.

d is 0 where the episode terminated and 1 elsewhere. Exploration adds Gaussian noise to the actions;
`noise_scale=decaying` lowers it over the run.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_sac import exploration
from purejaxrl_sac.agents.common import (
    DelayedActor,
    Layers,
    actor_and_critics,
    dimension_of_actions,
)
from purejaxrl_sac.agents.off_policy import encoded, replay_storage, uniform_replay
from purejaxrl_sac.agents.sac import (
    ContinuousConfig,
    default_actor_optimizer,
    default_critic_optimizer,
)
from purejaxrl_sac.config import Config, static, traced
from purejaxrl_sac.contracts import checks_parts
from purejaxrl_sac.losses import soft, td
from purejaxrl_sac.networks.continuous import deterministic_actor, twin_critics
from purejaxrl_sac.networks.torsos import features
from purejaxrl_sac.noise import white
from purejaxrl_sac.optimize import (
    Learned,
    apply_gradients,
    checked_loss,
    delayed_update,
    gradient_step,
    is_due,
    joined,
    penalized,
    start,
    update_target,
)
from purejaxrl_sac.types import (
    Agent,
    Algorithm,
    CriticTarget,
    Env,
    Loss,
    LossOutput,
    MakeActor,
    MakeCritics,
    MakeMemory,
    MakeNoise,
    MakeOptimizer,
    MakeStorage,
    Memory,
    Metrics,
    Network,
    NoiseScale,
    Penalty,
    PyTree,
    Sample,
    Scalar,
    Transition,
)


class TD3State(NamedTuple):
    actor: Learned  # phi
    critic: Learned  # theta_i, leading axis [E], two by default
    target_actor_params: PyTree  # phi-
    target_critic_params: PyTree  # theta-_i, leading axis [E]


class LossInputs(NamedTuple):
    """Inputs of a loss besides the parameters with respect to which it is differentiated."""

    config: TD3Config
    actor: Network
    critic: Network
    state: TD3State  # for the actor's loss, with the critics' new parameters
    batch: Transition  # [B]; `obs` and `next_obs` are features
    weight: jax.Array  # [B], or a scalar
    target: Any  # y, [B]; () for the part that computes it
    key: jax.Array


def smoothed_target(inputs: LossInputs) -> jax.Array:
    """y, with the target policy smoothed by clipped noise; [B]."""
    config, state, batch = inputs.config, inputs.state, inputs.batch
    noise = config.target_noise * jax.random.normal(inputs.key, batch.action.shape, jnp.float32)
    noise = jnp.clip(noise, -config.target_noise_clip, config.target_noise_clip)
    next_action = inputs.actor.apply(state.target_actor_params, batch.next_obs)
    next_action = jnp.clip(next_action + noise, -1, 1)
    next_q = inputs.critic.apply(state.target_critic_params, batch.next_obs, next_action)
    return td.td_target(batch.reward, batch.discount, config.gamma, td.least_value(next_q))


def critic_loss(params: PyTree, inputs: LossInputs) -> LossOutput:
    """J_Q, and |y - Q(s, a)| [B], averaged over critics, as priority."""
    q = inputs.critic.apply(params, inputs.batch.obs, inputs.batch.action)
    loss = (inputs.weight * soft.soft_critic(q, inputs.target)).mean()
    return loss, (jnp.abs(inputs.target - q).mean(0), {"critic_loss": loss, "q": q.mean()})


def actor_loss(params: PyTree, inputs: LossInputs) -> LossOutput:
    """J_mu, and Q_1(s, mu(s)) [B]."""
    obs = inputs.batch.obs
    action = inputs.actor.apply(params, obs)
    q = inputs.critic.apply(inputs.state.critic.params, obs, action)[0]
    loss = -q.mean()
    return loss, (q, {"actor_loss": loss})


def constant(config: Any, step: jax.Array) -> Scalar:
    """The standard deviation exploration_noise, throughout the run."""
    return config.exploration_noise


class Decay(Config):
    """Fields of `decaying`."""

    exploration_noise_end: float = traced(0.0, at_least=0)
    """Standard deviation of the noise on actions taken at the end of the run."""


def decaying(config: Any, step: jax.Array) -> Scalar:
    """Linear decay from exploration_noise to exploration_noise_end, see `Decay`, over the run."""
    progress = step.astype(jnp.float32) / (config.total_steps / config.num_envs)
    start, end = config.exploration_noise, config.exploration_noise_end
    return exploration.linear_schedule(start, end, progress)


@checks_parts
def td3(
    config: TD3Config,
    env: Env,
    *,
    actor: MakeActor = deterministic_actor,
    critics: MakeCritics = twin_critics,
    critic_target: CriticTarget = smoothed_target,
    critic_loss: Loss = critic_loss,
    actor_loss: Loss = actor_loss,
    actor_optimizer: MakeOptimizer = default_actor_optimizer,
    critic_optimizer: MakeOptimizer = default_critic_optimizer,
    noise: MakeNoise = white,
    noise_scale: NoiseScale = constant,
    penalty: Penalty | None = None,
    storage: MakeStorage = replay_storage,
    memory: MakeMemory = uniform_replay,
) -> tuple[Agent, Memory]:
    """TD3; parts as in `sac`, without critique and temperature, and with `noise_scale`.

    Args:
        critic_target, critic_loss, actor_loss: functions of this module's `LossInputs`; no use is
            made of the array that `actor_loss` returns in place of priorities.
        noise_scale: `constant` or `decaying`.

    Raises:
        ConfigError: the environment's actions are discrete or its observations images, or a part
            does not return what its contract says.
    """
    action_dim = dimension_of_actions("TD3", env)
    encode = features(env.observation_space)
    actor_net, critic = actor_and_critics(config, env, action_dim, actor, critics, actor_outputs=1)
    optimize_actor, optimize_critic = actor_optimizer(config), critic_optimizer(config)
    delay, critics_loss = config.policy_delay, penalized(critic_loss, penalty)
    draw_noise, init_carry = noise(config, action_dim)

    def init(key: jax.Array, obs: jax.Array) -> TD3State:
        key_actor, key_critic = jax.random.split(key)
        actor_params = actor_net.init(key_actor, encode(obs))
        action = jnp.zeros((obs.shape[0], action_dim), jnp.float32)
        critic_params = critic.init(key_critic, encode(obs), action)
        return TD3State(
            actor=start(optimize_actor, actor_params),
            critic=start(optimize_critic, critic_params),
            target_actor_params=jax.tree.map(jnp.copy, actor_params),
            target_critic_params=jax.tree.map(jnp.copy, critic_params),
        )

    def policy(
        key: jax.Array, state: TD3State, obs: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree]:
        return actor_net.apply(state.actor.params, encode(obs)), carry

    def act(
        key: jax.Array, state: TD3State, obs: jax.Array, step: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree, PyTree]:
        action, carry = policy(key, state, obs, carry)
        epsilon, carry = draw_noise(key, action.shape, carry)
        return jnp.clip(action + noise_scale(config, step) * epsilon, -1, 1), (), carry

    def q_values(state: TD3State, obs: jax.Array, action: jax.Array) -> jax.Array:
        return critic.apply(state.critic.params, encode(obs), action)[0]

    def update(
        key: jax.Array, state: TD3State, sample: Sample, count: jax.Array
    ) -> tuple[TD3State, jax.Array, Metrics]:
        batch = encoded(sample.transition, encode)
        inputs = LossInputs(config, actor_net, critic, state, batch, sample.weight, (), key)
        inputs = inputs._replace(target=critic_target(inputs))

        new_critic, _, (priority, metrics) = gradient_step(
            optimize_critic, state.critic, critics_loss, inputs
        )
        after = inputs._replace(state=state._replace(critic=new_critic))

        def actor_gradient() -> tuple[PyTree, Metrics]:
            gradient = jax.grad(checked_loss(actor_loss), has_aux=True)
            grads, (_, metrics) = gradient(state.actor.params, after)
            return grads, metrics

        due = is_due(delay, count)
        grads, actor_metrics = delayed_update(delay, due, actor_gradient)
        new_actor = apply_gradients(optimize_actor, state.actor, grads, due=due)
        targets = (state.target_actor_params, state.target_critic_params)
        targets = update_target(
            (new_actor.params, new_critic.params), targets, config.tau, delay, count
        )
        return TD3State(new_actor, new_critic, *targets), priority, joined(metrics, actor_metrics)

    agent = Agent(init, act, policy, update, q_values, init_carry=init_carry)
    return agent, memory(config, storage(config, env))


class TD3Config(ContinuousConfig, Layers, DelayedActor):
    """Configuration of TD3."""

    algorithm: Algorithm = static(td3)
    tau: float = traced(0.005, between=(0, 1))
    """Step of the target parameters towards the learned ones at each update of the actor."""
    policy_delay: int = static(2)
    """Updates of the critics per update of the actor and the targets."""
    exploration_noise: float = traced(0.1, at_least=0)
    """Standard deviation of the noise on actions taken."""
    target_noise: float = traced(0.2, at_least=0)
    """sigma: standard deviation of the noise on actions in targets."""
    target_noise_clip: float = traced(0.5, at_least=0, infinite=True)
    """c: bound that the noise in targets is clipped to."""
