"""DQN that learns the return distribution, and Rainbow, as compositions of `dqn`."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax

from purejaxrl_sac import heads
from purejaxrl_sac.agents.common import EpsilonGreedy, Huber
from purejaxrl_sac.agents.dqn import Noisy, QConfig, double, dqn, greedy, noisy_network
from purejaxrl_sac.agents.off_policy import (
    NStep,
    Prioritized,
    n_step_storage,
    prioritized_replay,
)
from purejaxrl_sac.config import ConfigError, static, traced
from purejaxrl_sac.networks import Dueling, ImplicitQuantileNetwork, q_network
from purejaxrl_sac.types import Algorithm, Network


def implicit_network(
    config: ImplicitQuantile, space: Any, num_actions: int, num_outputs: int, **kinds: Any
) -> Network:
    """A Q-network for any quantile; the policy averages those of fractions up to `cvar`."""

    def distort(fraction: jax.Array) -> jax.Array:
        return config.cvar * fraction

    network = partial(
        ImplicitQuantileNetwork,
        num_quantiles=config.num_quantiles,
        num_target_quantiles=config.num_target_quantiles,
        num_policy_quantiles=config.num_policy_quantiles,
        distortion=distort,
    )
    return q_network(config, space, num_actions, num_outputs, network=network, **kinds)


c51 = partial(dqn, head=heads.categorical)
qr_dqn = partial(dqn, head=heads.quantile)
iqn = partial(dqn, head=heads.implicit_quantile, network=implicit_network)
rainbow = partial(  # Hessel et al. 2018, arXiv 1710.02298
    dqn,
    network=partial(noisy_network, stream=Dueling),
    head=heads.categorical,
    bootstrap=double,
    explore=greedy,
    storage=n_step_storage,
    memory=prioritized_replay,
)


class Categorical(QConfig):
    """Fields of `heads.categorical`."""

    num_atoms: int = static(51, at_least=2)
    """Atoms: returns that have a probability."""
    v_min: float = traced(0.0, kind=float)
    """Smallest atom; the environment's returns must lie between v_min and v_max."""
    v_max: float = traced(100.0, kind=float)
    """Largest atom."""

    def check(self) -> None:
        super().check()
        bounds = (self.v_min, self.v_max)
        if not any(isinstance(x, jax.core.Tracer) for x in bounds) and self.v_min >= self.v_max:
            raise ConfigError(f"v_min is {self.v_min}, but must be less than v_max = {self.v_max}")


class Quantile(QConfig, Huber):
    """Fields of `heads.quantile` and `heads.implicit_quantile`."""

    num_quantiles: int = static(32, at_least=1)
    """Quantiles of the return."""
    huber_delta: float = traced(1.0, above=0)
    """kappa: error at which quantile regression turns from squared to linear."""


class ImplicitQuantile(Quantile):
    """Fields of `implicit_network`."""

    num_quantiles: int = static(32, at_least=1)
    """N: quantiles of Q(s, a) in the loss, at random fractions."""
    num_target_quantiles: int = static(32, at_least=1)
    """N': quantiles of the return from s' on, at random fractions."""
    num_policy_quantiles: int = static(32, at_least=1)
    """K: quantiles whose mean the policy maximises."""
    cvar: float = traced(1.0, above=0, at_most=1)
    """Fraction of the outcomes, the worst first, that the policy averages; 1 is risk-neutral."""


class C51Config(Categorical, EpsilonGreedy):
    """Configuration of C51."""

    algorithm: Algorithm = static(c51)


class QRDQNConfig(Quantile, EpsilonGreedy):
    """Configuration of QR-DQN."""

    algorithm: Algorithm = static(qr_dqn)


class IQNConfig(ImplicitQuantile, EpsilonGreedy):
    """Configuration of IQN."""

    algorithm: Algorithm = static(iqn)


class RainbowConfig(Categorical, Noisy, NStep, Prioritized):
    """Configuration of Rainbow."""

    algorithm: Algorithm = static(rainbow)
    priority_exponent: float = 0.5
    """Exponent of the priorities; 0 is uniform replay."""
