"""DQN that learns the distribution of the return, and Rainbow: the parts of `dqn`, put together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
from flax import struct

from purejaxrl_sac import heads, networks
from purejaxrl_sac.agents import dqn as parts
from purejaxrl_sac.agents.dqn import (
    EpsilonGreedy,
    Noisy,
    NStep,
    Prioritized,
    ReplayConfig,
    Scalar,
    dqn,
)
from purejaxrl_sac.config import static


def implicit_network(config: ImplicitQuantile, *arguments: Any, **kinds: Any) -> nn.Module:
    """A Q-network that is asked for quantiles; `cvar` decides which the policy averages."""

    def worst(fraction: jax.Array) -> jax.Array:
        return config.cvar * fraction

    network = partial(
        networks.ImplicitQuantileNetwork, num_quantiles=config.num_quantiles, distortion=worst
    )
    return networks.q_network(config, *arguments, network=network, **kinds)


c51 = partial(dqn, head=heads.categorical)
qr_dqn = partial(dqn, head=heads.quantile)
iqn = partial(dqn, head=heads.implicit_quantile, network=implicit_network)
rainbow = partial(  # Hessel et al. 2018, arXiv 1710.02298
    dqn,
    network=partial(parts.noisy_network, stream=networks.Dueling),
    head=heads.categorical,
    bootstrap=parts.double,
    explore=parts.greedy,
    storage=parts.n_step_storage,
    memory=parts.prioritized_replay,
)


@struct.dataclass
class Categorical(ReplayConfig):
    """Fields of `heads.categorical`."""

    num_atoms: int = static(51)
    """Returns that have a probability."""
    v_min: float = 0.0
    """The smallest of them; what the environment can return must lie between the two."""
    v_max: float = 100.0
    """The largest of them."""


@struct.dataclass
class Quantile(Scalar):
    """Fields of `heads.quantile` and `heads.implicit_quantile`."""

    num_quantiles: int = static(32)
    """Quantiles of the return."""
    huber_delta: float = 1.0
    """kappa: the regression is smooth for errors below it."""


@struct.dataclass
class ImplicitQuantile(Quantile):
    """Fields of `implicit_network`."""

    cvar: float = 1.0
    """Share of the outcomes, from the worst on, that the policy averages; 1 is neutral to risk."""


@struct.dataclass
class C51Config(Categorical, EpsilonGreedy):
    """Configuration of C51."""

    algorithm: Callable = static(c51)


@struct.dataclass
class QRDQNConfig(Quantile, EpsilonGreedy):
    """Configuration of QR-DQN."""

    algorithm: Callable = static(qr_dqn)


@struct.dataclass
class IQNConfig(ImplicitQuantile, EpsilonGreedy):
    """Configuration of IQN."""

    algorithm: Callable = static(iqn)


@struct.dataclass
class RainbowConfig(Categorical, NStep, Noisy, Prioritized):
    """Configuration of Rainbow."""

    algorithm: Callable = static(rainbow)
    priority_exponent: float = 0.5
    """How much priorities count: 0 is uniform replay."""
