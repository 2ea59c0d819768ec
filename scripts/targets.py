"""Ahead-of-time compilation for accelerators, for which XLA needs only a device description.

Needs one extra: `cuda12` (or `cuda13`) for the GPUs described in `scripts/targets/*.txtpb`, `tpu`
for TPUs. A process compiles for one target, and starts with the variables of `environment(target)`.
This module does not import the package, so that peers can be compiled in other environments.

One difference from compilation on a machine with a GPU: sorts become several kernels of XLA instead
of calls of CUB.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "targets"
TPUS = {"v5e": ("v5e:2x2", "v5litepod-4")}  # name -> topology, accelerator type


class TargetError(ValueError):
    """Compilation for a target is impossible; the message is one line with a remedy."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A device to compile for."""

    name: str
    platform: str  # "cuda" or "tpu"
    extra: str  # extra of this package that installs the compiler
    plugins: tuple[str, ...]  # modules, one of which the extra installs

    @property
    def installed(self) -> bool:
        """Whether the compiler is installed."""
        return any(importlib.util.find_spec(name) for name in self.plugins)


def names() -> list[str]:
    """Names of all targets, GPUs first."""
    return sorted(path.stem for path in FOLDER.glob("*.txtpb")) + sorted(TPUS)


def find(name: str) -> Target:
    """Find a target by name.

    Raises:
        TargetError: no target has this name.
    """
    if name not in names():
        raise TargetError(f"no target is called {name}: use one of {', '.join(names())}")
    if name in TPUS:
        return Target(name, "tpu", "tpu", ("libtpu",))
    return Target(name, "cuda", "cuda12", ("jax_cuda12_plugin", "jax_cuda13_plugin"))


def require(target: Target) -> None:
    """Raise TargetError if the extra is not installed."""
    if not target.installed:
        raise TargetError(
            f"compiling for {target.name} needs the extra {target.extra}:"
            f' pip install "purejaxrl_sac[{target.extra}]"'
        )


def environment(target: Target) -> dict[str, str]:
    """Environment variables for a process that compiles for the target."""
    variables = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}
    if target.platform == "tpu":
        variables |= {
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_ACCELERATOR_TYPE": TPUS[target.name][1],
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_WORKER_ID": "0",
        }
    return {**os.environ, **variables}


def device(target: Target) -> Any:
    """A device of the target's topology, on which arguments can be placed.

    Raises:
        TargetError: the extra is not installed.
    """
    require(target)
    import jax
    from jax.experimental import topologies

    jax.devices()  # discovers plugins once; a second discovery prints a harmless traceback
    if target.platform == "tpu":
        topology = topologies.get_topology_desc(platform="tpu", topology_name=TPUS[target.name][0])
    else:
        topology = topologies.get_topology_desc(
            platform="cuda",
            topology_name="",
            target_config=(FOLDER / f"{target.name}.txtpb").read_text(),
            topology="1x1x1",
        )
    return topology.devices[0]


def compiled(target: Target, function: Callable, *arguments: Any, donate: tuple = ()) -> Any:
    """Compile a function for the target.

    Args:
        arguments: trees of arrays or shapes.
        donate: indices of donated arguments.
    """
    import jax
    from jax.sharding import SingleDeviceSharding

    place = SingleDeviceSharding(device(target))
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), arguments
    )
    traced = jax.jit(function, donate_argnums=donate).trace(*shapes)
    return traced.lower(lowering_platforms=(target.platform,)).compile()


def costs(program: Any) -> dict[str, float]:
    """Flops and bytes moved, as XLA estimates them; the body of a loop counts once."""
    import jax
    from jax._src.lib import xla_client  # AOT programs have no cost_analysis

    found = program.cost_analysis()
    if not found:
        (module,) = program.runtime_executable().hlo_modules()
        backend = jax.devices("cpu")[0].client
        found = xla_client._xla.hlo_module_cost_analysis(backend, module)
    return {"flops": found.get("flops", 0.0), "bytes_moved": found.get("bytes accessed", 0.0)}
