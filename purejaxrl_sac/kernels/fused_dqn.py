"""A complete DQN update as a single GPU kernel: a wrapper of agents of the `dqn` family.

    config.replace(wrappers=(fused_dqn.dqn_update,))

An update of a small Q-network takes about 20 kernels of a few microseconds each, most of it launch
latency. Here, one Pallas kernel (Triton backend) computes the forward passes of both networks, TD
targets, loss, backward pass, Adam and the update of the target network. Each seed of a vmapped run
is one program of the kernel's grid.

The agent's state is unchanged, so that checkpoints of fused and unfused agents are interchangeable,
and both compute the same numbers up to rounding. On platforms other than CUDA, the unfused update
is executed.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from purejaxrl_sac import heads, losses, networks
from purejaxrl_sac.agents import dqn
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.optimize import decaying_adam
from purejaxrl_sac.types import Agent, Env, Metrics, PyTree, Sample

Layer = dict[str, jax.Array]  # its kernel and bias
Ref = Any  # a Pallas reference to an array
LayerRef = dict[str, Ref]

B1, B2, EPS = 0.9, 0.999, 1e-8  # optax.adam's defaults
MIN_SIZE = 16  # of each dimension of a matrix product on tensor cores
MAX_WEIGHTS = 256 * 128  # of a layer, to fit in a program's 227 KiB of shared memory
INT32_MAX = jnp.iinfo(jnp.int32).max
ACTIVATIONS = {
    # act(z), and act'(z) as a function of act(z); nan is preserved
    "relu": (lambda z: jnp.where(z < 0, 0.0, z), lambda h: jnp.where(h > 0, 1.0, 0.0)),
    "tanh": (jnp.tanh, lambda h: 1.0 - h * h),
}


class Batch(NamedTuple):
    """A sample in the dtypes of the kernel."""

    obs: jax.Array  # [B, F]
    next_obs: jax.Array  # [B, F]
    action: jax.Array  # [B] int32
    reward: jax.Array  # [B]
    discount: jax.Array  # [B]
    weight: jax.Array  # [B] or []


class Scalars(NamedTuple):
    """Numbers that may differ between updates, seeds and configurations of a sweep."""

    updates: jax.Array  # made before this one
    learning_rate: jax.Array
    learning_rate_end: jax.Array
    decay_steps: jax.Array
    gamma: jax.Array
    huber_delta: jax.Array
    tau: jax.Array
    target_period: jax.Array
    max_grad_norm: jax.Array


class Learner(NamedTuple):
    """`DQNState` as the kernel's argument, with layers in the order of computation."""

    params: list[Layer]
    target_params: list[Layer]
    mu: list[Layer]
    nu: list[Layer]
    adam_count: jax.Array
    schedule_count: jax.Array


def dqn_update(
    config: dqn.DQNConfig,
    env: Env,
    agent: Agent,
    *,
    precision: jax.lax.PrecisionLike = None,
    block: int | None = None,
    num_warps: int = 8,
    interpret: bool = False,
) -> Agent:
    """Replaces `Agent.update` of `dqn` and `double_dqn` by one kernel; must be the first wrapper.

    Args:
        precision: precision of matrix products, as in `jax.lax.dot`. None is
            jax.default_matmul_precision, whose default is TF32, as for XLA; "highest" is float32,
            and `jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3` is close to it at about three times
            the cost of TF32. Accumulation is always in float32.
        block: number of transitions processed at a time, a power of two, at least 16; None is 128
            for products on tensor cores and 32 for float32 products.
        num_warps: warps per program, a power of two.
        interpret: run the kernel in Pallas' interpreter, on any platform, for tests.

    Raises:
        ConfigError: the kernel does not support this algorithm or configuration.
    """
    double, num_actions = _check(config, env)
    for name, number, minimum in (("block", block, MIN_SIZE), ("num_warps", num_warps, 1)):
        if number is not None and (number < minimum or number & (number - 1)):
            raise ConfigError(f"{name} is {number}, but must be a power of two from {minimum} on")
    encode = networks.features(env.observation_space)
    kernel = partial(
        _call,
        num_actions=num_actions,
        double=double,
        activation=config.activation,
        clip=not (config.max_grad_norm is None or _is_inf(config.max_grad_norm)),
        precision=precision,
        block=block or _default_block(precision),
        num_warps=num_warps,
    )

    def fused(
        key: jax.Array, state: dqn.DQNState, sample: Sample, count: jax.Array, interpret: bool
    ) -> tuple[dqn.DQNState, jax.Array, Metrics]:
        learner, restore = _learner(state)
        scalars = _scalars(config, count)
        batch = _batch(sample, encode)
        learner, priority, loss, q = kernel(learner, batch, scalars, interpret=interpret)
        return restore(learner), priority, {"loss": loss, "q": q}

    def update(
        key: jax.Array, state: dqn.DQNState, sample: Sample, count: jax.Array
    ) -> tuple[dqn.DQNState, jax.Array, Metrics]:
        if not isinstance(state, dqn.DQNState):
            raise ConfigError("dqn_update must be the first of the wrappers: move it there")
        if interpret:
            return fused(key, state, sample, count, interpret=True)
        return jax.lax.platform_dependent(
            key,
            state,
            sample,
            count,
            cuda=partial(fused, interpret=False),
            default=agent.update,
        )

    return agent._replace(update=update)


def _check(config: dqn.DQNConfig, env: Env) -> tuple[bool, int]:
    """Returns whether the algorithm is Double DQN, and the number of actions.

    Raises:
        ConfigError: the kernel does not support this algorithm or configuration.
    """
    algorithm: Any = config.algorithm
    parts: dict[str, Any] = {}
    while isinstance(algorithm, partial) and not algorithm.args:
        parts = {**algorithm.keywords, **parts}
        algorithm = algorithm.func
    if algorithm is not dqn.dqn:
        raise ConfigError(
            "dqn_update needs dqn or a partial of it as the algorithm: leave the wrapper out"
        )
    bootstrap = parts.get("bootstrap", dqn.maximum)
    supported: dict[str, tuple[Any, ...]] = {
        "network": (networks.q_network,),
        "head": (heads.scalar,),
        "bootstrap": (dqn.maximum, dqn.double),
        "reward": (dqn.plain_reward,),
        "target": (losses.td_target,),
        "penalty": (None,),
        "loss": (dqn.q_loss,),
        "optimizer": (decaying_adam,),
    }
    for name, choices in supported.items():
        if parts.get(name, choices[0]) not in choices:
            names = " or ".join(getattr(choice, "__name__", str(choice)) for choice in choices)
            raise ConfigError(f"dqn_update needs {name}={names}: leave the wrapper out")
    if config.activation not in ACTIVATIONS:
        raise ConfigError(f"activation is {config.activation}, but dqn_update needs relu or tanh")
    if config.compute_dtype != "float32":
        raise ConfigError(f"compute_dtype is {config.compute_dtype}, but dqn_update needs float32")
    shape = getattr(env.observation_space, "shape", ())
    if hasattr(env.observation_space, "n") or len(shape) != 1:
        raise ConfigError(
            f"dqn_update needs observations that are vectors, which {env.name}'s are not"
        )
    if env.legal_actions is not None:
        raise ConfigError(
            f"dqn_update does not support {env.name}, whose actions may be illegal: leave the"
            " wrapper out"
        )
    num_actions = env.num_actions
    assert num_actions is not None  # `dqn` has checked it
    sizes = (*shape, *config.hidden_sizes, num_actions)
    padded = [_padded(size) for size in sizes]
    if max(a * b for a, b in itertools.pairwise(padded)) > MAX_WEIGHTS:
        raise ConfigError(
            f"layers are of {sizes} units, but dqn_update supports at most 256 x 128"
            " weights per layer: lower hidden_sizes or leave the wrapper out"
        )
    return bootstrap is dqn.double, num_actions


def _default_block(precision: jax.lax.PrecisionLike) -> int:
    """The number of transitions that a program of 8 warps processes at a time.

    Compiled for an H100 with 64 x 64 units, TF32 products of 128 rows spill 168 bytes of
    registers per thread, of 64 rows 608; float32 products of 32 rows spill 1 KB, of 64 rows 20 KB.
    """
    default = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined] # set at runtime
    precision = default if precision is None else precision
    float32 = (jax.lax.Precision.HIGHEST, jax.lax.DotAlgorithmPreset.F32_F32_F32)
    is_named = str(precision).lower() in ("highest", "float32", "f32_f32_f32")
    return 32 if is_named or precision in float32 else 128


def _is_inf(value: Any) -> bool:
    """Whether a number is known to be infinite at compile time; tracers are not."""
    return isinstance(value, int | float) and math.isinf(value)


def _scalars(config: dqn.DQNConfig, count: jax.Array) -> Scalars:
    """Converts hyperparameters to arrays; those that are not traced become constants."""
    steps = max(1, config.iterations * config.num_updates)  # as in optimize.linear_decay
    values = {
        "learning_rate": config.learning_rate,
        "learning_rate_end": config.learning_rate * config.learning_rate_end,
        "decay_steps": steps,
        "gamma": config.gamma,
        "huber_delta": config.huber_delta,
        "tau": config.tau,
        "max_grad_norm": math.inf if config.max_grad_norm is None else config.max_grad_norm,
    }
    floats = {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}
    period = jnp.asarray(config.target_period, jnp.int32)
    return Scalars(jnp.asarray(count, jnp.int32), target_period=period, **floats)


def _batch(sample: Sample, encode: Callable[[jax.Array], jax.Array]) -> Batch:
    transition = sample.transition
    return Batch(
        obs=encode(transition.obs),
        next_obs=encode(transition.next_obs),
        action=transition.action,
        reward=transition.reward,
        discount=transition.discount,
        weight=jnp.asarray(sample.weight, jnp.float32),
    )


def _learner(state: dqn.DQNState) -> tuple[Learner, Callable[[Learner], dqn.DQNState]]:
    """Converts the agent's state to the kernel's, and returns the inverse function too."""

    def of_adam(path: tuple[Any, ...], value: Any) -> bool:
        return "ScaleByAdamState" in str(path[-1])

    def of_schedule(path: tuple[Any, ...], value: Any) -> bool:
        return "ScaleByScheduleState" in str(path[-1])

    names = {path[:-1] for path in flatten_dict(state.params)}
    # the torso's layers, then those of the stream, whose output layer is not part of its MLP
    order = sorted(names, key=lambda path: (path[1] == "stream", len(path) == 3, _number(path)))

    def listed(tree: PyTree) -> list[Layer]:
        flat = flatten_dict(tree)
        return [{part: flat[*path, part] for part in ("kernel", "bias")} for path in order]

    def nested(layers: list[Layer]) -> PyTree:
        pairs = zip(order, layers, strict=True)
        return unflatten_dict({(*p, part): x for p, layer in pairs for part, x in layer.items()})

    get, put = optax.tree.get, optax.tree.set
    learner = Learner(
        params=listed(state.params),
        target_params=listed(state.target_params),
        mu=listed(get(state.opt_state, "mu")),
        nu=listed(get(state.opt_state, "nu")),
        adam_count=get(state.opt_state, "count", filtering=of_adam),
        schedule_count=get(state.opt_state, "count", filtering=of_schedule),
    )

    def restore(new: Learner) -> dqn.DQNState:
        moments = {"mu": nested(new.mu), "nu": nested(new.nu)}
        opt_state = put(state.opt_state, **moments)
        opt_state = put(opt_state, of_adam, count=new.adam_count)
        opt_state = put(opt_state, of_schedule, count=new.schedule_count)
        return dqn.DQNState(nested(new.params), nested(new.target_params), opt_state)

    return learner, restore


def _number(path: tuple[str, ...]) -> int:
    """The last number in a path; flax numbers layers from 0."""
    return int(re.findall(r"\d+", "/".join(path))[-1])


def _call(
    learner: Learner,
    batch: Batch,
    scalars: Scalars,
    *,
    block: int,
    num_warps: int,
    interpret: bool,
    **static: Any,
) -> tuple[Learner, jax.Array, jax.Array, jax.Array]:
    """One update, `static` being arguments of `_kernel`.

    Returns:
        the new learner, priorities [B], the loss and the mean of Q(s, a).
    """
    size = len(batch.reward)
    static |= {"batch_size": size, "block": min(block, _padded(size)), "barrier": not interpret}

    def like(x: jax.Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype)

    number = jax.ShapeDtypeStruct((), jnp.float32)
    return pl.pallas_call(
        partial(_kernel, **static),
        out_shape=(jax.tree.map(like, learner), like(batch.reward), number, number),
        # in place, because otherwise the carry of a loop would be copied
        input_output_aliases={i: i for i in range(len(jax.tree.leaves(learner)))},
        compiler_params=triton.CompilerParams(num_warps=num_warps, num_stages=1),
        interpret=interpret,
        name="dqn_update",
    )(learner, batch, scalars)


def _kernel(
    old: Learner,
    batch: Batch,
    scalars: Scalars,
    new: Learner,
    priority: Ref,
    mean_loss: Ref,
    mean_q: Ref,
    *,
    batch_size: int,
    num_actions: int,
    double: bool,
    activation: str,
    clip: bool,
    precision: jax.lax.PrecisionLike,
    block: int,
    barrier: bool,
) -> None:
    """The update of one seed. All positional arguments are references to its arrays.

    Arrays are read with their dimensions padded to powers of two. The padding is 0, does not change
    any product or sum, and is never written.
    """
    act, slope = ACTIVATIONS[activation]
    dot = partial(_dot, precision=precision)
    delta = scalars.huber_delta[...]
    padded = [_padded(size) for size in old.params[0]["kernel"].shape[:1]]
    padded += [_padded(layer["bias"].shape[0]) for layer in old.params]

    def forward(layers: list[LayerRef], x: jax.Array) -> list[jax.Array]:
        """Returns the input, the activations of all hidden layers, and the output."""
        outputs = [x]
        for i, layer in enumerate(layers):
            z = dot(outputs[-1], _load(layer["kernel"])) + _load(layer["bias"])[None]
            outputs.append(act(z) if i + 1 < len(layers) else z)
        return outputs

    Sums = tuple[list[Layer], jax.Array, jax.Array]  # of gradients, losses and Q-values

    def accumulate(k: jax.Array | int, sums: Sums) -> Sums:
        """Adds gradients and metrics of the k-th block of the batch."""
        grads, loss_sum, q_sum = sums
        rows = Axis(k * block + jnp.arange(block, dtype=jnp.int32), batch_size)
        column = jax.lax.broadcasted_iota(jnp.int32, (block, padded[-1]), 1)
        exists = column < num_actions

        following = _load(batch.next_obs, rows)
        target = forward(old.target_params, following)[-1]
        if double:
            online = jnp.where(exists, forward(old.params, following)[-1], -jnp.inf)
            best = jnp.where(online == online.max(1)[:, None], 1.0, 0.0)  # averages over ties
            value = (best * target).sum(1) / best.sum(1)
        else:
            value = jnp.where(exists, target, -jnp.inf).max(1)
        discount = scalars.gamma[...] * _load(batch.discount, rows)
        y = _load(batch.reward, rows) + discount * value

        outputs = forward(old.params, _load(batch.obs, rows))
        action = _load(batch.action, rows, other=-1)
        is_action = column == action[:, None]
        q = jnp.where(is_action, outputs[-1], 0.0).sum(1)
        error = y - q
        size = jnp.abs(error)
        quadratic = jnp.minimum(size, delta)
        weight = _load(batch.weight, rows) if batch.weight.shape else batch.weight[...]
        loss_sum += (weight * quadratic * (size - 0.5 * quadratic)).sum()
        q_sum += q.sum()
        _store(priority, size, rows)

        linear = jnp.where(error < 0, -delta, delta)
        error = jnp.where(size > delta, linear, error)
        dz = jnp.where(is_action, (weight * error * (-1.0 / batch_size))[:, None], 0.0)
        total = []
        for i, layer in reversed(list(enumerate(old.params))):
            below = outputs[i]
            kernel, bias = grads[i]["kernel"], grads[i]["bias"]
            total.append({"kernel": kernel + dot(below, dz, transpose=0), "bias": bias + dz.sum(0)})
            if i:
                dz = dot(dz, _load(layer["kernel"]), transpose=1) * slope(below)
        return total[::-1], loss_sum, q_sum

    zeros = [
        {"kernel": jnp.zeros((a, b), jnp.float32), "bias": jnp.zeros(b, jnp.float32)}
        for a, b in itertools.pairwise(padded)
    ]
    sums = (zeros, jnp.float32(0), jnp.float32(0))
    blocks = pl.cdiv(batch_size, block)
    sums = jax.lax.fori_loop(0, blocks, accumulate, sums) if blocks > 1 else accumulate(0, sums)
    grads, loss_sum, q_sum = sums
    mean_loss[...] = loss_sum / batch_size
    mean_q[...] = q_sum / batch_size

    if clip:
        squares = [(x * x).sum() for x in jax.tree.leaves(grads)]
        norm = jnp.sqrt(sum(squares[1:], squares[0]))
        limit = scalars.max_grad_norm[...]
        scale = jnp.where(norm < limit, 1.0, limit / norm)
        grads = jax.tree.map(lambda g: g * scale, grads)

    adam_count = jnp.minimum(old.adam_count[...], INT32_MAX - 1) + 1
    schedule = old.schedule_count[...]
    steps = scalars.decay_steps[...]
    first, last = scalars.learning_rate[...], scalars.learning_rate_end[...]
    remaining = 1.0 - jnp.minimum(schedule.astype(jnp.float32), steps) / steps
    learning_rate = (first - last) * remaining + last
    correction_mu = 1.0 - jnp.power(jnp.float32(B1), adam_count.astype(jnp.float32))
    correction_nu = 1.0 - jnp.power(jnp.float32(B2), adam_count.astype(jnp.float32))
    updates_target = (scalars.updates[...] + 1) % scalars.target_period[...] == 0
    tau = jnp.where(updates_target, scalars.tau[...], 0.0)

    for i in range(len(old.params)):
        for part in ("kernel", "bias"):
            grad = grads[i][part]
            param, target, mu, nu = (_load(tree[i][part]) for tree in old[:4])
            mu = (1 - B1) * grad + B1 * mu
            nu = (1 - B2) * grad * grad + B2 * nu
            change = (mu / correction_mu) / (jnp.sqrt(nu / correction_nu) + EPS)
            param -= learning_rate * change
            moved = (1.0 - tau) * target + tau * param
            target = jnp.where(tau != 0.0, moved, target)
            if barrier:  # no warp may write in place before all others have read
                triton.debug_barrier()
            for tree, value in zip(new[:4], (param, target, mu, nu), strict=True):
                _store(tree[i][part], value)
    new.adam_count[...] = adam_count
    new.schedule_count[...] = jnp.minimum(schedule, INT32_MAX - 1) + 1


class Axis(NamedTuple):
    """The position of a block along an axis of an array."""

    indices: jax.Array  # [P], some of which may be out of bounds
    size: int  # of the axis


def _padded(size: int) -> int:
    """The size of a block that holds an axis: a power of two that tensor cores support."""
    return max(MIN_SIZE, 1 << (size - 1).bit_length())


def _block(ref: Ref, rows: Axis | None) -> tuple[Ref, jax.Array | None]:
    """A padded block of an array [n] or [n, m], and which elements are in bounds (None: all)."""
    if rows is None and all(_padded(n) == n for n in ref.shape):
        return ref, None
    axes = [Axis(jnp.arange(_padded(n), dtype=jnp.int32), n) for n in ref.shape]
    if rows is not None:
        axes[0] = rows
    shape = tuple(len(axis.indices) for axis in axes)
    indices = [jax.lax.broadcast_in_dim(axis.indices, shape, (i,)) for i, axis in enumerate(axes)]
    mask = None
    for i, axis in enumerate(axes):
        fits = axis.size % shape[i] == 0 if i == 0 and rows else axis.size == shape[i]
        if not fits:
            inside = indices[i] < axis.size
            mask = inside if mask is None else mask & inside
    return ref.at[tuple(indices)], mask


def _load(ref: Ref, rows: Axis | None = None, other: float = 0) -> jax.Array:
    view, mask = _block(ref, rows)
    if mask is None:
        return triton.load(view)
    return triton.load(view, mask=mask, other=jnp.asarray(other, ref.dtype))


def _store(ref: Ref, value: jax.Array, rows: Axis | None = None) -> None:
    view, mask = _block(ref, rows)
    triton.store(view, value, mask=mask)


def _dot(
    a: jax.Array,
    b: jax.Array,
    *,
    precision: jax.lax.PrecisionLike,
    transpose: int | None = None,
) -> jax.Array:
    """a b, a' b (transpose 0) or a b' (transpose 1), accumulated in float32."""
    axis_a, axis_b = {None: (1, 0), 0: (0, 0), 1: (1, 1)}[transpose]
    dimensions = (((axis_a,), (axis_b,)), ((), ()))
    return jax.lax.dot_general(
        a, b, dimensions, precision=precision, preferred_element_type=jnp.float32
    )
