"""PQN: parallelised Q-learning without replay or target network (Gallici et al. 2025, 2407.04811).

LayerNorm keeps the network stable. Each rollout [T, N] is turned into returns once,

    G_t = r_t + gamma d_t ((1 - lambda) max_a Q(s_{t+1}, a) + lambda G_{t+1})

with the network that collected it, and regressed on in epochs of minibatches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from purejaxrl_sac import envs, exploration, losses, networks
from purejaxrl_sac.config import Config, ConfigError, static
from purejaxrl_sac.memory import minibatches
from purejaxrl_sac.optimize import adam, apply_gradients, linear_decay
from purejaxrl_sac.returns import lambda_returns
from purejaxrl_sac.types import Agent, Memory, PyTree, Sample, Transition


class PQNState(NamedTuple):
    params: PyTree
    opt_state: PyTree


normalized_network = partial(networks.q_network, norm=networks.LayerNorm)


def pqn(config: PQNConfig, *, network: Callable = normalized_network) -> tuple[Agent, Memory]:
    """PQN. An iteration is num_epochs passes over the rollout in num_minibatches each.

    Args:
        network: as for `dqn`, without noisy layers, for whose noise there is no key here.

    Raises:
        ConfigError: the environment's actions are continuous, or the rollout or num_updates
            cannot be divided as the configuration says.
    """
    env = envs.bind(config.env, config.env_params)
    if env.num_actions is None:
        raise ConfigError(f"PQN needs discrete actions, but {env.name} has continuous: use sac")
    model = network(config, env.observation_space, env.num_actions, 1)
    features = networks.features(env.observation_space)
    optimizer = adam(linear_decay(config), config.max_grad_norm)

    def q(params: PyTree, obs: jax.Array) -> jax.Array:
        return model.apply(params, features(obs)).squeeze(-1)

    def init(key: jax.Array, obs: jax.Array) -> PQNState:
        params = model.init(key, features(obs))
        return PQNState(params, optimizer.init(params))

    def q_values(state: PQNState, obs: jax.Array) -> jax.Array:
        return q(state.params, obs)

    def act(key: jax.Array, state: PQNState, obs: jax.Array, step: jax.Array) -> tuple:
        epsilon = exploration.annealed_epsilon(config, step)
        pi = exploration.epsilon_greedy(q_values(state, obs), epsilon)
        return exploration.sample(key, pi), ()

    def policy(key: jax.Array, state: PQNState, obs: jax.Array) -> jax.Array:
        return q_values(state, obs).argmax(-1).astype(jnp.int32)

    def process_rollout(state: PQNState, rollout: Transition) -> tuple[PQNState, Transition]:
        flat = rollout.next_obs.reshape(-1, *rollout.next_obs.shape[2:])
        next_value = q_values(state, flat).max(-1).reshape(rollout.reward.shape)
        trace = config.trace_decay * ~rollout.last
        target = lambda_returns(rollout.reward, rollout.discount, next_value, trace, config.gamma)
        return state, rollout._replace(extras=target, next_obs=())  # updates need none

    def update(key: jax.Array, state: PQNState, sample: Sample, count: jax.Array) -> tuple:
        batch = sample.transition

        def loss(params: PyTree) -> tuple[jax.Array, jax.Array]:
            chosen = losses.select_action(q(params, batch.obs), batch.action)
            error = losses.huber(batch.extras - chosen, config.huber_delta)
            return (sample.weight * error).mean(), chosen

        (value, chosen), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        params, opt_state = apply_gradients(optimizer, grads, state.opt_state, state.params)
        metrics = {"loss": value, "q": chosen.mean()}
        return PQNState(params, opt_state), jnp.abs(batch.extras - chosen), metrics

    agent = Agent(init, act, policy, update, q_values, process_rollout)
    return agent, minibatches(config.num_epochs, config.num_updates // config.num_epochs)


@struct.dataclass
class PQNConfig(Config):
    """Configuration of PQN."""

    algorithm: Callable = static(pqn)
    num_envs: int = static(32)
    """Parallel environments per seed."""
    rollout_length: int = static(64)
    """Steps each environment takes between learning phases: as far as returns look ahead."""
    num_updates: int = static(64)
    """Gradient updates in each learning phase: num_epochs times the number of minibatches."""
    num_epochs: int = static(4)
    """Passes over each rollout."""
    hidden_sizes: tuple[int, ...] = static((128, 128))
    """Units of each hidden layer."""
    activation: str = static("relu")
    """Activation function, by its name in flax.linen."""
    compute_dtype: str = static("float32")
    """What hidden layers compute in, float32 or bfloat16; parameters are always float32."""
    learning_rate: float = 1e-3
    """Step size of Adam at first."""
    learning_rate_end: float = 0.0
    """Share of the step size that is left at the end, after falling in a straight line."""
    gamma: float = 0.99
    """Discount factor."""
    trace_decay: float = 0.95
    """lambda: weight of the return over the next value; 0 is Q-learning."""
    epsilon_start: float = 1.0
    """Probability of a random action at the first step."""
    epsilon_end: float = 0.05
    """Probability of a random action once the schedule has ended."""
    epsilon_fraction: float = 0.2
    """Share of total_steps over which epsilon falls, in a straight line."""
    huber_delta: float = float("inf")
    """Where the loss turns from squared to linear; inf is the squared loss."""
    max_grad_norm: float = 10.0
    """Global norm that gradients are clipped to."""
