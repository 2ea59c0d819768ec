"""Exploration noise of continuous actions, for the part `noise` of `sac` and `td3`.

Each number is N(0, 1); the agent scales it and adds it to its mean action.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_sac.config import Config, ConfigError, whole_number
from purejaxrl_sac.types import Noise


def white(config: Config, action_dim: int) -> Noise:
    """Independent noise in every step."""

    def draw(key: jax.Array, shape: tuple[int, ...], carry: Any) -> tuple[jax.Array, Any]:
        return jax.random.normal(key, shape, jnp.float32), carry

    return Noise(draw)


def pink(config: Config, action_dim: int, *, octaves: int = 10) -> Noise:
    """Noise whose power is 1 / frequency (Eberhard et al. 2023, "Pink noise is all you need").

    The sum of processes x <- rho x + sqrt(1 - rho^2) N(0, 1) for rho = 1 - 2^-k, k = 0, 1, ..,
    each of twice the correlation time of the one before it. Over periods of 2 to 2^octaves steps,
    frequency times power is constant up to a factor of 1.6. Every action has the distribution that
    it has with white noise; episodes are independent. The authors draw the noise of an episode by
    a Fourier transform, which needs its length.

    Args:
        octaves: processes that are summed; 2^octaves should be the length of an episode.

    Raises:
        ConfigError: noise_repeat is not 1, or octaves is not a whole number of at least 1.
    """
    octaves = whole_number("octaves", octaves, at_least=1)
    if config.noise_repeat != 1:
        raise ConfigError(
            f"noise_repeat is {config.noise_repeat}, but pink noise is correlated in time itself:"
            " set noise_repeat=1"
        )
    correlation = 1 - 2.0 ** -jnp.arange(octaves, dtype=jnp.float32)

    def init_carry(num_envs: int) -> tuple[jax.Array, jax.Array]:
        return jnp.zeros((num_envs, octaves, action_dim), jnp.float32), jnp.zeros(num_envs, bool)

    def draw(
        key: jax.Array, shape: tuple[int, ...], carry: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        processes, begun = carry
        # zero in the first step of an episode, so that the processes start stationary
        rho = (begun[:, None].astype(jnp.float32) * correlation)[..., None]
        innovation = jax.random.normal(key, processes.shape, jnp.float32)
        processes = rho * processes + jnp.sqrt(1 - rho**2) * innovation
        return processes.sum(1) / octaves**0.5, (processes, jnp.ones_like(begun))

    return Noise(draw, init_carry)
