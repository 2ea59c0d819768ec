"""Seconds from a command to a solved environment, compared with rejax and SBX.

    python scripts/benchmark_solution.py                          # CartPole-v1 and Pendulum-v1
    python scripts/benchmark_solution.py CartPole-v1 --peers rejax --rounds 1 --record

An environment is solved if the IQM over seeds of the mean returns of their greedy policies after
training is at least 475 (CartPole-v1, by PPO, in 64 episodes of each seed) or -150 (Pendulum-v1, by
SAC, in 1,024). Each library has its own tuned settings. First a bisection finds the smallest listed
number of steps with which it solves the environment, for one set of seeds. Then whole processes,
from the start of the interpreter to their end, train others for that number of steps and evaluate
them, and rounds that solve the environment are counted. They alternate between libraries, each with
a compilation cache of its own: empty, and then filled by the process before. A library that fails
is reported and left out.

Ours is `purejaxrl-sac train` with its pictures and checkpoints. rejax trains all seeds in one
program. SBX trains one seed after the other, from one listed number of steps to the next, and stops
when they have solved the environment; the seconds of its evaluations are subtracted.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.statistics import iqm
from scripts import options, phases, record
from scripts.peers.environment import REJAX, SBX, checked, peer_python

PEERS = {"rejax": REJAX, "sbx": SBX}
STOP_WHEN_SOLVED = ("sbx",)


class Task(NamedTuple):
    """When an environment is solved, and the numbers of steps that are tried."""

    algorithm: str
    goal: float
    episodes: int  # of each seed
    steps: tuple[int, ...]


class Trained(NamedTuple):
    """What a process did."""

    seconds: float
    scores: list[float | None]  # None: the seed diverged
    steps: int


Train = Callable[[int, int, Path], Trained]  # (steps, root, cache) -> Trained
TASKS = {
    "CartPole-v1": Task(
        "ppo", 475, 64, (20_000, 30_000, 40_000, 50_000, 75_000, 100_000, 150_000, 200_000)
    ),
    "Pendulum-v1": Task(
        "sac", -150, 1_024, (3_000, 4_000, 5_000, 6_000, 8_000, 10_000, 15_000, 20_000)
    ),
}


def timed(command: Sequence[str | Path], cache: Path) -> tuple[float, str]:
    """Seconds and output of a process.

    Raises:
        ConfigError: the command fails.
    """
    environ = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    start_time = time.perf_counter()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env=environ, cwd=record.ROOT, check=False
    )
    seconds = time.perf_counter() - start_time
    if done.returncode:
        raise ConfigError(f"status {done.returncode} of: {' '.join(map(str, command))}")
    return seconds, done.stdout


def ours(environment: str, seeds: int, steps: int, root: int, cache: Path) -> Trained:
    """This package's command line with a preset."""
    task = TASKS[environment]
    with tempfile.TemporaryDirectory() as folder:
        command = [*(sys.executable, "-m", "purejaxrl_sac", "train", task.algorithm)]
        command += ["--env", environment, "--seeds", str(seeds), "--seed", str(root)]
        command += ["--total-steps", str(steps), "--episodes", str(task.episodes)]
        command += ["--out", f"{folder}/run", "--json"]
        seconds, _ = timed(command, cache)
        summary = json.loads(Path(folder, "run", "summary.json").read_text())
    return Trained(seconds, summary["greedy_returns"], steps)


def peer(
    name: str, python: Path, environment: str, seeds: int, steps: int, root: int, cache: Path
) -> Trained:
    """A peer's training in its own virtual environment."""
    task = TASKS[environment]
    request: dict[str, Any] = {"algorithm": task.algorithm, "environment": environment}
    request |= {"seeds": seeds, "steps": steps, "root": root, "episodes": task.episodes}
    if name in STOP_WHEN_SOLVED:
        request |= {"steps": task.steps, "goal": task.goal}
    worker = Path(__file__).parent / "peers" / f"{name}_solution.py"
    seconds, output = timed([python, worker, json.dumps(request)], cache)
    answer = checked(json.loads(output.splitlines()[-1]), phases.origin())
    seconds -= answer["aside"]
    return Trained(seconds, answer["scores"], answer["steps"])


def score(trained: Trained) -> float:
    """IQM over the seeds, nan if one has diverged."""
    return float(iqm(np.array(trained.scores, float)))


def solved(task: Task, trained: Trained) -> bool:
    """Whether the IQM of the seeds reaches the goal."""
    return score(trained) >= task.goal


def fewest_steps(task: Task, train: Train, cache: Path) -> int | None:
    """The first number of steps that solves the task, by bisection, or None if none does."""
    first = bisect.bisect_left(
        task.steps, True, key=lambda steps: solved(task, train(steps, 0, cache))
    )
    return task.steps[first] if first < len(task.steps) else None


def alternate(task: Task, trains: dict[str, Train], rounds: int) -> Iterator[dict[str, Any]]:
    """Figures of each library, timed in turns.

    Args:
        trains: by name of the library; "" is this one.
    """
    steps: dict[str, int | None] = {}
    found: dict[str, list[tuple[Trained, Trained]]] = {name: [] for name in trains}
    for name, train in trains.items():
        with _left_out(found, name), tempfile.TemporaryDirectory() as folder:
            stops = name in STOP_WHEN_SOLVED
            steps[name] = task.steps[-1] if stops else fewest_steps(task, train, Path(folder))
    for root in range(1, rounds + 1):
        for name in tuple(found):
            if count := steps[name]:
                with _left_out(found, name), tempfile.TemporaryDirectory() as folder:
                    empty, full = (trains[name](count, root, Path(folder)) for _ in range(2))
                    found[name].append((empty, full))
    for name, pairs in found.items():
        row: dict[str, Any] = {"goal": task.goal, "episodes": task.episodes, "rounds": rounds}
        row |= {"library": version(name)} if name else {}
        yield row | (_medians(task, pairs) if pairs else {"solved": 0})


@contextlib.contextmanager
def _left_out(found: dict[str, Any], name: str) -> Iterator[None]:
    """Report a library whose process fails and leave it out, so that no other one is lost."""
    try:
        yield
    except ConfigError as error:
        print(f"{name or 'this package'} is left out: {error}", file=sys.stderr)
        del found[name]


def _medians(task: Task, pairs: Sequence[tuple[Trained, Trained]]) -> dict[str, Any]:
    """Medians over rounds of what one library did with empty and full caches."""
    empty, full = zip(*pairs, strict=True)
    return {
        "steps": int(statistics.median(x.steps for x in empty)),
        "empty": round(statistics.median(x.seconds for x in empty), 1),
        "full": round(statistics.median(x.seconds for x in full), 1),
        "value": round(statistics.median(score(x) for x in empty), 1),
        "solved": sum(solved(task, x) for x in empty),
    }


def version(name: str) -> str:
    """A peer with its version, such as rejax 0.1.3."""
    return PEERS[name][0].replace("==", " ")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 2 for invalid input, reported in one line."""
    parser = options.Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("environments", nargs="*", metavar="ENV", help=", ".join(TASKS))
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--seeds", type=options.count, default=8)
    parser.add_argument("--rounds", type=options.count, default=3)
    parser.add_argument(
        "--peer-environments", type=Path, default=Path(tempfile.gettempdir()), metavar="FOLDER",
        help="of the virtual environments purejaxrl-rejax and purejaxrl-sbx",
    )  # fmt: skip
    record.add_record(parser, "speed")
    chosen = parser.parse_args(arguments)
    environments = chosen.environments or list(TASKS)
    if unknown := [name for name in environments if name not in TASKS]:
        parser.error(f"no task is called {unknown[0]}: choose among {', '.join(TASKS)}")
    status = 0
    try:
        pythons = {
            name: peer_python(chosen.peer_environments / f"purejaxrl-{name}", PEERS[name])
            for name in chosen.peers
        }
        for environment in environments:
            task = TASKS[environment]
            trains: dict[str, Train] = {"": partial(ours, environment, chosen.seeds)}
            for name, python in pythons.items():
                trains[name] = partial(peer, name, python, environment, chosen.seeds)
            work = {"algorithm": task.algorithm, "environment": environment}
            depends = ["core", "preset", "experiment.runs.lifecycle", "cli"]
            stamp = record.stamp("solution", depends=depends, **work)
            rows = list(alternate(task, trains, chosen.rounds))
            for row in rows:
                record.append(chosen.record, {**stamp, **work, "seeds": chosen.seeds, **row})
            status = max(status, 2 * (len(rows) < len(trains)))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
