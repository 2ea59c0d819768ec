"""SAC for discrete actions (Christodoulou 2019, arXiv 1910.07207): expectations are exact sums.

    V(s)    = sum_a pi(a|s) (min_i Q_i(s, a) - alpha log pi(a|s))                (post, 4.4)
    y       = r + gamma d V-(s'),   d = 0 where the episode terminated, else 1
    J_pi    = E [ sum_a pi(a|s) (alpha log pi(a|s) - min_i Q_i(s, a)) ]
    J_alpha = E [ alpha (H(pi(.|s)) - H) ]

The target entropy H is a fraction of log A, its maximum, and may decay over the run. The common
choice 0.98 keeps the better of two actions at a probability of at most about 0.58, on average: tune
it. Where actions may be illegal, sums are over the legal ones, and A is their number in each state.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from purejaxrl_sac import exploration
from purejaxrl_sac.agents.common import QLayers, Temperature, number_of_actions, value_network
from purejaxrl_sac.agents.off_policy import (
    ReplayConfig,
    Targets,
    replay_storage,
    uniform_replay,
)
from purejaxrl_sac.agents.sac import (
    default_critic_optimizer,
    default_temperature_optimizer,
    temperature_gradient,
)
from purejaxrl_sac.config import static, traced
from purejaxrl_sac.contracts import checks_parts
from purejaxrl_sac.losses import soft, td
from purejaxrl_sac.networks.q_networks import q_network
from purejaxrl_sac.networks.torsos import features
from purejaxrl_sac.optimize import (
    Learned,
    apply_gradients,
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
    CriticTarget,
    Env,
    Loss,
    LossOutput,
    MakeMemory,
    MakeOptimizer,
    MakeQNetwork,
    MakeStorage,
    Memory,
    Metrics,
    Penalty,
    PyTree,
    Sample,
    SoftActorLoss,
    Transition,
    memoryless,
)


class DiscreteSACState(NamedTuple):
    actor: Learned  # phi
    critic: Learned  # theta_i, leading axis [2]
    target_params: PyTree  # theta-_i, leading axis [2]
    log_alpha: Learned  # scalar


class Outputs(Protocol):
    """Outputs of a network for each observation of a batch."""

    def __call__(self, params: PyTree, obs: jax.Array, /) -> jax.Array: ...


class LossInputs(NamedTuple):
    """Inputs of a loss besides the parameters with respect to which it is differentiated."""

    config: DiscreteSACConfig
    log_pi: Outputs  # log pi(.|s), [B, A], -inf where an action is illegal
    twin_q: Outputs  # Q_i(s, .), [2, B, A]
    state: DiscreteSACState  # for the actor's loss, with the critics' new parameters
    batch: Transition  # [B]
    weight: jax.Array  # [B], or a scalar
    target: Any  # y, [B]; () for the part that computes it


def soft_target(inputs: LossInputs) -> jax.Array:
    """y = r + gamma d V-(s'), [B]."""
    state, batch = inputs.state, inputs.batch
    next_log_pi = inputs.log_pi(state.actor.params, batch.next_obs)
    next_q = td.least_value(inputs.twin_q(state.target_params, batch.next_obs))
    alpha = jnp.exp(state.log_alpha.params)
    next_value = soft.discrete_soft_value(next_q, next_log_pi, alpha)
    return td.td_target(batch.reward, batch.discount, inputs.config.gamma, next_value)


def critic_loss(params: PyTree, inputs: LossInputs) -> LossOutput:
    """J_Q as in SAC, and |y - Q(s, a)| [B], averaged over critics, as priority."""
    batch, target = inputs.batch, inputs.target
    chosen = partial(td.select_action, action=batch.action)
    q = jax.vmap(chosen)(inputs.twin_q(params, batch.obs))
    loss = (inputs.weight * soft.soft_critic(q, target)).mean()
    return loss, (jnp.abs(target - q).mean(0), {"critic_loss": loss, "q": q.mean()})


def actor_loss(params: PyTree, inputs: LossInputs) -> LossOutput:
    """J_pi, and E_pi[log pi(.|s)] [B], the negative entropy."""
    state, batch = inputs.state, inputs.batch
    q = td.least_value(inputs.twin_q(state.critic.params, batch.obs))
    log_probability = inputs.log_pi(params, batch.obs)
    entropy = soft.entropy(jnp.exp(log_probability))
    alpha = jnp.exp(state.log_alpha.params)
    loss = -soft.discrete_soft_value(q, log_probability, alpha).mean()
    return loss, (-entropy, {"actor_loss": loss, "entropy": entropy.mean()})


def target_entropy(
    config: DiscreteSACConfig, num_actions: jax.Array | float, count: jax.Array
) -> jax.Array:
    """H at update `count`: a fraction of log A that changes linearly over the run.

    Args:
        num_actions: A, a scalar, or the number of legal actions in each state, [B].
    """
    progress = config.step_at(count).astype(jnp.float32) / (config.total_steps / config.num_envs)
    ratio = exploration.linear_schedule(
        config.target_entropy_ratio, config.target_entropy_ratio_end, progress
    )
    return ratio * jnp.log(num_actions)


@checks_parts
def discrete_sac(
    config: DiscreteSACConfig,
    env: Env,
    *,
    network: MakeQNetwork = q_network,
    critic_target: CriticTarget = soft_target,
    critic_loss: Loss = critic_loss,
    actor_loss: SoftActorLoss = actor_loss,
    actor_optimizer: MakeOptimizer = decaying_adam,
    critic_optimizer: MakeOptimizer = default_critic_optimizer,
    temperature_optimizer: MakeOptimizer = default_temperature_optimizer,
    penalty: Penalty | None = None,
    storage: MakeStorage = replay_storage,
    memory: MakeMemory = uniform_replay,
) -> tuple[Agent, Memory]:
    """SAC for discrete actions, with a learned or fixed temperature.

    Args:
        network: of the actor and of each critic, as for `dqn`.
        critic_target, critic_loss, actor_loss: functions of this module's `LossInputs`; with its
            loss, the actor's returns E_pi[log pi(.|s)] [B].
        penalty: added to the critics' loss.

    Raises:
        ConfigError: the environment's actions are continuous, or a part does not return what its
            contract says.
    """
    num_actions = number_of_actions("discrete SAC", env)
    encode = features(env.observation_space)
    model = value_network(config, env, num_actions, 1, network)
    optimize_actor, optimize_critic = actor_optimizer(config), critic_optimizer(config)
    optimize_temperature = temperature_optimizer(config)

    def init(key: jax.Array, obs: jax.Array) -> DiscreteSACState:
        key_actor, key_critic = jax.random.split(key)
        twins = jax.vmap(model.init, (0, None))(jax.random.split(key_critic), encode(obs))
        return DiscreteSACState(
            actor=start(optimize_actor, model.init(key_actor, encode(obs))),
            critic=start(optimize_critic, twins),
            target_params=jax.tree.map(jnp.copy, twins),
            log_alpha=start(optimize_temperature, jnp.log(jnp.float32(config.alpha))),
        )

    def log_pi(params: PyTree, obs: jax.Array) -> jax.Array:
        logits = model.apply(params, encode(obs)).squeeze(-1)
        return nn.log_softmax(exploration.legal_values(env, obs, logits))

    def twin_q(params: PyTree, obs: jax.Array) -> jax.Array:
        return jax.vmap(model.apply, (0, None))(params, encode(obs)).squeeze(-1)

    def q_values(state: DiscreteSACState, obs: jax.Array) -> jax.Array:
        return exploration.legal_values(env, obs, td.least_value(twin_q(state.critic.params, obs)))

    def act(
        key: jax.Array, state: DiscreteSACState, obs: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        pi = jnp.exp(log_pi(state.actor.params, obs))
        return exploration.sample(key, pi), ()

    def policy(key: jax.Array, state: DiscreteSACState, obs: jax.Array) -> jax.Array:
        return log_pi(state.actor.params, obs).argmax(-1).astype(jnp.int32)

    def update(
        key: jax.Array, state: DiscreteSACState, sample: Sample, count: jax.Array
    ) -> tuple[DiscreteSACState, jax.Array, Metrics]:
        batch, weight = sample.transition, sample.weight
        inputs = LossInputs(config, log_pi, twin_q, state, batch, weight, ())
        inputs = inputs._replace(target=critic_target(inputs))

        critic, _, (priority, metrics) = gradient_step(
            optimize_critic, state.critic, penalized(critic_loss, penalty), inputs
        )
        after = inputs._replace(state=state._replace(critic=critic))
        actor, _, (log_prob, actor_metrics) = gradient_step(
            optimize_actor, state.actor, actor_loss, after
        )
        legal = exploration.number_of_legal_actions(env, batch.obs, num_actions)
        entropy = target_entropy(config, legal, count)
        alpha_grad = temperature_gradient(state.log_alpha, log_prob, entropy)
        log_alpha = apply_gradients(optimize_temperature, state.log_alpha, alpha_grad)
        target_params = update_target(
            critic.params, state.target_params, config.tau, config.target_period, count
        )
        metrics = joined(metrics, {"alpha": jnp.exp(state.log_alpha.params)}, actor_metrics)
        return DiscreteSACState(actor, critic, target_params, log_alpha), priority, metrics

    agent = memoryless(init, act, policy, update, q_values)
    return agent, memory(config, storage(config, env))


class DiscreteSACConfig(ReplayConfig, QLayers, Targets, Temperature):
    """Configuration of SAC for discrete actions."""

    algorithm: Algorithm = static(discrete_sac)
    target_entropy_ratio: float = traced(0.5, at_least=0, below=1)
    """Initial target entropy as a fraction of log A, the maximum."""
    target_entropy_ratio_end: float = traced(0.1, at_least=0, below=1)
    """Final target entropy as a fraction of log A; it changes linearly over the run."""
