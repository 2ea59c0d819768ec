"""Soft Actor-Critic (Haarnoja et al. 2018, arXiv 1812.05905; post, section 4).

Critics Q_i (an ensemble, two by default), a squashed Gaussian actor pi and a temperature alpha:

    y       = r + gamma d (min_j Q-_j(s', a') - alpha log pi(a'|s')),  a' ~ pi(.|s')  section 4.3.2
    J_Q     = E [ sum_i (Q_i(s, a) - y)^2 / 2 ]                                       (4.19)
    J_pi    = E [ alpha log pi(f(eps; s)|s) - min_i Q_i(s, f(eps; s)) ]               (4.23)
    J_alpha = E [ -alpha (log pi(a|s) + H) ]                                          section 4.3.2
    Q-      = tau Q + (1 - tau) Q-

d is 0 where the episode terminated and 1 elsewhere. Each loss is minimised by its own optimiser, in
this order. The actor's loss uses the critics' new parameters. The temperature's loss uses
log pi(a|s) of the actor's loss, that is, of the parameters before the actor's step. The learned
parameter is log alpha, so that alpha is positive; `alpha_learning_rate=0` keeps it fixed.

Networks, the meaning of the critics' outputs, the critics' target, the losses of critics and actor,
optimisers, exploration noise, storage and memory are parts: functions whose contracts are in
`types`. The family (`agents.sac_family`) consists of compositions such as

    redq = partial(sac, critics=many_critics, critique=random_minimum)

The target is a function of `LossInputs`, the losses of parameters and `LossInputs`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from purejaxrl_sac.agents.common import (
    DelayedActor,
    EntropyTarget,
    Layers,
    LogStd,
    Temperature,
    actor_and_critics,
    dimension_of_actions,
)
from purejaxrl_sac.agents.off_policy import (
    ReplayConfig,
    Targets,
    backup_of,
    encoded,
    replay_storage,
    uniform_replay,
)
from purejaxrl_sac.config import Config, static
from purejaxrl_sac.contracts import checks_parts
from purejaxrl_sac.distributions import squashed_gaussian
from purejaxrl_sac.losses import soft, td
from purejaxrl_sac.networks.continuous import gaussian_actor, twin_critics
from purejaxrl_sac.networks.torsos import features
from purejaxrl_sac.noise import white
from purejaxrl_sac.optimize import (
    Learned,
    adam,
    apply_gradients,
    checked_loss,
    delayed_update,
    gradient_step,
    is_due,
    joined,
    linear_decay,
    penalized,
    start,
    update_target,
)
from purejaxrl_sac.types import (
    Agent,
    Algorithm,
    CriticTarget,
    Critique,
    Env,
    Loss,
    LossOutput,
    MakeActor,
    MakeCritics,
    MakeCritique,
    MakeMemory,
    MakeNoise,
    MakeOptimizer,
    MakeStorage,
    Memory,
    Metrics,
    Penalty,
    PyTree,
    Sample,
    SoftActorLoss,
    Transition,
)


class SACState(NamedTuple):
    actor: Learned  # phi
    critic: Learned  # theta_i, leading axis [E]
    target_params: PyTree  # theta-_i, leading axis [E]
    log_alpha: Learned  # scalar


class SampleAction(Protocol):
    def __call__(
        self, key: jax.Array, params: PyTree, obs: jax.Array, /
    ) -> tuple[jax.Array, jax.Array]:
        """(key, phi, features [B, ...]) -> a ~ pi(.|s) [B, D], log pi(a|s) [B]."""


class ApplyCritic(Protocol):
    def __call__(
        self, params: PyTree, obs: jax.Array, action: jax.Array, dropout: jax.Array | None = None, /
    ) -> jax.Array:
        """(theta, features [B, ...], action [B, D], key of dropout) -> [E, B] or [E, B, K]."""


class Networks(NamedTuple):
    """The networks as functions of their parameters."""

    sample: SampleAction
    critic: ApplyCritic
    critique: Critique  # what the critics' outputs mean


class Keys(NamedTuple):
    """A PRNG key for each use of randomness in an update; more are made by `jax.random.fold_in`."""

    next_action: jax.Array
    action: jax.Array
    critique: jax.Array
    target_dropout: jax.Array
    critic_dropout: jax.Array
    actor_dropout: jax.Array


class LossInputs(NamedTuple):
    """Inputs of a loss besides the parameters with respect to which it is differentiated."""

    config: Any
    networks: Networks
    state: SACState  # for the actor's loss, with the critics' new parameters
    batch: Transition  # [B]; `obs` and `next_obs` are features
    weight: jax.Array  # [B], or a scalar
    target: Any  # y, [B, K]; () for the part that computes it
    keys: Keys


def soft_target(inputs: LossInputs) -> jax.Array:
    """y = r + gamma d (min_j Q-_j(s', a') - alpha log pi(a'|s')), a' ~ pi(.|s'); [B, K].

    The minimum is that of the `Critique`.
    """
    networks, state, batch, keys = inputs.networks, inputs.state, inputs.batch, inputs.keys
    action, log_prob = networks.sample(keys.next_action, state.actor.params, batch.next_obs)
    q = networks.critic(state.target_params, batch.next_obs, action, keys.target_dropout)
    next_return = networks.critique.next_return(keys.critique, q)
    next_value = next_return - jnp.exp(state.log_alpha.params) * log_prob[:, None]
    return backup_of(inputs.config, td.td_target, batch, batch.reward)(next_value)


def critic_loss(params: PyTree, inputs: LossInputs) -> LossOutput:
    """J_Q = E[sum_i (Q_i(s, a) - y)^2 / 2] (post, 4.19), and |y - Q(s, a)| [B] as priority.

    The sum over critics, and the Q of the priority, are those of the `Critique`, whose defaults are
    squared errors and the minimum. To change the loss of a row, replace the part `critique`, such
    as `minimum`, which makes it; to change the average over rows, replace this function.
    """
    networks, batch, target = inputs.networks, inputs.batch, inputs.target
    q = networks.critic(params, batch.obs, batch.action, inputs.keys.critic_dropout)
    value = networks.critique.value(q)
    loss = (inputs.weight * networks.critique.loss(q, target)).mean()
    return loss, (jnp.abs(target.mean(-1) - value), {"critic_loss": loss, "q": value.mean()})


def actor_loss(params: PyTree, inputs: LossInputs) -> LossOutput:
    """J_pi = E[alpha log pi(a|s) - min_i Q_i(s, a)], a = f(eps; s) (post, 4.23), and log pi [B]."""
    networks, state, batch, keys = inputs.networks, inputs.state, inputs.batch, inputs.keys
    action, log_prob = networks.sample(keys.action, params, batch.obs)
    q = networks.critic(state.critic.params, batch.obs, action, keys.actor_dropout)
    alpha = jnp.exp(state.log_alpha.params)
    loss = (alpha * log_prob - networks.critique.value(q)).mean()
    return loss, (log_prob, {"actor_loss": loss, "entropy": -log_prob.mean()})


def temperature_loss(
    log_alpha: jax.Array, log_prob: jax.Array, target_entropy: jax.Array | float
) -> jax.Array:
    """J_alpha = E[-alpha (log pi(a|s) + H)] (post, sections 4.3.1 and 4.3.2); log_prob [B]."""
    return soft.temperature(jnp.exp(log_alpha), log_prob, target_entropy).mean()


def temperature_gradient(
    log_alpha: Learned, log_prob: jax.Array, target_entropy: jax.Array | float
) -> jax.Array:
    """d J_alpha / d log alpha."""
    return jax.grad(temperature_loss)(log_alpha.params, log_prob, target_entropy)


def minimum(config: Config) -> Critique:
    """The minimum over critics, in targets and for the actor (post, 4.3.1)."""
    return Critique(
        next_return=lambda key, q: td.least_value(q)[:, None],
        loss=lambda q, target: soft.soft_critic(q, target.squeeze(-1)),
        value=td.least_value,
    )


def default_actor_optimizer(config: Any) -> optax.GradientTransformation:
    """Adam on clipped gradients; config needs the fields of `Learning` and `DelayedActor`."""
    decay = linear_decay(config, config.policy_delay, config.actor_learning_rate)
    return adam(decay, config.max_grad_norm)


def default_critic_optimizer(config: ContinuousConfig) -> optax.GradientTransformation:
    """Adam on gradients that are clipped separately for each critic."""
    return adam(linear_decay(config), config.max_grad_norm, members=True)


def default_temperature_optimizer(config: Temperature) -> optax.GradientTransformation:
    """Adam with its own constant learning rate."""
    return adam(config.alpha_learning_rate)


class Learner(NamedTuple):
    """What an update uses besides the configuration, the state and the batch."""

    networks: Networks
    optimize_actor: optax.GradientTransformation
    optimize_critic: optax.GradientTransformation
    optimize_temperature: optax.GradientTransformation
    critic_target: CriticTarget
    critic_loss: Loss
    actor_loss: SoftActorLoss
    target_entropy: jax.Array | float


def learn(
    config: SACFields,
    learner: Learner,
    state: SACState,
    batch: Transition,
    weight: jax.Array,
    keys: Keys,
    count: jax.Array,
) -> tuple[SACState, jax.Array, Metrics]:
    """One step of the critics, their targets, the actor and the temperature, in this order.

    Args:
        batch: [B]; `obs` and `next_obs` are what the networks take.
        weight: [B], or a scalar.
        count: updates made before.
    """
    networks, delay = learner.networks, config.policy_delay
    inputs = LossInputs(config, networks, state, batch, weight, (), keys)
    target = learner.critic_target(inputs)
    inputs = inputs._replace(target=target.reshape(len(target), -1))

    critic, _, (priority, metrics) = gradient_step(
        learner.optimize_critic, state.critic, learner.critic_loss, inputs
    )
    target_params = update_target(
        critic.params, state.target_params, config.tau, config.target_period, count
    )

    def actor_and_temperature() -> tuple[tuple[PyTree, jax.Array], Metrics]:
        after = inputs._replace(state=state._replace(critic=critic))
        gradient = jax.grad(checked_loss(learner.actor_loss), has_aux=True)
        actor_grads, (log_prob, metrics) = gradient(state.actor.params, after)
        alpha_grad = temperature_gradient(state.log_alpha, log_prob, learner.target_entropy)
        return (actor_grads, alpha_grad), metrics

    due = is_due(delay, count)
    (actor_grads, alpha_grad), actor_metrics = delayed_update(delay, due, actor_and_temperature)
    actor = apply_gradients(learner.optimize_actor, state.actor, actor_grads, due=due)
    log_alpha = apply_gradients(learner.optimize_temperature, state.log_alpha, alpha_grad, due=due)
    metrics = joined(metrics, {"alpha": jnp.exp(state.log_alpha.params)}, actor_metrics)
    return SACState(actor, critic, target_params, log_alpha), priority, metrics


@checks_parts
def sac(
    config: SACFields,
    env: Env,
    *,
    actor: MakeActor = gaussian_actor,
    critics: MakeCritics = twin_critics,
    critique: MakeCritique = minimum,
    critic_target: CriticTarget = soft_target,
    critic_loss: Loss = critic_loss,
    actor_loss: SoftActorLoss = actor_loss,
    penalty: Penalty | None = None,
    actor_optimizer: MakeOptimizer = default_actor_optimizer,
    critic_optimizer: MakeOptimizer = default_critic_optimizer,
    temperature_optimizer: MakeOptimizer = default_temperature_optimizer,
    noise: MakeNoise = white,
    storage: MakeStorage = replay_storage,
    memory: MakeMemory = uniform_replay,
) -> tuple[Agent, Memory]:
    """SAC with a learned or fixed temperature, composed of the parts above.

    Actions and their log-probabilities are in canonical units, [-1, 1] per dimension, and so is
    the target entropy: the same one serves any bounds. In the environment's units, where
    b = low + (a + 1) (high - low) / 2, it is log pi(b|s) = log pi(a|s) - sum_d log((high_d -
    low_d) / 2), and entropies are larger by that sum.

    Args:
        penalty: added to the critics' loss, such as `conservative.conservative_critics`.

    Raises:
        ConfigError: the environment's actions are discrete or its observations images, or a part
            does not return what its contract says.
    """
    action_dim = dimension_of_actions("SAC", env)
    encode = features(env.observation_space)
    actor_net, critic_net = actor_and_critics(config, env, action_dim, actor, critics)
    draw_noise, init_carry = noise(config, action_dim)

    def sample_action(
        key: jax.Array, params: PyTree, obs: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return squashed_gaussian(*actor_net.apply(params, obs)).sample_and_log_prob(seed=key)

    def critic(
        params: PyTree, obs: jax.Array, action: jax.Array, dropout: jax.Array | None = None
    ) -> jax.Array:
        rngs = None if dropout is None else {"dropout": dropout}
        return critic_net.apply(params, obs, action, rngs=rngs)

    networks = Networks(sample_action, critic, critique(config))
    learner = Learner(
        networks=networks,
        optimize_actor=actor_optimizer(config),
        optimize_critic=critic_optimizer(config),
        optimize_temperature=temperature_optimizer(config),
        critic_target=critic_target,
        critic_loss=penalized(critic_loss, penalty),
        actor_loss=actor_loss,
        target_entropy=config.target_entropy_per_dim * action_dim,
    )

    def init(key: jax.Array, obs: jax.Array) -> SACState:
        key_actor, key_critic = jax.random.split(key)
        action = jnp.zeros((obs.shape[0], action_dim), jnp.float32)
        critic_params = critic_net.init(key_critic, encode(obs), action)
        return SACState(
            actor=start(learner.optimize_actor, actor_net.init(key_actor, encode(obs))),
            critic=start(learner.optimize_critic, critic_params),
            target_params=jax.tree.map(jnp.copy, critic_params),
            log_alpha=start(learner.optimize_temperature, jnp.log(jnp.float32(config.alpha))),
        )

    def act(
        key: jax.Array, state: SACState, obs: jax.Array, step: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree, PyTree]:
        mean, log_std = actor_net.apply(state.actor.params, encode(obs))
        epsilon, carry = draw_noise(key, mean.shape, carry)
        return jnp.tanh(mean + jnp.exp(log_std) * epsilon), (), carry

    def policy(
        key: jax.Array, state: SACState, obs: jax.Array, carry: PyTree
    ) -> tuple[jax.Array, PyTree]:
        mean, _ = actor_net.apply(state.actor.params, encode(obs))
        return jnp.tanh(mean), carry

    def q_values(state: SACState, obs: jax.Array, action: jax.Array) -> jax.Array:
        return networks.critique.value(critic(state.critic.params, encode(obs), action))

    def update(
        key: jax.Array, state: SACState, sample: Sample, count: jax.Array
    ) -> tuple[SACState, jax.Array, Metrics]:
        batch = encoded(sample.transition, encode)
        keys = Keys(*jax.random.split(key, len(Keys._fields)))
        return learn(config, learner, state, batch, sample.weight, keys, count)

    agent = Agent(init, act, policy, update, q_values, init_carry=init_carry)
    return agent, memory(config, storage(config, env))


class ContinuousConfig(ReplayConfig):
    """Fields of every algorithm of the family, whose actions are continuous."""

    env: Any = static("Pendulum-v1")
    """Environment: a name, or any gymnax `Environment` object."""
    total_steps: int = static(20_000)
    """Environment steps over all parallel environments, warm-up included."""
    batch_size: int = static(256)
    """Transitions per gradient update."""
    capacity: int = static(100_000)
    """Transitions the replay memory stores; a multiple of num_envs x rollout_length."""


class SACFields(ContinuousConfig, Targets, DelayedActor, LogStd, EntropyTarget):
    """Fields of `sac`; a part that needs more fields has its own class for them."""


class SACConfig(SACFields, Layers):
    """Configuration of Soft Actor-Critic."""

    algorithm: Algorithm = static(sac)
