"""`measure`: time whole iterations on the installed device."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

import purejaxrl_sac as prl
from purejaxrl_sac.train import build
from scripts import record
from scripts.accelerators import fitting, plan
from scripts.accelerators.work import KINDS, Work, figures, programs, size

SCRIPT = Path(__file__).parents[1] / "accelerator.py"
SEEDS = (1, 8, 64, 256, 1024, 4096)
CURVE = [
    *(Work("dqn", "CartPole-v1", "one update", seeds) for seeds in SEEDS),
    *(Work("sac", "Pendulum-v1", "one update", seeds) for seeds in SEEDS),
    *(Work("dqn", "Breakout-MinAtar", "preset", seeds) for seeds in (1, 8, 50, 256, 1024)),
    *(Work("pqn", "Breakout-MinAtar", "preset", seeds) for seeds in (1, 8, 64, 256)),
    Work("sac", "Pendulum-v1", "preset", plan.LANES),
]
FLAGGED = [
    Work("dqn", "CartPole-v1", "one update", 64),
    Work("sac", "Pendulum-v1", "one update", 64),
    Work("pqn", "Breakout-MinAtar", "preset", 8),
]
FLAGS = (
    "--xla_gpu_enable_command_buffer=",
    "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL",
    "--xla_gpu_command_buffer_unroll_loops=true",
    "--xla_gpu_autotune_level=0",
    "--xla_gpu_enable_triton_gemm=false",
)
TOP = 10  # kernels listed by a profile


@dataclasses.dataclass
class Measure:
    """Options of `measure`."""

    stages: tuple[str, ...] = ("curve", "profile", "flags", "fit")
    works: tuple[str, ...] = ()
    """algorithm:environment:kind:seeds; by default the works of each stage."""
    minutes: float = 8.0
    """No measurement starts after this time."""
    rounds: int = 5
    workers: int = 8
    """Programs compiled concurrently."""
    record: Path = record.ACCELERATOR


def measure(options: Measure) -> None:
    """Run all stages within the time limit.

    Raises:
        ConfigError: a work is invalid.
    """
    deadline = time.perf_counter() + 60 * options.minutes
    chosen(options, [])
    for stage in (curve, profile, flags):
        if stage.__name__ in options.stages and time.perf_counter() < deadline:
            stage(options, deadline)
    if "fit" in options.stages:
        fit(options)


def chosen(options: Measure, default: list[Work]) -> list[Work]:
    """The requested works, or the default of a stage.

    Raises:
        ConfigError: one of them has the wrong format or does not exist.
    """
    found = []
    for text in options.works:
        parts = text.split(":")
        if len(parts) != 4 or parts[2] not in KINDS or not positive(parts[3]):
            raise prl.ConfigError(
                f"{text} is not a valid work: write algorithm:environment:kind:seeds, for example"
                ' "dqn:CartPole-v1:one update:64"'
            )
        work = Work(parts[0], parts[1], parts[2], int(parts[3]))
        build(work.config())
        found.append(work)
    return found or default


def positive(text: str) -> bool:
    """Whether a text is a positive integer."""
    return text.isascii() and text.isdigit() and int(text) > 0


def curve(options: Measure, deadline: float) -> None:
    """Microseconds per iteration by number of seeds."""
    device = jax.devices()[0].device_kind
    todo = [
        work
        for work in chosen(options, CURVE)
        if not record.recorded(options.record, work.stamp("curve", device))
    ]
    pool = concurrent.futures.ThreadPoolExecutor(options.workers)
    pairs = [(work, pool.submit(compiled_pair, work)) for work in todo]
    # compilation would disturb the timing: wait until it has finished or time is up
    concurrent.futures.wait([x for _, x in pairs], max(0.0, deadline - time.perf_counter()))
    pool.shutdown(wait=False, cancel_futures=True)
    for work, pair in pairs:
        if not pair.done() or pair.cancelled() or time.perf_counter() > deadline:
            print(f"time limit reached before {work}: raise --minutes", file=sys.stderr)
            continue
        row = work.stamp("curve", device)
        try:
            row |= clock(work, pair.result(), options.rounds)
        except Exception as error:
            row |= {"error": record.one_line(error)}
        gc.collect()
        record.append(options.record, row)


def free_bytes() -> int:
    """Free memory of the device."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", 2**34) - stats.get("bytes_in_use", 0)


def require_memory(needed: int, what: str, seeds: int) -> None:
    """Raise MemoryError with the number of seeds that fit if fewer bytes are free."""
    free = free_bytes()
    if needed > free:
        fit = int(free * seeds / needed)
        raise MemoryError(f"{what} takes {needed / 2**30:.1f} GiB, {fit} seeds would fit")


def compiled_pair(work: Work) -> tuple[Any, Any, float]:
    """Compiled init and run of a work, and the compile seconds of run.

    Raises:
        MemoryError: the state does not fit.
    """
    init, run, keys, state = programs(work)
    require_memory(size(state), "the state", work.seeds)
    started = jax.jit(init).lower(keys).compile()
    start_time = time.perf_counter()
    chunk = jax.jit(run, donate_argnums=0).lower(state).compile()
    return started, chunk, time.perf_counter() - start_time


def clock(work: Work, pair: tuple, rounds: int, seconds: float = 0.15) -> dict:
    """Median microseconds per iteration; each call donates its state."""
    init, chunk, took = pair
    used = chunk.memory_analysis()
    needed = used.argument_size_in_bytes + used.temp_size_in_bytes
    require_memory(needed, "the program", work.seeds)
    state = init(jax.random.split(jax.random.key(0), work.seeds))
    state, _ = jax.block_until_ready(chunk(state))
    start_time = time.perf_counter()
    state, _ = jax.block_until_ready(chunk(state))
    calls = max(1, int(seconds / (time.perf_counter() - start_time)))
    times = []
    for _ in range(rounds):
        start_time = time.perf_counter()
        for _ in range(calls):
            state, metrics = chunk(state)
        jax.block_until_ready((state, metrics))
        times.append((time.perf_counter() - start_time) / calls / work.iterations() * 1e6)
    us = statistics.median(times)
    found = figures(work, chunk, took, jax.default_backend() == "gpu")
    if "kernels" in found:
        found["us_per_kernel"] = round(us / found["kernels"], 3)
    return {
        "us_per_iteration": round(us, 2),
        "us_range": [round(min(times), 2), round(max(times), 2)],
        "steps_per_second": round(work.seeds * work.config().steps_per_iteration / us * 1e6),
        **found,
    }


def profile(options: Measure, deadline: float) -> None:
    """Record launches and busy time of one call, from the profiler."""
    for work in chosen(options, FLAGGED):
        row = work.stamp("profile", jax.devices()[0].device_kind)
        if record.recorded(options.record, row) or time.perf_counter() > deadline:
            continue
        try:
            row |= profiled(work)
        except Exception as error:
            row |= {"error": record.one_line(error)}
        record.append(options.record, row)


def profiled(work: Work) -> dict:
    """Profile one call."""
    init, chunk, _ = compiled_pair(work)
    state = init(jax.random.split(jax.random.key(0), work.seeds))
    state, _ = jax.block_until_ready(chunk(state))
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            start_time = time.perf_counter()
            jax.block_until_ready(chunk(state))
            wall = time.perf_counter() - start_time
        return busy(Path(directory), wall, work.iterations())


def busy(directory: Path, wall: float, iterations: int) -> dict:
    """Kernels of a trace: number, durations, and the longest ones in total."""
    (path,) = directory.rglob("*.xplane.pb")
    total: dict[str, list[float]] = {}
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        if plane.name.startswith("/device:GPU"):
            for line in plane.lines:
                for event in line.events if line.name.startswith("Stream") else ():
                    total.setdefault(event.name, []).append(event.duration_ns / 1e3)
    count = sum(map(len, total.values()))
    spent = sum(map(sum, total.values()))
    most = sorted(total.items(), key=lambda item: -sum(item[1]))[:TOP]
    return {
        "wall_us": round(wall / iterations * 1e6, 2),
        "busy_us": round(spent / iterations, 2),
        "launched": round(count / iterations, 2),
        "us_per_launch": round(spent / max(count, 1), 3),
        "top": [[name[:70], len(t) / iterations, round(sum(t) / len(t), 2)] for name, t in most],
    }


def flags(options: Measure, deadline: float) -> None:
    """Time the same work in subprocesses with other XLA flags."""
    for value in FLAGS:
        left = deadline - time.perf_counter()
        if left < 20:
            break
        works = [f"{w.algorithm}:{w.environment}:{w.kind}:{w.seeds}" for w in FLAGGED]
        works = list(options.works) or works
        command = [sys.executable, str(SCRIPT), "measure", "--stages", "curve", "--record"]
        command += [str(options.record), "--minutes", f"{left / 60:.2f}", "--works", *works]
        environment = {**os.environ, "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.1"}
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {value}".strip()
        try:
            subprocess.run(
                command, env=environment, stdout=subprocess.DEVNULL, check=False, timeout=left + 30
            )
        except subprocess.TimeoutExpired:
            print(f"time limit reached with {value}: raise --minutes", file=sys.stderr)


def fit(options: Measure) -> None:
    """Record a fit of the curves of this device, version and code, unless it is recorded."""
    rows = record.rows(options.record)
    here = {"device": jax.devices()[0].device_kind, "version": prl.__version__}
    here |= {"what": "curve", "jax": jax.__version__}
    current = [row for row in rows if here.items() <= row.items() and not record.stale(row)]
    found = fitting.fit(current)
    if found and all(found | {"date": row.get("date")} != row for row in rows):
        record.append(options.record, found)
