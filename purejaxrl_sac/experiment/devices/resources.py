"""What a run needs of memory, before it is launched."""

from __future__ import annotations

import math
from pathlib import Path

import jax
import psutil
from jax.sharding import Mesh

from purejaxrl_sac.experiment.devices import processes
from purejaxrl_sac.experiment.devices.mesh import padded
from purejaxrl_sac.experiment.errors import NoRoomError
from purejaxrl_sac.experiment.runs.engine import Programs, shapes
from purejaxrl_sac.experiment.runs.plans import Plan
from purejaxrl_sac.types import PyTree

SWEEP_SHARE = 0.8  # of what is free that a sweep's states may take, the rest being for programs
CGROUP = Path("/sys/fs/cgroup")  # what a container or a batch system allows


def size(tree: PyTree) -> int:
    """Bytes of all arrays, or shapes of arrays."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def share(mesh: Mesh) -> int:
    """How many devices of a run draw on the same memory: a CPU's, but not an accelerator's."""
    return len(mesh.local_devices) if mesh.devices.flat[0].platform == "cpu" else 1


def state_bytes(plan: Plan, mesh: Mesh) -> dict[str, int]:
    """Bytes of each part of a run's state: all lanes' on a CPU, those of an accelerator on it."""
    state = shapes(plan, mesh)
    parts = {"memory": state.memory, "agents": state.agent, "environments": state.env}
    return {name: size(part) * share(mesh) // mesh.size for name, part in parts.items()}


def program_bytes(programs: Programs) -> int:
    """Bytes that the largest program needs while it runs, state included, as `state_bytes`."""
    peaks = [0]
    for program in filter(None, (programs.begin, *programs.chunks.values())):
        used = program.memory_analysis()
        inputs, outputs = used.argument_size_in_bytes, used.output_size_in_bytes
        peaks.append(inputs + outputs - used.alias_size_in_bytes + used.temp_size_in_bytes)
    return max(peaks) * share(programs.mesh)


def available() -> int:
    """Bytes that are free: on the first accelerator, or for this process on a CPU."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    free = psutil.virtual_memory().available
    try:
        limit = int((CGROUP / "memory.max").read_text())
        stat = (CGROUP / "memory.stat").read_text()
        used = int((CGROUP / "memory.current").read_text())
        used -= int(dict(map(str.split, stat.splitlines()))["inactive_file"])  # can be had back
    except (OSError, ValueError, KeyError):  # no such limit here
        return free
    return min(free, max(limit - used, 0))


def check_state(plan: Plan, mesh: Mesh) -> None:
    """Refuses a run whose state alone does not fit, before anything is compiled.

    Raises:
        NoRoomError: in all processes, with the numbers, and what to lower.
    """
    parts = state_bytes(plan, mesh)
    free = available()
    if processes.any_of(sum(parts.values()) > free)[0]:
        lower = {
            "memory": "capacity, num_envs x rollout_length or seeds",
            "agents": "hidden_sizes or seeds",
            "environments": "num_envs or seeds",
        }[max(parts, key=parts.get)]
        shares = ", ".join(f"{name} {readable(value)}" for name, value in parts.items())
        raise NoRoomError(
            f"the run's state takes {readable(sum(parts.values()))} ({shares}), but"
            f" {readable(free)} are free: lower {lower}"
        )


def check_programs(programs: Programs, held: int = 0) -> None:
    """Refuses a run whose programs do not fit.

    Args:
        held: bytes of its state that are there already.

    Raises:
        NoRoomError: in all processes, with the numbers, and what to lower.
    """
    needed, free = program_bytes(programs), available() + held
    if processes.any_of(needed > free)[0]:
        raise NoRoomError(
            f"the run takes {readable(needed)} while it computes, but {readable(free)} are free:"
            " lower seeds, capacity, num_envs, rollout_length or batch_size"
        )


def report(plan: Plan, programs: Programs) -> dict[str, str]:
    """Rows for `--dry-run`."""
    longest = programs.chunks[max(programs.chunks)]
    cost = longest.cost_analysis() or {}
    state = {
        f"state: {name}": readable(value)
        for name, value in state_bytes(plan, programs.mesh).items()
    }
    return {
        **state,
        "most that a program needs, state included": readable(program_bytes(programs)),
        "free": readable(available()),
        "devices": f"{programs.mesh.size}, {padded(plan.lanes, programs.mesh)} lanes",
        "compilation": f"{programs.seconds:.1f} s",
        "chunks": f"{-(-plan.config.iterations // plan.chunk)} of {plan.chunk} iterations",
        "compiler's estimate, loops counted once": f"{cost.get('flops', math.nan):.3g} operations,"
        f" {readable(cost.get('bytes accessed', math.nan))} moved",
    }


def readable(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"
