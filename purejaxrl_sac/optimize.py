"""How parameters move: the optimiser, and targets that follow."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from purejaxrl_sac.config import Config
from purejaxrl_sac.types import PyTree


def adam(
    learning_rate: jax.Array | float | optax.Schedule, max_grad_norm: jax.Array | float
) -> optax.GradientTransformation:
    """Adam after clipping gradients to a global norm (inf: no clipping).

    Where the norm is known to be inf when compiling, none is computed.
    """
    if isinstance(max_grad_norm, float) and math.isinf(max_grad_norm):
        return optax.chain(optax.identity(), optax.adam(learning_rate))
    return optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.adam(learning_rate))


def adamw(
    learning_rate: jax.Array | float | optax.Schedule,
    max_grad_norm: jax.Array | float,
    weight_decay: jax.Array | float,
) -> optax.GradientTransformation:
    """`adam` with decoupled weight decay (Loshchilov & Hutter 2019)."""
    return optax.flatten(
        optax.chain(
            optax.clip_by_global_norm(max_grad_norm),
            optax.adamw(learning_rate, weight_decay=weight_decay),
        )
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


def linear_decay(config: Config, delay: int = 1) -> optax.Schedule:
    """Step size over the updates of a run: from `learning_rate` to `learning_rate_end` of it.

    Args:
        delay: updates of the agent for each one of this optimiser.
    """
    return optax.linear_schedule(
        config.learning_rate,
        config.learning_rate * config.learning_rate_end,
        float(max(1, config.iterations * config.num_updates // delay)),  # may exceed an int32
    )


def every(
    period: int, count: jax.Array, update: Callable[[PyTree], tuple[PyTree, dict]], state: PyTree
) -> tuple[PyTree, dict]:
    """`update(state)`, which returns a state and metrics, in the last of every `period` updates.

    A cond over parameters alone, by a count that is never batched, so that what is left out costs
    nothing. Metrics of updates left out are 0 and those of the others `period` times as large:
    over a multiple of `period` updates their mean is the mean over those made.

    Args:
        count: updates made or left out before this one.
    """
    if period == 1:
        return update(state)
    _, shapes = jax.eval_shape(update, state)

    def leave(state: PyTree) -> tuple[PyTree, dict]:
        return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def make(state: PyTree) -> tuple[PyTree, dict]:
        state, metrics = update(state)
        return state, jax.tree.map(lambda x: x * period, metrics)

    return jax.lax.cond((count + 1) % period == 0, make, leave, state)


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
