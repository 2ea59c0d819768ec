"""What SAC became: each of these is `sac` with other parts.

    redq    many critics, targets from the least of a few     Chen et al. 2021, arXiv 2101.05982
    droq    twin critics with dropout and LayerNorm           Hiraoka et al. 2022, 2110.02034
    tqc     quantile critics, without the largest quantiles   Kuznetsov et al. 2020, 2005.04269
    simba   residual networks, normalised obs, AdamW          Lee et al. 2024, 2410.09754

Their point is to learn more from each environment step: raise `num_updates`. The other way round,

    fast_sac   a thousand environments, n-step returns, LayerNorm, AdamW

learns from so many steps at once that each of its few updates has much to choose from, as on one
accelerator (Li et al. 2023, arXiv 2307.12983; Seo et al. 2025, 2505.22642). Its n-step returns
sum rewards alone, as theirs do: what entropies are worth on the way is left out, so its values
are not those of (4.19) unless n is 1. SimBa's authors have a single critic where episodes do not
terminate; here it has twins everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from purejaxrl_sac import losses, networks, normalize
from purejaxrl_sac.agents.dqn import n_step_storage
from purejaxrl_sac.agents.sac import Critique, SACConfig, Targets, Temperature, minimum, sac
from purejaxrl_sac.config import ConfigError, static
from purejaxrl_sac.kernels.sorting import ascending
from purejaxrl_sac.optimize import adamw, linear_decay
from purejaxrl_sac.types import Agent, Memory


def many_critics(config: REDQConfig, space: Any) -> networks.Critics:
    """num_critics independent MLPs."""
    torso = networks.critic_torso(space, config.hidden_sizes, config.activation)
    return networks.Critics(torso, config.num_critics)


def least_and_mean(config: SACConfig) -> Critique:
    """Targets from the least of all critics, the actor climbs their mean."""
    return minimum(config)._replace(value=lambda q: q.mean(0))


def random_minimum(config: REDQConfig) -> Critique:
    """Targets from the least of `subset_size` critics drawn anew, the actor climbs their mean.

    Raises:
        ConfigError: the subset is larger than the ensemble.
    """
    size, members = config.subset_size, config.num_critics
    if size > members:
        raise ConfigError(
            f"subset_size is {size}, but there are {members} critics: lower it, or raise"
            " num_critics"
        )

    def following(key: jax.Array, q: jax.Array) -> jax.Array:
        chosen = jax.random.permutation(key, members)[:size]
        return q[chosen].min(0)[:, None]

    return least_and_mean(config)._replace(next_return=following)


def dropout_critics(config: DroQConfig, space: Any) -> networks.Critics:
    """Twin MLPs whose layers are Dense, dropout, LayerNorm and activation."""

    def norm() -> nn.Module:
        return nn.Sequential([networks.Dropout(config.dropout_rate), networks.LayerNorm()])

    torso = networks.critic_torso(space, config.hidden_sizes, config.activation, norm=norm)
    return networks.Critics(torso, 2)


def quantile_critics(config: TQCConfig, space: Any) -> networks.Critics:
    """num_critics MLPs with num_quantiles outputs each."""
    torso = networks.critic_torso(space, config.hidden_sizes, config.activation)
    return networks.Critics(torso, config.num_critics, config.num_quantiles)


def truncated(config: TQCConfig) -> Critique:
    """All critics' quantiles in one mixture, without its `num_dropped` x num_critics largest.

    Raises:
        ConfigError: nothing would be left.
    """
    members, size = config.num_critics, config.num_quantiles
    kept = members * (size - config.num_dropped)
    if kept < 1:
        raise ConfigError(
            f"num_dropped is {config.num_dropped} of {size} quantiles: leave at least one"
        )
    fraction = networks.midpoints(size)

    def following(key: jax.Array, q: jax.Array) -> jax.Array:
        mixture = jnp.swapaxes(q, 1, 2).reshape(members * size, -1)
        return ascending(mixture)[:kept].T

    def loss(q: jax.Array, target: jax.Array) -> jax.Array:
        regress = partial(losses.quantile_huber, fraction=fraction, target=target, kappa=1.0)
        return jax.vmap(regress)(q).sum(0)

    return Critique(following, loss, lambda q: q.mean((0, 2)))


def residual_actor(config: SimBaConfig, space: Any, action_dim: int) -> networks.GaussianActor:
    """One wide residual block."""
    torso = networks.Residual(config.actor_width, config.actor_blocks)
    return networks.GaussianActor(nn.Sequential([networks.flat, torso]), action_dim)


def residual_critics(config: SimBaConfig, space: Any) -> networks.Critics:
    """Twins of a few residual blocks."""
    return networks.Critics(networks.Residual(config.critic_width, config.critic_blocks), 2)


def layer_norm_actor(config: SACConfig, space: Any, action_dim: int) -> networks.GaussianActor:
    """`gaussian_actor` with LayerNorm before each activation."""
    torso = networks.torso(space, config.hidden_sizes, config.activation, norm=networks.LayerNorm)
    return networks.GaussianActor(torso, action_dim)


def layer_norm_critics(config: SACConfig, space: Any) -> networks.Critics:
    """`twin_critics` with LayerNorm before each activation."""
    torso = networks.critic_torso(
        space, config.hidden_sizes, config.activation, norm=networks.LayerNorm
    )
    return networks.Critics(torso, 2)


def decaying_weights(
    config: SimBaConfig | FastSACConfig, delay: int
) -> optax.GradientTransformation:
    """AdamW."""
    return adamw(linear_decay(config, delay), config.max_grad_norm, config.weight_decay)


redq = partial(sac, critics=many_critics, critique=random_minimum)
droq = partial(sac, critics=dropout_critics, critique=least_and_mean)
tqc = partial(sac, critics=quantile_critics, critique=truncated)
fast_sac = partial(
    sac,
    actor=layer_norm_actor,
    critics=layer_norm_critics,
    optimizer=decaying_weights,
    storage=n_step_storage,
)


def simba(config: SimBaConfig) -> tuple[Agent, Memory]:
    """SimBa: SAC with residual networks on normalised observations."""
    parts = {"actor": residual_actor, "critics": residual_critics, "optimizer": decaying_weights}
    agent, memory = sac(config, **parts)
    return normalize.observations(config, agent), memory


@struct.dataclass
class REDQConfig(SACConfig):
    """Configuration of REDQ."""

    algorithm: Callable = static(redq)
    num_updates: int = static(20)
    """Gradient updates in each learning phase."""
    policy_delay: int = static(20)
    """Updates of the critics for each one of the actor and the temperature."""
    num_critics: int = static(10)
    """Critics in the ensemble."""
    subset_size: int = static(2)
    """Critics of which a target takes the least."""


@struct.dataclass
class DroQConfig(SACConfig):
    """Configuration of DroQ."""

    algorithm: Callable = static(droq)
    num_updates: int = static(20)
    """Gradient updates in each learning phase."""
    policy_delay: int = static(20)
    """Updates of the critics for each one of the actor and the temperature."""
    dropout_rate: float = static(0.01)
    """Share of the units that dropout leaves out."""


@struct.dataclass
class TQCConfig(SACConfig):
    """Configuration of TQC."""

    algorithm: Callable = static(tqc)
    num_critics: int = static(5)
    """Critics in the ensemble."""
    num_quantiles: int = static(25)
    """Quantiles of the return that each critic learns."""
    num_dropped: int = static(2)
    """Quantiles per critic that targets leave out, the largest first."""


@struct.dataclass
class SimBaConfig(Targets, Temperature):
    """Configuration of SimBa."""

    algorithm: Callable = static(simba)
    num_updates: int = static(2)
    """Gradient updates in each learning phase."""
    actor_width: int = static(128)
    """Units of the actor's residual stream."""
    actor_blocks: int = static(1)
    """Residual blocks of the actor."""
    critic_width: int = static(512)
    """Units of each critic's residual stream."""
    critic_blocks: int = static(2)
    """Residual blocks of each critic."""
    learning_rate: float = 1e-4
    """Step size of AdamW, for the actor and the critics."""
    weight_decay: float = 1e-2
    """What AdamW takes off parameters, times the step size."""
    alpha: float = 0.01
    """Temperature at the start (for ever, where alpha_learning_rate is 0)."""
    alpha_learning_rate: float = 1e-4
    """Step size of Adam for log alpha; 0 keeps the temperature fixed."""
    target_entropy_per_dim: float = -0.5
    """Entropy that the temperature aims at, in nats per action dimension of width 2."""


@struct.dataclass
class FastSACConfig(SACConfig):
    """Configuration of SAC with many environments."""

    algorithm: Callable = static(fast_sac)
    total_steps: int = static(1_048_576)
    """Environment steps over all parallel environments, warm-up included."""
    num_envs: int = static(1_024)
    """Parallel environments."""
    num_updates: int = static(32)
    """Gradient updates in each learning phase."""
    batch_size: int = static(512)
    """Transitions per gradient update."""
    capacity: int = static(1_048_576)
    """Transitions the replay memory keeps; a multiple of num_envs x rollout_length."""
    warmup_steps: int = static(10_240)
    """Environment steps of uniformly random actions before learning begins."""
    hidden_sizes: tuple[int, ...] = static((512, 256, 128))
    """Units of each hidden layer, in the actor and in each critic."""
    n_step: int = static(3)
    """Steps whose rewards a transition sums before it bootstraps."""
    policy_delay: int = static(8)
    """Updates of the critics for each one of the actor and the temperature."""
    learning_rate: float = 4.5e-4
    """Step size of AdamW, for the actor and the critics."""
    weight_decay: float = 1e-2
    """What AdamW takes off parameters, times the step size."""
    gamma: float = 0.983
    """Discount factor."""
    tau: float = 0.0023
    """Share of theta that the target critics take over at each target update."""
