"""Seconds from a command to its first line of progress, and of everything but training.

    python scripts/benchmark_start.py                      # sac on Pendulum-v1, dqn on CartPole-v1
    python scripts/benchmark_start.py --works ppo:CartPole-v1 --seeds 1 --rounds 5 --record

Each round runs the whole `purejaxrl-sac train` twice with a compilation cache of its own: empty,
and then filled by the first run. Measured are the seconds from the start of the process to the line
of the first chunk of training, which the chunk itself is part of, and those of the whole process
less the training.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from purejaxrl_sac.config import ConfigError
from scripts import record

RECORD = record.FOLDER / "compile.jsonl"
WORKS = ("sac:Pendulum-v1", "dqn:CartPole-v1")
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
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        for line in process.stdout or ():
            event = json.loads(line)
            if event["event"] == "chunk" and not first:
                first = time.perf_counter() - start
            figures = event.get("figures", figures)
    if process.returncode:
        raise ConfigError(f"the command failed with status {process.returncode}: {command}")
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--works", nargs="+", default=WORKS, metavar="ALGORITHM:ENVIRONMENT")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    record.add_record(parser, "compile")
    options = parser.parse_args(arguments)
    for work in options.works:
        algorithm, _, environment = work.partition(":")
        found = measure(algorithm, environment, options.seeds, options.rounds)
        stamp = record.stamp("start", depends=["core", "experiment.runs.lifecycle"])
        named = {"algorithm": algorithm, "environment": environment, "kind": "preset"}
        record.append(
            options.record,
            {**stamp, **named, "seeds": options.seeds, **found, "rounds": options.rounds},
        )


if __name__ == "__main__":
    main()
