"""Memory requirements of a run, checked before it starts."""

from __future__ import annotations

import math
from pathlib import Path

import jax
import psutil
from jax.sharding import Mesh

from purejaxrl_sac import envs
from purejaxrl_sac.experiment.devices import processes
from purejaxrl_sac.experiment.devices.mesh import padded
from purejaxrl_sac.experiment.errors import InsufficientMemoryError
from purejaxrl_sac.experiment.runs.engine import Program, Programs, shapes
from purejaxrl_sac.experiment.runs.plans import Plan, has_time_limit
from purejaxrl_sac.types import PyTree

SWEEP_FRACTION = 0.8  # of available memory for the states of a sweep; the rest is for programs
CGROUP = Path("/sys/fs/cgroup")  # the memory limit of a container or batch job


def nbytes(tree: PyTree) -> int:
    """Bytes of all arrays, or shapes of arrays."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def devices_per_memory(mesh: Mesh) -> int:
    """The number of devices that share one memory: all local ones of a CPU, else one."""
    return len(mesh.local_devices) if mesh.devices.flat[0].platform == "cpu" else 1


def state_bytes(plan: Plan, mesh: Mesh) -> dict[str, int]:
    """Bytes of each part of a run's state in one memory: of all lanes on a CPU, else per device."""
    state = shapes(plan, mesh)
    parts = {"memory": state.memory, "agents": state.agent, "environments": state.env}
    return {
        name: nbytes(part) * devices_per_memory(mesh) // mesh.size for name, part in parts.items()
    }


def evaluation_bytes(plan: Plan, mesh: Mesh, episodes: int) -> int:
    """Bytes of an evaluation's environments, before and after a step, as for `state_bytes`."""
    if not has_time_limit(plan.config):
        return 0
    env = envs.bind(plan.config.env, plan.config.env_params)
    one = jax.eval_shape(lambda key: env.reset(key, 1), jax.random.key(0))
    lanes = padded(plan.lanes, mesh) * devices_per_memory(mesh) // mesh.size
    return 2 * nbytes(one) * episodes * lanes


def program_bytes(programs: Programs) -> int:
    """Peak bytes of the largest program, state included, in one memory as for `state_bytes`."""
    compiled = filter(None, (programs.init, *programs.chunks.values()))
    return max((peak_bytes(program, programs.mesh) for program in compiled), default=0)


def peak_bytes(program: jax.stages.Compiled, mesh: Mesh) -> int:
    """Peak bytes of a program, arguments and results included, as for `state_bytes`."""
    used = program.memory_analysis()
    if used is None:
        return 0
    held = used.argument_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes
    return (held + used.temp_size_in_bytes) * devices_per_memory(mesh)


def available() -> int:
    """Available bytes: of the first accelerator, or of this process on a CPU."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    free = psutil.virtual_memory().available
    try:
        limit = int((CGROUP / "memory.max").read_text())
        stat = (CGROUP / "memory.stat").read_text()
        used = int((CGROUP / "memory.current").read_text())
        used -= int(dict(map(str.split, stat.splitlines()))["inactive_file"])  # reclaimable
    except (OSError, ValueError, KeyError):  # no such limit
        return free
    return min(free, max(limit - used, 0))


LOWER = {
    "memory": "capacity, num_envs x rollout_length or seeds",
    "agents": "hidden_sizes or seeds",
    "environments": "num_envs or seeds",
    "evaluation": "episodes, eval_episodes or seeds",
}


def check_state(plan: Plan, mesh: Mesh) -> None:
    """Checks that the state and the episodes of evaluations fit into memory, before compilation.

    Raises:
        InsufficientMemoryError: in all processes, with the numbers and the fields to lower.
    """
    episodes = max(plan.episodes, plan.eval_episodes if plan.eval_every else 0)
    evaluation = {"evaluation": evaluation_bytes(plan, mesh, episodes)}
    _check_parts("the run", state_bytes(plan, mesh) | evaluation)


def check_evaluation(plan: Plan, mesh: Mesh, episodes: int) -> None:
    """Checks that the policies of a run and the episodes of an evaluation fit into memory.

    Raises:
        InsufficientMemoryError: in all processes, with the numbers and the fields to lower.
    """
    agents = state_bytes(plan, mesh)["agents"]
    evaluation = evaluation_bytes(plan, mesh, episodes)
    _check_parts("the evaluation", {"agents": agents, "evaluation": evaluation})


def _check_parts(what: str, parts: dict[str, int]) -> None:
    free = available()
    if processes.any_of(sum(parts.values()) > free)[0]:
        lower = LOWER[max(parts, key=parts.__getitem__)]
        listing = ", ".join(f"{name} {format_bytes(value)}" for name, value in parts.items())
        raise InsufficientMemoryError(
            f"{what} needs {format_bytes(sum(parts.values()))} ({listing}), but"
            f" {format_bytes(free)} are free: lower {lower}"
        )


def compile_evaluation(program: Program, mesh: Mesh) -> jax.stages.Compiled:
    """Compiles the program of an evaluation, and checks that it fits into memory.

    Raises:
        InsufficientMemoryError: in all processes.
    """
    compiled = program.compile()
    _check_peak(peak_bytes(compiled, mesh), available(), "episodes")
    return compiled


def check_final_evaluation(plan: Plan, programs: Programs) -> None:
    """Checks that the compiled final evaluation fits into memory beside the state of the run.

    Raises:
        InsufficientMemoryError: in all processes, with the numbers and the field to lower.
    """
    if programs.evaluation:
        held = state_bytes(plan, programs.mesh)["agents"]  # its arguments
        peak = peak_bytes(programs.evaluation.result(), programs.mesh)
        _check_peak(peak, available() + held, "episodes")


def check_programs(programs: Programs, held: int = 0) -> None:
    """Checks that the compiled programs fit into memory.

    Args:
        held: bytes of the run's state that are allocated already.

    Raises:
        InsufficientMemoryError: in all processes, with the numbers and the fields to lower.
    """
    fields = "seeds, episodes, capacity, num_envs, rollout_length or batch_size"
    _check_peak(program_bytes(programs), available() + held, fields)


def _check_peak(needed: int, free: int, fields: str) -> None:
    if processes.any_of(needed > free)[0]:
        raise InsufficientMemoryError(
            f"the program needs {format_bytes(needed)} at its peak, but {format_bytes(free)} are"
            f" free: lower {fields}"
        )


def report(plan: Plan, programs: Programs) -> dict[str, str]:
    """The rows that `--dry-run` prints."""
    longest = programs.chunks[max(programs.chunks)]
    cost = longest.cost_analysis() or {}
    state = {
        f"state: {name}": format_bytes(value)
        for name, value in state_bytes(plan, programs.mesh).items()
    }
    return {
        **state,
        "peak memory, state included": format_bytes(program_bytes(programs)),
        "free memory": format_bytes(available()),
        "devices": f"{programs.mesh.size}, {padded(plan.lanes, programs.mesh)} lanes",
        "compilation": f"{programs.seconds:.1f} s",
        "chunks": f"{-(-plan.config.iterations // plan.chunk)}, each of {plan.chunk} iterations",
        "compiler's cost estimate, each loop counted once": (
            f"{cost.get('flops', math.nan):.3g} FLOP,"
            f" {format_bytes(cost.get('bytes accessed', math.nan))} accessed"
        ),
    }


def format_bytes(count: float) -> str:
    """Bytes with a binary prefix: '1.5 GiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"
