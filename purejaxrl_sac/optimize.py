"""Optimisers, gradient steps and target-network updates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax

from purejaxrl_sac.config import ConfigError, kind_of
from purejaxrl_sac.kernels.packing import layout
from purejaxrl_sac.part_errors import name_of_function
from purejaxrl_sac.types import Metrics, Penalty, PyTree, Scalar

Aux = TypeVar("Aux")
LearningRate = jax.Array | float | optax.Schedule


class Learned(NamedTuple):
    """Parameters, and the state of the optimiser that updates them."""

    params: PyTree
    opt_state: PyTree


def start(optimizer: optax.GradientTransformation, params: PyTree) -> Learned:
    """Parameters before their first gradient step.

    Raises:
        ConfigError: a network has other variables, which gradients would change.
    """
    if isinstance(params, Mapping) and "params" in params and len(params) > 1:
        others = ", ".join(sorted(params.keys() - {"params"}))
        raise ConfigError(
            f"a network has variables that are not parameters, {others}, which only crossq keeps"
            " apart from what gradients change: use crossq, or other layers, such as LayerNorm"
        )
    return Learned(params, optimizer.init(params))


def gradient_step(
    optimizer: optax.GradientTransformation,
    learned: Learned,
    loss: Callable[..., tuple[jax.Array, Any]],
    *args: Any,
) -> tuple[Learned, jax.Array, Any]:
    """Value, gradient and optimiser step of `loss(params, *args)`, which returns (value, aux).

    Returns:
        the new parameters and optimiser state, the value of the loss before the step, and aux.
    """
    gradient = jax.value_and_grad(checked_loss(loss), has_aux=True)
    (value, aux), grads = gradient(learned.params, *args)
    return apply_gradients(optimizer, learned, grads), value, aux


def checked_loss(loss: Callable[..., Any]) -> Callable[..., tuple[jax.Array, Any]]:
    """`loss` with a check that it returns (scalar, aux), else a `ConfigError`."""

    def checked(*args: Any) -> tuple[jax.Array, Any]:
        returned: Any = loss(*args)
        pair = isinstance(returned, tuple | list) and len(returned) == 2
        if not pair or jnp.shape(returned[0]) != ():
            found = f"a loss of shape {[*jnp.shape(returned[0])]}" if pair else kind_of(returned)
            raise ConfigError(
                f"the loss {name_of_function(loss)} returned {found}, but must return a scalar, the"
                " mean over the batch, and what else the update needs: (loss, aux)"
            )
        value, aux = returned
        return value, aux

    return checked


def penalized(
    loss: Callable[[PyTree, Any], tuple[jax.Array, tuple[Aux, Metrics]]], penalty: Penalty | None
) -> Callable[[PyTree, Any], tuple[jax.Array, tuple[Aux, Metrics]]]:
    """A loss plus a penalty, with the metrics of both; the loss itself where there is none.

    Args:
        loss: returns its value and (what else the update needs, metrics), such as a `Loss`.
    """
    if penalty is None:
        return loss

    def sum_of_both(params: PyTree, inputs: Any) -> tuple[jax.Array, tuple[Aux, Metrics]]:
        value, (aux, metrics) = loss(params, inputs)
        returned: Any = penalty(params, inputs)
        pair = isinstance(returned, tuple | list) and len(returned) == 2
        if not pair or jnp.shape(returned[0]) != () or not isinstance(returned[1], dict):
            raise ConfigError(
                "a penalty must return (penalty, metrics), a scalar and a dictionary of scalars"
            )
        added, more = returned
        return value + added, (aux, joined(metrics, more))

    return sum_of_both


def joined(*parts: Metrics) -> Metrics:
    """The metrics of several losses; raises ConfigError if two of them have the same name."""
    found: Metrics = {}
    for metrics in parts:
        if same := found.keys() & metrics.keys():
            raise ConfigError(f"two metrics of an update are called {min(same)}: rename one")
        found |= metrics
    return found


def apply_gradients(
    optimizer: optax.GradientTransformation,
    learned: Learned,
    grads: PyTree,
    *,
    due: jax.Array | bool = True,
) -> Learned:
    """One step of an optimiser where it is due; otherwise nothing changes."""
    with jax.numpy_dtype_promotion("standard"):  # which optax relies on
        updates, opt_state = optimizer.update(grads, learned.opt_state, learned.params)
        stepped = Learned(optax.apply_updates(learned.params, updates), opt_state)
    return where(due, stepped, learned)


def is_due(period: int, count: jax.Array) -> jax.Array | bool:
    """Whether this is the last of `period` updates; the Python value True if the period is 1.

    Args:
        count: updates made before this one; never batched.
    """
    return True if period == 1 else (count + 1) % period == 0


def where(due: jax.Array | bool, new: Any, old: Any) -> Any:
    """`new` if it is due, else `old`."""
    return new if due is True else jax.tree.map(lambda x, y: jnp.where(due, x, y), new, old)


def delayed_update(
    period: int, due: jax.Array | bool, compute: Callable[[], tuple[PyTree, Metrics]]
) -> tuple[PyTree, Metrics]:
    """`compute()`, which returns gradients and metrics, once in `period` updates; else zeros.

    A cond on a value that is never batched, so that skipped updates cost nothing. Its outputs are
    packed into one array; parameters and optimiser states do not pass through it. Metrics are
    multiplied by `period` and 0 in skipped updates, so that their mean over a multiple of `period`
    updates is the mean over the computed ones.
    """
    if due is True:
        return compute()
    packed = layout(jax.eval_shape(compute))

    def skip() -> jax.Array:
        return jnp.zeros(packed.size, jnp.float32)

    def update() -> jax.Array:
        grads, metrics = compute()
        scaled = jax.tree.map(lambda x: jnp.asarray(x) * period, metrics)  # some are Python's
        return packed.encode((grads, scaled))

    return packed.decode(jax.lax.cond(due, update, skip))


def update_target(
    params: PyTree, target_params: PyTree, tau: Scalar, period: Scalar, count: jax.Array
) -> PyTree:
    """theta- <- tau theta + (1 - tau) theta- after every `period` updates (post, 2.3.3, 4.3.1).

    A period of 1 with a small tau is Polyak averaging; tau = 1 with a long period is DQN's copy.

    Args:
        count: gradient updates made before this one.
    """
    step = jnp.where((count + 1) % period == 0, tau, 0.0)

    def moved(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.where(step, ((1 - step) * y + step * x).astype(y.dtype), y)

    return jax.tree.map(moved, params, target_params)


def linear_decay(
    config: Any, delay: int = 1, learning_rate: Scalar | None = None
) -> optax.Schedule:
    """Learning rate over the updates of a run: linear from its initial to its final value.

    Args:
        config: has the fields of `agents.common.Learning`.
        delay: updates of the agent per update of this optimiser.
        learning_rate: the initial value; None for `config.learning_rate`.
    """
    initial = config.learning_rate if learning_rate is None else learning_rate
    return optax.linear_schedule(
        initial,
        initial * config.learning_rate_end,
        max(1, config.iterations * config.num_updates // delay),
    )


def finite(limit: Scalar | None) -> Scalar | None:
    """A limit; None where it is inf, so that nothing needs to be computed."""
    return None if isinstance(limit, float) and math.isinf(limit) else limit


def clip(max_grad_norm: Scalar | None, *, members: bool = False) -> optax.GradientTransformation:
    """Clips gradients to a global norm; where that is None or inf, no norm is computed.

    Args:
        members: clip each member of an ensemble separately; every leaf has a leading axis [E].
    """
    limit = finite(max_grad_norm)
    if limit is None:
        return optax.identity()
    # flattened, because the norm of one vector is one reduction
    clipped = optax.flatten(optax.clip_by_global_norm(limit))
    if not members:
        return clipped

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        return jax.vmap(lambda grads: clipped.update(grads, state)[0])(updates), state

    return optax.GradientTransformation(clipped.init, update)


def adam(
    learning_rate: LearningRate,
    max_grad_norm: Scalar | None = None,
    *,
    members: bool = False,
    epsilon: Scalar = 1e-8,
) -> optax.GradientTransformation:
    """Adam on clipped gradients.

    Args:
        max_grad_norm, members: as for `clip`.
        epsilon: added to the root of the second moment.
    """
    transformation = optax.adam(learning_rate, eps=epsilon)
    return optax.chain(clip(max_grad_norm, members=members), transformation)


def adamw(
    learning_rate: LearningRate,
    max_grad_norm: Scalar | None,
    weight_decay: Scalar,
    *,
    members: bool = False,
) -> optax.GradientTransformation:
    """`adam` with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101)."""
    transformation = optax.adamw(learning_rate, weight_decay=weight_decay)
    return optax.chain(clip(max_grad_norm, members=members), transformation)


def rmsprop(
    learning_rate: LearningRate, max_grad_norm: Scalar | None
) -> optax.GradientTransformation:
    """RMSProp as in A3C (Mnih et al. 2016, arXiv 1602.01783) on clipped gradients."""
    return optax.chain(clip(max_grad_norm), optax.rmsprop(learning_rate, decay=0.99, eps=1e-5))


def decaying_adam(config: Any) -> optax.GradientTransformation:
    """The default optimiser: Adam on clipped gradients, with linear decay of the learning rate."""
    return adam(linear_decay(config), config.max_grad_norm)
