"""Advantage actor-critic (post, section 3).

The actor pi(a|s; theta) follows the gradient of the expected return; the critic V(s; theta) is the
baseline of the advantage A (post, 3.3):

    J_pi = -E [ log pi(a|s) A(s, a) ],    A(s_t, a_t) = G_t - V(s_t)
    J_V  =  E [ (G_t - V(s_t))^2 / 2 ]
    J    = J_pi + c_V J_V - c_H E [ H(pi(.|s)) ]

with the lambda-return G of the rollout, so that A is the generalised advantage of Schulman et al.
(2016, arXiv 1506.02438): lambda = 0 is the TD error, lambda = 1 the return of as many steps as the
rollout and the episode have (A3C, Mnih et al. 2016, arXiv 1602.01783). Terminations end returns,
time limits bootstrap. REINFORCE (Williams 1992) with a baseline learns from the returns of whole
episodes only: lambda = 1, and of T steps the first T - L + 1, L being the longest episode, so that
their episodes end in the rollout. To drop the steps whose episodes happen not to end in it would be
biased: these are the long ones more often than the short ones.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import distrax
import jax
import jax.numpy as jnp
import optax

from purejaxrl_sac import distributions, exploration, optimize
from purejaxrl_sac.agents.common import Layers, Learning, check_independent_noise
from purejaxrl_sac.checks import check_outputs
from purejaxrl_sac.config import Config, ConfigError, static, traced
from purejaxrl_sac.contracts import checks_parts
from purejaxrl_sac.distributions import ActionDistribution
from purejaxrl_sac.memory import latest, latest_before
from purejaxrl_sac.networks import default_actor_critic, features
from purejaxrl_sac.optimize import Learned, decaying_adam, gradient_step, linear_decay, start
from purejaxrl_sac.returns import lambda_returns
from purejaxrl_sac.types import (
    Agent,
    Algorithm,
    Env,
    Loss,
    LossOutput,
    MakeActorCritic,
    MakeOptimizer,
    MakeRolloutMemory,
    Memory,
    Metrics,
    Objective,
    PyTree,
    Sample,
    Schedule,
    Transition,
    ValueLoss,
    memoryless,
)


class Choice(NamedTuple):
    """What is stored with an action, [T, N]; `process_rollout` adds `advantage` and `target`."""

    sample: jax.Array  # the action is `ActionDistribution.action` of it
    log_prob: jax.Array  # log pi(sample|s) when it was drawn
    value: jax.Array  # V(s) when it was drawn
    advantage: Any = ()  # A(s, a)
    target: Any = ()  # G


class LossInputs(NamedTuple):
    """Inputs of a loss besides the parameters with respect to which it is differentiated."""

    config: Any
    apply: Callable[[PyTree, jax.Array], tuple[distrax.Distribution, jax.Array]]  # (theta, obs
    # [B, ...]) -> pi(.|s), V(s) [B]
    objective: Objective
    value_loss: ValueLoss
    batch: Transition  # [B]; `extras` is a Choice
    advantage: jax.Array  # A [B], normalised
    weight: jax.Array  # [B]


def actor_critic_loss(params: PyTree, inputs: LossInputs) -> LossOutput:
    """J = J_pi + c_V J_V - c_H E[H(pi(.|s))] of weighted rows, and |G - V(s)| as priority."""
    config, apply, objective, value_loss, batch, advantage, weight = inputs
    choice = batch.extras
    pi, value = apply(params, batch.obs)
    log_prob = pi.log_prob(choice.sample)
    j_pi = (weight * objective(config, log_prob, choice.log_prob, advantage)).mean()
    j_v = 0.5 * (weight * value_loss(config, value, choice.value, choice.target)).mean()
    entropy = (weight * pi.entropy()).mean()
    loss = j_pi + config.value_coef * j_v - config.entropy_coef * entropy
    metrics = {
        "loss": loss,
        "policy_loss": j_pi,
        "value_loss": j_v,
        "entropy": entropy,
        "value": value.mean(),
        "kl": (choice.log_prob - log_prob).mean(),
    }
    return loss, (jnp.abs(choice.target - value), metrics)


def policy_gradient(
    config: Config, log_prob: jax.Array, old_log_prob: jax.Array, advantage: jax.Array
) -> jax.Array:
    """-log pi(a|s) A(s, a): its gradient is the policy gradient (post, 3.3)."""
    return -log_prob * advantage


def squared_error(
    config: Config, value: jax.Array, old_value: jax.Array, target: jax.Array
) -> jax.Array:
    """(G - V(s))^2, whose half is J_V."""
    return jnp.square(target - value)


def constant(config: Config, count: jax.Array) -> Config:
    """The same configuration in every update."""
    return config


def unnormalized(advantage: jax.Array) -> jax.Array:
    """A."""
    return advantage


def standardized(advantage: jax.Array) -> jax.Array:
    """A with mean 0 and standard deviation 1, whatever the scale of rewards.

    Raises:
        ConfigError: there is only one, which would always become 0.
    """
    if advantage.size == 1:
        raise ConfigError(
            "the advantage of a single row, normalised, is always 0: take fewer minibatches"
            " (num_updates), or raise num_envs or rollout_length"
        )
    return (advantage - advantage.mean()) / (advantage.std() + 1e-8)


def decaying_rmsprop(config: Any) -> optax.GradientTransformation:
    """RMSProp on clipped gradients, with linear decay of the learning rate."""
    return optimize.rmsprop(linear_decay(config), config.max_grad_norm)


def whole_rollout(config: Config, env: Env) -> Memory:
    """Each update uses the whole of the latest rollout."""
    return latest()


def complete_returns(config: Any, env: Env) -> Memory:
    """As `whole_rollout`, without the steps from which an episode may not end in it.

    Raises:
        ConfigError: the rollout is shorter than the longest episode, or there is no time limit.
    """
    if env.max_steps is None:
        raise ConfigError(
            f"{env.name} has no time limit, but REINFORCE needs rollouts in which episodes end: use"
            " a2c with trace_decay=1"
        )
    if isinstance(env.max_steps, int) and config.rollout_length < env.max_steps:
        raise ConfigError(
            f"rollout_length is {config.rollout_length}, but must be at least {env.max_steps}, the"
            f" longest episode of {env.name}, better twice that: REINFORCE learns from the steps"
            " whose episodes end in the rollout"
        )
    return latest_before(env.max_steps)


def check_actor_critic(
    env: Env, distribution: Any, outputs: PyTree, value: jax.Array, batch: int
) -> None:
    """Raises ConfigError unless V(s) is [batch], and the outputs have the actions' number or size.

    Outputs for a distribution of one's own are not checked.
    """
    check_outputs("network", value, batch, ("B",))
    if distribution is distributions.default:
        size, arrays = (env.num_actions, 1) if env.num_actions else (env.action_dim, 2)
        check_outputs("network", outputs, batch, ("B", size or 0), arrays=arrays)


def check_log_prob(log_prob: jax.Array, batch: int) -> None:
    """Raises ConfigError unless log pi(a|s) is [batch]; others broadcast with the advantages."""
    if log_prob.shape != (batch,):
        raise ConfigError(
            f"the part distribution made one whose log_prob has shape {[*log_prob.shape]} for"
            f" {batch} observations, but must make one with shape [{batch}]: wrap it in"
            " distrax.Independent(..., 1), which sums over an action's dimensions"
        )


@checks_parts
def actor_critic(
    config: ActorCriticConfig,
    env: Env,
    *,
    network: MakeActorCritic = default_actor_critic,
    distribution: Callable[[Env], ActionDistribution] = distributions.default,
    objective: Objective = policy_gradient,
    value_loss: ValueLoss = squared_error,
    normalize: Callable[[jax.Array], jax.Array] = unnormalized,
    normalize_rollout: Callable[[jax.Array], jax.Array] = unnormalized,
    schedule: Schedule = constant,
    loss: Loss = actor_critic_loss,
    optimizer: MakeOptimizer = decaying_rmsprop,
    memory: MakeRolloutMemory = whole_rollout,
) -> tuple[Agent, Memory]:
    """An on-policy actor and its critic, composed of the parts above.

    Args:
        normalize: normalises the advantages of each batch.
        normalize_rollout: normalises those of the whole rollout, before it is divided into batches.
        schedule: anneals fields that the loss uses, such as `entropy_coef`, over the run.
        optimizer: separate optimisers of actor and critic are
            `optax.multi_transform({"actor": ..., "critic": ...}, networks.actor_and_critic)`.

    Raises:
        ConfigError: noise_repeat is not 1.
    """
    check_independent_noise("an actor-critic", config)
    action_distribution = distribution(env)
    model = network(config, env.observation_space, action_distribution)
    encode, optimize = features(env.observation_space), optimizer(config)

    def apply(params: PyTree, obs: jax.Array) -> tuple[distrax.Distribution, jax.Array]:
        outputs, value = model.apply(params, encode(obs))
        check_actor_critic(env, distribution, outputs, value, obs.shape[0])
        outputs = exploration.legal_values(env, obs, outputs)
        return action_distribution.distribution(outputs), value

    def init(key: jax.Array, obs: jax.Array) -> Learned:
        return start(optimize, model.init(key, encode(obs)))

    def act(
        key: jax.Array, state: Learned, obs: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        pi, value = apply(state.params, obs)
        sample, log_prob = pi.sample_and_log_prob(seed=key)
        check_log_prob(log_prob, obs.shape[0])
        return action_distribution.action(sample), Choice(sample, log_prob, value)

    def policy(key: jax.Array, state: Learned, obs: jax.Array) -> jax.Array:
        pi, _ = apply(state.params, obs)
        return action_distribution.action(pi.mode())

    def process_rollout(state: Learned, rollout: Transition) -> tuple[Learned, Transition]:
        _, next_value = jax.vmap(apply, (None, 0))(state.params, rollout.next_obs)
        trace = config.trace_decay * (~rollout.last).astype(jnp.float32)
        target = lambda_returns(rollout.reward, rollout.discount, next_value, trace, config.gamma)
        choice = rollout.extras
        advantage = normalize_rollout(target - choice.value)
        choice = choice._replace(advantage=advantage, target=target)
        return state, rollout._replace(extras=choice, next_obs=())  # no update needs it

    def update(
        key: jax.Array, state: Learned, sample: Sample, count: jax.Array
    ) -> tuple[Learned, jax.Array, Metrics]:
        leading = sample.transition.reward.shape
        rows = sample.transition, jnp.broadcast_to(sample.weight, leading)
        batch, weight = jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(leading) :]), rows)
        advantage = normalize(batch.extras.advantage)
        inputs = LossInputs(
            schedule(config, count), apply, objective, value_loss, batch, advantage, weight
        )
        state, _, (priority, metrics) = gradient_step(optimize, state, loss, inputs)
        return state, priority, metrics

    agent = memoryless(init, act, policy, update, process_rollout=process_rollout)
    return agent, memory(config, env)


a2c = actor_critic
reinforce = partial(actor_critic, optimizer=decaying_adam, memory=complete_returns)


class ActorCriticConfig(Learning, Layers):
    """Configuration of A2C."""

    algorithm: Algorithm = static(a2c)
    num_envs: int = static(16)
    """Parallel environments per seed."""
    rollout_length: int = static(8)
    """Steps each environment takes between learning phases: as far as returns look ahead."""
    activation: str = static("tanh")
    """Activation function, by its name in flax.linen."""
    learning_rate: float = 4e-3
    """Initial learning rate."""
    learning_rate_end: float = 0.0
    """Fraction of the initial learning rate, not a rate, that it decays to linearly."""
    trace_decay: float = traced(0.95, between=(0, 1))
    """lambda: weight of the return over the next value; 0 is the TD error."""
    value_coef: float = traced(0.5, at_least=0)
    """c_V: weight of the critic's loss."""
    entropy_coef: float = traced(0.01, at_least=0)
    """c_H: weight of the policy's entropy, in nats."""
    max_grad_norm: float | None = 0.5
    """Global norm that the gradients of each network are clipped to; inf or None: no clipping."""


class ReinforceConfig(ActorCriticConfig):
    """Configuration of REINFORCE with a baseline: returns until episodes end."""

    algorithm: Algorithm = static(reinforce)
    rollout_length: int = static(1_000)
    """Steps of each environment between updates: at least the longest episode, better twice it."""
    learning_rate: float = 3e-3
    """Initial learning rate."""
    trace_decay: float = 1.0
    """lambda: weight of the return over the next value; 1 is REINFORCE."""
    entropy_coef: float = 0.0
    """c_H: weight of the policy's entropy, in nats."""
