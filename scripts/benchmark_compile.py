"""Seconds to trace, lower and compile the programs of a run, for every algorithm.

    python scripts/benchmark_compile.py                          # all algorithms, 1 and 8 seeds
    python scripts/benchmark_compile.py --algorithms dqn sac
    python scripts/benchmark_compile.py --seeds 8 --peer rejax   # also rejax 0.1.3, where it can
    python scripts/benchmark_compile.py --table compile.md       # measures nothing

Each algorithm has its main preset, and its programs are those of a run: `init`, one chunk of
training without evaluations, and the final evaluation. rejax has one program, training with an
evaluation, with the sizes of our preset. Every measurement is made in a new process, after imports
and the start of the backend, without a compilation cache; rounds alternate between ours and the
peer's. CPU-seconds are those of all threads of the process.

Each row, the medians over `--rounds`, is one JSON line, appended to `--record`. `--table` renders
all recorded rows (of `--record`, by default `scripts/results/compile.jsonl`) as a Markdown page.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax

import purejaxrl_sac as prl
from purejaxrl_sac.agents import ALGORITHMS
from purejaxrl_sac.config import Config, ConfigError
from purejaxrl_sac.experiment.devices.mesh import mesh_for, policy_state
from purejaxrl_sac.experiment.runs import engine, plans
from scripts import phases, record
from scripts.accelerators.report import grid
from scripts.accelerators.tables import newest
from scripts.accelerators.work import main_environment
from scripts.options import Parser, count
from scripts.peers.environment import checked, peer_python

RECORD = record.FOLDER / "compile.jsonl"
PROGRAMS = ("init", "chunk", "evaluation")
PEERS = ("dqn", "sac", "ppo", "pqn")  # supported by rejax


def configuration(algorithm: str) -> Config:
    """The main preset of an algorithm."""
    return prl.preset(algorithm, main_environment(algorithm))


def ours(algorithm: str, seeds: int) -> dict:
    """Measure the programs of a run in this process."""
    plan = plans.plan(configuration(algorithm), seeds)
    mesh = mesh_for(plan.lanes)
    phases.warm_up()
    (init, chunks), *seconds = phases.timed(engine.training_programs, plan, mesh, [plan.chunk])
    policies = policy_state(engine.shapes(plan, mesh))
    keys = plan.keys().final_evaluation
    evaluation = engine.evaluation_program(keys, plan, policies, plan.episodes, mesh=mesh)
    measured = {
        name: phases.measured(program.function, *program.arguments)
        for name, program in zip(PROGRAMS, (init, chunks[plan.chunk], evaluation))
    }
    for name, value in zip(("trace_s", "trace_cpu_s"), seconds):
        measured["init"][name] += value  # shapes of the state, from two abstract evaluations
    return {"device": phases.device(), "programs": measured}


def in_new_process(algorithm: str, seeds: int) -> dict:
    """`ours` in a new process."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(ours, algorithm, seeds).result()


def rejax(python: Path, algorithm: str, seeds: int) -> dict:
    """Measure rejax's program with the sizes of our preset, in a new process."""
    config = configuration(algorithm)
    settings = {
        "env": config.env,
        "num_envs": config.num_envs,
        "total_timesteps": config.total_steps,
        "eval_freq": config.total_steps,
    }
    if algorithm in ("ppo", "pqn"):
        settings |= {
            "num_steps": config.rollout_length,
            "num_epochs": config.num_epochs,
            "num_minibatches": config.num_minibatches,
        }
    else:
        settings |= {
            "num_epochs": config.num_updates,
            "buffer_size": config.capacity,
            "fill_buffer": config.warmup_steps,
            "batch_size": config.batch_size,
        }
    request = {"algorithm": algorithm, "hidden_sizes": config.hidden_sizes, "seeds": seeds}
    worker = Path(__file__).parent / "peers" / "rejax_compile.py"
    command = [python, worker, json.dumps({**request, **settings})]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(finished.stdout.splitlines()[-1])


def medians(answers: list[dict]) -> dict:
    """The answer whose figures are medians over the rounds."""
    programs = jax.tree.map(
        lambda *figures: round(statistics.median(figures), 3),
        *(answer["programs"] for answer in answers),
    )
    return {**answers[0], "programs": programs, "rounds": len(answers)}


def measure(options: argparse.Namespace) -> Iterator[dict]:
    """Measure all rows."""
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # of the measuring processes
    python = peer_python(options.peer_environment) if options.peer else None
    for algorithm in options.algorithms:
        environment = main_environment(algorithm)
        work = {"algorithm": algorithm, "environment": environment, "kind": "preset"}
        for seeds in options.seeds:
            libraries: list[Callable[[], dict]] = [partial(in_new_process, algorithm, seeds)]
            if python and algorithm in PEERS:
                libraries.append(partial(rejax, python, algorithm, seeds))
            depends = ["core", "preset", "experiment.runs.engine"]
            stamp = record.stamp(
                "compile time", "of each answer", depends,
                algorithm=algorithm, environment=environment,
            )  # fmt: skip
            rounds = [[library() for library in libraries] for _ in range(options.rounds)]
            for own, *others in rounds:
                here = {"jax": jax.__version__, "device": own["device"]}
                for answer in others:
                    checked(answer, here)
            for answers in zip(*rounds):
                yield {**stamp, **work, "seeds": seeds, **medians(list(answers))}


def total(row: dict, unit: str = "cpu_s") -> float:
    """Seconds or CPU-seconds of all phases of all programs of a row.

    Args:
        unit: s or cpu_s.
    """
    phases = ("trace", "lower", "compile")
    return sum(x[f"{phase}_{unit}"] for x in row["programs"].values() for phase in phases)


def render(rows: list[dict]) -> str:
    """Render the newest row of each work as a Markdown page."""
    chosen = newest(row for row in rows if row["what"] == "compile time")
    parts = [
        "# Compile time",
        "Rendered by `python scripts/benchmark_compile.py --table`. Each algorithm has its main"
        " preset. Medians of CPU-seconds, in new processes without a compilation cache.",
    ]
    for device in dict.fromkeys(row["device"] for row in chosen):
        here = [row for row in chosen if row["device"] == device]
        parts += [f"## {device}", *programs(here), *compared(here)]
    return "\n\n".join(parts) + "\n"


def write(page: Path, rows: list[dict]) -> None:
    """Write the page of rows.

    Raises:
        ConfigError: there are no rows.
    """
    if not rows:
        raise ConfigError("no rows are recorded: measure first, or pass another --record")
    page.write_text(render(rows))


def programs(rows: list[dict]) -> list[str]:
    """The table of our programs."""
    lines = []
    for row in rows:
        if "library" in row:
            continue
        cells, instructions = [], []
        for name in PROGRAMS:
            figures = row["programs"][name]
            cells.append(f"{figures['trace_cpu_s'] + figures['lower_cpu_s']:.1f}")
            cells.append(f"{figures['compile_cpu_s']:.1f}")
            instructions.append(f"{figures['instructions']:,}")
        init, chunk = (row["programs"][name]["compile_cpu_s"] for name in PROGRAMS[:2])
        all_seconds = [f"{total(row):.1f}", f"{total(row, 's'):.1f}"]
        ratio = f"{init / chunk:.2f}"
        lines.append([label(row), row["seeds"], *cells, ratio, *all_seconds, *instructions])
    if not lines:
        return []
    names = "|".join(f"{name}: trace, lower|compile" for name in PROGRAMS)
    sizes = "|".join(f"instructions: {name}" for name in PROGRAMS)
    return [grid(f"work|seeds|{names}|compile: init / chunk|all|all, s|{sizes}", lines)]


def compared(rows: list[dict]) -> list[str]:
    """The table of the peer's program and ours together."""
    same = ("algorithm", "environment", "kind", "seeds", "flags")
    own = {tuple(row[x] for x in same): row for row in rows if "library" not in row}
    lines = []
    for row in rows:
        mine = own.get(tuple(row[x] for x in same))
        if "library" not in row or mine is None:
            continue
        cells = []
        for unit in ("cpu_s", "s"):
            both = total(mine, unit), total(row, unit)
            cells += [f"{both[0]:.1f}", f"{both[1]:.1f}", f"{both[0] / both[1]:.2f}"]
        versions = f"{row['library']}, jax {row['jax']}", f"{mine['version']}, jax {mine['jax']}"
        lines.append([label(row), row["seeds"], *cells, *versions])
    if not lines:
        return []
    figures = "ours|peer|ours / peer"
    return [
        "All programs together, CPU-seconds and then seconds:",
        grid(f"work|seeds|{figures}|ours, s|peer, s|ours / peer, s|peer|ours", lines),
    ]


def label(row: dict) -> str:
    """The work of a row."""
    return f"{row['algorithm']} {row['environment']}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status is 2 for invalid input, reported in one line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=count, default=[1, 8])
    parser.add_argument("--rounds", type=count, default=3)
    record.add_record(parser, "compile")
    parser.add_argument("--table", type=Path, help="render the record to this file, and stop")
    parser.add_argument("--peer", choices=["rejax"], help=f"measured for {', '.join(PEERS)}")
    parser.add_argument(
        "--peer-environment", type=Path, default=Path(tempfile.gettempdir()) / "purejaxrl-rejax"
    )
    options = parser.parse_args(arguments)
    try:
        if options.table:
            write(options.table, record.rows(options.record or RECORD))
            return 0
        for algorithm in options.algorithms:
            prl.default_config(algorithm)  # refuses unknown names before anything is measured
        rows = []
        for row in measure(options):
            record.append(options.record, row)
            rows.append(row)
        print(render(rows))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
