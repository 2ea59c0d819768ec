"""The cells of the learning scoreboard, and measuring those that are missing or stale.

A cell is an algorithm on an environment, with its seeds: `scripts/results/cells.toml` has all of
them. Its row is the last one in a record of `benchmark_learning.py` with the same settings.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import purejaxrl_sac as prl
from purejaxrl_sac.cli.parsing import environment_parameters
from purejaxrl_sac.envs.parameters import fixed
from scripts import record

CELLS = record.FOLDER / "cells.toml"
LEARNING = record.FOLDER / "learning.jsonl"
SCRIPT = Path(__file__).with_name("benchmark_learning.py")
UNKNOWN = 600.0  # seconds that a cell is expected to take if none of its environment is recorded
OVERHEAD = 30.0  # seconds of imports, compilation and evaluation


class Cell(NamedTuple):
    """What a row of the scoreboard measures."""

    algorithm: str
    environment: str  # a name, or NAME(FIELD=VALUE) with other parameters, see `configuration`
    seeds: int = 30  # at least
    root: int = 20
    episodes: int = 1_000  # over all seeds, at least

    def arguments(self) -> list[str]:
        """Of `benchmark_learning.py`, without those that are its defaults."""
        numbers = zip(self._fields[2:], self[2:], self._field_defaults.values(), strict=True)
        options = [f"--{name}={value}" for name, value, default in numbers if value != default]
        return [self.algorithm, self.environment, *options]

    def is_of(self, row: dict) -> bool:
        """Whether a row measured this cell, with as many seeds and episodes or more."""
        found = [row.get(name) for name in ("algorithm", "environment", "root")]
        same = found == [self.algorithm, self.environment, self.root] and not row.get("changed")
        enough = (row.get("seeds") or 0, row.get("episodes") or 0)
        return same and enough[0] >= self.seeds and enough[1] >= self.episodes


def configuration(algorithm: str, environment: str) -> prl.Config:
    """The preset of an algorithm on an environment, which `named` describes.

    Raises:
        ConfigError: there is no such algorithm, environment or parameter.
    """
    name, params = named(environment)
    return fixed(prl.preset(algorithm, name).replace(env_params=params))


def named(environment: str) -> tuple[str, Any]:
    """The name and the parameters (None: the defaults) of an environment.

    Args:
        environment: a name, or one with parameters: "MemoryChain-bsuite(memory_length=30)".

    Raises:
        ConfigError: there is no such environment or parameter.
    """
    name, has_settings, settings = environment.partition("(")
    if has_settings and not settings.endswith(")"):
        raise prl.ConfigError(f"{environment} has no closing parenthesis: quote NAME(FIELD=VALUE)")
    settings = settings.removesuffix(")")
    return name, environment_parameters(name, settings.split(",") if settings else ())


class Goal(NamedTuple):
    """What an algorithm is to reach on an environment; None: no goal."""

    value: float | None = None  # IQM over seeds
    worst: float | None = None  # the worst seed

    def missed(self, row: dict) -> dict[str, float]:
        """By how much a row misses the goals: "IQM" and "worst" -> a positive number."""
        wanted = {"IQM": (self.value, row["value"]), "worst": (self.worst, row.get("worst"))}
        known = {k: (goal, x) for k, (goal, x) in wanted.items() if None not in (goal, x)}
        return {k: goal - x for k, (goal, x) in known.items() if x < goal}


def cells(path: Path = CELLS) -> list[Cell]:
    """All cells, by environment."""
    found = tomllib.loads(path.read_text())
    return [_cell(name, env, entry) for env, entry in found.items() for name in entry["algorithms"]]


def cell(algorithm: str, environment: str, path: Path = CELLS) -> Cell:
    """What the scoreboard has of an environment, or would have of another algorithm on it."""
    return _cell(algorithm, environment, tomllib.loads(path.read_text()).get(environment, {}))


def _cell(algorithm: str, environment: str, entry: dict[str, Any]) -> Cell:
    numbers = {name: entry[name] for name in Cell._fields[2:] if name in entry}
    return Cell(algorithm, environment, **numbers)


def goals(path: Path = CELLS) -> dict[tuple[str, str], Goal]:
    """Algorithm and environment -> their goal."""
    found = {}
    for environment, entry in tomllib.loads(path.read_text()).items():
        for name in entry["algorithms"]:
            each = [entry.get(field) for field in ("goal", "worst")]
            found[name, environment] = Goal(
                *(x.get(name) if isinstance(x, dict) else x for x in each)
            )
    return found


def tried(algorithm: str, environment: str, path: Path = CELLS) -> int | None:
    """How many configurations were compared to choose a preset; None if they were not counted."""
    entry = tomllib.loads(path.read_text()).get(environment, {})
    found: int | None = entry.get("tried", {}).get(algorithm)
    return found


def fresh(cell: Cell, rows: Sequence[dict]) -> bool:
    """Whether the last row of a cell was measured on the current code."""
    row = next((row for row in reversed(rows) if cell.is_of(row)), None)
    return row is not None and not record.stale(row)


def expected_seconds(cell: Cell, rows: Sequence[dict]) -> float:
    """Duration of a cell: from the last row of its algorithm and environment, or of the latter."""

    def per_seed(matches: Callable[[dict], bool]) -> float | None:
        timed = [r for r in rows if matches(r) and r.get("train_seconds") and r.get("seeds")]
        return timed[-1]["train_seconds"] / timed[-1]["seeds"] if timed else None

    environment = per_seed(lambda r: r["environment"] == cell.environment)
    own = per_seed(lambda r: (r["algorithm"], r["environment"]) == cell[:2])
    each = own or environment
    return OVERHEAD + (cell.seeds * each if each else UNKNOWN)


def to_measure(rows: Sequence[dict], only: Sequence[str] = ()) -> list[Cell]:
    """Cells without a fresh row, the cheapest first.

    Args:
        only: algorithms and environments; a cell is left out unless one of its two is named.

    Raises:
        ConfigError: a name is that of no cell.
    """
    every = cells()
    unknown = set(only) - {name for cell in every for name in cell[:2]}
    if unknown:
        raise prl.ConfigError(
            f"{', '.join(sorted(unknown))}: no algorithm or environment of {CELLS.name}"
        )
    chosen = [c for c in every if not only or set(c[:2]) & set(only)]
    left = [cell for cell in chosen if not fresh(cell, rows)]
    return sorted(left, key=lambda cell: expected_seconds(cell, rows))


class Running(NamedTuple):
    """A cell that is being measured."""

    cell: Cell
    process: subprocess.Popen
    messages: IO[str]  # its standard error
    start_time: float
    directory: Path  # of its run


def directory(cell: Cell, file: Path) -> Path:
    """Where a cell's run is kept until it has a row: one for each state of the code."""
    depends = ["core", "preset", "experiment.runs.engine"]
    code = record.code(depends, cell.algorithm, cell.environment)
    name = "-".join([*map(str, cell), prl.__version__, code])
    return file.parent / "unfinished" / re.sub(r"[^\w.=-]+", "_", name)


def fill(file: Path, minutes: float, jobs: int = 1, only: Sequence[str] = ()) -> int:
    """Measure missing and stale cells, the cheapest first, within a time limit.

    Each cell is measured by a process of its own. Those that the time limit stops leave no row;
    the next call continues them from their last checkpoint, which is at most five minutes older,
    if the code is still the same. Their runs lie in `unfinished` beside the file, and may be
    deleted.

    Args:
        file: to which rows are appended.
        minutes: the time limit.
        jobs: processes at a time.
        only: see `to_measure`.

    Returns:
        The exit status: 1 if a measurement failed.
    """
    if jobs < 1:
        raise prl.ConfigError(f"jobs is {jobs}, but must be at least 1")
    end = time.monotonic() + 60 * minutes
    rows = record.rows(LEARNING) + (record.rows(file) if file != LEARNING else [])
    left = to_measure(rows, only)
    print(f"{len(left)} cells of {len(cells())} are missing or stale", flush=True)
    running: list[Running] = []
    failed = False
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` runs
    try:
        while (left or running) and time.monotonic() < end:
            while left and len(running) < jobs:
                running.append(_start(left.pop(0), file))
            time.sleep(0.2)
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                failed |= _report(job)
    finally:
        for job in running:
            os.killpg(job.process.pid, signal.SIGKILL)
            job.process.wait()
        signal.signal(signal.SIGTERM, before)
    _list("stopped at the time limit", (job.cell for job in running))
    _list("not started", left)
    return int(failed)


def _start(cell: Cell, file: Path) -> Running:
    # on a GPU, processes share the memory
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
    place = directory(cell, file)
    places = ["--record", str(file), "--directory", str(place)]
    command = [sys.executable, str(SCRIPT), *cell.arguments(), *places]
    messages = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by _report)
    process = subprocess.Popen(
        command, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=messages,
    )  # fmt: skip
    return Running(cell, process, messages, time.monotonic(), place)


def _report(job: Running) -> bool:
    """Print the end of a measurement; whether it failed."""
    job.messages.seek(0)
    text = job.messages.read().replace("\r", "\n").strip()
    job.messages.close()
    last = text.split("\n")[-1].strip()
    took = time.monotonic() - job.start_time
    if "being written by another process" in last:  # another --fill, or one that was killed
        print(f"{took:5.0f} s  {job.cell.algorithm} {job.cell.environment}: {last}", flush=True)
        return False
    failed = job.process.returncode != 0
    if not failed:
        shutil.rmtree(job.directory, ignore_errors=True)
    state = f"failed with status {job.process.returncode}: {last}" if failed else last
    print(f"{took:5.0f} s  {job.cell.algorithm} {job.cell.environment}: {state}", flush=True)
    return failed


def _list(what: str, those: Iterable[Cell]) -> None:
    names = [f"{cell.algorithm} {cell.environment}" for cell in those]
    if names:
        print(f"{what}: {', '.join(names)}", flush=True)
