"""Scaling: seeds on several devices, sweeps as lanes, compaction, and throughput by seeds.

    python scripts/benchmark_scale.py devices      seeds 1, 8, 64 on 1 and 2 devices of a CPU
    python scripts/benchmark_scale.py sweep        64 lanes compared with 64 sequential runs
    python scripts/benchmark_scale.py compaction   cost of successive halving between two rungs
    python scripts/benchmark_scale.py knee         throughput by number of seeds, for accelerators

Compared programs alternate in one process; figures are medians over `--rounds`. Rows are appended
to `--record`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import purejaxrl_sac as prl
from purejaxrl_sac.config import Config
from purejaxrl_sac.experiment.devices import mesh, resources
from purejaxrl_sac.experiment.runs import engine, plans
from purejaxrl_sac.experiment.tuning.search import lanes
from scripts import record
from scripts.options import Parser, count

ONE_UPDATE = {"num_envs": 1, "rollout_length": 1, "num_updates": 1, "hidden_sizes": (64, 64)}
WORK = {
    "dqn": prl.preset("dqn", "CartPole-v1").replace(
        **ONE_UPDATE, batch_size=128, capacity=10_000, warmup_steps=1_000
    ),
    "sac": prl.preset("sac", "Pendulum-v1").replace(
        **ONE_UPDATE, batch_size=256, capacity=10_000, warmup_steps=1_000
    ),
    "pqn": prl.preset("pqn", "Breakout-MinAtar"),
}


def stamp(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """The origin and the work of a row."""
    names = {"algorithm": name, "environment": WORK[name].env}
    depends = ["preset", "experiment.tuning.search", *record.algorithm_modules(name)]
    return {**record.stamp(f"scale: {options.what}", depends=depends, **names), **names}


class Timed:
    """The chunk program of a plan and its state, for repeated measurements."""

    def __init__(self, config: Config, seeds: int, iterations: int, devices: int | None) -> None:
        steps = (config.warmup_iterations + 100 * iterations) * config.steps_per_iteration
        self.plan = plans.plan(config.replace(total_steps=steps), seeds)._replace(chunk=iterations)
        self.iterations = iterations
        over = mesh.mesh_for(seeds, devices)
        self.programs = engine.compile_run(self.plan, mesh=over, lengths=[iterations])
        self.chunks = self.start()

    def start(self) -> Iterator:
        state = engine.initial_state(self.plan, self.programs)
        chunks = engine.run_chunks(self.plan, self.programs, state)
        next(chunks)  # the first call allocates memory
        return chunks

    def seconds(self) -> float:
        """Seconds of the next chunk."""
        start_time = time.perf_counter()
        next(self.chunks)
        return time.perf_counter() - start_time


def alternate(measured: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Results of every function, called in alternating rounds."""
    found: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(rounds):
        for name, measure in measured.items():
            found[name].append(measure())
    return found


def devices(options: argparse.Namespace) -> Table:
    """Microseconds per iteration and seed, on one device and on all devices."""
    most = len(jax.devices())
    table = Table("work", "seeds", "1 device, µs", f"{most} devices, µs", "ratio [range]")
    for name in options.algorithms:
        origin = stamp(options, name)
        for seeds in options.seeds:
            on = {d: Timed(WORK[name], seeds, options.iterations, d) for d in (1, most)}
            found = alternate({str(d): timed.seconds for d, timed in on.items()}, options.rounds)
            each = 1e6 / (options.iterations * seeds)
            one, all_ = (np.array(found[str(d)]) * each for d in (1, most))
            ratios = one / all_
            table.add_row(
                name, str(seeds), f"{np.median(one):.1f}", f"{np.median(all_):.1f}",
                f"{np.median(ratios):.2f} [{ratios.min():.2f}, {ratios.max():.2f}]",
            )  # fmt: skip
            row = dict(
                origin, seeds=seeds, devices=most, value=round(float(np.median(ratios)), 2),
                range=[round(float(x), 2) for x in (ratios.min(), ratios.max())],
                one_us=round(float(np.median(one)), 1), all_us=round(float(np.median(all_)), 1),
            )  # fmt: skip
            record.append(options.record, row, show=False)
    return table


def sweep(options: argparse.Namespace) -> Table:
    """One program of many lanes compared with as many runs, each of which is compiled."""
    table = Table("work", "method", "compilation, s", "training, s", "total, s", "ratio")
    for name in options.algorithms:
        origin = stamp(options, name)
        steps = (WORK[name].warmup_iterations + 2 * options.iterations) * WORK[
            name
        ].steps_per_iteration
        config = WORK[name].replace(total_steps=steps)
        rates = np.geomspace(1e-4, 1e-2, options.lanes).tolist()

        def train(variants: dict | None, config: Config = config) -> tuple[float, float]:
            jax.clear_caches()
            plan = plans.plan(config, chunks=2, variants=variants)
            programs = engine.compile_run(plan)
            start_time = time.perf_counter()
            state = engine.initial_state(plan, programs)
            for state, _ in engine.run_chunks(plan, programs, state):  # noqa: B007, B020
                pass
            return programs.seconds, time.perf_counter() - start_time

        together = train({"learning_rate": rates})
        picked = rates[:: max(1, options.lanes // options.sequential)][: options.sequential]
        each = [train({"learning_rate": [rate]}) for rate in picked]
        scale = options.lanes / len(picked)
        alone = tuple(scale * sum(column) for column in zip(*each, strict=True))
        extrapolated = "" if scale == 1 else f", extrapolated from {len(picked)}"
        for label, (compiling, training) in {
            f"{options.lanes} lanes": together,
            f"{options.lanes} runs{extrapolated}": alone,
        }.items():
            both = compiling + training
            table.add_row(
                name, label, f"{compiling:.1f}", f"{training:.1f}", f"{both:.1f}",
                f"{both / sum(together):.1f}",
            )  # fmt: skip
            row = dict(
                origin, kind=label, lanes=options.lanes, value=round(both, 1),
                compile_seconds=round(compiling, 1), train_seconds=round(training, 1),
            )  # fmt: skip
            record.append(options.record, row, show=False)
    return table


def compaction(options: argparse.Namespace) -> Table:
    """Time to gather a third of the lanes with their replay memories, in iterations."""
    table = Table("work", "lanes", "state, MiB", "compaction, ms", "iteration, ms", "ratio")
    for name in options.algorithms:
        origin = stamp(options, name)
        timed = Timed(WORK[name], options.lanes, options.iterations, None)
        state, _ = next(timed.chunks)
        over = timed.programs.mesh
        kept = np.arange(0, options.lanes, 3)
        new = mesh.mesh_for(len(kept))
        took = []
        for _ in range(options.rounds + 1):  # the first call compiles
            start_time = time.perf_counter()
            jax.block_until_ready(lanes.take_lanes(state, kept, over, new))
            took.append(time.perf_counter() - start_time)
        compacting = statistics.median(took[1:])
        iteration = statistics.median(timed.seconds() for _ in range(options.rounds))
        iteration /= options.iterations
        size = sum(resources.state_bytes(timed.plan, over).values()) / 2**20
        table.add_row(
            name, f"{options.lanes} to {len(kept)}", f"{size:.0f}", f"{1e3 * compacting:.1f}",
            f"{1e3 * iteration:.2f}", f"{compacting / iteration:.0f}",
        )  # fmt: skip
        row = dict(
            origin, lanes=options.lanes, kept=len(kept), value=round(1e3 * compacting, 1),
            iteration_ms=round(1e3 * iteration, 2),
        )  # fmt: skip
        record.append(options.record, row, show=False)
    return table


def knee(options: argparse.Namespace) -> Table:
    """Total environment steps per second, and memory, by number of seeds."""
    columns = ("work", "seeds", "million steps/s", "us per iteration", "state per seed, KiB")
    table = Table(*columns, "compilation, s")
    for name in options.algorithms:
        origin = stamp(options, name)
        for seeds in options.seeds:
            try:
                timed = Timed(WORK[name], seeds, options.iterations, None)
            except (prl.ConfigError, jax.errors.JaxRuntimeError) as error:
                table.add_row(name, str(seeds), str(error).splitlines()[0][:60], "", "", "")
                continue
            took = statistics.median(timed.seconds() for _ in range(options.rounds))
            block = timed.plan.config.steps_per_iteration
            parts = resources.state_bytes(timed.plan, timed.programs.mesh)
            each = (
                sum(parts.values())
                * timed.programs.mesh.size
                / resources.devices_per_memory(timed.programs.mesh)
            )
            table.add_row(
                name, str(seeds), f"{seeds * options.iterations * block / took / 1e6:.3g}",
                f"{1e6 * took / options.iterations:.1f}", f"{each / seeds / 1024:.0f}",
                f"{timed.programs.seconds:.1f}",
            )  # fmt: skip
            row = dict(
                origin, seeds=seeds, value=round(1e6 * took / options.iterations, 1),
                steps_per_second=round(seeds * options.iterations * block / took),
                bytes_per_seed=round(each / seeds),
            )  # fmt: skip
            record.append(options.record, row, show=False)
            del timed
    return table


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = {"devices": devices, "sweep": sweep, "compaction": compaction, "knee": knee}
    parser.add_argument("what", nargs="?", default="devices", choices=list(tables))
    parser.add_argument("--algorithms", nargs="+", default=["dqn", "sac"], choices=list(WORK))
    parser.add_argument(
        "--seeds", nargs="+", type=count, default=[1, 8, 64],
        help="for devices and knee, whose whole curve is 1 4 16 64 256 1024 4096",
    )  # fmt: skip
    parser.add_argument("--iterations", type=count, default=500, help="of each measured chunk")
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--lanes", type=count, default=64, help="for sweep and compaction")
    parser.add_argument(
        "--sequential", type=count, default=64,
        help="measured sequential runs; their time is extrapolated to --lanes runs",
    )  # fmt: skip
    parser.add_argument("--cpu-devices", type=count, default=2)
    record.add_record(parser, "scale")
    options = parser.parse_args()
    mesh.use_cpu_devices(options.cpu_devices)
    first = jax.devices()[0]
    console = Console(width=110)
    console.print(f"{len(jax.devices())} x {first.device_kind}")
    console.print(tables[options.what](options))


if __name__ == "__main__":
    main()
