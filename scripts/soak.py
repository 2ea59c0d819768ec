"""Train for a long time with evaluations, checkpoints and loggers, and report memory and files.

    python scripts/soak.py --minutes 60 --record

After a warm-up of a tenth of the time, neither the resident memory nor the number of open files and
threads may grow.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil

import purejaxrl_sac as prl
from purejaxrl_sac.experiment.errors import StoppedError
from purejaxrl_sac.experiment.runs.display import Reporter
from scripts import record
from scripts.options import Parser, minutes


class Sample(NamedTuple):
    """Resources of this process after a chunk."""

    seconds: float
    resident: int  # bytes
    files: int
    threads: int


class Sampler(Reporter):
    """Records resources, and stops the run by SIGTERM when the time is over."""

    def __init__(self, seconds: float) -> None:
        self.start, self.seconds = time.monotonic(), seconds
        self.process = psutil.Process()
        self.samples: list[Sample] = []

    def on_chunk(self, progress: object) -> None:
        spent = time.monotonic() - self.start
        memory, files = self.process.memory_info().rss, self.process.num_fds()
        self.samples.append(Sample(spent, memory, files, self.process.num_threads()))
        if spent > self.seconds:
            self.process.terminate()


def main() -> int:
    parser = Parser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=minutes, default=60)
    record.add_record(parser, "reliability")
    options = parser.parse_args()
    depends = ["experiment.runs.lifecycle", *record.algorithm_modules("dqn")]
    stamp = record.stamp("soak", "cpu", depends)
    sampler = Sampler(60 * options.minutes)
    config = prl.preset("dqn", "CartPole-v1").replace(total_steps=2**30, capacity=10_000)
    chunks, steps = 2**19, 2**11
    with tempfile.TemporaryDirectory() as folder:
        try:
            prl.experiment.run(
                config, 2, out=Path(folder) / "run", chunks=chunks, eval_every=8 * steps,
                checkpoint_minutes=0.05, reporter=sampler,
            )  # fmt: skip
        except StoppedError as stop:
            print(stop)
    warm = [x for x in sampler.samples if x.seconds > 6 * options.minutes]
    half = len(warm) // 2
    if half == 0:
        parser.error(f"--minutes is {options.minutes:g}, too short for two chunks: raise it")
    first, second = warm[:half], warm[half:]
    row: dict[str, float] = {"minutes": options.minutes, "chunks": len(sampler.samples)}
    for name in ("resident", "files", "threads"):
        row[f"{name}_first_half"] = max(getattr(x, name) for x in first)
        row[f"{name}_second_half"] = max(getattr(x, name) for x in second)
    record.append(options.record, stamp | row)
    grown = any(row[f"{x}_second_half"] > row[f"{x}_first_half"] for x in ("files", "threads"))
    return int(grown or row["resident_second_half"] > 1.05 * row["resident_first_half"])


if __name__ == "__main__":
    sys.exit(main())
