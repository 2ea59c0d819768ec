"""Checks of what users pass to the public functions, and errors of their own parts as one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import flax.errors
import jax
import jax.numpy as jnp

from purejaxrl_sac.config import Config, ConfigError, shown
from purejaxrl_sac.types import Env

ERRORS = (TypeError, ValueError, AttributeError, IndexError, flax.errors.FlaxError)


def check_key(key: jax.Array) -> None:
    """Raises ConfigError unless this is one typed PRNG key."""
    if not hasattr(key, "dtype") or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise ConfigError(f"key is {shown(key)}, but must be a typed key: use jax.random.key(0)")
    if key.shape != ():
        raise ConfigError(f"key has shape {key.shape}, but must be one key: vmap over many")


def check_observations(env: Env, obs: jax.Array) -> None:
    """Raises ConfigError if this is one observation, without the leading axis [N]."""
    if jnp.shape(obs) == env.observation_space.shape:
        raise ConfigError(
            f"obs has shape {jnp.shape(obs)}, which is one observation of {env.name}: add a leading"
            " axis, as obs[None]"
        )


@contextlib.contextmanager
def errors_of_parts(config: Config, env: Env) -> Iterator[None]:
    """Turns an error of an algorithm or one of its parts into a `ConfigError`.

    The original error is its cause, with the place in the code.
    """
    try:
        yield
    except ConfigError:
        raise
    except ERRORS as error:
        name = getattr(config.algorithm, "__name__", type(config).__name__)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"{name} fails on observations of shape {env.observation_space.shape}: {lines[0]}"
            " (check what its networks and other parts take and return: see purejaxrl_sac.types)"
        ) from error
