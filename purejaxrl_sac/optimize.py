"""Optimisers and target-network updates."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from purejaxrl_sac.config import Config
from purejaxrl_sac.kernels.packing import layout
from purejaxrl_sac.types import PyTree


def clip(max_grad_norm: jax.Array | float | None) -> optax.GradientTransformation:
    """Clips gradients to a global norm; where it is known to be infinite, no norm is computed."""
    if max_grad_norm is None or (isinstance(max_grad_norm, float) and math.isinf(max_grad_norm)):
        return optax.identity()
    # flattened, because the norm of one vector is one reduction
    return optax.flatten(optax.clip_by_global_norm(max_grad_norm))


def adam(
    learning_rate: jax.Array | float | optax.Schedule,
    max_grad_norm: jax.Array | float | None = None,
) -> optax.GradientTransformation:
    """Adam after clipping gradients to a global norm (None or inf: no clipping)."""
    return optax.chain(clip(max_grad_norm), optax.adam(learning_rate))


def adamw(
    learning_rate: jax.Array | float | optax.Schedule,
    max_grad_norm: jax.Array | float | None,
    weight_decay: jax.Array | float,
) -> optax.GradientTransformation:
    """`adam` with decoupled weight decay (Loshchilov & Hutter 2019)."""
    return optax.chain(clip(max_grad_norm), optax.adamw(learning_rate, weight_decay=weight_decay))


def rmsprop(
    learning_rate: jax.Array | float | optax.Schedule, max_grad_norm: jax.Array | float | None
) -> optax.GradientTransformation:
    """RMSProp as in A3C (Mnih et al. 2016), with the clipping of `adam`."""
    return optax.chain(clip(max_grad_norm), optax.rmsprop(learning_rate, decay=0.99, eps=1e-5))


def linear_decay(config: Config, delay: int = 1) -> optax.Schedule:
    """Learning rate over the updates of a run, from `learning_rate` linearly to its last value.

    Args:
        delay: updates of the agent for each one of this optimiser.
    """
    return optax.linear_schedule(
        config.learning_rate,
        config.learning_rate * config.learning_rate_end,
        float(max(1, config.iterations * config.num_updates // delay)),  # may exceed an int32
    )


def is_due(period: int, count: jax.Array) -> jax.Array | bool:
    """Whether this is the last of `period` updates; True, no array, where the period is 1.

    Args:
        count: updates made before this one; never batched.
    """
    return True if period == 1 else (count + 1) % period == 0


def where(due: jax.Array | bool, new: PyTree, old: PyTree) -> PyTree:
    """`new` if it is due, else `old`."""
    return new if due is True else jax.tree.map(lambda x, y: jnp.where(due, x, y), new, old)


def apply_gradients(
    optimizer: optax.GradientTransformation,
    grads: PyTree,
    opt_state: PyTree,
    params: PyTree,
    *,
    due: jax.Array | bool = True,
) -> tuple[PyTree, PyTree]:
    """One step of an optimiser, if it is due: the new parameters and its new state."""
    updates, new_state = optimizer.update(grads, opt_state, params)
    new_params = optax.apply_updates(params, updates)
    return where(due, (new_params, new_state), (params, opt_state))


def delayed_update(
    period: int, due: jax.Array | bool, compute: Callable[[], tuple[PyTree, dict]]
) -> tuple[PyTree, dict]:
    """`compute()`, gradients and metrics, where it is due, in every `period` updates; else zeros.

    A cond on what is never batched, so that what is left out costs nothing. What it returns is
    packed into one array; parameters and optimiser states do not pass through it. Metrics are
    `period` times as large: over a multiple of `period` updates their mean is the mean over those
    made.
    """
    if due is True:
        return compute()
    packed = layout(jax.eval_shape(compute))

    def leave() -> jax.Array:
        return jnp.zeros(packed.size)

    def make() -> jax.Array:
        found, metrics = compute()
        return packed.encode((found, jax.tree.map(lambda x: x * period, metrics)))

    return packed.decode(jax.lax.cond(due, make, leave))


def update_target(
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
