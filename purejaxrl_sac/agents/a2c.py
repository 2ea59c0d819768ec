"""Advantage actor-critic (post, section 3).

The actor pi(a|s; theta) follows the gradient of the return, the critic V(s; theta) says how much
better an action was than expected (post, 3.3):

    J_pi = -E [ log pi(a|s) A(s, a) ],    A(s_t, a_t) = G_t - V(s_t)
    J_V  =  E [ (G_t - V(s_t))^2 / 2 ]
    J    = J_pi + c_V J_V - c_H E [ H(pi(.|s)) ]

with the lambda-return G of the rollout, so that A is the generalised advantage of Schulman et al.
(2016, arXiv 1506.02438): lambda = 0 is the TD error, lambda = 1 the return of as many steps as the
rollout and the episode have (A3C, Mnih et al. 2016, arXiv 1602.01783; REINFORCE with a baseline
where rollouts are as long as episodes). Episodes end returns, time limits bootstrap.

Every part is a function:

    network      (config, space, Policy) -> flax module             networks.usual_actor_critic
    policy       Env -> Policy: what the actor's outputs mean       distributions.usual
    objective    (config, log pi, log pi_old, A) -> J_pi per row    policy_gradient
    normalize    A -> A, over a batch                               as_it_is
    optimizer    (learning rate, max norm) -> optax                 optimize.rmsprop
    memory       config -> Memory                                   whole_rollout
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from purejaxrl_sac import distributions, envs, networks, optimize
from purejaxrl_sac.config import Config, static
from purejaxrl_sac.memory import latest
from purejaxrl_sac.returns import lambda_returns
from purejaxrl_sac.types import Agent, Memory, PyTree, Sample, Transition


class ActorCriticState(NamedTuple):
    params: PyTree  # theta, of actor and critic
    opt_state: PyTree


class Choice(NamedTuple):
    """What is remembered of an action, [T, N]; `advantage` and `target` as of `observe`."""

    sample: jax.Array  # what was drawn; the action is `Policy.action` of it
    log_prob: jax.Array  # log pi(sample|s) when it was drawn
    value: jax.Array  # V(s) then
    advantage: jax.Array | tuple = ()  # A(s, a)
    target: jax.Array | tuple = ()  # G


def policy_gradient(
    config: Config, log_prob: jax.Array, old_log_prob: jax.Array, advantage: jax.Array
) -> jax.Array:
    """-log pi(a|s) A(s, a): its gradient is the policy gradient (post, 3.3)."""
    return -log_prob * advantage


def as_it_is(advantage: jax.Array) -> jax.Array:
    """A."""
    return advantage


def standardized(advantage: jax.Array) -> jax.Array:
    """A with mean 0 and standard deviation 1 in the batch, whatever the unit of rewards."""
    return (advantage - advantage.mean()) / (advantage.std() + 1e-8)


def whole_rollout(config: Config) -> Memory:
    """Each update gets all of the rollout just collected."""
    return latest()


def actor_critic(
    config: ActorCriticConfig,
    *,
    network: Callable = networks.default_actor_critic,
    policy: Callable = distributions.default,
    objective: Callable = policy_gradient,
    normalize: Callable = as_it_is,
    optimizer: Callable = optimize.rmsprop,
    memory: Callable = whole_rollout,
) -> tuple[Agent, Memory]:
    """An on-policy actor and its critic, out of the parts above.

    Raises:
        ConfigError: a part cannot be made.
    """
    env = envs.bind(config.env, config.env_params)
    meaning = policy(env)
    model = network(config, env.observation_space, meaning)
    features = networks.features(env.observation_space)
    optimizer = optimizer(optimize.linear_decay(config), config.max_grad_norm)

    def apply(params: PyTree, obs: jax.Array) -> tuple:
        outputs, value = model.apply(params, features(obs))
        return meaning.distribution(outputs), value

    def init(key: jax.Array, obs: jax.Array) -> ActorCriticState:
        params = model.init(key, features(obs))
        return ActorCriticState(params, optimizer.init(params))

    def act(key: jax.Array, state: ActorCriticState, obs: jax.Array, step: jax.Array) -> tuple:
        pi, value = apply(state.params, obs)
        sample, log_prob = pi.sample_and_log_prob(seed=key)
        return meaning.action(sample), Choice(sample, log_prob, value)

    def best(key: jax.Array, state: ActorCriticState, obs: jax.Array) -> jax.Array:
        pi, _ = apply(state.params, obs)
        return meaning.action(pi.mode())

    def process_rollout(state: ActorCriticState, rollout: Transition) -> tuple:
        _, next_value = jax.vmap(apply, (None, 0))(state.params, rollout.next_obs)
        trace = config.trace_decay * ~rollout.last
        target = lambda_returns(rollout.reward, rollout.discount, next_value, trace, config.gamma)
        choice = rollout.extras
        choice = choice._replace(advantage=target - choice.value, target=target)
        return state, rollout._replace(extras=choice, next_obs=())  # updates need none

    def update(key: jax.Array, state: ActorCriticState, sample: Sample, count: jax.Array) -> tuple:
        leading = sample.transition.reward.ndim
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[leading:]), sample.transition)
        choice = batch.extras
        advantage = normalize(choice.advantage)

        def loss(params: PyTree) -> tuple[jax.Array, tuple]:
            pi, value = apply(params, batch.obs)
            log_prob, entropy = pi.log_prob(choice.sample), pi.entropy().mean()
            j_pi = objective(config, log_prob, choice.log_prob, advantage).mean()
            error = choice.target - value
            j_v = 0.5 * jnp.square(error).mean()
            metrics = {
                "policy_loss": j_pi,
                "value_loss": j_v,
                "entropy": entropy,
                "value": value.mean(),
                "kl": (choice.log_prob - log_prob).mean(),
            }
            return j_pi + config.value_coef * j_v - config.entropy_coef * entropy, (error, metrics)

        (value, (error, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        params, opt_state = optimize.apply_gradients(
            optimizer, grads, state.opt_state, state.params
        )
        return ActorCriticState(params, opt_state), jnp.abs(error), {"loss": value, **metrics}

    return Agent(init, act, best, update, process_rollout=process_rollout), memory(config)


a2c = actor_critic
reinforce = partial(actor_critic, optimizer=optimize.adam)


@struct.dataclass
class ActorCriticConfig(Config):
    """Configuration of A2C."""

    algorithm: Callable = static(a2c)
    num_envs: int = static(16)
    """Parallel environments per seed."""
    rollout_length: int = static(8)
    """Steps each environment takes between learning phases: as far as returns look ahead."""
    hidden_sizes: tuple[int, ...] = static((64, 64))
    """Units of each hidden layer."""
    activation: str = static("tanh")
    """Activation function, by its name in flax.linen."""
    learning_rate: float = 4e-3
    """Step size of the optimiser at first."""
    learning_rate_end: float = 0.0
    """Share of the step size that is left at the end, after falling in a straight line."""
    gamma: float = 0.99
    """Discount factor."""
    trace_decay: float = 0.95
    """lambda: weight of the return over the next value; 0 is the TD error."""
    value_coef: float = 0.5
    """c_V: weight of the critic's loss."""
    entropy_coef: float = 0.01
    """c_H: weight of the policy's entropy, in nats."""
    max_grad_norm: float = 0.5
    """Global norm that gradients are clipped to."""


@struct.dataclass
class ReinforceConfig(ActorCriticConfig):
    """Configuration of REINFORCE with a baseline: returns as long as the rollouts."""

    algorithm: Callable = static(reinforce)
    rollout_length: int = static(500)
    """Steps each environment takes between updates; longer than an episode for whole returns."""
    learning_rate: float = 3e-3
    """Step size of Adam at first."""
    trace_decay: float = 1.0
    """lambda: weight of the return over the next value; 1 is REINFORCE."""
    entropy_coef: float = 0.0
    """c_H: weight of the policy's entropy, in nats."""
