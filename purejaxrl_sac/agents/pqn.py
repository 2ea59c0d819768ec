"""PQN: parallelised Q-learning without replay or target network (Gallici et al. 2025, 2407.04811).

LayerNorm keeps the network stable. Each rollout [T, N] is turned into returns once,

    G_t = r_t + gamma d_t ((1 - lambda) max_a Q(s_{t+1}, a) + lambda G_{t+1})

with the network that collected it, and Q is regressed on them in epochs of minibatches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_sac import exploration, losses
from purejaxrl_sac.agents.common import (
    Epochs,
    EpsilonGreedy,
    Huber,
    Learning,
    QLayers,
    number_of_actions,
    value_network,
)
from purejaxrl_sac.config import static, traced
from purejaxrl_sac.contracts import checks_parts
from purejaxrl_sac.memory import minibatches
from purejaxrl_sac.networks import LayerNorm, features, q_network
from purejaxrl_sac.optimize import Learned, decaying_adam, gradient_step, start
from purejaxrl_sac.returns import lambda_returns
from purejaxrl_sac.types import (
    Agent,
    Algorithm,
    Env,
    LossOutput,
    MakeOptimizer,
    MakeQNetwork,
    Memory,
    Metrics,
    PyTree,
    Sample,
    Transition,
    memoryless,
)


class LossInputs(NamedTuple):
    """Inputs of the loss, besides the parameters."""

    config: PQNConfig
    q: Callable[[PyTree, jax.Array], jax.Array]  # (theta, obs [B, ...]) -> Q(s, .) [B, A]
    batch: Transition  # [B]; `extras` are the returns G [B]
    weight: jax.Array  # [B], or a scalar


def q_loss(params: PyTree, inputs: LossInputs) -> LossOutput:
    """E[l(G - Q(s, a))], l the Huber loss, and |G - Q(s, a)| [B] as priority."""
    config, q, batch, weight = inputs
    chosen = losses.select_action(q(params, batch.obs), batch.action)
    error = losses.huber(batch.extras - chosen, config.huber_delta)
    loss = (weight * error).mean()
    return loss, (abs(batch.extras - chosen), {"loss": loss, "q": chosen.mean()})


normalized_network = partial(q_network, norm=LayerNorm)


@checks_parts
def pqn(
    config: PQNConfig,
    env: Env,
    *,
    network: MakeQNetwork = normalized_network,
    optimizer: MakeOptimizer = decaying_adam,
) -> tuple[Agent, Memory]:
    """PQN. An iteration is num_epochs passes over the rollout, in minibatches.

    Args:
        network: as for `dqn`, but without noisy layers, which would need a key.

    Raises:
        ConfigError: the environment's actions are continuous.
    """
    model = value_network(config, env, number_of_actions("PQN", env), 1, network)
    encode, optimize = features(env.observation_space), optimizer(config)
    sample_action = exploration.sampler(config)

    def q(params: PyTree, obs: jax.Array) -> jax.Array:
        return model.apply(params, encode(obs)).squeeze(-1)

    def init(key: jax.Array, obs: jax.Array) -> Learned:
        return start(optimize, model.init(key, encode(obs)))

    def q_values(state: Learned, obs: jax.Array) -> jax.Array:
        return exploration.legal_values(env, obs, q(state.params, obs))

    def act(
        key: jax.Array, state: Learned, obs: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        epsilon = exploration.annealed_epsilon(config, step)
        pi = exploration.epsilon_greedy(q_values(state, obs), epsilon)
        return sample_action(key, pi), ()

    def policy(key: jax.Array, state: Learned, obs: jax.Array) -> jax.Array:
        return q_values(state, obs).argmax(-1).astype("int32")

    def process_rollout(state: Learned, rollout: Transition) -> tuple[Learned, Transition]:
        flat = rollout.next_obs.reshape(-1, *rollout.next_obs.shape[2:])
        next_value = q_values(state, flat).max(-1).reshape(rollout.reward.shape)
        trace = config.trace_decay * (~rollout.last).astype(jnp.float32)
        target = lambda_returns(rollout.reward, rollout.discount, next_value, trace, config.gamma)
        return state, rollout._replace(extras=target, next_obs=())  # no update needs it

    def update(
        key: jax.Array, state: Learned, sample: Sample, count: jax.Array
    ) -> tuple[Learned, jax.Array, Metrics]:
        inputs = LossInputs(config, q, sample.transition, sample.weight)
        state, _, (priority, metrics) = gradient_step(optimize, state, q_loss, inputs)
        return state, priority, metrics

    agent = memoryless(init, act, policy, update, q_values, process_rollout)
    return agent, minibatches(config.num_epochs, config.num_minibatches)


class PQNConfig(Learning, QLayers, EpsilonGreedy, Huber, Epochs):
    """Configuration of PQN."""

    algorithm: Algorithm = static(pqn)
    num_envs: int = static(32)
    """Parallel environments per seed."""
    rollout_length: int = static(64)
    """Steps each environment takes between learning phases: as far as returns look ahead."""
    num_updates: int = static(64)
    """Gradient updates in each learning phase: num_epochs times the number of minibatches."""
    hidden_sizes: tuple[int, ...] = static((128, 128))
    """Units of each hidden layer."""
    learning_rate_end: float = 0.0
    """Fraction of the initial learning rate, not a rate, that it decays to linearly."""
    trace_decay: float = traced(0.95, between=(0, 1))
    """lambda: weight of the return over the next value; 0 is Q-learning."""
    max_grad_norm: float | None = 10.0
    """Global norm that the gradients of each network are clipped to; inf or None: no clipping."""
