"""CrossQ (Bhatt et al. 2024, arXiv 1902.05605): SAC with batch renormalisation, without targets.

Q(s, a) and Q(s', a') are the outputs of one pass over both halves of a joint batch, so that they
are normalised alike; that is what makes the target network unnecessary (d is 0 where the episode
terminated and 1 elsewhere):

    y = r + gamma d (min_j Q_j(s', a') - alpha log pi(a'|s')),   a' ~ pi(.|s')

It needs observations that vary: where all of a batch are equal, its statistics are noise. As in the
authors' networks, inputs and the outputs of each activation are normalised, and Adam's b1 is 0.5.
Critics have 256 units per layer instead of 2,048, and plain batch normalisation lasts 5,000 updates
instead of 100,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from purejaxrl_sac.agents.common import (
    DelayedActor,
    EntropyTarget,
    Layers,
    LogStd,
    actor_and_critics,
    dimension_of_actions,
)
from purejaxrl_sac.agents.off_policy import encoded, replay_storage, uniform_replay
from purejaxrl_sac.agents.sac import (
    ContinuousConfig,
    Keys,
    Networks,
    default_temperature_optimizer,
    minimum,
    temperature_gradient,
)
from purejaxrl_sac.config import ConfigError, static
from purejaxrl_sac.contracts import checks_parts
from purejaxrl_sac.distributions import squashed_gaussian
from purejaxrl_sac.losses import soft, td
from purejaxrl_sac.networks.continuous import Critics, GaussianActor
from purejaxrl_sac.networks.layers import Activation, BatchRenorm, MakeNorm
from purejaxrl_sac.networks.torsos import convolutions, features, flat
from purejaxrl_sac.optimize import (
    Learned,
    apply_gradients,
    clip,
    delayed_update,
    gradient_step,
    is_due,
    joined,
    linear_decay,
    penalized,
    start,
    where,
)
from purejaxrl_sac.types import (
    Agent,
    Algorithm,
    Env,
    MakeActor,
    MakeCritics,
    MakeMemory,
    MakeOptimizer,
    MakeStorage,
    Memory,
    Metrics,
    Network,
    Penalty,
    PyTree,
    Sample,
    Transition,
    memoryless,
)

STATISTICS = "batch_stats"
MOMENTUM = 0.5  # of Adam; the authors' value


class CrossQState(NamedTuple):
    actor: Learned  # phi
    actor_stats: PyTree  # running statistics of the actor's normalisation
    critic: Learned  # theta_i, leading axis [2]
    critic_stats: PyTree  # leading axis [2]
    log_alpha: Learned  # scalar


class LossInputs(NamedTuple):
    """Inputs of a loss besides the parameters with respect to which it is differentiated."""

    config: CrossQConfig
    actor: Network
    critic: Network
    state: CrossQState  # for the actor's loss, with the critics' new parameters and statistics
    batch: Transition  # [B]; `obs` and `next_obs` are features
    weight: jax.Array  # [B], or a scalar
    key: jax.Array

    @property
    def networks(self) -> Networks:
        """The networks as those of `sac.LossInputs`, for penalties.

        They normalise by the running statistics, as the critics that the actor maximises do.
        """
        state = self.state

        def sample(key: jax.Array, params: PyTree, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
            variables = {"params": params, **state.actor_stats}
            return sample_action(key, self.actor.apply(variables, obs))

        def critic(
            params: PyTree, obs: jax.Array, action: jax.Array, dropout: jax.Array | None = None
        ) -> jax.Array:
            return self.critic.apply({"params": params, **state.critic_stats}, obs, action)

        return Networks(sample, critic, minimum(self.config))

    @property
    def keys(self) -> Keys:
        """Keys as those of `sac.LossInputs`, for penalties; independent of the loss's own."""
        return Keys(*jax.random.split(jax.random.fold_in(self.key, 1), len(Keys._fields)))


class NormalizedMLP(nn.Module):
    """An MLP whose inputs and activations are normalised: [B, ...] -> [B, hidden_sizes[-1]]."""

    hidden_sizes: Sequence[int]
    activation: Activation
    norm: MakeNorm

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.norm()(flat(x))
        for size in self.hidden_sizes:
            x = self.norm()(self.activation(nn.Dense(size)(x)))
        return x


def normalized(config: CrossQConfig, sizes: Sequence[int]) -> NormalizedMLP:
    """An MLP with batch renormalisation."""
    norm = partial(BatchRenorm, config.renorm_warmup)
    return NormalizedMLP(sizes, getattr(nn, config.activation), norm)


def normalized_actor(config: CrossQConfig, space: Any, action_dim: int) -> GaussianActor:
    """A Gaussian actor with batch renormalisation."""
    mlp = normalized(config, config.hidden_sizes)
    return GaussianActor(mlp, action_dim, config.log_std_min, config.log_std_max)


def normalized_critics(config: CrossQConfig, space: Any) -> Critics:
    """Two independent MLPs with batch renormalisation.

    Raises:
        ConfigError: observations are images, which cannot be concatenated with actions.
    """
    if convolutions(space):
        raise ConfigError(
            f"critics of continuous actions need observations that are vectors, not images of shape"
            f" {space.shape}: wrap the environment to flatten them"
        )
    return Critics(normalized(config, config.critic_hidden_sizes), 2)


def actor_optimizer_with_less_momentum(config: CrossQConfig) -> optax.GradientTransformation:
    """`sac`'s optimiser of actors with b1 = 0.5."""
    decay = linear_decay(config, config.policy_delay, config.actor_learning_rate)
    return optax.chain(clip(config.max_grad_norm), optax.adam(decay, b1=MOMENTUM))


def critic_optimizer_with_less_momentum(config: CrossQConfig) -> optax.GradientTransformation:
    """`sac`'s optimiser of critics with b1 = 0.5."""
    adam = optax.adam(linear_decay(config), b1=MOMENTUM)
    return optax.chain(clip(config.max_grad_norm, members=True), adam)


def statistics(variables: Any) -> PyTree:
    """The variables of a network that are not parameters."""
    return {name: value for name, value in variables.items() if name != "params"}


def sample_action(key: jax.Array, outputs: Any) -> tuple[jax.Array, jax.Array]:
    """a ~ pi(.|s) [B, D] and log pi(a|s) [B] from the actor's outputs."""
    return squashed_gaussian(*outputs).sample_and_log_prob(seed=key)


def critic_loss(
    params: PyTree, inputs: LossInputs
) -> tuple[jax.Array, tuple[tuple[PyTree, jax.Array], Metrics]]:
    """J_Q over a joint batch; also new statistics with priority [B], and metrics."""
    config, actor, critic, state, batch, weight, key = inputs
    outputs = actor.apply({"params": state.actor.params, **state.actor_stats}, batch.next_obs)
    next_action, next_log_prob = sample_action(key, outputs)
    both, stats = critic.apply(
        {"params": params, **state.critic_stats},
        jnp.concatenate([batch.obs, batch.next_obs]),
        jnp.concatenate([batch.action, next_action]),
        mutable=[STATISTICS],
    )
    q, next_q = jnp.split(both, 2, axis=1)
    next_value = soft.soft_value(next_q, next_log_prob, jnp.exp(state.log_alpha.params))
    target = td.td_target(batch.reward, batch.discount, config.gamma, next_value)
    loss = (weight * soft.soft_critic(q, target)).mean()
    return loss, ((stats, jnp.abs(target - q).mean(0)), {"critic_loss": loss, "q": q.mean()})


def actor_loss(
    params: PyTree, inputs: LossInputs
) -> tuple[jax.Array, tuple[PyTree, jax.Array, Metrics]]:
    """J_pi as in SAC; also new statistics, log pi(a|s) [B] and metrics."""
    _, actor, critic, state, batch, _, key = inputs
    variables = {"params": params, **state.actor_stats}
    outputs, stats = actor.apply(variables, batch.obs, mutable=[STATISTICS])
    action, log_prob = sample_action(key, outputs)
    q = critic.apply({"params": state.critic.params, **state.critic_stats}, batch.obs, action)
    loss = soft.soft_actor(q, log_prob, jnp.exp(state.log_alpha.params)).mean()
    return loss, (stats, log_prob, {"actor_loss": loss, "entropy": -log_prob.mean()})


@checks_parts
def crossq(
    config: CrossQConfig,
    env: Env,
    *,
    actor: MakeActor = normalized_actor,
    critics: MakeCritics = normalized_critics,
    penalty: Penalty | None = None,
    actor_optimizer: MakeOptimizer = actor_optimizer_with_less_momentum,
    critic_optimizer: MakeOptimizer = critic_optimizer_with_less_momentum,
    temperature_optimizer: MakeOptimizer = default_temperature_optimizer,
    storage: MakeStorage = replay_storage,
    memory: MakeMemory = uniform_replay,
) -> tuple[Agent, Memory]:
    """CrossQ, with a learned or fixed temperature; its parts are as those of these names of `sac`.

    Args:
        penalty: added to the critics' loss, such as `conservative.conservative_critics`; there,
            critics normalise by the running statistics.

    Raises:
        ConfigError: the environment's actions are discrete.
    """
    action_dim, space = dimension_of_actions("CrossQ", env), env.observation_space
    encode = features(space)
    actor_net, critic = actor_and_critics(config, env, action_dim, actor, critics)
    delay, target_entropy = config.policy_delay, config.target_entropy_per_dim * action_dim
    optimize_actor, optimize_critic = actor_optimizer(config), critic_optimizer(config)
    optimize_temperature = temperature_optimizer(config)
    critics_loss = penalized(critic_loss, penalty)

    def init(key: jax.Array, obs: jax.Array) -> CrossQState:
        key_actor, key_critic = jax.random.split(key)
        action = jnp.zeros((obs.shape[0], action_dim), jnp.float32)
        actor_variables = actor_net.init(key_actor, encode(obs))
        critic_variables = critic.init(key_critic, encode(obs), action)
        return CrossQState(
            actor=start(optimize_actor, actor_variables["params"]),
            actor_stats=statistics(actor_variables),
            critic=start(optimize_critic, critic_variables["params"]),
            critic_stats=statistics(critic_variables),
            log_alpha=start(optimize_temperature, jnp.log(jnp.float32(config.alpha))),
        )

    def outputs(state: CrossQState, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        return actor_net.apply({"params": state.actor.params, **state.actor_stats}, encode(obs))

    def act(
        key: jax.Array, state: CrossQState, obs: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        return squashed_gaussian(*outputs(state, obs)).sample(seed=key), ()

    def policy(key: jax.Array, state: CrossQState, obs: jax.Array) -> jax.Array:
        return jnp.tanh(outputs(state, obs)[0])

    def q_values(state: CrossQState, obs: jax.Array, action: jax.Array) -> jax.Array:
        variables = {"params": state.critic.params, **state.critic_stats}
        return td.least_value(critic.apply(variables, encode(obs), action))

    def update(
        key: jax.Array, state: CrossQState, sample: Sample, count: jax.Array
    ) -> tuple[CrossQState, jax.Array, Metrics]:
        key_next, key_actor = jax.random.split(key)
        batch = encoded(sample.transition, encode)
        inputs = LossInputs(config, actor_net, critic, state, batch, sample.weight, key_next)

        new_critic, _, ((critic_stats, priority), metrics) = gradient_step(
            optimize_critic, state.critic, critics_loss, inputs
        )
        after = state._replace(critic=new_critic, critic_stats=critic_stats)

        def actor_and_temperature() -> tuple[PyTree, Metrics]:
            actor_grads, (stats, log_prob, metrics) = jax.grad(actor_loss, has_aux=True)(
                state.actor.params, inputs._replace(state=after, key=key_actor)
            )
            alpha_grad = temperature_gradient(state.log_alpha, log_prob, target_entropy)
            return (actor_grads, alpha_grad, stats), metrics

        due = is_due(delay, count)
        (actor_grads, alpha_grad, stats), actor_metrics = delayed_update(
            delay, due, actor_and_temperature
        )
        after = after._replace(
            actor=apply_gradients(optimize_actor, state.actor, actor_grads, due=due),
            actor_stats=where(due, stats, state.actor_stats),
            log_alpha=apply_gradients(optimize_temperature, state.log_alpha, alpha_grad, due=due),
        )
        metrics = joined(metrics, {"alpha": jnp.exp(state.log_alpha.params)}, actor_metrics)
        return after, priority, metrics

    agent = memoryless(init, act, policy, update, q_values)
    return agent, memory(config, storage(config, env))


class CrossQConfig(ContinuousConfig, Layers, DelayedActor, LogStd, EntropyTarget):
    """Configuration of CrossQ."""

    algorithm: Algorithm = static(crossq)
    policy_delay: int = static(3)
    """Updates of the critics per update of the actor and the temperature."""
    critic_hidden_sizes: tuple[int, ...] = static((256, 256), kind=tuple)
    """Units of each hidden layer of the critics; the actor has `hidden_sizes`."""
    renorm_warmup: int = static(5_000, at_least=0)
    """Updates of each network with plain batch normalisation before renormalisation."""
