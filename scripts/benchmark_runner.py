"""What looking at a run costs: its chunks, metrics and progress against one plain scan.

    python scripts/benchmark_runner.py

Both train the same seeds from the same state, for ten chunks of the usual length; the rounds
alternate, and the median of their ratios is printed. Compilation is apart. Then what one checkpoint
of the run takes.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from functools import partial
from itertools import islice
from pathlib import Path

import jax
from rich.console import Console

import purejaxrl_sac as prl
from purejaxrl_sac.experiment.devices import resources
from purejaxrl_sac.experiment.devices.mesh import mesh_for
from purejaxrl_sac.experiment.runs import engine, plans
from purejaxrl_sac.experiment.runs.checkpoint import Checkpoints
from purejaxrl_sac.experiment.runs.directory import RunDirectory
from purejaxrl_sac.experiment.runs.display import ConsoleReporter
from purejaxrl_sac.experiment.runs.lifecycle import split_state

CHUNKS = 10  # of the usual fiftieth of a run each
RUNS = (("sac", "Pendulum-v1", {}), ("dqn", "CartPole-v1", {"total_steps": 50_000}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{jax.device_count()} x {jax.devices()[0].device_kind}, {options.seeds} seeds")
    for algorithm, env, changes in RUNS:
        config = prl.preset(algorithm, env).replace(**changes)
        plan = plans.plan(config, options.seeds)
        programs = engine.compile_run(plan, mesh=mesh_for(plan.lanes, 1))
        axes = prl.seed_axes(engine.shapes(plan))
        scan = partial(prl.run, config=config, iterations=CHUNKS * plan.chunk)
        scan = jax.jit(jax.vmap(scan, (axes,), (axes, 0)), donate_argnums=0)
        scan = scan.lower(engine.shapes(plan)).compile()
        with tempfile.TemporaryDirectory() as folder:
            directory = RunDirectory.create(Path(folder) / "run")
            ratios, plain = [], []
            for _ in range(options.rounds):
                state = engine.initial_state(plan, programs)
                began = time.perf_counter()
                state, _ = jax.block_until_ready(scan(state))
                plain.append(time.perf_counter() - began)
                state = engine.initial_state(plan, programs)
                shown = ConsoleReporter(Console(file=io.StringIO(), force_terminal=True))
                shown.on_start(plan, algorithm, "")
                began = time.perf_counter()
                with shown.live:
                    chunks = engine.run_chunks(plan, programs, state)
                    for state, progress in islice(chunks, CHUNKS):  # noqa: B007
                        directory.append(progress)
                        shown.on_chunk(progress)
                ratios.append((time.perf_counter() - began) / plain[-1])
            checkpoints = Checkpoints(Path(folder) / "checkpoints", keep=1)
            began = time.perf_counter()
            checkpoints.save(1, plan.lanes, **split_state(state))
            copied = time.perf_counter() - began
            checkpoints.wait()
            written = time.perf_counter() - began
            checkpoints.close()
        size = resources.format_bytes(resources.nbytes(state))
        print(
            f"{algorithm} on {env}: plain scan {statistics.median(plain):.2f} s, in chunks"
            f" {statistics.median(ratios):.3f} times that ({min(ratios):.3f} to {max(ratios):.3f});"
            f" a checkpoint of {size} holds the run up for {copied:.2f} s and is written after"
            f" {written:.2f} s"
        )


if __name__ == "__main__":
    main()
