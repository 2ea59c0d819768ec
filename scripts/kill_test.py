"""Kill runs with SIGKILL at random times, resume them each time, and compare the results.

    python scripts/kill_test.py --kills 3 --only q_learning
    python scripts/kill_test.py --kills 1000 --record

The final state of every seed, every line of metrics.jsonl (except seconds) and every score must be
bitwise equal to those of an uninterrupted run. A checkpoint is written after every chunk. Of five
kills, one is at a random time, one while a checkpoint is being written, one while metrics.jsonl or
summary.json is, one while pictures are, and one while the process starts. Processes are forked from
one that has imported JAX, so that a kill takes seconds; they share a cache of compiled programs.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import purejaxrl_sac as prl
from purejaxrl_sac import cli, experiment  # in the server, before it forks
from purejaxrl_sac.experiment.runs import checkpoint, lifecycle  # noqa: F401
from purejaxrl_sac.experiment.runs.directory import RunDirectory
from purejaxrl_sac.experiment.tuning import search, sweep  # noqa: F401
from scripts import record
from scripts.options import Parser, count

FORK = Path(__file__).parents[1] / "tests" / "forks" / "cautious_sac.py"
TINY = ["--seeds=2", "--episodes=4", "--chunks=6"]
SMALL = [*TINY, "--num-envs=4", "--rollout-length=4", "--hidden-sizes", "8", "8", "--steps=480"]
REPLAY = [*SMALL, "--warmup-steps=48", "--capacity=256", "--batch-size=8"]
POINTS = ["--grid", "gamma=0.9,0.99", "num-envs=2,4", "--lanes=2", "--fresh-seeds=2"]
SEQUENCES = ["--sequence-length=8", "--burn-in=4"]
SWEEP = ["--env=chain", "--steps=480", "--seeds=2", "--episodes=4", "--chunks=3", *POINTS]
RUNS = ("experiment.runs.lifecycle", "experiment.runs.loading")
WRITES = {
    "checkpoint": ("checkpoints/*tmp*", "best/*tmp*", "*/*/checkpoints/*tmp*"),
    "document": ("summary.json.part", "metrics.jsonl.part", "*/*/summary.json.part"),
    "picture": ("*.png.part", "*.gif", "*/*/*.png.part", "sensitivity.png.part"),
}


RATES = experiment.points.grid(learning_rate=[0.1, 0.3, 0.6, 0.9])
CHAIN = prl.preset("q_learning", "chain").replace(total_steps=480)
SEARCHES: dict[str, Callable[[Path], object]] = {
    "halving": lambda out: experiment.search.successive_halving(
        CHAIN, RATES, seeds=2, eta=2, episodes=2, out=out
    ),
    "population": lambda out: experiment.search.population_based_training(
        CHAIN, RATES, low={"learning_rate": 0.0}, high={"learning_rate": 1.0}, generations=6,
        episodes=2, out=out,
    ),
}  # fmt: skip


class Case(NamedTuple):
    """A kind of run."""

    command: list[str]
    processes: int = 1
    timeout: float = 300

    def modules(self) -> list[str]:
        """What its figures depend on, as for `record.code`."""
        if self.command[0] == "train":
            name = "sac" if ":" in self.command[1] else self.command[1]  # a fork of it
            return [*RUNS, *record.algorithm_modules(name)]
        kind = "sweep" if self.command[0] == "sweep" else "search"
        return [f"experiment.tuning.{kind}", *record.algorithm_modules("q_learning")]


CASES = {
    "q_learning": Case(["train", "q_learning", "--env=chain", "--steps=480", *TINY]),
    "evaluations": Case(
        ["train", "q_learning", "--env=cliff_walking", "--steps=480", *TINY, "--eval-every=160"]
    ),
    "dqn": Case(["train", "dqn", "--env=CartPole-v1", *REPLAY]),
    "per_dqn": Case(["train", "per_dqn", "--env=CartPole-v1", *REPLAY, "--eval-every=160"]),
    "sac": Case(
        ["train", "sac", "--env=Pendulum-v1", *REPLAY, "--normalize", "observations", "rewards"]
    ),
    "ppo": Case(["train", "ppo", "--env=CartPole-v1", *SMALL]),
    "recurrent_ppo": Case(
        ["train", "recurrent_ppo", "--env=CartPole-positions", *SMALL, "--sequence-length=4"]
    ),
    "r2d2": Case(["train", "r2d2", "--env=CartPole-positions", *REPLAY, *SEQUENCES]),
    "fork": Case(["train", f"{FORK}:CautiousSACConfig", "--env=Pendulum-v1", *REPLAY]),
    "sweep": Case(["sweep", "q_learning", *SWEEP]),
    **{name: Case([name]) for name in SEARCHES},
    "processes": Case(["train", "dqn", "--env=CartPole-v1", *REPLAY], processes=2),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=count, default=20)
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--seed", type=int, default=0, help="seed of the kill times")
    record.add_record(parser, "reliability")
    options = parser.parse_args(argv)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scripts.kill_test"])
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        # before the server of processes starts
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder}/programs")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
        for name in options.only:
            stamp = record.stamp("kills", "cpu", CASES[name].modules())
            start = time.monotonic()
            share = options.kills // len(options.only)
            share += list(options.only).index(name) < options.kills % len(options.only)
            test = Test(CASES[name], Path(folder) / name, context.Process, rng)
            row = {"kind": name, **test.run(share), "seconds": round(time.monotonic() - start)}
            record.append(options.record, stamp | {"value": 0} | row)
    return 0


class Test:
    """Runs of one case that are killed, and one that is not."""

    def __init__(
        self, case: Case, folder: Path, process: Callable[..., BaseProcess], rng: random.Random
    ) -> None:
        self.case, self.folder, self.process, self.rng = case, folder, process, rng
        self.whole = folder / "whole"
        self.kills: Counter[str] = Counter()
        self.runs = 0

    def run(self, kills: int) -> dict[str, object]:
        """Kill runs so many times, and compare each with the uninterrupted one.

        Returns:
            figures of the test; exits with a message if a run cannot be resumed or differs.
        """
        self.folder.mkdir()
        start = time.monotonic()
        self._finish(self._start(self.whole))
        self.seconds = time.monotonic() - start  # later runs find their programs in the cache
        broken = self.folder / "broken"
        aims = itertools.cycle(("anywhere", "checkpoint", "document", "picture", "start"))
        while self.kills.total() < kills:
            self._kill(broken, next(aims))  # kills nothing if the run ends before it writes that
            if _finished(broken):
                self._check(broken)
        if broken.exists():
            if not _finished(broken):
                self._finish(self._start(broken))
            self._check(broken)
        return {"kills": self.kills.total(), "runs": self.runs, **self.kills}

    def _start(self, path: Path) -> list[BaseProcess]:
        """Start or resume a run, and return its processes."""
        if self.case.command[0] in SEARCHES:
            process = self.process(target=work, args=([*self.case.command, str(path)],))
            process.start()
            return [process]
        started = any((path / name).exists() for name in ("config.json", "sweep.json"))
        command = [*self.case.command, "--out", str(path)]
        if started:
            command = ["resume", str(path), *["--trust"] * (":" in self.case.command[1])]
        command += ["--quiet", "--checkpoint-minutes=0"]
        if started and "sweep" in self.case.command:
            command.append("--lanes=2")
        count = self.case.processes
        shared = []
        if count > 1:
            with socket.create_server(("localhost", 0)) as server:
                port = server.getsockname()[1]
            shared = [f"--coordinator=localhost:{port}", f"--processes={count}", "--cpu-devices=1"]
        processes = []
        for index in range(count):
            own = [*shared, f"--process={index}"] if shared else []
            processes.append(self.process(target=work, args=([*command, *own],)))
            processes[-1].start()
        return processes

    def _finish(self, processes: list[BaseProcess]) -> None:
        for process in processes:
            process.join(self.case.timeout)
            if process.exitcode:
                sys.exit(f"a run of {self.case.command} failed with status {process.exitcode}")

    def _kill(self, path: Path, aim: str) -> None:
        """Kill all processes of a run: at a random time, or once files of a kind are written."""
        start = time.monotonic()
        processes = self._start(path)
        end = start + self.rng.uniform(0, 0.3 if aim == "start" else self.seconds)
        latest = start + 2 * self.seconds
        while any(process.is_alive() for process in processes):
            if aim not in WRITES and time.monotonic() > end:
                break
            if aim in WRITES and time.monotonic() > end and _writing(path, aim):
                break
            if aim in WRITES and time.monotonic() > latest:
                break
            time.sleep(0.0005)
        written = [kind for kind in WRITES if _writing(path, kind)]
        killed = False
        for process in self.rng.sample(processes, len(processes)):
            killed |= process.is_alive()
            process.kill()
        for process in processes:
            process.join()
            if process.exitcode not in (0, 1, -9):  # 1: another process of the run was killed
                sys.exit(f"a run of {self.case.command} failed with status {process.exitcode}")
        if not killed:
            self.seconds = min(self.seconds, time.monotonic() - start)
        else:
            self.kills[f"during the write of a {written[0]}" if written else "at another time"] += 1

    def _check(self, path: Path) -> None:
        """Compare a finished run with the uninterrupted one, and remove it."""
        found, expected = (result(x) for x in (path, self.whole))
        for name, value in expected.items():
            if found.get(name) != value:
                sys.exit(f"{path} differs from the uninterrupted run: {name}")
        shutil.rmtree(path)
        self.runs += 1


def work(command: list[str]) -> None:
    """Run a command in a forked process."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if command[0] in SEARCHES:
        SEARCHES[command[0]](Path(command[1]))
        return
    if "--process=0" in command or not any(x.startswith("--process=") for x in command):
        sys.exit(cli.main(command))
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    sys.exit(cli.main(command))


def _finished(path: Path) -> bool:
    searched = (path / "search.json").exists() and (path / "table.csv").exists()
    return searched or (path / "summary.json").exists()


def _writing(path: Path, kind: str) -> bool:
    try:
        return any(any(path.glob(pattern)) for pattern in WRITES[kind])
    except FileNotFoundError:  # the run removed a folder while it was listed
        return False


def result(path: Path) -> dict[str, object]:
    """All numbers of a finished run or sweep that must not depend on interruptions."""
    if (path / "search.json").exists():
        return {name: (path / name).read_text() for name in ("table.csv", "records.jsonl")}
    if (path / "sweep.json").exists():
        runs = [*sorted((path / "batches").iterdir()), path / "best"]
        tables = {name: (path / name).read_text() for name in ("table.csv", "seeds.csv")}
        return tables | {run.name: result(run) for run in runs}
    run = experiment.load(path, whole=True, trust=True)
    rows = RunDirectory(path).read_metrics(run.plan.lanes)
    numbers: dict[str, object] = {
        "rows": [{k: x for k, x in row.items() if k != "seconds"} for row in rows.rows],
        "lost rows": rows.lost,
        "state": checkpoint.checksum(run.state, run.plan.lanes),
    }
    if run.plan.eval_every:
        best = experiment.load(path, best=True)
        numbers["best"] = best.steps, checkpoint.checksum(best.state, run.plan.lanes)
    assert run.summary is not None
    return numbers | {k: run.summary[k] for k in ("steps", "failed_step", "greedy_returns")}


if __name__ == "__main__":
    sys.exit(main())
