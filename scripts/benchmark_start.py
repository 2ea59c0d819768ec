"""Seconds from a command to its first line of progress, and of everything but training.

    python scripts/benchmark_start.py                      # sac on Pendulum-v1, dqn on CartPole-v1
    python scripts/benchmark_start.py --algorithms ppo --seeds 1 --rounds 5 --record

Each algorithm has its main preset. Each round runs the whole `purejaxrl-sac train` twice with a
compilation cache of its own: empty, and then filled by the first run. Measured are the seconds from
the start of the process to the line of the first chunk of training, which the chunk itself is part
of, and those of the whole process less the training.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import purejaxrl_sac as prl
from purejaxrl_sac.config import ConfigError
from scripts import record
from scripts.accelerator import Parser, count
from scripts.accelerators.work import main_environment

CACHES = ("empty", "full")


def seconds(algorithm: str, environment: str, seeds: int, cache: Path, out: Path) -> dict:
    """Figures of one process.

    Args:
        cache: folder of the compilation cache.
        out: folder for the run, which must not exist.

    Returns:
        seconds: `first`, to the first chunk's line; `besides`, of all but the training.

    Raises:
        ConfigError: the command fails.
    """
    command = [*(sys.executable, "-m", "purejaxrl_sac", "train", algorithm, "--env", environment)]
    command += ["--seeds", str(seeds), "--out", str(out), "--json"]
    environ = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    first, figures, start = 0.0, {}, time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environ, cwd=record.ROOT
    ) as process:
        for line in process.stdout or ():
            event = json.loads(line)
            if event["event"] == "chunk" and not first:
                first = time.perf_counter() - start
            figures = event.get("figures", figures)
    if process.returncode:
        raise ConfigError(f"status {process.returncode} of: {shlex.join(command)}")
    training = float(figures["training"].split()[0])
    return {"first": first, "besides": time.perf_counter() - start - training}


def measure(algorithm: str, environment: str, seeds: int, rounds: int) -> dict:
    """Medians over rounds, by state of the cache."""
    found: dict[str, list[dict]] = {name: [] for name in CACHES}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for name in CACHES:
                out = Path(folder) / f"run-{name}"
                cache = Path(folder) / "cache"
                found[name].append(seconds(algorithm, environment, seeds, cache, out))
    return {
        name: {x: round(statistics.median(y[x] for y in several), 2) for x in several[0]}
        for name, several in found.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 2 for invalid input, reported in one line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", default=["sac", "dqn"], metavar="NAME")
    parser.add_argument("--seeds", type=count, default=8)
    parser.add_argument("--rounds", type=count, default=3)
    record.add_record(parser, "compile")
    options = parser.parse_args(arguments)
    try:
        for algorithm in options.algorithms:
            prl.default_config(algorithm)  # refuses unknown names before anything is measured
        for algorithm in options.algorithms:
            environment = main_environment(algorithm)
            depends = ["core", "preset", "experiment.runs.lifecycle", "cli"]
            names = {"algorithm": algorithm, "environment": environment}
            row = record.stamp("start", depends=depends, **names)
            row |= {**names, "kind": "preset", "seeds": options.seeds, "rounds": options.rounds}
            row |= measure(algorithm, environment, options.seeds, options.rounds)
            record.append(options.record, row)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
