"""Overhead of chunks, metrics and the progress display, compared with one scan.

    python scripts/benchmark_runner.py

Both train the same seeds from the same state for ten chunks of the default length, in alternating
rounds; prints the median of their ratios without compilation, and the time of one checkpoint.
Rows are appended to `--record`.
"""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
import time
from functools import partial
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
from rich.console import Console

import purejaxrl_sac as prl
from purejaxrl_sac.experiment.devices import resources
from purejaxrl_sac.experiment.devices.mesh import mesh_for
from purejaxrl_sac.experiment.runs import engine, metric_rows, plans
from purejaxrl_sac.experiment.runs.checkpoint import Checkpoints, split_state
from purejaxrl_sac.experiment.runs.directory import RunDirectory
from purejaxrl_sac.experiment.runs.display import ConsoleReporter
from scripts import record
from scripts.options import Parser, count

CHUNKS = 10  # each the default fiftieth of a run
RUNS = (("sac", "Pendulum-v1", {}), ("dqn", "CartPole-v1", {"total_steps": 50_000}))


def main() -> None:
    parser = Parser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=count, default=8)
    parser.add_argument("--rounds", type=count, default=5)
    record.add_record(parser, "reliability")
    options = parser.parse_args()
    print(f"{jax.device_count()} x {jax.devices()[0].device_kind}, {options.seeds} seeds")
    for algorithm, env, changes in RUNS:
        config = prl.preset(algorithm, env).replace(**changes)
        depends = ["preset", "experiment.runs.lifecycle", *record.algorithm_modules(algorithm)]
        names = {"algorithm": algorithm, "environment": env}
        stamp = record.stamp("overhead", depends=depends, **names)
        plan = plans.plan(config, options.seeds)
        programs = engine.compile_run(plan, mesh=mesh_for(plan.lanes, 1))
        axes = prl.seed_axes(engine.shapes(plan))
        scan = partial(prl.run, config=config, iterations=CHUNKS * plan.chunk)
        scan = jax.jit(jax.vmap(scan, (axes,), (axes, 0)), donate_argnums=0)
        scan = scan.lower(engine.shapes(plan)).compile()
        with tempfile.TemporaryDirectory() as folder:
            directory = RunDirectory.create(Path(folder) / "run")
            ratios, scan_seconds = [], []
            for _ in range(options.rounds):
                state = engine.initial_state(plan, programs)
                start_time = time.perf_counter()
                state, _ = jax.block_until_ready(scan(state))
                scan_seconds.append(time.perf_counter() - start_time)
                state = engine.initial_state(plan, programs)
                reporter = ConsoleReporter(Console(file=io.StringIO(), force_terminal=True))
                reporter.on_start(plan, algorithm, "")
                start_time = time.perf_counter()
                with reporter.live:
                    chunks = engine.run_chunks(plan, programs, state)
                    after = 0
                    for state, progress in islice(chunks, CHUNKS):  # noqa: B007
                        metric_rows.append(directory.metrics, progress, after)
                        after = progress.steps
                        reporter.on_chunk(progress)
                ratios.append((time.perf_counter() - start_time) / scan_seconds[-1])
            checkpoints = Checkpoints(Path(folder) / "checkpoints", keep=1)
            start_time = time.perf_counter()
            checkpoints.save(1, plan.lanes, **split_state(state))
            copied = time.perf_counter() - start_time
            checkpoints.wait()
            written = time.perf_counter() - start_time
            checkpoints.close()
        size = resources.format_bytes(resources.nbytes(state))
        print(
            f"{algorithm} on {env}: one scan {statistics.median(scan_seconds):.2f} s, chunks"
            f" {statistics.median(ratios):.3f} times that ({min(ratios):.3f} to {max(ratios):.3f});"
            f" a checkpoint of {size} blocks the run for {copied:.2f} s and is written after"
            f" {written:.2f} s"
        )
        row = {
            **stamp,
            **names,
            "seeds": options.seeds,
            "value": round(statistics.median(ratios), 3),
            "range": [round(min(ratios), 3), round(max(ratios), 3)],
            "checkpoint_seconds": round(copied, 3),
            "checkpoint_bytes": resources.nbytes(state),
        }
        record.append(options.record, row, show=False)


if __name__ == "__main__":
    main()
