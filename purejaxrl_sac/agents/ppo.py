"""PPO (Schulman et al. 2017, arXiv 1707.06347): actor-critic that reuses its rollouts.

Several epochs of minibatches over each rollout, with an objective that gives no incentive to move
the probability ratio w beyond 1 +- epsilon:

    J_pi = -E [ min( w A, clip(w, 1 - epsilon, 1 + epsilon) A ) ],    w = pi(a|s) / pi_old(a|s)
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from purejaxrl_sac.agents.a2c import ActorCriticConfig, actor_critic, standardized
from purejaxrl_sac.agents.common import Epochs
from purejaxrl_sac.config import static, traced
from purejaxrl_sac.memory import minibatches
from purejaxrl_sac.optimize import decaying_adam
from purejaxrl_sac.types import Algorithm, Memory


def clipped_surrogate(
    config: PPOConfig, log_prob: jax.Array, old_log_prob: jax.Array, advantage: jax.Array
) -> jax.Array:
    """-min(w A, clip(w, 1 - epsilon, 1 + epsilon) A) (Schulman et al. 2017, equation 7)."""
    ratio = jnp.exp(log_prob - old_log_prob)
    clipped = jnp.clip(ratio, 1 - config.clip_ratio, 1 + config.clip_ratio)
    return -jnp.minimum(ratio * advantage, clipped * advantage)


def epochs(config: PPOConfig) -> Memory:
    """Passes over the rollout, each in newly shuffled minibatches."""
    return minibatches(config.num_epochs, config.num_minibatches)


ppo = partial(
    actor_critic,
    objective=clipped_surrogate,
    normalize=standardized,
    optimizer=decaying_adam,
    memory=epochs,
)


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
