"""Times of DQN's fused and unfused updates on a GPU, and the differences of their parameters.

    python scripts/benchmark_fused.py

Prints JSON lines, or appends them to `--record`. `fused distance` rows: the maximum over seeds of
‖a - b‖ / ‖b - initial‖ of all parameters after 10 updates on the same batches, for fused and
unfused ("plain") updates in float32 ("highest") and in the device's default precision of matrix
products. `fused time` rows: median microseconds per iteration (one environment step, one update of
64 x 64 units and 128 transitions) and the range over rounds, in which all programs alternate. On a
CPU the unfused update runs in both cases.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro

sys.path.insert(0, str(Path(__file__).parents[1]))

import purejaxrl_sac as prl
from purejaxrl_sac.kernels import fused_dqn
from purejaxrl_sac.train import build
from purejaxrl_sac.types import Sample, Transition
from scripts import hlo, record
from scripts.accelerators import work as works

UPDATES = 10
PAIRS = (  # compared programs
    ("fused highest", "plain highest"),
    ("fused default", "plain default"),
    ("plain default", "plain highest"),
    ("fused default", "plain highest"),
)


@dataclasses.dataclass(frozen=True)
class Work(works.Work):
    """A work of `accelerator.py`, with or without the kernel."""

    shape: str = ""  # transitions per program x warps; "": the unfused update

    def config(self) -> prl.Config:
        return super().config().replace(wrappers=wrappers(self.shape))


@dataclasses.dataclass
class Options:
    seeds: tuple[int, ...] = (1, 8, 64, 256, 1024)
    shapes: tuple[str, ...] = ("128x8", "64x4")
    """Of the kernel: transitions per program x warps; distances use the first."""
    rounds: int = 5
    seconds: float = 170.0
    """No measurement starts after this time."""
    workers: int = 8
    """Programs compiled concurrently."""
    record: Path | None = None
    """A file to which rows are appended."""


def wrappers(shape: str) -> tuple:
    if not shape:
        return ()
    block, num_warps = map(int, shape.split("x"))
    return (functools.partial(fused_dqn.dqn_update, block=block, num_warps=num_warps),)


def base(seeds: int, shape: str = "") -> Work:
    return Work("dqn", "CartPole-v1", "one update", seeds, shape)


def timed_program(work: Work) -> Any:
    """The compiled iterations, which donate their state."""
    _, run, _, state = works.programs(work)
    return jax.jit(run, donate_argnums=0).lower(state).compile()


def started(seeds: int) -> Any:
    init, _, keys, _ = works.programs(base(seeds))
    return jax.jit(init).lower(keys).compile()


def updated_program(seeds: int, shape: str, precision: str) -> Any:
    """Compiled function keys -> (initial parameters, parameters after `UPDATES`) of all seeds."""
    config = base(seeds).config()
    # float32 products need more registers: leave the block size to the kernel
    fused = (fused_dqn.dqn_update,) if precision == "highest" else wrappers(shape)
    agent = build(config.replace(wrappers=fused if shape else ()))[1]

    def one(key: jax.Array) -> tuple:
        keys = jax.random.split(key, 7)
        rows = (UPDATES, config.batch_size)
        transition = Transition(
            obs=jax.random.normal(keys[0], (*rows, 4)),
            action=jax.random.randint(keys[1], rows, 0, 2),
            reward=jax.random.normal(keys[2], rows),
            discount=jax.random.bernoulli(keys[3], 0.9, rows).astype(jnp.float32),
            next_obs=jax.random.normal(keys[4], (*rows, 4)),
            last=jnp.zeros(rows, bool),
        )
        batches = Sample(transition, jax.random.uniform(keys[5], rows))
        first = agent.init(keys[6], jnp.zeros((1, 4)))

        def step(state: Any, xs: tuple) -> tuple:
            return agent.update(key, state, *xs)[0], None

        last, _ = jax.lax.scan(step, first, (batches, jnp.arange(UPDATES)))
        return first.params, last.params

    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), seeds))
    scope = jax.default_matmul_precision(None if precision == "default" else precision)
    with scope:
        return jax.jit(jax.vmap(one)).lower(keys).compile()


def norm(a: Any, b: Any) -> jax.Array:
    """Norm of the difference of two trees, for each seed."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return jnp.sqrt(sum(jnp.square(x - y).reshape(len(x), -1).sum(1) for x, y in pairs))


def distances(seeds: int, programs: dict[str, Any]) -> dict:
    keys = jax.random.split(jax.random.key(0), seeds)
    ends = {}
    for name, program in programs.items():
        first, ends[name] = program(keys)
    worst = {}
    for a, b in PAIRS:
        ratio = norm(ends[a], ends[b]) / norm(ends[b], first)
        worst[f"{a} / {b}"] = float(ratio.max())
    return worst


def times(seeds: int, start: Any, programs: dict[str, Any], rounds: int) -> dict:
    """Microseconds per iteration of each program, in alternating rounds."""
    keys = jax.random.split(jax.random.key(0), seeds)
    iterations = base(seeds).iterations()
    states = {name: start(keys) for name in programs}
    calls, spent = {}, {name: [] for name in programs}

    def call(name: str, number: int) -> float:
        start_time = time.perf_counter()
        for _ in range(number):
            states[name], _ = programs[name](states[name])
        jax.block_until_ready(states[name])
        return (time.perf_counter() - start_time) / number

    for name in programs:
        call(name, 1)
        calls[name] = max(1, int(0.1 / call(name, 1)))
    for _ in range(rounds):
        for name in programs:
            spent[name].append(call(name, calls[name]) / iterations * 1e6)
    row = {}
    for name, us in spent.items():
        row[name] = {
            "us": round(statistics.median(us), 2),
            "range": [round(min(us), 2), round(max(us), 2)],
            "kernels": max(loop.total for loop in hlo.launches(programs[name].as_text()).loops)
            if jax.default_backend() == "gpu"
            else None,
        }
    return row


def main(options: Options) -> None:
    start_time = time.perf_counter()
    depends = ["agents.dqn", "kernels.fused_dqn", "train"]
    stamp = record.stamp("fused", jax.devices()[0].device_kind, depends)

    def show(what: str, **row: Any) -> None:
        row = {**stamp, "what": f"fused {what}", **row}
        if options.record:
            record.append(options.record, row)
        else:
            print(json.dumps(row), flush=True)

    def out_of_time() -> bool:
        return time.perf_counter() - start_time > options.seconds

    names = ["plain", *(f"fused {shape}" for shape in options.shapes)]
    shapes = ["", *options.shapes]
    pool = concurrent.futures.ThreadPoolExecutor(options.workers)
    ends = {
        (seeds, f"{kind} {precision}"): pool.submit(updated_program, seeds, shape, precision)
        for seeds in options.seeds
        for kind, shape in (("plain", ""), ("fused", options.shapes[0]))
        for precision in ("highest", "default")
    }
    starts = {seeds: pool.submit(started, seeds) for seeds in options.seeds}
    loops = {
        (seeds, name): pool.submit(timed_program, base(seeds, shape))
        for seeds in options.seeds
        for name, shape in zip(names, shapes, strict=True)
    }
    for seeds in options.seeds:
        if not out_of_time():
            found = {name: ends[seeds, name].result() for s, name in ends if s == seeds}
            show("distance", seeds=seeds, updates=UPDATES, **distances(seeds, found))
    # compilation would disturb the timing
    left = max(0.0, options.seconds - (time.perf_counter() - start_time))
    concurrent.futures.wait([*starts.values(), *loops.values()], timeout=left)
    for seeds in options.seeds:
        ready = starts[seeds].done() and all(loops[seeds, name].done() for name in names)
        if ready and not out_of_time():
            programs = {name: loops[seeds, name].result() for name in names}
            row = times(seeds, starts[seeds].result(), programs, options.rounds)
            show("time", seeds=seeds, **row)
    pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
