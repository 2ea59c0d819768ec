"""What accelerators make of the package: launches, microseconds, memory.

    python scripts/accelerator.py compile dqn CartPole-v1 --target h100      no card is needed
    python scripts/accelerator.py measure --minutes 8                        on a card
    python scripts/accelerator.py check                                      on a card
    python scripts/accelerator.py table                                      of what is recorded

Each row is one JSON line, appended to `--record`; what a file holds already for the same sources
and device is not done again. `one update` is one environment, one step and one update an iteration
with networks of 64 x 64; `preset` is the preset as it stands.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import gc
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

import purejaxrl_sac as prl
from scripts import hlo

RESULTS = Path(__file__).parent / "results" / "accelerator.jsonl"
ONE_UPDATE = {"num_envs": 1, "rollout_length": 1, "num_updates": 1, "warmup_steps": 256}
SMALL = {**ONE_UPDATE, "capacity": 10_000, "hidden_sizes": (64, 64), "total_steps": 2**30}
SEEDS = (1, 8, 64, 256, 1024, 4096)


@dataclasses.dataclass(frozen=True)
class Work:
    """What is compiled or measured: an algorithm on an environment, and how much of it."""

    algorithm: str
    environment: str
    kind: Literal["one update", "preset"] = "preset"
    seeds: int = 1

    def config(self) -> prl.Config:
        """Its configuration, long enough that schedules and totals never end."""
        if self.kind == "preset":
            preset = prl.preset(self.algorithm, self.environment)
            return preset.replace(total_steps=2**30 // preset.block * preset.block)
        batch = 256 if "sac" in self.algorithm or self.algorithm == "td3" else 128
        return prl.default_config(self.algorithm).replace(
            env=self.environment, batch_size=batch, **SMALL
        )

    def iterations(self) -> int:
        """Of one call of the program: some milliseconds on a card."""
        config = self.config()
        weight = config.num_updates + config.rollout_length
        return max(2, 400 // weight)


CURVE = [
    *(Work("dqn", "CartPole-v1", "one update", seeds) for seeds in SEEDS),
    *(Work("sac", "Pendulum-v1", "one update", seeds) for seeds in SEEDS),
    *(Work("dqn", "Breakout-MinAtar", "preset", seeds) for seeds in (1, 8, 50, 256, 1024)),
    *(Work("pqn", "Breakout-MinAtar", "preset", seeds) for seeds in (1, 8, 64, 256)),
]
FLAGS = {
    "": "",
    "no command buffers": "--xla_gpu_enable_command_buffer=",
    "loops in command buffers": "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL",
    "no autotuning": "--xla_gpu_autotune_level=0",
    "cuBLAS alone": "--xla_gpu_enable_triton_gemm=false",
}
FLAGGED = [
    Work("dqn", "CartPole-v1", "one update", 64),
    Work("sac", "Pendulum-v1", "one update", 64),
    Work("pqn", "Breakout-MinAtar", "preset", 8),
]


def sources() -> str:
    """Which code a row is of: a hash of the package's sources."""
    files = sorted((Path(__file__).parents[1] / "purejaxrl_sac").rglob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def size(tree: Any) -> int:
    """Bytes of all arrays of a tree."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def programs(work: Work) -> tuple[Callable, Callable, Any, Any]:
    """init and run as functions of keys and state, with the shapes of both."""
    config, iterations = work.config(), work.iterations()
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), work.seeds))
    one = jax.eval_shape(lambda: jax.random.key(0))
    axes = prl.seed_axes(jax.eval_shape(functools.partial(prl.init, config=config), one))
    init = jax.vmap(functools.partial(prl.init, config=config), out_axes=axes)

    def run(state: prl.TrainState) -> tuple[prl.TrainState, dict]:
        step = functools.partial(prl.run, config=config, iterations=iterations)
        return jax.vmap(step, (axes,), (axes, 0))(state)

    return init, run, keys, jax.eval_shape(init, keys)


def figures(work: Work, compiled: Any, seconds: float) -> dict:
    """What a compiled chunk says of itself, per iteration."""
    used, iterations = compiled.memory_analysis(), work.iterations()
    program = hlo.launches(compiled.as_text())
    loop = max(program.loops, key=lambda loop: (loop.trips or 1) * loop.total)
    assert loop.trips == iterations, (loop.trips, iterations)
    return {
        "kernels": loop.total,
        "kernels_own": len(loop.own),
        "loops": [[part.trips, part.total, part.scope[-60:]] for part in loop.loops],
        "branches": [list(pair) for part in loop.walk() for pair in part.branches],
        "copies": sum(part.copies for part in loop.walk()),
        "state_bytes": used.argument_size_in_bytes,
        "temp_bytes": used.temp_size_in_bytes,
        "compile_seconds": round(seconds, 2),
    }


# --- measure ---


@dataclasses.dataclass
class Measure:
    """Times whole iterations on the card that is there, seeds by seeds."""

    minutes: float = 8.0
    """After which no new stage is begun."""
    record: Path = RESULTS
    stages: tuple[Literal["curve", "profile", "flags"], ...] = ("curve", "profile", "flags")
    works: tuple[str, ...] = ()
    """algorithm:environment:kind:seeds, in place of a stage's own."""
    rounds: int = 5
    workers: int = 8
    """Programs compiled side by side."""


def chosen(options: Measure, default: list[Work]) -> list[Work]:
    split = [work.split(":") for work in options.works]
    return [Work(a, e, k, int(s)) for a, e, k, s in split] or default


def rows(record: Path) -> list[dict]:
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


def stamp() -> dict:
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "jax": jax.__version__,
        "version": prl.__version__,
        "sources": sources(),
        "flags": os.environ.get("XLA_FLAGS", ""),
        "date": time.strftime("%Y-%m-%d"),
    }


SAME = ("what", "algorithm", "environment", "kind", "seeds", "device", "jax", "sources", "flags")


def recorded(record: Path, row: dict) -> bool:
    return any(all(old.get(k) == row.get(k) for k in SAME) for old in rows(record))


def append(record: Path, row: dict) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    with record.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def free_bytes() -> int:
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", 2**34) - stats.get("bytes_in_use", 0)


def compiled_pair(work: Work) -> tuple[Any, Any, float, Any]:
    init, run, keys, state = programs(work)
    needed = size(state)
    free = free_bytes()
    if needed > free:
        fit = int(free * work.seeds / needed)
        raise MemoryError(f"the state takes {needed / 2**30:.1f} GiB, {fit} seeds would fit")
    started = jax.jit(init).lower(keys).compile()
    began = time.perf_counter()
    chunk = jax.jit(run, donate_argnums=0).lower(state).compile()
    return started, chunk, time.perf_counter() - began, state


def clock(work: Work, pair: tuple, rounds: int, seconds: float = 0.15) -> dict:
    """Median microseconds of an iteration, state donated from call to call."""
    init, chunk, took, _ = pair
    used = chunk.memory_analysis()
    needed = used.argument_size_in_bytes + used.temp_size_in_bytes
    free = free_bytes()
    if needed > free:
        fit = int(free * work.seeds / needed)
        raise MemoryError(f"it takes {needed / 2**30:.1f} GiB, {fit} seeds would fit")
    state = init(jax.random.split(jax.random.key(0), work.seeds))
    state, _ = jax.block_until_ready(chunk(state))
    began = time.perf_counter()
    state, _ = jax.block_until_ready(chunk(state))
    calls = max(1, int(seconds / (time.perf_counter() - began)))
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(calls):
            state, metrics = chunk(state)
        jax.block_until_ready((state, metrics))
        times.append((time.perf_counter() - began) / calls / work.iterations() * 1e6)
    us = statistics.median(times)
    config = work.config()
    try:
        found = figures(work, chunk, took)
    except Exception as error:
        found = {"count_error": repr(error)[:200]}
    return {
        "us_per_iteration": round(us, 2),
        "us_range": [round(min(times), 2), round(max(times), 2)],
        "steps_per_second": round(work.seeds * config.block / us * 1e6),
        "us_per_kernel": round(us / found.get("kernels", 1), 3),
        **found,
    }


def measure(options: Measure) -> None:
    began = time.perf_counter()
    stages = {"curve": curve, "profile": profile, "flags": flags}
    for stage in options.stages:
        if time.perf_counter() - began < 60 * options.minutes:
            stages[stage](options, began + 60 * options.minutes)


def curve(options: Measure, until: float) -> None:
    base = {"what": "curve", **stamp()}
    todo = [
        work
        for work in chosen(options, CURVE)
        if not recorded(options.record, {**base, **dataclasses.asdict(work)})
    ]
    with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
        pairs = [(work, pool.submit(compiled_pair, work)) for work in todo]
        finished = [(work, pair, pair.exception()) for work, pair in pairs]  # waits for all
    for work, pair, error in finished:
        row = {**base, **dataclasses.asdict(work)}
        if time.perf_counter() > until:
            break
        try:
            if error:
                raise error
            row |= clock(work, pair.result(), options.rounds)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            row |= {"error": str(error).splitlines()[0][:200]}
        gc.collect()
        append(options.record, row)


def profile(options: Measure, until: float) -> None:
    """Launches and busy time of one call, as the profiler saw them."""
    for work in chosen(options, FLAGGED):
        row = {"what": "profile", **stamp(), **dataclasses.asdict(work)}
        if recorded(options.record, row) or time.perf_counter() > until:
            continue
        init, chunk, _, _ = compiled_pair(work)
        state = init(jax.random.split(jax.random.key(0), work.seeds))
        state, _ = jax.block_until_ready(chunk(state))
        with tempfile.TemporaryDirectory() as directory:
            with jax.profiler.trace(directory):
                began = time.perf_counter()
                state, _ = jax.block_until_ready(chunk(state))
                wall = time.perf_counter() - began
            row |= busy(Path(directory), wall, work.iterations())
        append(options.record, row)


def busy(directory: Path, wall: float, iterations: int) -> dict:
    """Kernels of a trace: how many, how long, and which took most."""
    (path,) = directory.rglob("*.xplane.pb")
    data = jax.profiler.ProfileData.from_file(str(path))
    total: dict[str, list[float]] = {}
    lines = {}
    for plane in data.planes:
        if not plane.name.startswith("/device:GPU"):
            continue
        for line in plane.lines:
            events = list(line.events)
            lines[line.name] = len(events)
            if line.name.startswith("Stream"):
                for event in events:
                    total.setdefault(event.name, []).append(event.duration_ns / 1e3)
    count = sum(map(len, total.values()))
    spent = sum(map(sum, total.values()))
    most = sorted(total.items(), key=lambda item: -sum(item[1]))[:25]
    return {
        "wall_us": round(wall / iterations * 1e6, 2),
        "busy_us": round(spent / iterations, 2),
        "launched": round(count / iterations, 2),
        "us_per_launch": round(spent / max(count, 1), 3),
        "lines": lines,
        "top": [[name[:70], len(t) / iterations, round(sum(t) / len(t), 2)] for name, t in most],
    }


def flags(options: Measure, until: float) -> None:
    """The same work by processes under other XLA flags."""
    for value in FLAGS.values():
        left = until - time.perf_counter()
        if left < 20:
            break
        works = [f"{w.algorithm}:{w.environment}:{w.kind}:{w.seeds}" for w in FLAGGED]
        command = [sys.executable, __file__, "measure", "--stages", "curve", "--record"]
        command += [str(options.record), "--minutes", f"{left / 60:.2f}", "--works", *works]
        environment = {**os.environ, "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.1"}
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {value}".strip()
        subprocess.run(command, env=environment, check=False, timeout=max(left, 30))


if __name__ == "__main__":
    command = tyro.extras.subcommand_cli_from_dict({"measure": Measure})
    measure(command)
