"""Descendants of SAC: each of these is `sac` with other parts.

    redq    many critics, targets from the minimum over a few    Chen et al. 2021, arXiv 2101.05982
    droq    twin critics with dropout and LayerNorm              Hiraoka et al. 2022, 2110.02034
    tqc     quantile critics, without the largest quantiles      Kuznetsov et al. 2020, 2005.04269
    simba   residual networks, AdamW; observations, which a      Lee et al. 2024, 2410.09754
            wrapper normalises

In redq, droq and tqc, the actor maximises the mean over critics. These can learn more from each
environment step: redq and droq make 20 updates after each by default; for tqc raise `num_updates`.
Conversely,

    fast_sac   a thousand environments, n-step returns, LayerNorm, AdamW

takes so many steps at once that few updates suffice. It does with SAC what Parallel Q-Learning (Li
et al. 2023, arXiv 2307.12983) does with DDPG and FastTD3 (Seo et al. 2025, 2505.22642) with TD3,
all on one accelerator. Its n-step returns sum only rewards, as theirs do: the entropies of the
steps in between are left out, so its targets are those of section 4.3.2 only if n is 1. SimBa's
authors use a single critic where episodes do not terminate; here it always has two.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from purejaxrl_sac import normalize
from purejaxrl_sac.agents.off_policy import NStep, n_step_storage
from purejaxrl_sac.agents.sac import SACConfig, SACFields, minimum, sac
from purejaxrl_sac.config import ConfigError, static, traced
from purejaxrl_sac.kernels.sorting import ascending
from purejaxrl_sac.losses.distributional import quantile_huber
from purejaxrl_sac.losses.td import least_value
from purejaxrl_sac.networks.continuous import (
    Critics,
    GaussianActor,
    critic_torso,
    gaussian_actor,
    rescaled_tanh,
    twin_critics,
)
from purejaxrl_sac.networks.layers import Dropout, LayerNorm, orthogonal
from purejaxrl_sac.networks.q_networks import midpoints
from purejaxrl_sac.networks.torsos import Residual, flat
from purejaxrl_sac.optimize import adamw, linear_decay
from purejaxrl_sac.types import Agent, Algorithm, Critique, Env, Memory


def many_critics(config: REDQConfig, space: Any) -> Critics:
    """num_critics independent MLPs."""
    mlp = critic_torso(space, config.hidden_sizes, config.activation)
    return Critics(mlp, config.num_critics)


def minimum_and_mean(config: SACConfig) -> Critique:
    """Targets from the minimum over critics; the actor maximises their mean."""
    return minimum(config)._replace(value=lambda q: q.mean(0))


def random_minimum(config: REDQConfig) -> Critique:
    """Targets from the minimum over `subset_size` random critics; the actor maximises the mean."""
    size = config.subset_size

    def next_return(key: jax.Array, q: jax.Array) -> jax.Array:
        if len(q) < size:
            raise ConfigError(f"subset_size is {size}, but the part critics has {len(q)}: lower it")
        chosen = jax.random.permutation(key, len(q))[:size]
        return least_value(q[chosen])[:, None]

    return minimum_and_mean(config)._replace(next_return=next_return)


def dropout_critics(config: DroQConfig, space: Any) -> Critics:
    """Twin MLPs whose layers are Dense, dropout, LayerNorm and activation."""

    def norm() -> nn.Module:
        return nn.Sequential([Dropout(config.dropout_rate), LayerNorm()])

    return twin_critics(config, space, norm=norm)


def quantile_critics(config: TQCConfig, space: Any) -> Critics:
    """num_critics MLPs with num_quantiles outputs each."""
    mlp = critic_torso(space, config.hidden_sizes, config.activation)
    return Critics(mlp, config.num_critics, config.num_quantiles)


def truncated(config: TQCConfig) -> Critique:
    """The mixture of all critics' quantiles, without its `num_dropped` x num_critics largest.

    The loss is the sum over a critic's quantiles, as in QR-DQN: num_quantiles times the paper's.
    """
    members, size = config.num_critics, config.num_quantiles
    kept = members * (size - config.num_dropped)
    fraction = midpoints(size)

    def next_return(key: jax.Array, q: jax.Array) -> jax.Array:
        mixture = jnp.swapaxes(q, 1, 2).reshape(members * size, -1)
        return ascending(mixture)[:kept].T

    def loss(q: jax.Array, target: jax.Array) -> jax.Array:
        regress = partial(quantile_huber, fraction=fraction, target=target, kappa=1.0)
        return jax.vmap(regress)(q).sum(0)

    return Critique(next_return, loss, lambda q: q.mean((0, 2)))


def residual_actor(config: SimBaConfig, space: Any, action_dim: int) -> GaussianActor:
    """Residual blocks for the mean and the log standard deviation."""
    blocks = Residual(config.actor_width, config.actor_blocks)
    torso, low, high = nn.Sequential([flat, blocks]), config.log_std_min, config.log_std_max
    return GaussianActor(torso, action_dim, low, high, rescaled_tanh, orthogonal(1.0))


def residual_critics(config: SimBaConfig, space: Any) -> Critics:
    """Two independent networks of residual blocks."""
    blocks = Residual(config.critic_width, config.critic_blocks)
    return Critics(blocks, 2, dense=orthogonal(1.0))


def adamw_actor(config: SimBaConfig | FastSACConfig) -> optax.GradientTransformation:
    """AdamW on clipped gradients."""
    decay = linear_decay(config, config.policy_delay, config.actor_learning_rate)
    return adamw(decay, config.max_grad_norm, config.weight_decay)


def adamw_critics(config: SimBaConfig | FastSACConfig) -> optax.GradientTransformation:
    """AdamW on gradients that are clipped separately for each critic."""
    return adamw(linear_decay(config), config.max_grad_norm, config.weight_decay, members=True)


redq = partial(sac, critics=many_critics, critique=random_minimum)
droq = partial(sac, critics=dropout_critics, critique=minimum_and_mean)
tqc = partial(sac, critics=quantile_critics, critique=truncated)
fast_sac = partial(
    sac,
    actor=partial(gaussian_actor, norm=LayerNorm),
    critics=partial(twin_critics, norm=LayerNorm),
    actor_optimizer=adamw_actor,
    critic_optimizer=adamw_critics,
    storage=n_step_storage,
)
residual_sac = partial(
    sac,
    actor=residual_actor,
    critics=residual_critics,
    actor_optimizer=adamw_actor,
    critic_optimizer=adamw_critics,
)


def simba(config: SimBaConfig, env: Env) -> tuple[Agent, Memory]:
    """SimBa: SAC with residual networks on normalised observations."""
    agent, memory = residual_sac(config, env)
    return normalize.observations(config, env, agent), memory


class REDQConfig(SACConfig):
    """Configuration of REDQ."""

    algorithm: Algorithm = static(redq)
    num_updates: int = static(20)
    """Gradient updates in each learning phase."""
    policy_delay: int = static(20)
    """Updates of the critics per update of the actor and the temperature."""
    num_critics: int = static(10, at_least=1)
    """Critics in the ensemble."""
    subset_size: int = static(2, at_least=1)
    """Random critics over which a target takes the minimum."""

    def check(self) -> None:
        super().check()
        if self.subset_size > self.num_critics:
            raise ConfigError(
                f"subset_size is {self.subset_size}, but there are {self.num_critics} critics:"
                " lower it, or raise num_critics"
            )


class DroQConfig(SACConfig):
    """Configuration of DroQ."""

    algorithm: Algorithm = static(droq)
    num_updates: int = static(20)
    """Gradient updates in each learning phase."""
    policy_delay: int = static(20)
    """Updates of the critics per update of the actor and the temperature."""
    dropout_rate: float = static(0.01, at_least=0, below=1)
    """Fraction of the units that dropout zeroes."""


class TQCConfig(SACConfig):
    """Configuration of TQC."""

    algorithm: Algorithm = static(tqc)
    num_critics: int = static(5, at_least=1)
    """Critics in the ensemble."""
    num_quantiles: int = static(25, at_least=1)
    """Quantiles of the return that each critic learns."""
    num_dropped: int = static(2, at_least=0)
    """Quantiles per critic that targets leave out, the largest of the mixture."""

    def check(self) -> None:
        super().check()
        if self.num_dropped >= self.num_quantiles:
            raise ConfigError(
                f"num_dropped is {self.num_dropped}, but there are {self.num_quantiles} quantiles:"
                " leave at least one"
            )


class SimBaConfig(SACFields):
    """Configuration of SimBa."""

    algorithm: Algorithm = static(simba)
    num_updates: int = static(2)
    """Gradient updates in each learning phase."""
    actor_width: int = static(128, at_least=1)
    """Units of the actor's residual stream."""
    actor_blocks: int = static(1, at_least=1)
    """Residual blocks of the actor."""
    critic_width: int = static(512, at_least=1)
    """Units of each critic's residual stream."""
    critic_blocks: int = static(2, at_least=1)
    """Residual blocks of each critic."""
    learning_rate: float = 1e-4
    """Initial learning rate."""
    weight_decay: float = traced(1e-2, at_least=0)
    """Weight decay of AdamW."""
    log_std_min: float = static(-10.0)
    """Smallest log standard deviation."""
    alpha: float = 0.01
    """Initial temperature (constant where alpha_learning_rate is 0)."""
    alpha_learning_rate: float = 1e-4
    """Learning rate of log alpha; 0 keeps the temperature fixed."""
    target_entropy_per_dim: float = -0.5
    """Target entropy in nats per action dimension, of actions in [-1, 1]."""


class FastSACConfig(SACConfig, NStep):
    """Configuration of SAC with many environments."""

    algorithm: Algorithm = static(fast_sac)
    total_steps: int = static(1_048_576)
    """Environment steps over all parallel environments, warm-up included."""
    num_envs: int = static(1_024)
    """Parallel environments per seed."""
    num_updates: int = static(32)
    """Gradient updates in each learning phase."""
    batch_size: int = static(512)
    """Transitions per gradient update."""
    capacity: int = static(1_048_576)
    """Transitions the replay memory stores; a multiple of num_envs x rollout_length."""
    warmup_steps: int = static(10_240)
    """Environment steps of uniformly random actions before learning starts."""
    hidden_sizes: tuple[int, ...] = static((512, 256, 128))
    """Units of each hidden layer."""
    policy_delay: int = static(8)
    """Updates of the critics per update of the actor and the temperature."""
    learning_rate: float = 4.5e-4
    """Initial learning rate."""
    weight_decay: float = traced(1e-2, at_least=0)
    """Weight decay of AdamW."""
    gamma: float = 0.983
    """Discount factor."""
    tau: float = 0.0023
    """Step of the target parameters towards the learned ones at each target update; 1 copies."""
