"""Lanes over devices: seeds, or configurations times seeds, on CPU cores, GPUs and hosts alike.

A lane never hears of another, so each device runs a program of its own lanes, without a word
between them. Where lanes do not divide among the devices, the first lane is run again to fill up,
and what it gives is dropped.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import xla_bridge  # JAX says nowhere else whether it has begun
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.types import PyTree, TrainState

LANE = "lane"


def mesh_for(lanes: int, devices: int | None = None) -> Mesh:
    """As many devices as serve so many lanes; with several processes, all there are.

    Args:
        devices: no more than these; None for all there are.

    Raises:
        ConfigError: there are not so many devices.
    """
    there = jax.devices()
    if devices is not None and not 1 <= devices <= len(there):
        more = ": on a CPU, --cpu-devices makes devices of its cores"
        raise ConfigError(
            f"devices is {devices}, but 1 to {len(there)} can be had"
            + (more if there[0].platform == "cpu" else "")
        )
    if jax.process_count() > 1:
        if devices not in (None, len(there)):
            raise ConfigError(f"devices is {devices}, but processes share all {len(there)}")
        return Mesh(np.array(there), (LANE,))
    each = -(-lanes // (devices or len(there)))
    return Mesh(np.array(there[: -(-lanes // each)]), (LANE,))


def padded(lanes: int, mesh: Mesh) -> int:
    """The next multiple of the number of devices."""
    return -(-lanes // mesh.size) * mesh.size


def spread(function: Callable, mesh: Mesh, in_axes: Any, out_axes: Any = 0) -> Callable:
    """`vmap` over the lanes of each device, on all devices at once; axes are 0 or None."""
    mapped = jax.vmap(function, in_axes, out_axes)
    if mesh.size == 1:
        return mapped
    return jax.shard_map(
        mapped, mesh=mesh, in_specs=_specs(in_axes), out_specs=_specs(out_axes), check_vma=False
    )


def shardings(axes: Any, mesh: Mesh) -> Any:
    """Where arrays with such axes lie: 0 in pieces, None in whole on every device."""
    return jax.tree.map(partial(NamedSharding, mesh), _specs(axes))


def fill(tree: PyTree, lanes: int, mesh: Mesh) -> PyTree:
    """Makes the lanes from `lanes` on copies of the first one, or adds them where there are none.

    Args:
        tree: of arrays [lanes or more, ...], and scalars, which stay; on the devices already, or
            alike in every process.

    Returns:
        arrays [padded, ...], in pieces on the devices.
    """
    wanted = padded(lanes, mesh)
    where = shardings(jax.tree.map(lambda x: 0 if jnp.ndim(x) else None, tree), mesh)
    there = set(mesh.devices.flat)
    here = all(x.sharding.device_set == there for x in jax.tree.leaves(tree))
    if here and wanted == lanes:
        return jax.device_put(tree, where)

    arrays = plain(tree)
    if not here:  # as numbers of the host, which every process can hand to all devices
        arrays = jax.tree.map(np.asarray, arrays)
    program = jax.jit(_complete, static_argnums=(1, 2), out_shardings=where)
    return typed(program(arrays, lanes, wanted), tree)


def _complete(arrays: PyTree, lanes: int, wanted: int) -> PyTree:
    """Outside of `fill`, so that it is compiled once for each shape."""

    def complete(x: jax.Array) -> jax.Array:
        if x.ndim == 0 or wanted == lanes:
            return x
        first = jnp.broadcast_to(x[:1], (wanted - lanes, *x.shape[1:]))
        return jnp.concatenate([x[:lanes], first])

    return jax.tree.map(complete, arrays)


def is_key(x: jax.Array | jax.ShapeDtypeStruct) -> bool:
    """Whether these are PRNG keys, which are not numbers."""
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def trim(state: TrainState, lanes: int, mesh: Mesh) -> TrainState:
    """Drops what `fill` added. Of several processes, each gets all policies, and nothing else."""
    if jax.process_count() > 1:
        policies = state._replace(env=(), memory=())
        everywhere = jax.jit(lambda x: x, out_shardings=shardings(None, mesh))(plain(policies))
        state = typed(jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), everywhere), policies)
    return jax.tree.map(lambda x: x[:lanes] if jnp.ndim(x) and len(x) > lanes else x, state)


def plain(tree: PyTree) -> PyTree:
    """PRNG keys as the numbers they are, which can be cut and padded on their way from the disk."""

    def number(x: jax.Array | jax.ShapeDtypeStruct) -> jax.Array | jax.ShapeDtypeStruct:
        if not is_key(x):
            return x
        if isinstance(x, jax.Array):
            return jax.random.key_data(x)
        data = jax.eval_shape(jax.random.key_data, x)
        return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=x.sharding)

    return jax.tree.map(number, tree)


def typed(tree: PyTree, like: PyTree) -> PyTree:
    """Keys as keys again."""

    def key(x: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
        if not is_key(like):
            return x
        return jax.random.wrap_key_data(x, impl=like.dtype._impl)

    return jax.tree.map(key, tree, like)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_begun() -> bool:
    """Whether JAX knows its devices, so that nothing about them can be changed any more."""
    return xla_bridge.backends_are_initialized()


def use_cpu_devices(count: int) -> None:
    """Makes so many devices of a CPU's cores; to be called before JAX computes anything.

    Raises:
        ConfigError: the count is out of range, or JAX has computed something already.
    """
    if count < 1:
        raise ConfigError(f"cpu_devices is {count}, but must be at least 1")
    if not has_begun():
        jax.config.update("jax_num_cpu_devices", count)
    elif len(jax.local_devices(backend="cpu")) != count:
        raise ConfigError(
            f"too late for {count} CPU devices, JAX has begun: call use_cpu_devices before, or set"
            f" JAX_NUM_CPU_DEVICES={count}"
        )


def _specs(axes: Any) -> Any:
    def spec(axis: int | None) -> PartitionSpec:
        return PartitionSpec() if axis is None else PartitionSpec(LANE)

    return jax.tree.map(spec, axes, is_leaf=lambda axis: axis is None)
