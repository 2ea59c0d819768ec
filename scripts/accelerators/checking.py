"""`check`: compare a device with the CPU, for every algorithm.

Each algorithm runs for ten updates with small networks and two seeds, from a state initialised on
the CPU. Rounding differs between devices, and Adam takes full steps for gradients that are only
rounding errors. Therefore the criterion is the norm of the difference of all parameters relative
to the norm of their change. It may be at most `TOLERANCE`, or `ROUNDING` times the difference that
a perturbation of the initial parameters by one rounding error causes on the CPU, whichever is more.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

import purejaxrl_sac as prl
from purejaxrl_sac.agents import ALGORITHMS
from purejaxrl_sac.experiment.export import export_policy
from scripts import record
from scripts.accelerators.work import main_environment, stamp

TOLERANCE = 1e-3  # of the relative difference of parameters, at highest matmul precision
ROUNDING = 10.0  # times the difference caused by one rounding error of the initial parameters
EXPORTED = 1e-4  # absolute error of continuous actions of an exported policy
DEPENDS = ("preset", "experiment.export")
UPDATES, SEEDS = 10, 2
SMALL = {
    "num_envs": 3,
    "rollout_length": 4,
    "noise_repeat": 1,
    "num_updates": 2,
    "num_epochs": 1,
    "warmup_steps": 24,
    "capacity": 96,
    "batch_size": 8,
    "policy_delay": 2,
    "hidden_sizes": (8, 8),
    "actor_width": 8,
    "critic_width": 8,
    "total_steps": 2**20 // 12 * 12,
}


@dataclasses.dataclass
class Check:
    """Options of `check`."""

    algorithms: tuple[str, ...] = ()
    minutes: float = 8.0
    """Time limit; unfinished algorithms are reported."""
    workers: int = min(16, os.cpu_count() or 1)
    record: Path = record.ACCELERATOR
    again: bool = False


def small(algorithm: str) -> prl.Config:
    """A preset reduced to networks of 8 x 8, three environments and two updates per iteration.

    Raises:
        ConfigError: no algorithm has this name.
    """
    config = prl.preset(algorithm, environment(algorithm))
    known = {field.name for field in dataclasses.fields(config)}
    changes = {name: x for name, x in SMALL.items() if name in known}
    if getattr(config, "policy_delay", 1) == 1:
        changes.pop("policy_delay", None)
    return config.replace(**changes)


def environment(algorithm: str) -> str:
    """The environment in which an algorithm is checked.

    Tabular algorithms use cliff_walking, where every step has a reward. soft_dqn does not use
    DeepSea, whose episodes have the same lengths for all seeds.
    """
    if ALGORITHMS[algorithm][0] == "q_learning":
        return "cliff_walking"
    return "CartPole-v1" if algorithm == "soft_dqn" else main_environment(algorithm)


def check(options: Check) -> int:
    """Check algorithms concurrently and record one row each; 1 if any fails or is unfinished.

    Raises:
        ConfigError: no algorithm has this name.
    """
    for name in options.algorithms:
        prl.default_config(name)
    device = jax.devices()[0]
    rows = {}
    for name in options.algorithms or ALGORITHMS:
        row = {
            **stamp("check", device.device_kind, name, environment(name), DEPENDS),
            "algorithm": name,
            "environment": environment(name),
        }
        if options.again or not record.recorded(options.record, row):
            rows[name] = row
    pool = concurrent.futures.ThreadPoolExecutor(options.workers)
    running = {pool.submit(checked, small(name), device): name for name in rows}
    failed = 0
    try:
        for done in concurrent.futures.as_completed(running, 60 * options.minutes):
            row = rows.pop(running[done])
            try:
                row |= done.result()
            except Exception as error:
                row |= {"passed": False, "error": record.one_line(error)}
            failed += not row["passed"]
            record.append(options.record, row)
    except TimeoutError:
        print(
            f"not finished within the time limit: {', '.join(rows)} (raise --minutes)",
            file=sys.stderr,
        )
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return int(failed > 0 or bool(rows))


def checked(config: prl.Config, device: Any) -> dict:
    """Figures of one algorithm on one device."""
    start_time = time.perf_counter()
    cpu = jax.devices("cpu")[0]
    n = -(-UPDATES // config.num_updates)
    axes, start = started(config, cpu)
    run = runner(config, axes)
    with jax.default_matmul_precision("highest"):
        reference = program(run(n), start, cpu)
        expected = reference(start)[0]
        once = reference if device == cpu else program(run(n), start, device)
        moved = once(to_device(start, device))[0]
        straight = once(moved)[0]
        resumed = once(to_device(to_host(moved), device))[0]  # via host memory
        whole = program(run(2 * n), start, device)(to_device(start, device))[0]
        first = to_device(prl.seed_state(to_host(whole), 0), device)
        exports, problem = True, {}
        try:
            exports = export_agrees(config, first, device)
        except Exception as error:  # the other figures remain useful
            exports, problem = False, {"export_error": record.one_line(error)}
        differ = seeds_differ(config, axes, whole)
    nudged = reference(nudge(start))[0]
    default = moved
    if device != cpu:  # on the CPU both precisions are the same
        default = program(run(n), start, device)(to_device(start, device))[0]
    figures = {
        "difference": difference(moved, expected, start),
        "rounding": difference(nudged, expected, start),
        "difference_default": difference(default, expected, start),
    }
    tolerance = max(TOLERANCE, ROUNDING * figures["rounding"])
    verdicts = {
        "continues": same_bits(resumed, straight),
        "exports": exports,
        "seeds_differ": differ,
    }
    return {
        "passed": bool(figures["difference"] <= tolerance and all(verdicts.values())),
        **{name: float(f"{value:.3g}") for name, value in figures.items()},
        "tolerance": float(f"{tolerance:.3g}"),
        **verdicts,
        "one_program": same_bits(straight, whole),  # not required: XLA tunes each program
        **problem,
        "seconds": round(time.perf_counter() - start_time, 1),
    }


def started(config: prl.Config, cpu: Any) -> tuple[prl.TrainState, prl.TrainState]:
    """vmap axes over seeds, and states initialised on the CPU."""
    with jax.default_device(cpu):
        keys = jax.random.split(jax.random.key(0), SEEDS)
        start = partial(prl.init, config=config)
        axes = prl.seed_axes(jax.eval_shape(start, keys[0]))
        return axes, jax.jit(jax.vmap(start, out_axes=axes))(keys)


def runner(config: prl.Config, axes: prl.TrainState) -> Callable[[int], Callable]:
    """Function n -> `prl.run` for n iterations, vmapped over seeds."""

    def run(iterations: int) -> Callable:
        step = partial(prl.run, config=config, iterations=iterations)
        return jax.vmap(step, (axes,), (axes, 0))

    return run


def program(function: Callable, example: Any, device: Any) -> Any:
    """Compile a function for a device, with the shapes of the example."""
    place = SingleDeviceSharding(device)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), example)
    return jax.jit(function).lower(shapes).compile()


def is_key(x: Any) -> bool:
    """Whether an array holds PRNG keys."""
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


class KeyData(NamedTuple):
    """PRNG keys as a NumPy array."""

    data: np.ndarray


def to_host(tree: Any) -> Any:
    """Convert a tree to NumPy arrays."""
    return jax.tree.map(
        lambda x: KeyData(np.asarray(jax.random.key_data(x))) if is_key(x) else np.asarray(x), tree
    )


def to_device(tree: Any, device: Any) -> Any:
    """Move a tree of `to_host`, or of arrays on another device, to a device."""

    def place(x: Any) -> jax.Array:
        if isinstance(x, KeyData):
            return jax.random.wrap_key_data(jax.device_put(x.data, device))
        return jax.device_put(x, device)

    return jax.tree.map(place, tree, is_leaf=lambda x: isinstance(x, KeyData))


def parameters(state: prl.TrainState) -> list[np.ndarray]:
    """Parameters of an agent without optimiser states: float arrays [seeds, n]."""
    leaves = jax.tree_util.tree_flatten_with_path(state.agent)[0]
    return [
        np.nan_to_num(np.asarray(x, np.float64), posinf=0.0, neginf=0.0).reshape(SEEDS, -1)
        for path, x in leaves
        if "opt_state" not in jax.tree_util.keystr(path) and jnp.issubdtype(x.dtype, jnp.floating)
    ]


def difference(found: prl.TrainState, expected: prl.TrainState, start: prl.TrainState) -> float:
    """Maximum over seeds of |found - expected| / |expected - start|, over all parameters.

    Raises:
        ValueError: the parameters did not change, or one of them is not finite.
    """
    found, expected, start = (
        np.concatenate(parameters(state), 1) for state in (found, expected, start)
    )
    if not np.isfinite(found).all():
        raise ValueError("parameters are not finite")
    moved = np.linalg.norm(expected - start, axis=1)
    if not moved.all():
        raise ValueError("parameters did not move")
    return float((np.linalg.norm(found - expected, axis=1) / moved).max())


def nudge(state: prl.TrainState) -> prl.TrainState:
    """Perturb the agent's floats by one rounding error, alternately up and down."""

    def perturbed(x: jax.Array) -> jax.Array:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        value = np.asarray(x)
        signs = np.where(np.arange(value.size) % 2, 1, -1).reshape(value.shape)
        moved = np.nextafter(value, (signs * np.inf).astype(value.dtype))
        kept = (value == 0) | ~np.isfinite(value)
        return jax.device_put(np.where(kept, value, moved), x.sharding)

    return state._replace(agent=jax.tree.map(perturbed, state.agent))


def same_bits(one: Any, other: Any) -> bool:
    """Whether two trees are bitwise equal."""
    leaves = zip(jax.tree.leaves(to_host(one)), jax.tree.leaves(to_host(other)), strict=True)
    return all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in leaves)


def observations(state: prl.TrainState) -> np.ndarray:
    """Observations [64, ...] in the format of the environment: Gaussian noise for floats."""
    obs = np.asarray(state.env.obs)
    shape = (64, *obs.shape[1:])
    if np.issubdtype(obs.dtype, np.floating):
        return np.random.default_rng(0).normal(size=shape).astype(obs.dtype)
    return np.resize(obs, shape)


def loaded(path: Path) -> ModuleType:
    """Load a Python file as a module without registering it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def export_agrees(config: prl.Config, state: prl.TrainState, device: Any) -> bool:
    """Whether an exported and reloaded policy has the actions of `prl.policy` on the device."""
    platform = {"gpu": "cuda"}.get(device.platform, device.platform)
    obs, key = observations(state), jax.random.key(2)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "policy"
        export_policy(config, state, path, platforms=(platform,))
        found = loaded(path / "load.py").act(obs, np.asarray(jax.random.key_data(key)))
    expected = np.asarray(jax.jit(prl.policy(config, state))(key, obs))
    tolerance = EXPORTED if np.issubdtype(expected.dtype, np.floating) else 0
    return bool(np.allclose(found, expected, rtol=0, atol=tolerance))


def seeds_differ(config: prl.Config, axes: prl.TrainState, state: prl.TrainState) -> bool:
    """Whether two seeds differ in parameters, exploring actions and environments."""
    obs = observations(prl.seed_state(to_host(state), 0))
    key = jax.random.key(3)

    def act(state: prl.TrainState, key: jax.Array) -> jax.Array:
        return prl.exploring_policy(config, state)(key, obs)

    keys = jax.random.split(key, SEEDS)
    actions = jax.jit(jax.vmap(act, (axes, 0)))(state, keys)
    each = (parameters(state), [actions], jax.tree.leaves(to_host(state.env)))
    return all(any((x[0] != x[1]).any() for x in map(np.asarray, part)) for part in each)
