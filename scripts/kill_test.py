"""Kills a run with SIGKILL at random moments, resumes it each time, and compares the end.

    python scripts/kill_test.py --kills 20
    python scripts/kill_test.py --kills 20 --algorithm sac --env Pendulum-v1 --steps 3000

The same run is made once without interruption. The final state of every seed and every line of
metrics.jsonl (but the seconds) must be equal, bit for bit. A checkpoint is written after every
chunk, so that many kills fall into a write.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from purejaxrl_sac import experiment
from purejaxrl_sac.experiment.checkpoint import checksum


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "purejaxrl_sac", *arguments, "--quiet", "--checkpoint-minutes=0"]


def metrics(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def begun(run: Path) -> bool:
    return (run / "config.json").exists()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--algorithm", default="per_dqn")
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--steps", default="6000")
    parser.add_argument("--seeds", default="3")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    flags = ["--env", options.env, "--steps", options.steps, "--seeds", options.seeds]
    train = ["train", options.algorithm, *flags, "--eval-every", "1000", "--episodes", "8"]
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        for _ in range(2):  # the second finds its programs compiled, as every resumption will
            whole = whole.with_name(whole.name + "_")
            start = time.monotonic()
            subprocess.run(command(*train, "--out", str(whole)), check=True)
            took = time.monotonic() - start
        expected = metrics(whole)

        killed, fell = 0, {}
        while killed < options.kills:
            again = ["resume", str(broken)] if begun(broken) else [*train, "--out", str(broken)]
            process = subprocess.Popen(command(*again), stderr=subprocess.PIPE, text=True)
            try:  # the first half of a run is start-up, where there is little to lose
                process.wait(timeout=rng.uniform(0.4, 1.0) * took)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
                writing = any((broken / "checkpoints").glob("*tmp*"))
                lines = (
                    len((broken / "metrics.jsonl").read_text().splitlines())
                    if (broken / "metrics.jsonl").exists()
                    else 0
                )
                where = "while a checkpoint was written" if writing else f"after {lines} chunks"
                fell[where] = fell.get(where, 0) + 1
                print(f"kill {killed}: {where}", flush=True)
                continue
            if process.returncode:
                sys.exit(f"resume failed: {process.stderr.read()}")
            if (broken / "summary.json").exists():
                check(whole, broken, expected)
                broken = broken.with_name(broken.name + "_")  # the next run to be broken
        if begun(broken) and not (broken / "summary.json").exists():
            subprocess.run(command("resume", str(broken)), check=True)
            check(whole, broken, expected)
    print(f"{killed} kills, {fell.get('while a checkpoint was written', 0)} of them in a write:")
    print("every state and every metric is equal, bit for bit")


def check(whole: Path, broken: Path, expected: list[dict]) -> None:
    if metrics(broken) != expected:
        sys.exit(f"metrics of {broken} differ")
    ends = [checksum(experiment.load(path, whole=True).state) for path in (whole, broken)]
    if ends[0] != ends[1]:
        sys.exit(f"the final state of {broken} differs")
    print("finished: equal", flush=True)


if __name__ == "__main__":
    main()
