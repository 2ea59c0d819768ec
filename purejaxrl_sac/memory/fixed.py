"""A memory that is a dataset: nothing is added to it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_sac.types import Memory, PyTree, Sample, Transition


def fixed_memory(config: Any) -> Memory:
    """`fixed` for the fields `dataset` and `batch_size` of a configuration."""
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

    def nothing(state: PyTree, *_: Any) -> PyTree:
        return state

    return Memory(lambda rollout: (), nothing, draw, sample, nothing)
