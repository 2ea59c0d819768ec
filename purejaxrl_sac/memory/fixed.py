"""A memory that is a dataset: nothing is added to it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.part_errors import name_of_function, parts_of
from purejaxrl_sac.types import Env, Memory, Sample, Transition

FIELDS = {"num_envs": 1, "rollout_length": 1, "noise_repeat": 1, "warmup_steps": 0}  # `offline`'s


def check_fixed(config: Any) -> None:
    """Raises ConfigError if fields that `offline` sets were changed after it."""
    for name, value in FIELDS.items():
        if getattr(config, name) != value:
            raise ConfigError(
                f"{name} is {getattr(config, name)}, but must be {value} with a dataset: leave it"
                " as offline sets it"
            )


def fixed_memory(config: Any, env: Env) -> Memory:
    """`fixed` for the fields `dataset` and `batch_size` of a configuration.

    Raises:
        ConfigError: the dataset is of another environment, or there are wrappers or parts that it
            takes the place of.
    """
    if config.wrappers:
        raise ConfigError("wrappers cannot be used with a dataset: leave them out")
    for part in sorted({"memory", "storage"} & parts_of(config).keys()):
        raise ConfigError(
            f"the part {part} of {name_of_function(config.algorithm)} cannot be used with a"
            " dataset, which takes its place: leave it out"
        )
    shape = config.dataset.obs.shape[1:]
    if shape != tuple(env.observation_space.shape):
        raise ConfigError(
            f"observations of the dataset have shape {[*shape]}, but those of {env.name}"
            f" {[*env.observation_space.shape]}: call offline after setting env"
        )
    return fixed(config.dataset, config.batch_size)


def fixed(dataset: Transition, batch_size: int) -> Memory:
    """Samples the rows of a dataset uniformly, with replacement.

    The dataset is not part of the memory's state, so that all seeds of a run share one copy.

    Args:
        dataset: leading axis [R].
        batch_size: B, transitions per sample.
    """

    def draw(key: jax.Array, state: Any, step: jax.Array, num_updates: int) -> jax.Array:
        shape = num_updates, batch_size
        return jax.random.randint(key, shape, 0, len(dataset.reward))

    def sample(state: Any, draw: jax.Array) -> Sample:
        return Sample(jax.tree.map(lambda x: x[draw], dataset), jnp.float32(1))

    return Memory(lambda rollout: (), lambda state, step, rollout: state, draw, sample)
