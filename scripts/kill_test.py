"""Kill a run with SIGKILL at random times, resume it each time, and compare the results.

    python scripts/kill_test.py --kills 20
    python scripts/kill_test.py --kills 20 --algorithm sac --env Pendulum-v1 --steps 3000

The final state of every seed and every line of metrics.jsonl (except seconds) must be bitwise equal
to those of an uninterrupted run. A checkpoint is written after every chunk, so that many kills
occur during a write; every fifth kill occurs while the process starts. A row is appended to
`--record`.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from purejaxrl_sac import experiment
from purejaxrl_sac.experiment.runs.checkpoint import checksum
from scripts import record


def start(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "purejaxrl_sac", *arguments]
    quiet = ["--quiet", "--checkpoint-minutes=0"]
    return subprocess.Popen([*command, *quiet], stdout=subprocess.DEVNULL)


def lines(run: Path) -> int:
    return (
        (run / "metrics.jsonl").read_text().count("\n") if (run / "metrics.jsonl").exists() else 0
    )


def wait_for_metrics(process: subprocess.Popen, run: Path) -> None:
    """Wait for a new line of metrics, or the end of the process."""
    before = lines(run)
    while process.poll() is None and lines(run) == before:
        time.sleep(0.01)


def metrics(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def check(whole: Path, broken: Path) -> None:
    summaries = [json.loads((run / "summary.json").read_text()) for run in (whole, broken)]
    if summaries[0]["greedy_returns"] != summaries[1]["greedy_returns"]:
        sys.exit(f"the final evaluation of {broken} differs")
    if metrics(broken) != metrics(whole):
        sys.exit(f"metrics of {broken} differ")
    for kind in ({"whole": True}, {"best": True}):
        ends = [checksum(experiment.load(path, **kind).state) for path in (whole, broken)]
        if ends[0] != ends[1]:
            sys.exit(f"the state of {broken} differs ({kind})")
    print("finished: equal to the uninterrupted run", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--algorithm", default="per_dqn")
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--steps", default="20000")
    parser.add_argument("--seeds", default="3")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="seed of the kill times")
    record.add_record(parser, "reliability")
    options = parser.parse_args()
    flags = ["--env", options.env, "--steps", options.steps, "--seeds", options.seeds]
    flags += ["--episodes", "8", "--eval-every", str(int(options.steps) // 5)]
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        process = start("train", options.algorithm, *flags, "--out", str(whole))
        wait_for_metrics(process, whole)
        start_time = time.monotonic()
        if process.wait():
            sys.exit("the uninterrupted run failed")
        seconds = time.monotonic() - start_time
        print(f"training without interruption takes {seconds:.1f} s", flush=True)

        killed, writes, attempt = 0, 0, 0
        while killed < options.kills:
            broken = Path(folder) / f"broken-{attempt}"
            if (broken / "summary.json").exists():  # killed between the last write and the end
                check(whole, broken)
                attempt += 1
                continue
            if (broken / "config.json").exists():
                process = start("resume", str(broken))
            else:
                process = start("train", options.algorithm, *flags, "--out", str(broken))
            if killed % 5 != 4:
                wait_for_metrics(process, broken)
            try:
                process.wait(rng.uniform(0, 0.6 * seconds))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
                writing = any((broken / "checkpoints").glob("*tmp*"))
                writes += writing
                during = ", during the write of a checkpoint" * writing
                print(f"kill {killed}: after {lines(broken)} chunks{during}", flush=True)
                continue
            if process.returncode:
                sys.exit(f"{broken} could not be resumed")
            check(whole, broken)
            attempt += 1
        broken = Path(folder) / f"broken-{attempt}"
        if (broken / "config.json").exists():
            if not (broken / "summary.json").exists() and start("resume", str(broken)).wait():
                sys.exit(f"{broken} could not be resumed")
            check(whole, broken)
    print(f"{killed} kills, {writes} of them during the write of a checkpoint: nothing was lost")
    row = {
        **record.stamp("kills", depends=["core", "experiment.runs.lifecycle"]),
        "algorithm": options.algorithm,
        "environment": options.env,
        "seeds": int(options.seeds),
        "steps": int(options.steps),
        "value": 0,  # runs whose results differ
        "kills": killed,
        "during_writes": writes,
    }
    record.append(options.record, row, show=False)


if __name__ == "__main__":
    main()
