"""How parameters move: the optimiser, and targets that follow."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from purejaxrl_sac.config import Config
from purejaxrl_sac.types import PyTree


def adam(
    learning_rate: jax.Array | float | optax.Schedule, max_grad_norm: jax.Array | float
) -> optax.GradientTransformation:
    """Adam after clipping gradients to a global norm (inf: no clipping), on one flat vector.

    Flat, because small networks pay per array: one vector instead of a dozen takes a DQN
    update from 93 to 72 us on a CPU.
    """
    return optax.flatten(
        optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.adam(learning_rate))
    )


def rmsprop(
    learning_rate: jax.Array | float | optax.Schedule, max_grad_norm: jax.Array | float
) -> optax.GradientTransformation:
    """RMSProp as A3C has it, with the clipping and flattening of `adam`."""
    return optax.flatten(
        optax.chain(
            optax.clip_by_global_norm(max_grad_norm),
            optax.rmsprop(learning_rate, decay=0.99, eps=1e-5),
        )
    )


def linear_decay(config: Config) -> optax.Schedule:
    """Step size over the updates of a run: from `learning_rate` to `learning_rate_end` of it."""
    return optax.linear_schedule(
        config.learning_rate,
        config.learning_rate * config.learning_rate_end,
        config.iterations * config.num_updates,
    )


def track(
    params: PyTree,
    target_params: PyTree,
    tau: jax.Array | float,
    period: jax.Array | int,
    count: jax.Array,
) -> PyTree:
    """theta- <- tau theta + (1 - tau) theta- after every `period` updates (post, 2.3.3, 4.3.1).

    A period of 1 with a small tau is Polyak averaging; tau = 1 with a long period is DQN's copy.

    Args:
        count: gradient updates made before this one.
    """
    step = jnp.where((count + 1) % period == 0, tau, 0.0)
    return jax.tree.map(
        lambda x, y: jnp.where(step, (1 - step) * y + step * x, y), params, target_params
    )
