"""Lanes over devices: CPU cores, GPUs and the devices of several hosts.

A lane is one training run: a seed, or in a sweep a seed of one configuration. Lanes do not
communicate, so each device runs the program of its own lanes without collectives. If lanes do not
divide evenly among devices, copies of the first lane pad them, and their results are dropped.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import xla_bridge  # JAX has no public function for `is_initialized`
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from purejaxrl_sac.config import ConfigError, whole_number
from purejaxrl_sac.types import EnvState, PyTree, TrainState

LANE = "lane"
MAX_CPU_DEVICES = 1024


def mesh_for(lanes: int, devices: int | None = None) -> Mesh:
    """The smallest mesh that minimises lanes per device; several processes use all devices.

    Args:
        devices: the maximum number of devices; None for all available ones.

    Raises:
        ConfigError: it is no whole number, or there are not that many devices.
    """
    available = jax.devices()
    devices = None if devices is None else whole_number("devices", devices)
    if devices is not None and not 1 <= devices <= len(available):
        hint = " (on a CPU, --cpu-devices makes devices of its cores)"
        raise ConfigError(
            f"devices is {devices}, but must be between 1 and {len(available)}"
            + (hint if available[0].platform == "cpu" else "")
        )
    if jax.process_count() > 1:
        if devices not in (None, len(available)):
            raise ConfigError(
                f"devices is {devices}, but several processes always use all {len(available)}:"
                " leave it out"
            )
        return Mesh(np.array(available), (LANE,))
    lanes_per_device = -(-lanes // (devices or len(available)))
    return Mesh(np.array(available[: -(-lanes // lanes_per_device)]), (LANE,))


def device_name(mesh: Mesh) -> str:
    """'8 x NVIDIA H100 (gpu)', or '2 x cpu'."""
    kind, platform = mesh.devices.flat[0].device_kind, mesh.devices.flat[0].platform
    return f"{mesh.size} x {kind}" if kind == platform else f"{mesh.size} x {kind} ({platform})"


def padded(lanes: int, mesh: Mesh) -> int:
    """The number of lanes after padding: the next multiple of the number of devices."""
    return -(-lanes // mesh.size) * mesh.size


def vmap_lanes(
    function: Callable[..., PyTree], mesh: Mesh, in_axes: PyTree, out_axes: PyTree = 0
) -> Callable[..., PyTree]:
    """`vmap` over lanes that are sharded over the devices of a mesh; axes are 0 or None."""
    mapped = jax.vmap(function, in_axes, out_axes)
    if mesh.size == 1:
        return mapped
    return jax.shard_map(
        mapped, mesh=mesh, in_specs=_specs(in_axes), out_specs=_specs(out_axes), check_vma=False
    )


def shardings(axes: PyTree, mesh: Mesh) -> PyTree:
    """The shardings of arrays with such `vmap` axes: split over devices for 0, else replicated."""
    return jax.tree.map(partial(NamedSharding, mesh), _specs(axes))


def fill(tree: PyTree, lanes: int, mesh: Mesh) -> PyTree:
    """Pads lanes with copies of the first one, and puts them on the devices.

    Args:
        tree: arrays [at least lanes, ...], of which those from `lanes` on are replaced; and
            scalars, which are replicated. Either on the devices already, or equal in every process.

    Returns:
        arrays [padded, ...], sharded over the devices.
    """
    wanted = padded(lanes, mesh)
    where = shardings(jax.tree.map(lambda x: 0 if jnp.ndim(x) else None, tree), mesh)
    devices = set(mesh.devices.flat)
    in_place = all(x.sharding.device_set == devices for x in jax.tree.leaves(tree))
    if in_place and wanted == lanes:
        return jax.device_put(tree, where)

    arrays = keys_to_data(tree)
    if not in_place:  # as host arrays, which every process can put on all devices
        arrays = jax.tree.map(np.asarray, arrays)
    program = jax.jit(_complete, static_argnums=(1, 2), out_shardings=where)
    return data_to_keys(program(arrays, lanes, wanted), tree)


def _complete(arrays: PyTree, lanes: int, wanted: int) -> PyTree:
    """Outside of `fill`, so that it is compiled once per shape."""

    def complete(x: jax.Array) -> jax.Array:
        if x.ndim == 0 or wanted == lanes:
            return x
        first = jnp.broadcast_to(x[:1], (wanted - lanes, *x.shape[1:]))
        return jnp.concatenate([x[:lanes], first])

    return jax.tree.map(complete, arrays)


def trim(state: TrainState, lanes: int, mesh: Mesh) -> TrainState:
    """Drops the padding of `fill`.

    With several processes, each gets the policies of all lanes, without environments and memory.
    """
    if jax.process_count() > 1:
        policies = policy_state(state)
        replicate = jax.jit(lambda x: x, out_shardings=shardings(None, mesh))
        gathered = replicate(keys_to_data(policies))
        state = data_to_keys(jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), gathered), policies)
    return jax.tree.map(lambda x: x[:lanes] if jnp.ndim(x) and len(x) > lanes else x, state)


def policy_state(state: TrainState) -> TrainState:
    """The part of a state that policies depend on: without environments and memory."""
    return state._replace(env=cast(EnvState, ()), memory=())


def is_key(x: jax.Array | jax.ShapeDtypeStruct) -> bool:
    """Whether an array, or its shape, is of typed PRNG keys."""
    return bool(jnp.issubdtype(x.dtype, jax.dtypes.prng_key))


def keys_to_data(tree: PyTree) -> PyTree:
    """Replaces typed PRNG keys by their uint32 data, which can be padded, and written to disk."""

    def data(x: jax.Array | jax.ShapeDtypeStruct) -> jax.Array | jax.ShapeDtypeStruct:
        if not is_key(x):
            return x
        if isinstance(x, jax.Array):
            return jax.random.key_data(x)
        shape = jax.eval_shape(jax.random.key_data, x)
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=x.sharding)

    return jax.tree.map(data, tree)


def data_to_keys(tree: PyTree, like: PyTree) -> PyTree:
    """The inverse of `keys_to_data`; `like` has the types of the original tree."""

    def key(x: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.random.wrap_key_data(x, impl=like.dtype._impl) if is_key(like) else x

    return jax.tree.map(key, tree, like)


def cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_initialized() -> bool:
    """Whether JAX has initialised its backends, after which devices cannot be reconfigured."""
    return xla_bridge.backends_are_initialized()


def use_cpu_devices(count: int) -> None:
    """Splits the CPU into `count` devices; call it before JAX computes anything.

    Raises:
        ConfigError: the count is out of range, or JAX is initialised with another one.
    """
    count = whole_number("cpu_devices", count, at_least=1, at_most=MAX_CPU_DEVICES)
    if not is_initialized():
        jax.config.update("jax_num_cpu_devices", count)
    elif len(jax.local_devices(backend="cpu")) != count:
        raise ConfigError(
            f"too late for {count} CPU devices, JAX is initialised: call use_cpu_devices earlier,"
            f" or set JAX_NUM_CPU_DEVICES={count}"
        )


def use_all_cores(lanes: int) -> None:
    """Makes as many CPU devices as there are cores and lanes.

    Nothing happens if JAX is initialised, or a number of devices has been chosen.
    """
    if not is_initialized() and jax.config.values["jax_num_cpu_devices"] < 1:
        use_cpu_devices(max(1, min(cores(), lanes)))


def _specs(axes: PyTree) -> PyTree:
    def spec(axis: int | None) -> PartitionSpec:
        return PartitionSpec() if axis is None else PartitionSpec(LANE)

    return jax.tree.map(spec, axes, is_leaf=lambda axis: axis is None)
