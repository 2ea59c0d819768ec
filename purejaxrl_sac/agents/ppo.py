"""PPO (Schulman et al. 2017, arXiv 1707.06347): actor-critic that reuses its rollouts.

Several epochs of minibatches over each rollout, with an objective that gives no incentive to move
the probability ratio w beyond 1 +- epsilon:

    J_pi = -E [ min( w A, clip(w, 1 - epsilon, 1 + epsilon) A ) ],    w = pi(a|s) / pi_old(a|s)

Common variants are parts and wrappers:

    partial(ppo, schedule=annealed_clip)                                epsilon decays to 0
    partial(ppo, normalize=unnormalized, normalize_rollout=standardized)    A of the whole rollout
    config.replace(wrappers=(early_stopping,))                              a limit on KL divergence
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from purejaxrl_sac.agents.a2c import (
    ActorCriticConfig,
    actor_critic,
    squared_error,
    standardized,
)
from purejaxrl_sac.agents.common import Epochs
from purejaxrl_sac.config import Config, static, traced
from purejaxrl_sac.memory import minibatches
from purejaxrl_sac.normalize import with_statistics
from purejaxrl_sac.optimize import adam, finite, linear_decay, where
from purejaxrl_sac.types import (
    Agent,
    Algorithm,
    Env,
    Memory,
    Metrics,
    PyTree,
    Sample,
    Scalar,
    Transition,
    enclosing,
)

MAX_LOG_RATIO = 80.0  # of float32, whose exponential is finite; the gradient of inf is NaN


def clipped_surrogate(
    config: PPOConfig, log_prob: jax.Array, old_log_prob: jax.Array, advantage: jax.Array
) -> jax.Array:
    """-min(w A, clip(w, 1 - epsilon, 1 + epsilon) A) (Schulman et al. 2017, equation 7)."""
    ratio = jnp.exp(jnp.minimum(log_prob - old_log_prob, MAX_LOG_RATIO))
    clipped = jnp.clip(ratio, 1 - config.clip_ratio, 1 + config.clip_ratio)
    return -jnp.minimum(ratio * advantage, clipped * advantage)


def clipped_value_loss(
    config: PPOConfig, value: jax.Array, old_value: jax.Array, target: jax.Array
) -> jax.Array:
    """max((V - G)^2, (V_old + clip(V - V_old, -c, c) - G)^2), c = `value_clip`.

    Not in the paper, but in its authors' code; it gives no incentive to move V further than c. The
    squared error where c is None or inf.
    """
    error = squared_error(config, value, old_value, target)
    limit = finite(config.value_clip)
    if limit is None:
        return error
    clipped = old_value + jnp.clip(value - old_value, -limit, limit)
    return jnp.maximum(error, squared_error(config, clipped, old_value, target))


def annealed_clip(config: PPOConfig, count: jax.Array) -> PPOConfig:
    """clip_ratio decays linearly to 0 over the run (Schulman et al. 2017, table 5)."""
    remaining = jnp.maximum(
        1 - count.astype(jnp.float32) / (config.iterations * config.num_updates), 0
    )
    return config.replace(clip_ratio=config.clip_ratio * remaining)


def epochs(config: PPOConfig, env: Env) -> Memory:
    """Passes over the rollout, each in newly shuffled minibatches."""
    return minibatches(config.num_epochs, config.num_minibatches)


def decaying_adam(config: PPOConfig) -> optax.GradientTransformation:
    """`optimize.decaying_adam` with `adam_epsilon`."""
    return adam(linear_decay(config), config.max_grad_norm, epsilon=config.adam_epsilon)


ppo = partial(
    actor_critic,
    objective=clipped_surrogate,
    value_loss=clipped_value_loss,
    normalize=standardized,
    optimizer=decaying_adam,
    memory=epochs,
)


class Stopping(NamedTuple):
    """State of an agent with `early_stopping`."""

    agent: PyTree
    stopped: jax.Array  # bool: no more updates with this rollout


def early_stopping(config: Config, env: Env, agent: Agent, *, target_kl: Scalar = 0.02) -> Agent:
    """A wrapper that skips the remaining updates with a rollout once the policy has changed enough.

    That is, once the KL divergence of the policy from the one that collected the rollout, estimated
    by the metric `kl` of a minibatch before its update, exceeds `target_kl`. The metric `stopped`
    is the fraction of updates that were skipped; other metrics include these. A skipped update does
    not advance the schedule of the learning rate. Running statistics of `normalize` take effect as
    they do without this wrapper.

        config.replace(wrappers=(partial(early_stopping, target_kl=0.01),))
    """

    def init(key: jax.Array, obs: jax.Array) -> Stopping:
        return Stopping(agent.init(key, obs), jnp.bool_(False))

    def process_rollout(state: Stopping, rollout: Transition) -> tuple[Stopping, Transition]:
        inner, processed = agent.process_rollout(state.agent, rollout)
        return Stopping(inner, jnp.bool_(False)), processed

    def update(
        key: jax.Array, state: Stopping, sample: Sample, count: jax.Array
    ) -> tuple[Stopping, jax.Array, Metrics]:
        updated, priority, metrics = agent.update(key, state.agent, sample, count)
        stopped = state.stopped | (metrics["kl"] > target_kl)
        kept = with_statistics(updated, where(~stopped, updated, state.agent))
        return Stopping(kept, stopped), priority, {**metrics, "stopped": stopped.astype("float32")}

    return enclosing(agent)._replace(init=init, update=update, process_rollout=process_rollout)


class PPOConfig(ActorCriticConfig, Epochs):
    """Configuration of PPO."""

    algorithm: Algorithm = static(ppo)
    num_envs: int = static(8)
    """Parallel environments per seed."""
    rollout_length: int = static(128)
    """Steps each environment takes between learning phases."""
    num_updates: int = static(16)
    """Gradient updates in each learning phase: num_epochs times the number of minibatches."""
    learning_rate: float = 2.5e-4
    """Initial learning rate."""
    clip_ratio: float = traced(0.2, between=(0, 1))
    """epsilon: the probability ratio is clipped to 1 +- epsilon."""
    value_clip: float | None = traced(
        float("inf"), kind=float, above=0, infinite=True, optional=True
    )
    """Change of V(s) at which the value loss is clipped; inf or None: no clipping."""
    adam_epsilon: float = traced(1e-8, above=0)
    """Adam's epsilon."""
